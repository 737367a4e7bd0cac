//! A person's wish to leave that does not come by a key.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{exit::Exit, failure::Failure};

/// Hears it from when it is made on.
#[derive(Debug)]
pub(crate) struct Leave {
    interrupt: Signal,
    terminate: Signal,
}

impl Leave {
    pub(crate) fn heard(attempted: &str) -> Result<Self, Failure> {
        let hear = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Exit::Failed, attempted, format!("signals cannot be heard: {error}")))
        };
        Ok(Self { interrupt: hear(SignalKind::interrupt())?, terminate: hear(SignalKind::terminate())? })
    }

    /// Returns when somebody wants to leave.
    pub(crate) async fn wish(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
