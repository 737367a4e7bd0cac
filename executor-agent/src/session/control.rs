//! Keeps a session with the controller: connects, says who we are, and carries the machine's effects out.

mod says;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sculpt_proto::{
    executor::v1::{self as wire, ControlRequest, ControlResponse, control_request::Part},
    id::ClusterId,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, interval, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{info, warn};

use super::{
    end::{Ended, Fatal, rejected},
    garbage::Collecting,
    lease::Leases,
    machine::{Effect, Input, Machine},
    roster::{Damaged, Present, Roster},
    wire::{First, Welcome, adopted, dial, first, guests, input, said},
};
use crate::{
    app::Identity,
    attempts::{Attempts, Context, Link, News},
    host,
    identity::Standing,
    journal::Stamp,
};

/// How long the controller may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(15);

/// Two words of another process within this time are those of a living twin.
const TWIN: Duration = Duration::from_secs(60);

/// How long to wait before speaking again after one.
const AFTER_TWIN: Duration = Duration::from_secs(1);

/// The control session's owner.
#[derive(Debug)]
pub struct Control<R = Attempts> {
    context: Arc<Context>,
    attempts: R,
    /// CLOCK_BOOTTIME, which no suspend stops.
    boottime: fn() -> Duration,
    news: mpsc::Receiver<News>,
    link: watch::Sender<Option<Link>>,
    leases: Leases,
    lease: watch::Sender<Option<Duration>>,
    machine: Machine,
    cluster: Option<ClusterId>,
    instance: String,
    ready: Option<oneshot::Sender<()>>,
    /// When somebody used this identity last.
    twin_spoke: Option<Instant>,
    standing: Standing,
}

impl<R: Roster> Control<R> {
    /// `lease`: told what [`Leases`] hold. `cluster`: the one that this executor belongs to, if it has met one.
    pub fn new(
        context: Arc<Context>,
        attempts: R,
        news: mpsc::Receiver<News>,
        link: watch::Sender<Option<Link>>,
        lease: watch::Sender<Option<Duration>>,
        cluster: Option<ClusterId>,
    ) -> (Self, oneshot::Receiver<()>) {
        let (ready, is_ready) = oneshot::channel();
        let instance = uuid::Uuid::new_v4().to_string();
        let (machine, leases, ready) = (Machine::default(), Leases::default(), Some(ready));
        let boottime = host::boottime;
        let twin_spoke = None;
        let control = Self {
            context,
            attempts,
            boottime,
            news,
            link,
            leases,
            lease,
            machine,
            cluster,
            instance,
            ready,
            twin_spoke,
            standing: Standing::default(),
        };
        (control, is_ready)
    }

    /// The same by another clock than that of this machine.
    pub fn by_clock(self, boottime: fn() -> Duration) -> Self {
        Self { boottime, ..self }
    }

    /// The same, and `standing` is told whether the controller lets us in.
    pub fn telling(self, standing: Standing) -> Self {
        Self { standing, ..self }
    }

    /// Runs until cancelled, or until the executor must not go on.
    pub async fn run(mut self) -> Result<(), Fatal> {
        let mut backoff = self.context.dialer.backoff(Duration::from_millis(100), Duration::from_secs(10));
        let cancel = self.context.cancel.clone();
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                ended = Box::pin(self.session()) => ended,
            };
            self.link.send_replace(None);
            let effects = self.machine.apply(Input::Lost);
            self.carry_out_offline(effects);
            let Err(why) = ended;
            why.tell(&self.standing);
            if matches!(why, Ended::Barred(..)) {
                // Of whom it takes a pairing back it tells us nothing any more.
                self.context.people.guests.send_modify(|list| list.guests.clear());
            }
            let pause = match why {
                // A word that its dead predecessor had under way may have arrived after its own. A twin speaks again.
                Ended::Fatal(Fatal::Superseded(_)) if !self.twin_spoke_lately() => AFTER_TWIN,
                Ended::Fatal(fatal) => return Err(fatal),
                Ended::Later(pause, _) | Ended::Barred(pause, _) | Ended::Stale(pause, _) => pause,
                _ if began.elapsed() > Duration::from_secs(20) => {
                    backoff.reset();
                    backoff.next_wait()
                }
                _ => backoff.next_wait(),
            };
            info!(%why, ?pause, "no session; agents go on");
            let resume = Instant::now() + pause;
            loop {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Ok(()),
                    () = sleep_until(resume) => break,
                    Some(news) = self.news.recv() => self.offline(news),
                }
            }
        }
    }

    /// Whether somebody has used this identity before this time, and not long ago.
    fn twin_spoke_lately(&mut self) -> bool {
        let before = self.twin_spoke.replace(Instant::now());
        before.is_some_and(|before| before.elapsed() < TWIN)
    }

    async fn session(&mut self) -> Result<std::convert::Infallible, Ended> {
        let (outbound, requests) = mpsc::channel::<ControlRequest>(64);
        let dialer = self.context.dialer.clone();
        let boottime = self.boottime;
        let hello = ControlRequest { part: Some(Part::Hello(self.hello())) };
        let connect = async move {
            let mut client = dialer.dial().await?;
            let hello_at = boottime();
            // The hello is under way before the answer's headers are waited for.
            let _room = outbound.send(hello).await;
            let response = client.control(ReceiverStream::new(requests)).await?;
            let mut inbound = response.into_inner();
            let word = inbound.message().await?.ok_or(Ended::Closed)?;
            Ok::<_, Ended>((hello_at, outbound, inbound, word))
        };
        let connect = timeout(FIRST_WORD, connect);
        tokio::pin!(connect);
        let (hello_at, outbound, inbound, word) = loop {
            tokio::select! {
                biased;
                connected = &mut connect => break connected.map_err(|_| Ended::Silent(FIRST_WORD))??,
                Some(news) = self.news.recv() => self.offline(news),
            }
        };
        let welcome = match first(word.part)? {
            First::Welcome(welcome) => welcome,
            First::Reject(reject) => return Err(rejected(reject)),
        };
        self.meet(welcome.link.cluster)?;
        self.standing.accepted();
        info!(epoch = welcome.link.epoch, "session with the controller");
        self.leases.welcomed(hello_at);
        self.context.sessions.fetch_add(1, Ordering::AcqRel);
        self.link.send_replace(Some(welcome.link));
        self.converse(welcome, &outbound, inbound).await
    }

    async fn converse(
        &mut self,
        welcome: Welcome,
        outbound: &mpsc::Sender<ControlRequest>,
        mut inbound: Streaming<ControlResponse>,
    ) -> Result<std::convert::Infallible, Ended> {
        let mut heartbeat = interval(welcome.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deadline = Instant::now() + welcome.watchdog;
        let out = Out { outbound, patience: welcome.watchdog };
        let mut collecting = Collecting::default();
        let effects = self.machine.apply(Input::Welcomed { cluster: welcome.link.cluster });
        self.carry_out(effects, &out).await?;
        loop {
            tokio::select! {
                biased;
                _ = heartbeat.tick() => {
                    let sequence = self.leases.beat((self.boottime)());
                    out.send(Part::Heartbeat(self.heartbeat(sequence))).await?;
                }
                message = inbound.message() => {
                    let message = message?.ok_or(Ended::Closed)?;
                    deadline = Instant::now() + welcome.watchdog;
                    match message.part {
                        Some(wire::control_response::Part::Reject(reject)) => return Err(rejected(reject)),
                        Some(wire::control_response::Part::Collect(collect)) => {
                            collecting.ask(&self.context.garbage, collect);
                        }
                        Some(wire::control_response::Part::HeartbeatAck(ack)) => {
                            self.standing.told_of(&ack.trusted);
                            self.leases.acked(ack.leased);
                            self.hand_lease_on();
                        }
                        Some(wire::control_response::Part::Guests(told)) => {
                            self.context.people.guests.send_replace(guests(told, Instant::now())?);
                        }
                        Some(wire::control_response::Part::Dial(asked)) => {
                            // With too many of them, who is left out asks again.
                            let _full = self.context.people.dials.try_send(dial(&asked)?);
                        }
                        Some(part) => {
                            let (adopted, said) = (Input::Adopt(adopted(&part)?), said(&part)?);
                            if let Some(input) = input(part)? {
                                let effects = self.machine.apply(input);
                                self.carry_out(effects, &out).await?;
                            }
                            let effects = self.machine.apply(adopted);
                            self.carry_out(effects, &out).await?;
                            for (attempt, status) in said {
                                self.attempts.say(attempt, status);
                            }
                        }
                        // A kind of message that this version does not know.
                        None => {}
                    }
                }
                Some(news) = self.news.recv() => {
                    let effects = self.take_in(news);
                    self.carry_out(effects, &out).await?;
                }
                pieces = collecting.answered(&self.context.layout) => {
                    for piece in pieces {
                        out.send(Part::Collected(piece)).await?;
                    }
                }
                () = sleep_until(deadline) => return Err(Ended::Silent(welcome.watchdog)),
            }
        }
    }

    async fn carry_out(&mut self, effects: Vec<Effect>, out: &Out<'_>) -> Result<(), Ended> {
        for effect in effects {
            match effect {
                Effect::Observe => {
                    for piece in self.observed() {
                        out.send(Part::Observed(piece)).await?;
                    }
                }
                Effect::Report { attempt, from, through } => {
                    let now = Stamp::now(&self.context.boot);
                    for report in self.attempts.reports(attempt, from, through, &now) {
                        sculpt_failpoints::pass("report.before_send");
                        out.send(Part::Report(report)).await?;
                        sculpt_failpoints::pass("report.sent");
                    }
                }
                Effect::Ready => {
                    self.leases.told();
                    self.hand_lease_on();
                    if let Some(ready) = self.ready.take() {
                        // Nobody waits when the executor is ending.
                        let _ending = ready.send(());
                    }
                }
                local => self.carry_out_offline(vec![local]),
            }
        }
        Ok(())
    }

    /// Effects that need no controller.
    fn carry_out_offline(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start(wanted) => self.attempts.start(wanted),
                Effect::Wish(attempt, wish) => self.attempts.wish(attempt, wish),
                Effect::Abandon(attempt) => self.attempts.abandon(attempt),
                Effect::Release(attempt) => self.attempts.release(attempt),
                Effect::Unrelease(attempt) => self.attempts.unrelease(attempt),
                Effect::HandIn(attempts) => self.attempts.hand_in(attempts),
                Effect::PublishAgain(attempt) => self.attempts.publish_again(attempt),
                Effect::Warn(attempt, text) => warn!(%attempt, text),
                Effect::Observe | Effect::Report { .. } | Effect::Ready => {}
            }
        }
    }

    fn offline(&mut self, news: News) {
        let effects = self.take_in(news);
        self.carry_out_offline(effects);
    }

    fn take_in(&mut self, news: News) -> Vec<Effect> {
        match news {
            News::Present(attempt) => {
                let Some(Present { cluster, last, released }) = self.attempts.present(attempt) else {
                    return Vec::new();
                };
                self.machine.apply(Input::Present { attempt, cluster, last, released })
            }
            News::Delivered(attempt) => self.machine.apply(Input::Delivered(attempt)),
            News::Broken(attempt) => self.machine.apply(Input::Broken(attempt)),
            News::Damaged(attempt) => {
                let Some(Damaged { cluster, over }) = self.attempts.damaged(attempt) else { return Vec::new() };
                self.machine.apply(Input::Damaged { attempt, cluster, over })
            }
            News::Recorded(attempt, sequence) => self.machine.apply(Input::Recorded { attempt, sequence }),
            News::HandedIn(attempt, cluster) => self.machine.apply(Input::HandedIn { attempt, cluster }),
            News::PublishedAgain(attempt) => self.machine.apply(Input::PublishedAgain(attempt)),
            News::Gone(attempt) => self.machine.apply(Input::Gone(attempt)),
        }
    }

    fn hand_lease_on(&self) {
        let confirmed = self.leases.confirmed();
        self.lease.send_if_modified(|held| std::mem::replace(held, confirmed) != confirmed);
    }

    /// The first cluster that is met is ours from then on.
    fn meet(&mut self, theirs: ClusterId) -> Result<(), Fatal> {
        match self.cluster {
            Some(ours) if ours == theirs => Ok(()),
            Some(ours) => Err(Fatal::OtherCluster { ours, theirs }),
            None => {
                let identity = Identity::load(&self.context.layout).map_err(Fatal::Note)?;
                let met = Identity { cluster_id: Some(theirs), ..identity };
                met.write(&self.context.layout).map_err(Fatal::Note)?;
                self.cluster = Some(theirs);
                Ok(())
            }
        }
    }
}

/// The way out; a controller that takes nothing for the watchdog's span is given up.
struct Out<'a> {
    outbound: &'a mpsc::Sender<ControlRequest>,
    patience: Duration,
}

impl Out<'_> {
    async fn send(&self, part: Part) -> Result<(), Ended> {
        match self.outbound.send_timeout(ControlRequest { part: Some(part) }, self.patience).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(Ended::Silent(self.patience)),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Ended::Closed),
        }
    }
}
