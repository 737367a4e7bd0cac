//! Which sessions an agent's processes are in, written down while the shim lives: after its death they have no
//! common ancestor any more, and what their environment says is theirs to change.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::files;
use crate::{
    host,
    tree::{self, ProcessId, Session},
};

/// How often it is looked for new ones.
const LOOK: Duration = Duration::from_secs(1);

/// The sessions of a living agent. A process that begins one escapes only when the shim dies before the next look.
pub(super) struct Kin {
    path: PathBuf,
    main: Session,
    boot: String,
    /// What the last look saw: a walk over living processes can miss one that moves.
    seen: BTreeSet<Session>,
    written: BTreeSet<Session>,
    next_look: Instant,
}

#[derive(Serialize, Deserialize)]
struct Written {
    /// Pids mean nothing in another boot.
    boot: String,
    sessions: BTreeSet<Session>,
}

impl Kin {
    /// Begins with the session that `main` leads, or is about to.
    pub(super) fn begin(attempt_dir: &Path, main: ProcessId) -> io::Result<Self> {
        let main = Session { id: main.pid, start: main.start };
        let path = attempt_dir.join(files::KIN);
        let (seen, written, next_look) = (BTreeSet::new(), BTreeSet::new(), Instant::now() + LOOK);
        let mut kin = Self { path, main, boot: host::boot_id()?, seen, written, next_look };
        kin.write(BTreeSet::from([main]))?;
        Ok(kin)
    }

    /// How long there is nothing to do.
    pub(super) fn pause(&self) -> Duration {
        self.next_look.saturating_duration_since(Instant::now())
    }

    /// Looks for sessions, if it is time to.
    pub(super) fn look(&mut self) {
        if !self.pause().is_zero() {
            return;
        }
        let before = std::mem::replace(&mut self.seen, tree::sessions_below(std::process::id()));
        let sessions: BTreeSet<Session> = self.seen.union(&before).copied().chain([self.main]).collect();
        if sessions != self.written {
            // On a full disk the next look tries again.
            let _missed = self.write(sessions);
        }
        self.next_look = Instant::now() + LOOK;
    }

    fn write(&mut self, sessions: BTreeSet<Session>) -> io::Result<()> {
        // It is of no use after a power loss, so nothing is flushed.
        let temporary = self.path.with_extension("new");
        let written = Written { boot: self.boot.clone(), sessions };
        fs::write(&temporary, serde_json::to_vec(&written)?)?;
        fs::rename(&temporary, &self.path)?;
        self.written = written.sessions;
        Ok(())
    }
}

/// The sessions that the shim of `attempt_dir` saw last in this boot.
pub(super) fn read(attempt_dir: &Path) -> Vec<Session> {
    let written = fs::read(attempt_dir.join(files::KIN)).ok();
    let written: Option<Written> = written.and_then(|json| serde_json::from_slice(&json).ok());
    let same_boot = |written: &Written| host::boot_id().is_ok_and(|boot| boot == written.boot);
    written.filter(same_boot).map(|written| written.sessions.into_iter().collect()).unwrap_or_default()
}
