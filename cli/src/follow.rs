//! Following a task over any outage: its state, and the bytes of its log.

mod absence;
mod attached;
mod log;
mod pieces;
mod sink;
mod watch;

pub(crate) use absence::Absence;
pub(crate) use attached::{Quiet, attached, outcome};
pub(crate) use log::LogReader;
pub(crate) use pieces::{Piece, pieces};
pub(crate) use sink::Sink;
pub(crate) use watch::Watch;
