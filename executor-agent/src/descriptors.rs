//! Open files: the executor has as many as the host lets it, and what it starts as many as it was itself started with.

use std::{env, sync::OnceLock};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many this process was started with, once it has more.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// The variable by which it is handed on to another process of this program.
pub const VARIABLE: &str = "SCULPT_EXECUTOR_OPEN_FILES";

/// Lets this process have as many as it may. Connections of people would use up a shell's usual 1,024, and nothing would be left
/// for agents.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let Some(before) = limit.current.filter(|now| limit.maximum.is_none_or(|most| *now < most)) else { return };
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => drop(BEFORE.set(before)),
        Err(error) => tracing::warn!(%error, wished = limit.maximum, "cannot raise the limit of open files"),
    }
}

/// What a process of this program has to be told so that it, and what it becomes, has as many as this one was started with: a
/// program that goes through all numbers which it may have would take long, and one that knows no more than select() would break.
pub fn environment() -> Option<(&'static str, String)> {
    BEFORE.get().map(|before| (VARIABLE, before.to_string()))
}

/// Has as many as it is told, if it is told anything.
pub fn lower() -> rustix::io::Result<()> {
    match env::var(VARIABLE).ok().and_then(|told| told.parse().ok()) {
        Some(told) => setrlimit(Resource::Nofile, Rlimit { current: Some(told), ..getrlimit(Resource::Nofile) }),
        None => Ok(()),
    }
}
