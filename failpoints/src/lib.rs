//! Named moments at which a test lets one of our processes die, as kill -9 would have it.
//!
//! A point is armed by a file of its name in the directory that `SCULPT_FAILPOINTS` names; the file holds how many times
//! the point is passed before it strikes (nothing: at once). The process that strikes renames the file to `NAME.hit`, so
//! that a point strikes once and a test sees that it did, and ends itself with SIGKILL. Without debug assertions, so in
//! every release, [`pass`] is empty.

/// Variable that names the directory of armed points.
pub const VARIABLE: &str = "SCULPT_FAILPOINTS";

/// Moments of the controller: around each commit, and around each answer that says it was made.
pub const CONTROLLER: [&str; 18] = [
    "task.before_commit",
    "task.before_answer",
    "claim.before_commit",
    "claim.committed",
    "session.before_commit",
    "session.committed",
    "spec.before_commit",
    "spec.before_answer",
    "report.before_commit",
    "report.before_ack",
    "report.acked",
    "log.before_commit",
    "log.before_ack",
    "log.acked",
    "pack.before_store",
    "pack.stored",
    "refs.before_commit",
    "refs.before_answer",
];

/// Moments of the executor: around each durable step, and around each message that tells of one.
pub const EXECUTOR: [&str; 13] = [
    "spec.before_write",
    "spec.written",
    "journal.before_sync",
    "journal.synced",
    "report.before_send",
    "report.sent",
    "shim.before_start",
    "shim.started",
    "log.before_send",
    "log.sent",
    "pack.kept",
    "pack.published",
    "release.before_write",
];

/// Moments of an executor that joins or renews: around what is durable, and around each answer.
pub const ENROLMENT: [&str; 5] =
    ["join.before_ask", "join.answered", "renew.before_ask", "renew.answered", "keyring.trusts"];

/// Moments of the shim. Only the last one is not the end of its attempt.
pub const SHIM: [&str; 2] = ["exit.before_write", "exit.written"];

/// Here the process ends if the point `name` is armed and its count has run out.
#[cfg(debug_assertions)]
pub fn pass(name: &'static str) {
    armed::pass(name);
}

/// Here nothing happens.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn pass(_name: &'static str) {}

/// What a process must be started with for its points to be armed with ours.
pub fn environment() -> Option<(&'static str, std::ffi::OsString)> {
    if cfg!(debug_assertions) { std::env::var_os(VARIABLE).map(|value| (VARIABLE, value)) } else { None }
}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        fs,
        path::{Path, PathBuf},
        sync::{LazyLock, Mutex, PoisonError},
    };

    use rustix::process::{Signal, getpid, kill_process};

    static DIRECTORY: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os(super::VARIABLE).map(PathBuf::from));

    /// Threads that pass a point at once are counted one after the other.
    static TURN: Mutex<()> = Mutex::new(());

    pub(super) fn pass(name: &'static str) {
        let Some(directory) = DIRECTORY.as_deref() else { return };
        debug_assert!(
            super::CONTROLLER
                .iter()
                .chain(&super::EXECUTOR)
                .chain(&super::ENROLMENT)
                .chain(&super::SHIM)
                .any(|known| *known == name),
            "{name} is not in the list"
        );
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if strikes(directory, name) {
            // Nothing of the process may run on, and nothing can be done about an error here.
            let _killed = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }

    /// Counts one passage; whether it is the one at which the process ends.
    pub(super) fn strikes(directory: &Path, name: &str) -> bool {
        let file = directory.join(name);
        let Ok(count) = fs::read_to_string(&file) else { return false };
        match count.trim().parse::<u32>() {
            Ok(more @ 1..) => {
                let _uncounted = fs::write(&file, (more - 1).to_string());
                false
            }
            // Of several processes that pass at once, one finds the file.
            Ok(0) | Err(_) => fs::rename(&file, directory.join(format!("{name}.hit"))).is_ok(),
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::fs;

    use super::armed::strikes;

    #[test]
    fn a_point_strikes_once_after_its_count() {
        let place = tempfile::tempdir().unwrap();
        let struck = |name: &str| strikes(place.path(), name);
        assert!(!struck("log.acked"), "not armed");
        fs::write(place.path().join("log.acked"), "2").unwrap();
        assert_eq!(
            [struck("log.acked"), struck("log.acked"), struck("log.acked"), struck("log.acked")],
            [false, false, true, false]
        );
        assert!(place.path().join("log.acked.hit").exists());
        fs::write(place.path().join("log.sent"), "").unwrap();
        assert!(struck("log.sent"), "without a count at once");
    }

    #[test]
    fn nothing_is_armed_without_the_variable() {
        super::pass("log.acked");
    }
}
