//! The Control connection: sockets and database around the reducer of [`super::state`].
//!
//! Two parts run side by side: one talks to the executor and never waits for the database, so heartbeats are answered at
//! once; the other does the reducer's work in the database, in order.

use std::{sync::Arc, time::Duration};

use sculpt_proto::{
    executor::v1::{ControlRequest, Desired, HeartbeatAck, Welcome, control_request, control_response},
    id::{AttemptId, ClusterId, ExecutorId},
    to_duration,
};
use tokio::{
    sync::{broadcast, mpsc, watch},
    time::Instant,
};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::who::Who;
use crate::{
    dispatch::Dispatch,
    pki::Authority,
    session::{
        book::Book,
        census::Comparison,
        disk::{Disk, Meter},
        end::{End, Responses, say},
        errands::Errands,
        garbage, hello,
        registry::{Sessions, Tenure},
        reports::{Answer, Report, ReportError},
        state::{Census, Closed, HEARTBEAT, Input, Output, Session, WATCHDOG},
        wire::{In, bounded, desired, input},
    },
    store::{StoreError, sessions::Epoch},
};

/// How long the first message may take.
const HELLO: Duration = Duration::from_secs(10);

/// Work that may wait for the database before nothing more is read from the executor.
const QUEUE: usize = 256;

/// What a session needs.
#[derive(Clone, Debug)]
pub struct Context<B = Dispatch> {
    /// The database.
    pub book: B,
    /// The sessions of this replica.
    pub sessions: Sessions,
    /// Whose attempts these are.
    pub cluster: ClusterId,
    /// Whom executors are to trust. `None`: nobody proves anything to them.
    pub authority: Option<watch::Receiver<Arc<Authority>>>,
    /// Ends all sessions.
    pub shutdown: CancellationToken,
}

type Out = Output<Report, Answer>;

/// Work in the database, in order.
#[derive(Debug)]
enum Work {
    Apply(Report),
    Reconcile(Census),
    Read,
    Seen { closed: Option<String>, beat: u64 },
    Disk(Disk),
}

/// Serves one Control connection until either side ends it.
pub async fn serve<B: Book>(
    context: Context<B>,
    executor: Who,
    mut inbound: impl Stream<Item = Result<ControlRequest, Status>> + Unpin,
    out: Responses,
) {
    let opened = tokio::select! {
        biased;
        opened = open(&context, &executor, &mut inbound) => opened,
        away = executor.clone().sent_away() => Err(End::Reject(away.reject())),
        () = context.shutdown.cancelled() => Err(End::leaving()),
    };
    let (epoch, mut tenure) = match opened {
        Ok(opened) => opened,
        Err(end) => return end.tell(out).await,
    };
    tracing::info!(executor = %epoch.executor, epoch = epoch.number, "executor connected");
    let errands = tenure.take_errands();
    let end = tokio::select! {
        biased;
        away = executor.sent_away() => End::Reject(away.reject()),
        end = attend(&context, epoch, &tenure, errands, inbound, &out) => end,
    };
    // Nothing is placed on it from here on.
    drop(tenure);
    tracing::info!(executor = %epoch.executor, epoch = epoch.number, ?end, "executor's session ended");
    let reason = end.reason();
    end.tell(out).await;
    record_end(&context, epoch, reason).await;
}

async fn attend<B: Book>(
    context: &Context<B>,
    epoch: Epoch,
    tenure: &Tenure,
    errands: Errands,
    inbound: impl Stream<Item = Result<ControlRequest, Status>> + Unpin,
    out: &Responses,
) -> End {
    let welcome = Welcome {
        cluster_id: context.cluster.to_string(),
        epoch: epoch.number,
        heartbeat_interval: Some(to_duration(HEARTBEAT)),
        watchdog: Some(to_duration(WATCHDOG)),
    };
    let told = context.book.bus().told();
    if let Err(end) = send(out, control_response::Part::Welcome(welcome)).await {
        return end;
    }
    context.book.bus().journal();
    context.book.bus().place();
    let (work, queue) = mpsc::channel(QUEUE);
    let (done, results) = mpsc::channel(2 * QUEUE);
    let outside = Outside { told, errands, authority: context.authority.clone() };
    tokio::select! {
        biased;
        end = talk(tenure, inbound, outside, work, results, out) => end,
        end = toil(context, epoch, queue, done) => end,
        () = tenure.recalled() => End::recalled(),
        () = context.shutdown.cancelled() => End::leaving(),
    }
}

async fn record_end<B: Book>(context: &Context<B>, epoch: Epoch, reason: String) {
    match context.book.close(epoch, reason).await {
        Ok(true) => context.book.bus().journal(),
        Ok(false) => {}
        // With the database away the journal has a gap: liveness shows what it means.
        Err(error) => tracing::debug!(executor = %epoch.executor, %error, "the end of a session was not recorded"),
    }
}

async fn open<B: Book>(
    context: &Context<B>,
    executor: &Who,
    inbound: &mut (impl Stream<Item = Result<ControlRequest, Status>> + Unpin),
) -> Result<(Epoch, Tenure), End> {
    let first = tokio::time::timeout(HELLO, inbound.next()).await;
    let first = first.map_err(|_| End::Fault(Status::deadline_exceeded("no Hello within 10 s")))?;
    let Some(first) = first.transpose().map_err(End::unread)? else { return Err(End::Gone) };
    bounded(&first)?;
    let Some(control_request::Part::Hello(hello)) = first.part else {
        return Err(End::Fault(Status::invalid_argument("the first message of Control must be a Hello")));
    };
    let mut who = hello::check(hello, context.cluster).map_err(End::Reject)?;
    who.certified = executor.certified();
    executor.is(who.id).map_err(End::Fault)?;
    let epoch = context.book.open(who).await.map_err(|error| End::Reject(error.into()))?;
    Ok((epoch, context.sessions.enter(epoch)))
}

/// What a session hears from others than its executor.
struct Outside {
    /// Somebody changed what an executor should have.
    told: broadcast::Receiver<ExecutorId>,
    /// Somebody wants something of this one.
    errands: Errands,
    /// Who certifies, and who else is trusted.
    authority: Option<watch::Receiver<Arc<Authority>>>,
}

impl Outside {
    /// Whom the executor is to trust now. Said again with each answer: one that was not heard needs no care.
    fn trusted(&self) -> Vec<Vec<u8>> {
        self.authority.as_ref().map(|authority| authority.borrow().trusted()).unwrap_or_default()
    }
}

/// Talks to the executor; whatever needs the database goes to `work`.
async fn talk(
    tenure: &Tenure,
    mut inbound: impl Stream<Item = Result<ControlRequest, Status>> + Unpin,
    mut outside: Outside,
    work: mpsc::Sender<Work>,
    mut results: mpsc::Receiver<In>,
    out: &Responses,
) -> End {
    let start = Instant::now();
    let mut session = Session::new();
    let mut meter = Meter::default();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let input = tokio::select! {
            biased;
            () = tenure.superseded() => Input::Superseded,
            Some(result) = results.recv() => result,
            executor = outside.told.recv() => match executor {
                Ok(executor) if executor != tenure.executor() => continue,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => Input::Told,
                Err(broadcast::error::RecvError::Closed) => return End::Gone,
            },
            errand = outside.errands.next() => match send(out, errand).await {
                Ok(()) => continue,
                Err(end) => return end,
            },
            message = inbound.next() => match message {
                None => return End::Gone,
                Some(Err(status)) => return End::unread(status),
                Some(Ok(request)) => {
                    if let Some(disk) = meter.read(start.elapsed(), &request)
                        && work.send(Work::Disk(disk)).await.is_err()
                    {
                        return End::Gone;
                    }
                    match collected(request, outside.errands.asks()).and_then(|rest| rest.map_or(Ok(None), input)) {
                        Ok(Some(input)) => input,
                        Ok(None) => continue,
                        Err(end) => return end,
                    }
                }
            },
            _ = ticks.tick() => Input::Tick,
        };
        for output in session.step(start.elapsed(), input) {
            if let Err(end) = carry_out(output, &outside, &work, out).await {
                return end;
            }
        }
    }
}

/// Takes an answer about what can be removed out of the way; gives back what is something else.
fn collected(request: ControlRequest, asks: &mut garbage::Asks) -> Result<Option<ControlRequest>, End> {
    if !matches!(request.part, Some(control_request::Part::Collected(_))) {
        return Ok(Some(request));
    }
    bounded(&request)?;
    if let Some(control_request::Part::Collected(collected)) = request.part {
        asks.answered(collected);
    }
    Ok(None)
}

async fn carry_out(output: Out, outside: &Outside, work: &mpsc::Sender<Work>, out: &Responses) -> Result<(), End> {
    let queue = |item| async move { work.send(item).await.map_err(|_| End::Gone) };
    match output {
        Output::HeartbeatAck { sequence, leased } => {
            let ack = HeartbeatAck { sequence, leased, trusted: outside.trusted() };
            send(out, control_response::Part::HeartbeatAck(ack)).await
        }
        Output::Ack(answer) => {
            sculpt_failpoints::pass("report.before_ack");
            let sent = send(out, control_response::Part::ReportAck(answer.into())).await;
            sculpt_failpoints::pass("report.acked");
            sent
        }
        Output::Desired { full, last, attempts, released } => {
            let desired = Desired {
                full,
                last,
                attempts: attempts.into_iter().map(|(attempt, wish)| desired(attempt, wish)).collect(),
                released: released.iter().map(AttemptId::to_string).collect(),
                adopted: Vec::new(),
            };
            send(out, control_response::Part::Desired(desired)).await
        }
        Output::Adopt(attempts) => {
            let adopted = attempts.iter().map(AttemptId::to_string).collect();
            let desired = Desired { last: true, adopted, ..Desired::default() };
            send(out, control_response::Part::Desired(desired)).await
        }
        Output::Apply(report) => queue(Work::Apply(report)).await,
        Output::Reconcile(census) => queue(Work::Reconcile(census)).await,
        Output::Read => queue(Work::Read).await,
        Output::Seen { closed, beat } => queue(Work::Seen { closed, beat }).await,
        Output::Close(closed) => Err(match closed {
            Closed::Silent => End::Fault(Status::deadline_exceeded("nothing was heard for 30 s")),
            Closed::Superseded => End::superseded(),
            Closed::Flood => End::Fault(Status::resource_exhausted("more attempts than any executor has")),
        }),
    }
}

async fn send(out: &Responses, part: control_response::Part) -> Result<(), End> {
    match tokio::time::timeout(WATCHDOG, out.send(Ok(say(part)))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Fault(Status::deadline_exceeded("messages were not read for 30 s"))),
    }
}

/// Does the work in the database until it fails or nobody gives any more.
async fn toil<B: Book>(
    context: &Context<B>,
    epoch: Epoch,
    mut queue: mpsc::Receiver<Work>,
    done: mpsc::Sender<In>,
) -> End {
    let mut closed_before = false;
    while let Some(work) = queue.recv().await {
        let result = match work {
            Work::Apply(report) => apply(context, epoch, report).await,
            Work::Reconcile(census) => reconcile(context, epoch, census).await,
            Work::Read => read(context, epoch, &done).await,
            Work::Disk(disk) => match context.book.disk(epoch, disk).await {
                Ok(()) => continue,
                Err(error) => Err(End::broken(epoch, &error)),
            },
            Work::Seen { closed, beat } => {
                let reopened = std::mem::replace(&mut closed_before, closed.is_some()) && closed.is_none();
                seen(context, epoch, closed, beat, reopened).await
            }
        };
        match result {
            Ok(input) => {
                if done.send(input).await.is_err() {
                    return End::Gone;
                }
            }
            Err(end) => return end,
        }
    }
    End::Gone
}

async fn apply<B: Book>(context: &Context<B>, epoch: Epoch, report: Report) -> Result<In, End> {
    match context.book.apply(epoch, report).await {
        Ok(answer) => {
            if let Some((refusal, text)) = &answer.refusal {
                tracing::warn!(executor = %epoch.executor, attempt = %answer.attempt, ?refusal, text, "report refused");
            }
            Ok(Input::Applied(answer))
        }
        Err(ReportError::Superseded) => Ok(Input::Superseded),
        Err(ReportError::Dispatch(error)) => Err(End::broken(epoch, &error)),
        Err(ReportError::Store(error)) => Err(End::broken(epoch, &error)),
    }
}

async fn reconcile<B: Book>(context: &Context<B>, epoch: Epoch, observed: Census) -> Result<In, End> {
    let found = context.book.reconcile(context.cluster, epoch, observed).await;
    let Comparison { released, owed, behind } = found.map_err(|error| End::broken(epoch, &error))?;
    let behind = behind.into_iter().map(|(attempt, through)| (attempt, Answer::missing(attempt, through))).collect();
    Ok(Input::Reconciled { released, owed, behind })
}

async fn read<B: Book>(context: &Context<B>, epoch: Epoch, done: &mpsc::Sender<In>) -> Result<In, End> {
    let broken = |error: StoreError| End::broken(epoch, &error);
    let wishes = context.book.wishes(epoch.executor).await.map_err(broken)?;
    done.send(Input::Wishes(wishes)).await.map_err(|_| End::Gone)?;
    context.book.adoptions(epoch.executor).await.map(Input::Adopted).map_err(broken)
}

async fn seen<B: Book>(
    context: &Context<B>,
    epoch: Epoch,
    closed: Option<String>,
    beat: u64,
    reopened: bool,
) -> Result<In, End> {
    match context.book.seen(epoch, closed).await {
        Ok(true) => {
            if reopened {
                context.book.bus().place();
            }
            Ok(Input::Leased(beat))
        }
        Ok(false) => Ok(Input::Superseded),
        Err(error) => Err(End::broken(epoch, &error)),
    }
}
