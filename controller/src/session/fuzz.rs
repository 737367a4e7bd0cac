//! Fuzz targets: what an executor sends over its Control and its Logs connection.

use std::{collections::BTreeMap, time::Duration};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use prost::Message as _;
use sculpt_proto::{
    executor::v1::{
        Append, ControlRequest, LogsRequest, PublishRequest, control_request, logs_request, publish_request,
    },
    id::{AttemptId, ClusterId, TaskId},
    v1::{LogFrame, LogSize},
};
use uuid::Uuid;

use super::{
    frames,
    growing::Piece,
    hello, publish,
    reports::{Answer, Report, Told},
    state::{Input, Observed, Output, PIECE, Session, WATCHDOG},
    wire::{self, In},
};
use crate::store::sessions::{Phase, Said, Wish};

type Out = Output<Report, Answer>;

#[derive(Debug, Arbitrary)]
enum Event<'a> {
    /// Bytes of the executor, as they come out of the stream.
    Message(&'a [u8]),
    Observed {
        attempts: Vec<(u8, bool)>,
        last: bool,
    },
    Heartbeat {
        sequence: u64,
        closed: bool,
    },
    Report {
        attempt: u8,
        sequence: u64,
    },
    Reconciled {
        released: Vec<u8>,
        owed: Vec<u8>,
    },
    Wishes(Vec<(u8, u8, bool)>),
    /// The database has written what it was told of last.
    Leased,
    Told,
    Tick {
        seconds: u8,
    },
    Superseded,
}

/// Few, so that events meet.
fn attempt(number: u8) -> AttemptId {
    AttemptId(Uuid::from_u128(u128::from(number % 4) + 1))
}

fn cluster() -> ClusterId {
    ClusterId(Uuid::from_u128(0x11))
}

fn wish(phase: u8, may_begin: bool) -> Wish {
    let phase = [Phase::Run, Phase::Hold, Phase::Stop, Phase::Fence][usize::from(phase % 4)];
    Wish {
        task: TaskId(Uuid::nil()),
        task_number: 1,
        number: 1,
        digest: Vec::new(),
        phase,
        said: Said::default(),
        may_begin,
    }
}

/// What a session may say, kept apart from it.
#[derive(Default)]
struct World {
    beats: Vec<u64>,
    /// The newest heartbeat of which the database was told, and of which it has said so.
    told: u64,
    leased: u64,
    compared: bool,
    /// What the database was asked and has not answered.
    comparisons: usize,
    reads: usize,
    wanted: BTreeMap<AttemptId, Wish>,
    said_in_full: bool,
}

impl World {
    fn input(&mut self, event: Event<'_>) -> Option<In> {
        Some(match event {
            Event::Message(bytes) => {
                let input = message(bytes)?;
                if let Input::Heartbeat { sequence, .. } = &input {
                    self.beats.push(*sequence);
                }
                input
            }
            Event::Observed { attempts, last } => {
                let observed = |(number, ended)| Observed {
                    attempt: attempt(number),
                    cluster: None,
                    ended,
                    reports: 0,
                    unreadable: None,
                };
                Input::Observed { attempts: attempts.into_iter().map(observed).collect(), last }
            }
            Event::Heartbeat { sequence, closed } => {
                self.beats.push(sequence);
                Input::Heartbeat { sequence, closed: closed.then(|| "full".to_owned()) }
            }
            Event::Report { attempt: number, sequence } => {
                let report = Report { attempt: attempt(number), sequence, age: Duration::ZERO, told: Told::Accepted };
                Input::Report { attempt: report.attempt, report }
            }
            Event::Reconciled { released, owed } => {
                self.comparisons = self.comparisons.checked_sub(1)?;
                self.compared = true;
                let all = |numbers: Vec<u8>| numbers.into_iter().map(attempt).collect();
                Input::Reconciled { released: all(released), owed: all(owed), behind: Vec::new() }
            }
            Event::Wishes(wishes) => {
                self.reads = self.reads.checked_sub(1)?;
                let wishes = wishes.into_iter().map(|(number, phase, begin)| (attempt(number), wish(phase, begin)));
                self.wanted = wishes.collect();
                Input::Wishes(self.wanted.clone())
            }
            Event::Leased => {
                self.leased = self.leased.max(self.told);
                Input::Leased(self.told)
            }
            Event::Told => Input::Told,
            Event::Tick { .. } => Input::Tick,
            Event::Superseded => Input::Superseded,
        })
    }

    fn check(&mut self, output: Out) {
        match output {
            Output::HeartbeatAck { sequence, leased } => {
                assert!(self.beats.contains(&sequence), "heartbeat {sequence} was never sent");
                assert!(leased <= self.leased, "{leased} is confirmed, the database has {}", self.leased);
            }
            Output::Seen { beat, .. } => {
                assert!(beat == 0 || self.beats.contains(&beat), "heartbeat {beat} was never sent");
                self.told = beat;
            }
            Output::Read => {
                assert!(self.compared, "it speaks before it knows what the executor has");
                self.reads += 1;
                assert_eq!(self.reads, 1, "one read at a time");
            }
            Output::Reconcile(_) => self.comparisons += 1,
            Output::Desired { full, attempts, released, .. } => {
                assert!(full || self.said_in_full, "a delta before any full set");
                self.said_in_full |= full;
                assert!(attempts.len() <= PIECE && released.len() <= PIECE, "one message holds too much");
                for (attempt, wish) in &attempts {
                    assert_eq!(self.wanted.get(attempt), Some(wish), "{attempt} is not what the database has");
                }
                let taken_back = released.iter().find(|attempt| attempts.iter().any(|(wanted, _)| wanted == *attempt));
                assert_eq!(taken_back, None, "wanted and released at once");
            }
            Output::Ack(_) | Output::Adopt(_) | Output::Apply(_) | Output::Close(_) => {}
        }
    }
}

/// Only what passes all checks goes on.
fn message(bytes: &[u8]) -> Option<In> {
    let request = ControlRequest::decode(bytes).ok()?;
    if let Some(control_request::Part::Hello(hello)) = request.part {
        let _rejected = hello::check(hello, cluster());
        return None;
    }
    wire::input(request).ok().flatten()
}

/// Lets the events happen, and looks at everything that the session says and asks for.
pub fn control(data: &[u8]) {
    let Ok(events) = Vec::<Event<'_>>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let (mut session, mut world, mut now) = (Session::new(), World::default(), Duration::ZERO);
    for event in events {
        if let Event::Tick { seconds } = event {
            now += Duration::from_secs(u64::from(seconds)).min(2 * WATCHDOG);
        }
        let Some(input) = world.input(event) else { continue };
        for output in session.step(now, input) {
            world.check(output);
        }
    }
}

/// What the Logs and the Publish connection bring.
#[derive(Debug, Arbitrary)]
enum Bulk<'a> {
    Logs(&'a [u8]),
    Append { start: u64, data: &'a [u8], lengths: Vec<u8>, skip: u8, take: u8 },
    Publish(&'a [u8]),
}

/// What passes as a piece of a log fits into a log, and its frames stand for its bytes however it is cut.
pub fn bulk(data: &[u8]) {
    let Ok(bulk) = Bulk::arbitrary_take_rest(Unstructured::new(data)) else { return };
    match bulk {
        Bulk::Logs(bytes) => {
            let request = LogsRequest::decode(bytes).ok().and_then(|request| request.part);
            if let Some(logs_request::Part::Append(append)) = request {
                piece(append, 1, 2);
            }
        }
        Bulk::Append { start, data, lengths, skip, take } => {
            let frame = |length: u8| {
                let size = length.is_multiple_of(3).then_some(LogSize { columns: u32::from(length), rows: 1 });
                LogFrame { length: u32::from(length), stream: i32::from(length % 4), time_ms: 0, size }
            };
            let frames = lengths.into_iter().map(frame).collect();
            let append =
                Append { attempt_id: attempt(0).to_string(), start, data: Bytes::copy_from_slice(data), frames };
            piece(append, u64::from(skip), u64::from(take));
        }
        Bulk::Publish(bytes) => {
            let request = PublishRequest::decode(bytes).ok().and_then(|request| request.part);
            if let Some(publish_request::Part::Header(header)) = request {
                let _refused = publish::Header::try_from(header);
            }
        }
    }
}

fn piece(append: Append, skip: u64, take: u64) {
    let Ok(piece) = Piece::try_from(append) else { return };
    let length = piece.data.len() as u64;
    assert!(piece.start.checked_add(length).is_some_and(|end| i64::try_from(end).is_ok()), "beyond any log");
    let sum = |frames: &[LogFrame]| frames.iter().map(|frame| u64::from(frame.length)).sum::<u64>();
    assert_eq!(sum(&piece.frames), length);
    let left = length.saturating_sub(skip).min(take);
    assert_eq!(sum(&frames::cut(&piece.frames, skip, take)), left, "{skip} + {take} of {length}");
    let stored =
        frames::decode(&frames::encode(&piece.frames)).unwrap_or_else(|error| panic!("read what was stored: {error}"));
    assert_eq!(sum(&stored), length);
    let sizes = |frames: &[LogFrame]| frames.iter().filter(|frame| frame.size.is_some()).count();
    assert_eq!(sizes(&stored), sizes(&piece.frames), "sizes are stored as they came");
    let cut = |skip, take| sizes(&frames::cut(&piece.frames, skip, take));
    assert_eq!(cut(0, skip) + cut(skip, length), sizes(&stored), "a size is on one side of a cut");
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_kept_of_fuzzing_passes() {
        sculpt_fuzz::replay("control", super::control);
        sculpt_fuzz::replay("bulk", super::bulk);
    }
}
