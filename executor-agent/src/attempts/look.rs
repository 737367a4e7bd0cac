//! Looks how an attempt stands on this host. What cannot be seen at the moment proves nothing: only what is so at every
//! look for a while counts.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tracing::warn;

use super::{
    attend::ENDS_WITHIN,
    life::Life,
    plan::Found,
    prepare::{CONTROL, GRACE},
};
use crate::{
    session::Wish,
    shim::{self, Client, ClientError, Launch, Liveness, Phase},
};

/// An attempt's directory is missing for so long before it counts as removed.
const REMOVED: Duration = Duration::from_secs(5);

/// Why it cannot be said how an attempt stands.
pub(super) enum Unclear {
    /// It may be said later.
    Now(String),
    /// It cannot be read.
    Damaged(String),
}

/// What earlier looks have seen.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The attempt's directory is missing.
    missing: Since,
    /// The shim gives no answer, and its agent is to be ended.
    unanswered: Since,
}

/// PURE: since when every look has seen the same.
#[derive(Debug, Default)]
struct Since(Option<Instant>);

impl Since {
    /// It is seen at `now`; whether it has been for `long`.
    fn lasts(&mut self, now: Instant, long: Duration) -> bool {
        now.saturating_duration_since(*self.0.get_or_insert(now)) >= long
    }

    /// It is not seen.
    fn over(&mut self) {
        self.0 = None;
    }
}

impl Life<'_> {
    /// How the attempt stands.
    pub(super) async fn look(&mut self) -> Result<Found, Unclear> {
        if self.is_removed()? {
            return self.look_without_directory().await;
        }
        let found = self.look_for_shim().await?;
        // What went with its volume between the two looks is not gone.
        if matches!(found, Found::Never | Found::Vanished) && self.is_removed()? {
            return self.look_without_directory().await;
        }
        Ok(found)
    }

    async fn look_for_shim(&mut self) -> Result<Found, Unclear> {
        let dir = &self.handle.dir;
        let why = match shim::probe(dir).await {
            Liveness::Present(status) => {
                self.looks.unanswered.over();
                return Ok(match status.phase {
                    Phase::Ended(record) => Found::Recorded(Box::new(record)),
                    Phase::Running | Phase::Held | Phase::Ending => Found::Present,
                });
            }
            Liveness::Absent(Some(record)) => return Ok(Found::Recorded(Box::new(record))),
            Liveness::Absent(None) => return self.look_for_launch(),
            Liveness::Damaged(why) => return Err(Unclear::Damaged(why)),
            Liveness::Unknown(why) => why,
        };
        // What stands on disk counts, also when whoever wrote it cannot be asked.
        if let Ok(Some(record)) = shim::exit_record(dir) {
            return Ok(Found::Recorded(Box::new(record)));
        }
        if self.wished() >= Wish::Stop {
            self.rouse(&why);
        }
        Err(Unclear::Now(why))
    }

    /// A shim that was stopped goes on, to hear of the end that is wished and lose nothing of the log. One that is not to be
    /// woken is killed, and its agent with it.
    fn rouse(&mut self, why: &str) {
        let signal = if self.is_ignored() { Signal::KILL } else { Signal::CONT };
        warn!(attempt = %self.handle.id, why, ?signal, "the shim does not end its agent; it gets a signal");
        if let Err(error) = shim::signal(&self.handle.dir, signal) {
            warn!(attempt = %self.handle.id, %error, "the shim could not be signalled");
        }
    }

    /// Without a shim: whether one has come at all. The executor may have died before, and then it is begun anew.
    fn look_for_launch(&self) -> Result<Found, Unclear> {
        let dir = &self.handle.dir;
        if !dir.join(shim::files::LAUNCH).exists() {
            return Ok(Found::Never);
        }
        let in_this_boot = Launch::read(dir).is_ok_and(|it| it.boot_id.as_ref() == Some(&self.context.boot));
        match in_this_boot.then(|| shim::take_back(dir)).transpose() {
            Ok(Some(true)) => Ok(Found::Never),
            Ok(Some(false) | None) => Ok(Found::Vanished),
            Err(error) => Err(Unclear::Now(format!("cannot tell whether a shim has come: {error}"))),
        }
    }

    /// Whether a shim that gives no answer now has left a wish for an end unheard for too long.
    fn is_ignored(&mut self) -> bool {
        if self.wished() < Wish::Stop {
            self.looks.unanswered.over();
            return false;
        }
        self.looks.unanswered.lasts(Instant::now(), ENDS_WITHIN)
    }

    /// Whether the attempt's directory was removed; unclear while that may be a volume that will be there again.
    fn is_removed(&mut self) -> Result<bool, Unclear> {
        match self.context.layout.lacks(self.handle.id) {
            Ok(true) if self.looks.missing.lasts(Instant::now(), REMOVED) => Ok(true),
            Ok(true) => Err(Unclear::Now("its directory is missing".to_owned())),
            Ok(false) => {
                self.looks.missing.over();
                Ok(false)
            }
            Err(error) => {
                self.looks.missing.over();
                Err(Unclear::Now(format!("the directory of the attempts cannot be looked at: {error}")))
            }
        }
    }

    /// A shim without its directory ends its agent by itself; whatever keeps it from that, it goes with its agent.
    async fn look_without_directory(&mut self) -> Result<Found, Unclear> {
        let client = Client::new(&self.context.layout.sockets(self.handle.id).join(CONTROL));
        let status = match client.status().await {
            Ok(status) => {
                self.looks.unanswered.over();
                status
            }
            Err(ClientError::Silent { .. }) if !self.is_ignored() => {
                return Err(Unclear::Now("its directory was removed, and its shim does not answer".to_owned()));
            }
            Err(_) => return Ok(Found::Removed),
        };
        match status.agent {
            Some(agent) if agent.is_alive() => {
                let _ending_anyway = client.stop(GRACE).await;
            }
            Some(_) | None => status.shim.signal(Signal::KILL),
        }
        Err(Unclear::Now("its directory was removed, and its agent is being ended".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_look_sees_lasts() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut since = Since::default();
        let lasts = |since: &mut Since, seconds| since.lasts(at(seconds), Duration::from_secs(5));
        assert!(!lasts(&mut since, 1) && !lasts(&mut since, 5), "not for long enough");
        assert!(lasts(&mut since, 6) && lasts(&mut since, 60));
        since.over();
        assert!(!lasts(&mut since, 61) && !lasts(&mut since, 65), "it was otherwise meanwhile");
        assert!(!lasts(&mut since, 0), "a clock that goes back");
    }
}
