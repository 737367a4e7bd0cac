//! Sends what agents have written, from the spools, over a connection of its own that is open only while there is
//! something to send.

mod recordings;
mod trouble;
mod window;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use sculpt_proto::{
    FieldError,
    executor::v1::{Append, LogsHello, LogsRequest, LogsResponse, log_refusal, logs_request::Part, logs_response},
    id::AttemptId,
    v1::{LogFrame, LogSize, LogStream},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::{debug, error, warn};

pub use crate::attempts::LogEnd;
pub use recordings::{Recording, Recordings};
pub use window::{Next, Window};

use self::trouble::{Trouble, Verdict};
use crate::{
    attempts::{Attempts, Context, Link, News},
    connect::ConnectError,
    spool::{self, Chunk, Stream},
};

/// Bytes per message: small enough that many logs share the stream fairly.
const PIECE: usize = 128 << 10;

/// Until the controller says how much it takes.
const FIRST_CREDIT: u64 = 256 << 10;

/// The stream is closed after this long without anything to send.
const IDLE: Duration = Duration::from_secs(30);

/// An answer that does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller ended the log stream: {} ({:?})", .0.message(), .0.code())]
    Status(#[from] tonic::Status),
    #[error("the controller closed the log stream")]
    Closed,
    #[error("the controller did not answer for {PATIENCE:?}")]
    Silent,
    #[error("the controller said something that makes no sense: {0}")]
    Nonsense(#[from] FieldError),
    #[error("a new session has begun")]
    NewSession,
    #[error("nothing was left to send")]
    Idle,
}

/// Sends logs until cancelled.
#[derive(Debug)]
pub struct Logs<R = Attempts> {
    context: Arc<Context>,
    attempts: R,
    /// Logs that the controller holds completely.
    complete: BTreeMap<AttemptId, Complete>,
    /// Logs that cannot be read now, over all streams.
    troubles: BTreeMap<AttemptId, Trouble>,
}

/// How far a log went when the controller held all of it.
#[derive(Debug)]
struct Complete {
    length: u64,
    /// How often the attempt had been taken over: who takes it over next holds nothing of it.
    takeovers: u64,
}

/// One log on one stream.
struct Feed<R> {
    window: Window,
    reader: Option<R>,
    /// How often the attempt had been taken over when this began.
    takeovers: u64,
}

impl<R> Feed<R> {
    fn begin(takeovers: u64) -> Self {
        Self { window: Window::default(), reader: None, takeovers }
    }
}

/// What one stream knows.
struct Conversation<R> {
    feeds: BTreeMap<AttemptId, Feed<R>>,
    turns: VecDeque<AttemptId>,
    credit: u64,
}

type ReaderOf<R> = <<R as Recordings>::Recording as Recording>::Reader;

impl<R: Recordings> Logs<R> {
    /// Of these attempts.
    pub fn new(context: Arc<Context>, attempts: R) -> Self {
        Self { context, attempts, complete: BTreeMap::new(), troubles: BTreeMap::new() }
    }

    /// Runs until cancelled.
    pub async fn run(mut self) {
        let cancel = self.context.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            () = Box::pin(self.serve()) => {}
        }
    }

    async fn serve(&mut self) {
        let mut backoff = self.context.dialer.backoff(Duration::from_millis(100), Duration::from_secs(10));
        let mut link = self.context.link.clone();
        loop {
            // Also while nothing was sent: the controller of the next session may hold less than that of the one before.
            if link.has_changed().unwrap_or_default() {
                self.complete.clear();
            }
            let Some(session) = *link.borrow_and_update() else {
                if link.changed().await.is_err() {
                    return;
                }
                self.complete.clear();
                continue;
            };
            // Before anything is looked at, so that no moment is missed.
            let next_try = self.next_try();
            if !self.anything_to_send() {
                let growth = self.context.log_growth.notified();
                tokio::select! {
                    biased;
                    () = growth => {}
                    _ = link.changed() => self.complete.clear(),
                    () = until(next_try) => {}
                }
                continue;
            }
            let began = Instant::now();
            match self.stream(session).await {
                Ended::Idle | Ended::NewSession => {}
                why => {
                    if began.elapsed() > Duration::from_secs(20) {
                        backoff.reset();
                    }
                    debug!(%why, "no log stream for now");
                    backoff.wait().await;
                }
            }
        }
    }

    fn anything_to_send(&self) -> bool {
        self.attempts.all().iter().any(|recording| self.pending(recording))
    }

    fn pending(&self, recording: &R::Recording) -> bool {
        !self.holds_all(recording) && !recording.released() && !self.rests(recording.attempt())
    }

    /// Whether it could not be read a moment ago.
    fn rests(&self, attempt: AttemptId) -> bool {
        self.troubles.get(&attempt).is_some_and(|trouble| trouble.again() > Instant::now())
    }

    /// When the first of the logs is tried again that could not be read.
    fn next_try(&self) -> Option<Instant> {
        let now = Instant::now();
        self.troubles.values().map(Trouble::again).filter(|again| *again > now).min()
    }

    fn holds_all(&self, recording: &R::Recording) -> bool {
        let complete = self.complete.get(&recording.attempt());
        let held = complete.filter(|it| it.takeovers == recording.takeovers()).map_or(0, |it| it.length);
        recording.end().length <= held
    }

    async fn stream(&mut self, session: Link) -> Ended {
        match self.converse(session).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn converse(&mut self, session: Link) -> Result<std::convert::Infallible, Ended> {
        let mut client = self.context.dialer.dial().await?;
        let (outbound, requests) = mpsc::channel(8);
        let hello = LogsHello { executor_id: self.context.executor.to_string(), epoch: session.epoch };
        send(&outbound, Part::Hello(hello)).await?;
        let opened = timeout(PATIENCE, client.logs(ReceiverStream::new(requests))).await;
        let mut inbound: Streaming<LogsResponse> = opened.map_err(|_| Ended::Silent)??.into_inner();
        let mut talk = Conversation { feeds: BTreeMap::new(), turns: VecDeque::new(), credit: FIRST_CREDIT };
        let mut link = self.context.link.clone();
        let mut busy = Instant::now();
        loop {
            self.join(&mut talk);
            let next_try = self.next_try();
            while self.send_next(&mut talk, &outbound).await? {
                busy = Instant::now();
            }
            let waits = talk.feeds.values().any(|feed| feed.window.waits());
            let limit = busy + if waits { PATIENCE } else { IDLE };
            tokio::select! {
                biased;
                message = inbound.message() => {
                    busy = Instant::now();
                    self.answer(&mut talk, message?.ok_or(Ended::Closed)?)?;
                }
                changed = link.wait_for(|link| link.is_some_and(|link| link.epoch != session.epoch)) => {
                    let _same = changed;
                    return Err(Ended::NewSession);
                }
                () = self.context.log_growth.notified() => {}
                () = until(next_try.into_iter().chain(self.next_try()).min()) => {}
                () = tokio::time::sleep_until(limit) => return Err(if waits { Ended::Silent } else { Ended::Idle }),
            }
        }
    }

    /// Takes in the logs that have something to send since somebody told of growth.
    fn join(&mut self, talk: &mut Conversation<ReaderOf<R>>) {
        self.troubles.retain(|attempt, _| self.attempts.get(*attempt).is_some());
        for recording in self.attempts.all() {
            let id = recording.attempt();
            if !talk.feeds.contains_key(&id) && self.pending(&recording) {
                talk.feeds.insert(id, Feed::begin(recording.takeovers()));
                talk.turns.push_back(id);
            }
        }
    }

    /// Sends one piece of the log whose turn it is; false when there is nothing to send now.
    async fn send_next(
        &mut self,
        talk: &mut Conversation<ReaderOf<R>>,
        outbound: &mpsc::Sender<LogsRequest>,
    ) -> Result<bool, Ended> {
        let under_way: u64 = talk.feeds.values().map(|feed| feed.window.unacknowledged()).sum();
        let room = if under_way == 0 { talk.credit.max(1) } else { talk.credit.saturating_sub(under_way) };
        for _ in 0..talk.turns.len() {
            let Some(id) = talk.turns.pop_front() else { return Ok(false) };
            let Some(recording) = self.attempts.get(id) else {
                talk.feeds.remove(&id);
                continue;
            };
            talk.turns.push_back(id);
            let takeovers = recording.takeovers();
            if talk.feeds.get(&id).is_some_and(|feed| feed.takeovers != takeovers) {
                // Who has taken it over has refused nothing of it, and holds nothing of it.
                talk.feeds.insert(id, Feed::begin(takeovers));
                self.complete.remove(&id);
            }
            let Some(feed) = talk.feeds.get_mut(&id) else { continue };
            match feed.window.next(recording.end().length) {
                Next::Nothing if recording.end().finished && !feed.window.waits() && self.holds_all(&recording) => {
                    // It would keep its file open as long as the stream lasts.
                    talk.feeds.remove(&id);
                    talk.turns.pop_back();
                }
                Next::Nothing => {}
                Next::Ask => {
                    let ask = Append { attempt_id: id.to_string(), ..Append::default() };
                    send(outbound, Part::Append(ask)).await?;
                    feed.window.asked();
                    return Ok(true);
                }
                Next::From(_) if room == 0 || self.rests(id) => {}
                Next::From(start) => {
                    let most = usize::try_from(room).unwrap_or(PIECE).min(PIECE);
                    match recording.read(&mut feed.reader, start, most).await {
                        Ok(Some(chunk)) => {
                            let end = chunk.offset + chunk.data.len() as u64;
                            recording.held(None);
                            self.troubles.remove(&id);
                            sculpt_failpoints::pass("log.before_send");
                            send(outbound, Part::Append(append(id, chunk))).await?;
                            sculpt_failpoints::pass("log.sent");
                            feed.window.sent(start, end);
                            return Ok(true);
                        }
                        Ok(None) if !recording.end().finished => {}
                        Ok(None) => self.broken(feed, &recording, start, None).await,
                        Err(error) if error.proves_damage() => {
                            self.broken(feed, &recording, start, Some(error)).await;
                        }
                        Err(error) => self.unread(feed, &recording, start, error).await,
                    }
                }
            }
        }
        Ok(false)
    }

    /// The log cannot be read on at the moment.
    async fn unread(&mut self, feed: &Feed<ReaderOf<R>>, recording: &R::Recording, at: u64, why: spool::Error) {
        let (id, now) = (recording.attempt(), Instant::now());
        warn!(attempt = %id, %why, "the log cannot be read now; trying again");
        match self.troubles.entry(id).or_insert_with(|| Trouble::begin(now)).failed(now, why.passes()) {
            Verdict::Again => {}
            Verdict::Tell => recording.unread(&self.context, &why).await,
            Verdict::Damaged => self.broken(feed, recording, at, Some(why)).await,
        }
    }

    /// The log ends where it cannot be read on, which may be how far the controller has it already.
    async fn broken(&mut self, feed: &Feed<ReaderOf<R>>, recording: &R::Recording, at: u64, why: Option<spool::Error>) {
        recording.break_at(&self.context, at, why).await;
        let length = recording.end().length;
        if feed.window.complete(length) {
            self.complete.insert(recording.attempt(), Complete { length, takeovers: feed.takeovers });
        }
    }

    fn answer(&mut self, talk: &mut Conversation<ReaderOf<R>>, message: LogsResponse) -> Result<(), Ended> {
        match message.part {
            Some(logs_response::Part::Ack(ack)) => {
                let id: AttemptId = FieldError::parse(&ack.attempt_id, "ack.attempt_id")?;
                talk.credit = ack.credit;
                let (Some(feed), Some(recording)) = (talk.feeds.get_mut(&id), self.attempts.get(id)) else {
                    return Ok(());
                };
                let length = recording.end().length;
                if feed.window.settled(ack.committed) {
                    recording.held(Some(ack.committed));
                }
                feed.window.acked(ack.committed, length);
                if feed.window.complete(length) {
                    self.complete.insert(id, Complete { length, takeovers: feed.takeovers });
                    // When there is no room the next session says it.
                    let _full = self.context.news.try_send(News::Delivered(id));
                }
            }
            Some(logs_response::Part::Refusal(refusal)) => {
                let id: AttemptId = FieldError::parse(&refusal.attempt_id, "refusal.attempt_id")?;
                match refusal.code() {
                    log_refusal::Code::Differs => {
                        error!(attempt = %id, text = refusal.text, "the controller holds other bytes of this log");
                    }
                    log_refusal::Code::Unspecified | log_refusal::Code::UnknownAttempt | log_refusal::Code::Fenced => {
                        warn!(attempt = %id, text = refusal.text, "the controller does not take this log");
                    }
                }
                if let Some(feed) = talk.feeds.get_mut(&id) {
                    feed.window.park();
                }
            }
            None => {}
        }
        Ok(())
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn send(outbound: &mpsc::Sender<LogsRequest>, part: Part) -> Result<(), Ended> {
    match outbound.send_timeout(LogsRequest { part: Some(part) }, PATIENCE).await {
        Ok(()) => Ok(()),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(Ended::Silent),
        Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Ended::Closed),
    }
}

fn append(attempt: AttemptId, chunk: Chunk) -> Append {
    let frames = chunk.frames.iter().map(|frame| {
        let stream = match frame.stream {
            Stream::Terminal => LogStream::Terminal,
            Stream::Stdout => LogStream::Stdout,
            Stream::Stderr => LogStream::Stderr,
        };
        let size = frame.size.map(|size| LogSize { columns: size.columns.into(), rows: size.rows.into() });
        LogFrame { length: frame.length, stream: stream.into(), time_ms: frame.time_ms, size }
    });
    let frames = frames.collect();
    Append { attempt_id: attempt.to_string(), start: chunk.offset, data: Bytes::from(chunk.data), frames }
}
