//! The recordings of simulated agents, as the log stream reads them.

use sculpt_executor::{
    attempts::Context,
    logs::{LogEnd, Recording, Recordings},
    spool::{self, Chunk, Frame, Stream},
};
use sculpt_proto::id::AttemptId;

use super::{
    machine::{Machine, Record},
    roster::Attempts,
};

/// The recording of one attempt.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    attempt: AttemptId,
    machine: Machine,
}

impl Recordings for Attempts {
    type Recording = Spool;

    fn all(&self) -> Vec<Spool> {
        let ids = self.machine.ids().into_iter();
        ids.map(|attempt| Spool { attempt, machine: self.machine.clone() }).collect()
    }

    fn get(&self, attempt: AttemptId) -> Option<Spool> {
        self.machine.peek(attempt, |_| Spool { attempt, machine: self.machine.clone() })
    }
}

impl Recording for Spool {
    type Reader = ();

    fn attempt(&self) -> AttemptId {
        self.attempt
    }

    fn end(&self) -> LogEnd {
        let end = |record: &Record| LogEnd { length: record.spool.len() as u64, finished: record.ended() };
        self.machine.peek(self.attempt, end).unwrap_or_default()
    }

    fn released(&self) -> bool {
        self.machine.peek(self.attempt, |record| record.released).unwrap_or_default()
    }

    fn takeovers(&self) -> u64 {
        0
    }

    fn held(&self, _bytes: Option<u64>) {}

    async fn read(&self, _reader: &mut Option<()>, start: u64, most: usize) -> Result<Option<Chunk>, spool::Error> {
        tokio::task::yield_now().await;
        let cut = |record: &Record| {
            let rest = usize::try_from(start).ok().and_then(|start| record.spool.get(start..)).unwrap_or_default();
            rest[..rest.len().min(most)].to_vec()
        };
        let data = self.machine.peek(self.attempt, cut).unwrap_or_default();
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let frame = Frame { stream: Stream::Stdout, length, time_ms: 0, size: None };
        Ok((!data.is_empty()).then(|| Chunk { offset: start, data, frames: vec![frame] }))
    }

    async fn break_at(&self, _context: &Context, at: u64, _why: Option<spool::Error>) {
        self.machine.complain(format_args!("the log of {} breaks at {at}", self.attempt));
    }
}
