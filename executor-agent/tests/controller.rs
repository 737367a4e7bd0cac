//! A scripted controller on loopback: it enrols executors, takes reports and logs in order, keeps packs, and serves
//! repositories by git's own HTTP backend. It can go away and come back with what it has committed.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use prost::Message as _;
use rustls::ServerConfig;
use sculpt_proto::{
    executor::v1::{
        AttemptSpec, Collect, Heartbeat, Hello, ObservedAttempt, Phase, Reject, Report, control_response,
        publish_request, report,
    },
    v1::{GarbageItem, LogFrame},
};
use sculpt_tls::{Kind, Token, Trust};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    authority::{Authority, Validity},
    enrolment::Enrolments,
    listener::{serve, settings},
    ssh::relay::Relay,
};

/// What the controller has committed, and what it wants.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) cluster: String,
    pub(crate) epoch: u64,
    pub(crate) hellos: Vec<Hello>,
    pub(crate) observed: Vec<ObservedAttempt>,
    pub(crate) specs: BTreeMap<String, Vec<u8>>,
    pub(crate) desired: BTreeMap<String, Phase>,
    pub(crate) released: Vec<String>,
    pub(crate) reports: BTreeMap<String, Vec<Report>>,
    pub(crate) logs: BTreeMap<String, Vec<u8>>,
    pub(crate) frames: BTreeMap<String, Vec<LogFrame>>,
    pub(crate) published: BTreeMap<String, publish_request::Header>,
    pub(crate) heartbeats: u64,
    /// To be asked of the executor at the next opportunity.
    pub(crate) collect: Option<Collect>,
    /// What is said about people, once.
    pub(crate) people: Vec<control_response::Part>,
    /// What the executor said it removes or keeps.
    pub(crate) collected: BTreeMap<u64, Vec<GarbageItem>>,
    /// The executor's newest heartbeat.
    pub(crate) heartbeat: Option<Heartbeat>,
    /// Wanted from the executor though it is not known here.
    pub(crate) adopted: Vec<String>,
    /// Instead of Welcome.
    pub(crate) reject: Option<Reject>,
    /// Answers every publication as if it could not be done now.
    pub(crate) refuse_publications: u32,
    /// Answers every publication so, for good.
    pub(crate) refuse_for_good: Option<&'static str>,
    /// Tokens and certificates.
    pub(crate) enrolments: Enrolments,
}

impl Memory {
    /// As another controller has it, after this one's database was lost.
    pub(crate) fn forget_everything(&mut self) {
        let cluster = uuid::Uuid::now_v7().to_string();
        let (hellos, enrolments) = (std::mem::take(&mut self.hellos), std::mem::take(&mut self.enrolments));
        *self = Self { cluster, hellos, enrolments, ..Self::default() };
    }

    pub(crate) fn steps(&self, attempt: &str) -> Vec<&'static str> {
        let name = |report: &Report| match report.step {
            Some(report::Step::Accepted(_)) => Some("accepted"),
            Some(report::Step::Preparing(_)) => Some("preparing"),
            Some(report::Step::Running(_)) => Some("running"),
            Some(report::Step::Finalizing(_)) => Some("finalizing"),
            Some(report::Step::Ended(_)) => Some("ended"),
            Some(
                report::Step::Note(_)
                | report::Step::Attached(_)
                | report::Step::Detached(_)
                | report::Step::Typed(_)
                | report::Step::Milestone(_),
            )
            | None => None,
        };
        self.reports.get(attempt).into_iter().flatten().filter_map(name).collect()
    }

    pub(crate) fn ended(&self, attempt: &str) -> Option<sculpt_proto::executor::v1::Ended> {
        self.reports.get(attempt)?.iter().find_map(|report| match &report.step {
            Some(report::Step::Ended(ended)) => Some(ended.clone()),
            _ => None,
        })
    }

    pub(crate) fn pid(&self, attempt: &str) -> Option<u32> {
        self.reports.get(attempt)?.iter().find_map(|report| match &report.step {
            Some(report::Step::Running(running)) => Some(running.pid),
            _ => None,
        })
    }

    pub(crate) fn tmux_socket(&self, attempt: &str) -> String {
        let reports = self.reports.get(attempt).into_iter().flatten();
        let mut socket = reports.filter_map(|report| match &report.step {
            Some(report::Step::Running(running)) => Some(running.tmux_socket.clone()),
            _ => None,
        });
        socket.next_back().unwrap()
    }

    pub(crate) fn notes(&self, attempt: &str) -> Vec<String> {
        let reports = self.reports.get(attempt).into_iter().flatten();
        let text = |report: &Report| match &report.step {
            Some(report::Step::Note(note)) => Some(note.text.clone()),
            _ => None,
        };
        reports.filter_map(text).collect()
    }

    pub(crate) fn log(&self, attempt: &str) -> &[u8] {
        self.logs.get(attempt).map(Vec::as_slice).unwrap_or_default()
    }
}

#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) memory: Arc<Mutex<Memory>>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) repositories: PathBuf,
    /// That certifies.
    pub(crate) authority: watch::Sender<Arc<Authority>>,
    /// Through which people come.
    pub(crate) relay: Relay,
    /// With which connections are taken.
    pub(crate) tls: watch::Sender<Arc<ServerConfig>>,
}

/// The controller; dropped, it is gone.
pub(crate) struct Controller {
    inner: Inner,
    address: SocketAddr,
    server: Option<JoinHandle<()>>,
}

impl Controller {
    pub(crate) async fn start(repositories: &Path) -> Self {
        let mut memory = Memory { cluster: uuid::Uuid::now_v7().to_string(), ..Memory::default() };
        let authority = Authority::fresh();
        memory.enrolments.trust = vec![authority.certificate.clone()];
        let tls = settings(authority.controller(today()), Trust::of([authority.certificate.clone()]).unwrap());
        let inner = Inner {
            memory: Arc::new(Mutex::new(memory)),
            changed: watch::Sender::new(0),
            repositories: repositories.to_owned(),
            authority: watch::Sender::new(Arc::new(authority)),
            relay: Relay::default(),
            tls: watch::Sender::new(tls),
        };
        let mut controller = Self { inner, address: ([127, 0, 0, 1], 0).into(), server: None };
        controller.come_back().await;
        controller
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A token with which one machine can join.
    pub(crate) fn token(&self) -> String {
        self.token_that(Ok(1))
    }

    /// A token that can be used this often, or why it cannot.
    pub(crate) fn token_that(&self, is: Result<u32, &'static str>) -> String {
        let token = Token::fresh(Kind::Join, Some(self.inner.authority.borrow().pin())).reveal();
        self.memory().enrolments.tokens.insert(token.clone(), is);
        token
    }

    /// That certifies now.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.inner.authority.borrow())
    }

    /// From now on `authority` certifies, and nobody knows of another.
    pub(crate) fn trust_alone(&self, authority: &Arc<Authority>) {
        self.inner.authority.send_replace(Arc::clone(authority));
        self.memory().enrolments.trust = vec![authority.certificate.clone()];
        self.prove(today());
    }

    /// From now on connections are taken with a certificate of these dates.
    pub(crate) fn prove(&self, good: Validity) {
        let authority = self.inner.authority.borrow();
        let trust = Trust::of([authority.certificate.clone()]).unwrap();
        self.inner.tls.send_replace(settings(authority.controller(good), trust));
    }

    /// From now on another authority certifies; executors are believed that either has certified, and learn of both.
    pub(crate) fn hand_over_to(&self, next: Authority) {
        let before = self.inner.authority.send_replace(Arc::new(next));
        let next = self.inner.authority.borrow();
        let trust = vec![next.certificate.clone(), before.certificate.clone()];
        self.inner.tls.send_replace(settings(next.controller(today()), Trust::of(trust.clone()).unwrap()));
        self.memory().enrolments.trust = trust;
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.inner.memory.lock().unwrap()
    }

    /// Changes what is wanted, and tells all sessions.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Memory)) {
        change(&mut self.memory());
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// Says something about people.
    pub(crate) fn say(&self, part: control_response::Part) {
        self.change(|memory| memory.people.push(part));
    }

    pub(crate) fn relay(&self) -> &Relay {
        &self.inner.relay
    }

    /// Wants an attempt.
    pub(crate) fn offer(&self, spec: &AttemptSpec) {
        self.change(|memory| {
            memory.specs.insert(spec.attempt_id.clone(), spec.encode_to_vec());
            memory.desired.insert(spec.attempt_id.clone(), Phase::Run);
        });
    }

    pub(crate) fn want(&self, attempt: &str, phase: Phase) {
        self.change(|memory| {
            memory.desired.insert(attempt.to_owned(), phase);
        });
    }

    pub(crate) fn release(&self, attempt: &str) {
        self.change(|memory| {
            memory.desired.remove(attempt);
            memory.released.push(attempt.to_owned());
        });
    }

    /// Waits until what has been committed is as it should be.
    pub(crate) async fn wait<T>(&self, what: &str, mut condition: impl FnMut(&Memory) -> Option<T>) -> T {
        let mut changed = self.inner.changed.subscribe();
        let waiting = async {
            loop {
                changed.mark_unchanged();
                if let Some(value) = condition(&self.memory()) {
                    return value;
                }
                changed.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), waiting).await {
            Ok(value) => value,
            Err(_) => panic!("waited in vain for {what}; reports: {:#?}", self.memory().reports),
        }
    }

    /// What the executor removes or would remove, and what it keeps.
    pub(crate) async fn collect(&self, dry_run: bool, all: bool) -> Vec<GarbageItem> {
        let request = self.memory().collected.len() as u64 + 1;
        self.change(|memory| memory.collect = Some(Collect { request, dry_run, all }));
        self.wait("the executor to say what it can remove", |memory| memory.collected.get(&request).cloned()).await
    }

    pub(crate) async fn wait_ended(&self, attempt: &str) -> sculpt_proto::executor::v1::Ended {
        self.wait("the end", |memory| {
            memory.ended(attempt).filter(|ended| memory.log(attempt).len() as u64 >= ended.log_length)
        })
        .await
    }

    /// Every connection is cut, and nobody listens.
    pub(crate) async fn go_away(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _aborted = server.await;
        }
    }

    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let inner = self.inner.clone();
        self.server = Some(tokio::spawn(serve(listener, inner)));
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

/// Good for a test, and for a clock that is a little behind.
fn today() -> Validity {
    let hour = Duration::from_secs(3_600);
    SystemTime::now() - hour..SystemTime::now() + hour
}
