//! The scripted controller's side of joining and renewing.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use sculpt_proto::{
    executor::v1::{
        Credentials, JoinRequest, JoinResponse, Reject, RenewRequest, RenewResponse, enrolment_server::Enrolment,
        reject,
    },
    id::ExecutorId,
};
use sculpt_tls::{Caller, Kind, Pin, Subject, Token, to_pem};
use tonic::{Request, Response, Status};

use crate::{
    authority::{Validity, public},
    controller::{Inner, Memory},
};

/// How long a certificate is good unless a test says otherwise.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How far certificates reach back, for clocks that are behind.
const SKEW: Duration = Duration::from_secs(3_600);

/// What the controller knows of tokens and certificates.
pub(crate) struct Enrolments {
    /// How often each token can still be used, or why it cannot.
    pub(crate) tokens: BTreeMap<String, Result<u32, &'static str>>,
    /// Everything that was asked, refused or not.
    pub(crate) joins: Vec<JoinRequest>,
    /// The generation that was shown, whether its time was over, and the renewal's id.
    pub(crate) renewals: Vec<(u64, bool, String)>,
    /// By executor id.
    holders: BTreeMap<String, Holder>,
    /// Why no executor is let in.
    pub(crate) barred: Option<&'static str>,
    /// Why no publication is let in, though sessions stand.
    pub(crate) refuses_publications: Option<&'static str>,
    /// Answers whoever joins with this before it looks at the token.
    pub(crate) turned_away: Option<Status>,
    /// Does what is asked and answers nothing.
    pub(crate) silent: bool,
    /// How old certificates are when they are issued.
    pub(crate) age: Duration,
    /// Of the certificates that are issued.
    pub(crate) life: Duration,
    /// When they are to be renewed.
    pub(crate) renew_after: Duration,
    /// Certifies whoever joins as another executor.
    pub(crate) certifies_others: bool,
    /// Whom executors are to trust, the authority that certifies first.
    pub(crate) trust: Vec<CertificateDer<'static>>,
}

impl Default for Enrolments {
    fn default() -> Self {
        Self {
            tokens: BTreeMap::new(),
            joins: Vec::new(),
            renewals: Vec::new(),
            holders: BTreeMap::new(),
            barred: None,
            refuses_publications: None,
            turned_away: None,
            silent: false,
            age: Duration::ZERO,
            life: DAY,
            renew_after: DAY * 2 / 3,
            certifies_others: false,
            trust: Vec::new(),
        }
    }
}

/// Who has a key, and its newest certificate.
struct Holder {
    request: Vec<u8>,
    generation: u64,
    /// The join or renewal that led to it.
    by: String,
}

/// Why an executor is not let in, for now.
pub(crate) struct Away {
    why: &'static str,
    barred: bool,
}

impl Away {
    /// For its session.
    pub(crate) fn reject(&self) -> Reject {
        let code = if self.barred { reject::Code::Barred } else { reject::Code::Renew };
        let pause = sculpt_proto::to_duration(Duration::from_millis(50));
        Reject { code: code.into(), text: self.why.to_owned(), retry_after: Some(pause) }
    }

    /// For any other call.
    pub(crate) fn status(&self) -> Status {
        Status::unavailable(self.why)
    }
}

impl Enrolments {
    /// The pins of whom executors are to trust.
    pub(crate) fn trusted(&self) -> Vec<Vec<u8>> {
        self.trust.iter().map(|certificate| Pin::of(certificate).unwrap().bytes().to_vec()).collect()
    }

    fn validity(&self) -> Validity {
        let from = SystemTime::now() - self.age;
        from - SKEW..from + self.life
    }

    /// Whether `caller` is let in.
    pub(crate) fn judge(&self, caller: Option<&Caller>) -> Result<(), Away> {
        let Some(caller) = caller else { return Err(Away { why: "it shows no certificate", barred: true }) };
        let newest = self.holders.get(&caller.subject.executor.to_string()).map(|holder| holder.generation);
        let older = newest.is_some_and(|newest| caller.subject.generation < newest);
        match self.barred {
            Some(why) => Err(Away { why, barred: true }),
            None if caller.lapsed || older => Err(Away { why: "the certificate is renewed first", barred: false }),
            None => Ok(()),
        }
    }

    fn join(&mut self, request: &JoinRequest) -> Result<u64, Status> {
        self.joins.push(request.clone());
        if let Some(status) = &self.turned_away {
            return Err(status.clone());
        }
        if let Some(holder) = self.holders.get(&request.executor_id).filter(|holder| holder.by == request.join_id) {
            let again = public(&request.certificate_request);
            assert_eq!(public(&holder.request), again, "the same join is for the same key");
            return Ok(holder.generation);
        }
        match self.tokens.get_mut(&request.token) {
            None => return Err(Status::unauthenticated("the join token is not one of this controller")),
            Some(Err(why)) => return Err(Status::unauthenticated(*why)),
            Some(Ok(0)) => return Err(Status::unauthenticated("the join token is used up")),
            Some(Ok(uses)) => *uses -= 1,
        }
        let generation = self.holders.get(&request.executor_id).map_or(1, |holder| holder.generation + 1);
        let holder = Holder { request: request.certificate_request.clone(), generation, by: request.join_id.clone() };
        self.holders.insert(request.executor_id.clone(), holder);
        Ok(generation)
    }

    fn renew(&mut self, caller: &Caller, id: String) -> Result<u64, Status> {
        let Caller { subject, lapsed, .. } = caller;
        self.renewals.push((subject.generation, *lapsed, id.clone()));
        if let Some(why) = self.barred {
            return Err(Status::permission_denied(why));
        }
        let holder = self.holders.get_mut(&subject.executor.to_string());
        let holder = holder.ok_or_else(|| Status::permission_denied("this controller has no such executor"))?;
        if holder.by != id || holder.generation != subject.generation + 1 {
            assert_eq!(holder.generation, subject.generation, "a copy of the key");
            *holder = Holder { request: holder.request.clone(), generation: holder.generation + 1, by: id };
        }
        Ok(holder.generation)
    }
}

impl Inner {
    fn certify(&self, memory: &Memory, executor_id: &str, generation: u64) -> Credentials {
        let enrolments = &memory.enrolments;
        let other = enrolments.certifies_others;
        let executor = if other { ExecutorId::fresh() } else { executor_id.parse().unwrap() };
        let subject = Subject { cluster: memory.cluster.parse().unwrap(), executor, generation };
        let request = &enrolments.holders[executor_id].request;
        let certificate = self.authority.borrow().executor(request, subject, enrolments.validity());
        Credentials {
            chain: vec![certificate.to_vec()],
            trust: to_pem(&enrolments.trust),
            renew_after: Some(sculpt_proto::to_duration(enrolments.renew_after)),
            valid_for: Some(sculpt_proto::to_duration(enrolments.life)),
            generation,
        }
    }

    /// Resolves once answers are given.
    async fn speaks(&self) {
        let mut changed = self.changed.subscribe();
        while self.memory.lock().unwrap().enrolments.silent {
            changed.changed().await.unwrap();
        }
    }
}

#[tonic::async_trait]
impl Enrolment for Inner {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        Token::parse(&request.token, Kind::Join).unwrap();
        let answer = {
            let mut memory = self.memory.lock().unwrap();
            let stranger = !request.cluster_id.is_empty() && request.cluster_id != memory.cluster;
            if stranger {
                return Err(Status::failed_precondition("it belongs to another cluster; `sculpt-executor rebind`"));
            }
            memory.enrolments.join(&request).map(|generation| JoinResponse {
                credentials: Some(self.certify(&memory, &request.executor_id, generation)),
                cluster_id: memory.cluster.clone(),
                executor_id: request.executor_id,
                name: request.name,
                pool: "build".into(),
                labels: [("arch".to_owned(), "arm64".to_owned())].into(),
            })
        };
        self.changed.send_modify(|_| {});
        self.speaks().await;
        answer.map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let caller = request.extensions().get::<Caller>().copied();
        let caller = caller.ok_or_else(|| Status::unauthenticated("a certificate is renewed by who shows it"))?;
        let answer = {
            let mut memory = self.memory.lock().unwrap();
            memory.enrolments.renew(&caller, request.into_inner().renewal_id).map(|generation| RenewResponse {
                credentials: Some(self.certify(&memory, &caller.subject.executor.to_string(), generation)),
            })
        };
        self.changed.send_modify(|_| {});
        self.speaks().await;
        answer.map(Response::new)
    }
}
