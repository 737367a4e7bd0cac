//! How long an attempt's log has become, once its shim writes no more: what was written, unless it cannot be read.

use std::{path::Path, time::Duration};

use sculpt_proto::id::AttemptId;
use tracing::warn;

use super::{
    Break, LogEnd,
    life::{Life, wished},
    plan::End,
};
use crate::{
    connect::Backoff,
    journal::JournalError,
    session::Wish,
    shim,
    spool::{self, extent},
};

/// What is found of a recording.
struct Found {
    /// It can be read up to here.
    readable: u64,
    /// What is wrong with what follows.
    damage: Option<String>,
    /// Processes of the agent are left that could not be killed.
    left_over: bool,
    /// What is wrong may pass.
    may_pass: bool,
}

/// So often a recording is read that may be whole, before it is called damaged.
const TRIES: u32 = 7;

impl Life<'_> {
    /// The final length of the log. After a shim's death everything of the agent is ended first.
    pub(super) async fn log_length(&mut self, end: &End) -> Result<u64, JournalError> {
        let written = match end {
            End::Recorded(record) => Some(record.log_length),
            End::Vanished | End::Rebooted | End::Removed => None,
        };
        let Found { readable, damage, left_over, .. } = self.measure(written).await;
        if left_over {
            self.note("processes of the agent are left that could not be ended").await?;
        }
        let may_be_shorter = match end {
            // What was not flushed or was cut off is gone, and the controller may have got it before.
            End::Vanished | End::Rebooted | End::Removed => true,
            End::Recorded(_) => damage.is_some(),
        };
        if !may_be_shorter {
            return Ok(readable);
        }
        // What the controller has taken stays, so the log does not end before it.
        let length = readable.max(self.held_by_controller(readable).await);
        if let Some(why) = damage {
            let found = Break { at: length, why };
            self.handle.log.break_at(found.clone());
            self.note(found.note()).await?;
            self.keep("its recording is damaged")?;
        }
        Ok(length)
    }

    async fn measure(&self, written: Option<u64>) -> Found {
        // What the controller holds need not be readable any more.
        let from = written.and_then(|_| self.handle.log.held()).unwrap_or(0);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut tries = 0;
        loop {
            tries += 1;
            let (dir, id) = (self.handle.dir.clone(), self.handle.id);
            let measured = tokio::task::spawn_blocking(move || measure(&dir, id, written, from));
            match measured.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(found) if !found.may_pass || tries >= TRIES => return found,
                Ok(Found { damage, .. }) => {
                    warn!(attempt = %self.handle.id, damage, "cannot read the recording to its end; trying again");
                }
                Err(error) => warn!(attempt = %self.handle.id, error, "cannot look at the recording; trying again"),
            }
            backoff.wait().await;
        }
    }

    async fn held_by_controller(&self, readable: u64) -> u64 {
        // It is asked when there may be something to send.
        self.handle.grew(self.context, LogEnd { length: readable.max(1), finished: false });
        tokio::select! {
            biased;
            // Then it takes nothing, and does not say what it has.
            () = wished(self.wish.clone(), Wish::Fence) => 0,
            held = self.handle.log.known_to_be_held() => held,
        }
    }
}

fn measure(dir: &Path, attempt: AttemptId, written: Option<u64>, from: u64) -> Result<Found, String> {
    let (mut damage, mut left_over, mut may_pass) = (None, false, false);
    if written.is_none() {
        match shim::bury(dir, attempt.0) {
            Ok(remains) => {
                left_over = remains.left_over;
                let kept = remains.spool.quarantined;
                damage = (!kept.is_empty()).then(|| format!("what could not be read is kept in {kept:?}"));
            }
            Err(error) if error.passes() => return Err(error.to_string()),
            Err(error) => {
                may_pass = !error.proves_damage();
                damage = Some(error.to_string());
            }
        }
    }
    let directory = dir.join(shim::files::SPOOL);
    let found = extent(&directory, from).map_err(|error: spool::Error| error.to_string())?;
    let readable = found.end;
    may_pass |= found.damage.as_ref().is_some_and(|error| !error.proves_damage());
    damage = found.damage.map(|error| error.to_string()).or(damage);
    if let Some(written) = written {
        let ends_early = || format!("{} ends there, and {written} bytes were written", directory.display());
        damage = (readable < written).then(|| damage.unwrap_or_else(ends_early));
    }
    Ok(Found { readable, damage, left_over, may_pass })
}
