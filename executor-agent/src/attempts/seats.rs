//! What people do beside attempts, in the attempts' journals.

use std::{sync::Arc, time::Duration};

use sculpt_proto::id::{AttemptId, SeatId};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::{debug, warn};

use super::{Attempts, Context, Handle, News, tmux_socket};
use crate::{
    cgroup::Leaf,
    connect::Backoff,
    journal::JournalError,
    report::Seat,
    shim::Launch,
    ssh::LOOKS_ON,
    tmux::View,
    tree::{self, Mark},
};

/// How often it is looked whether anybody still looks on after the end.
const LOOK: Duration = Duration::from_secs(5);

/// From the asking to the kill of what people have left.
const GRACE: Duration = Duration::from_secs(2);

/// Between tries to write it down.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why somebody went whose end nobody saw.
const RESTARTED: &str = "the executor was restarted";

impl Attempts {
    /// Writes down what people do until nobody tells any more, in the order in which it is told. While the disk takes nothing,
    /// whoever tells waits.
    pub async fn write_seats(&self, mut told: mpsc::Receiver<(AttemptId, Seat)>) {
        while let Some((attempt, seat)) = told.recv().await {
            let Some(handle) = self.get(attempt) else { continue };
            let recorded = handle.spec().is_some_and(|spec| spec.record_typing);
            let leaves = matches!(seat, Seat::Detached { .. });
            handle.write_seat(&self.context, if recorded { seat } else { seat.silent() }).await;
            if leaves {
                // Apart: a shim that hangs holds nobody up.
                self.tracker.spawn(handle.hand_back(Arc::clone(&self.context)));
            }
        }
    }
}

impl Handle {
    /// Says of these seats that they were left, as who sat there was cut off with the executor.
    pub(super) async fn leave_seats(self: Arc<Self>, context: Arc<Context>, seats: Vec<SeatId>) {
        for seat in seats {
            let left = self.write_seat(&context, Seat::Detached { seat, why: RESTARTED.to_owned() });
            tokio::select! {
                () = context.cancel.cancelled() => return,
                () = left => {}
            }
        }
    }

    /// Ends what people have left running beside it, once nobody looks on at its last picture any more.
    pub(super) async fn send_home(self: Arc<Self>, context: Arc<Context>) {
        let Ok(launch) = Launch::read(&self.dir) else { return };
        let tmux = tmux_socket(&context.layout, self.id);
        let view = View::of(&self.dir, &launch, tmux, context.program.clone());
        let until = Instant::now() + LOOKS_ON;
        while Instant::now() < until && view.socket.exists() && matches!(view.attached_clients().await, Ok(1..)) {
            tokio::select! {
                () = context.cancel.cancelled() => return,
                () = sleep(LOOK) => {}
            }
        }
        if let Err(error) = view.kill().await {
            // Its sandbox has ended, and it with that.
            debug!(attempt = %self.id, %error, "the view of an ended attempt was not ended");
        }
        let ended = tokio::task::spawn_blocking(move || {
            let gone = tree::end(|| tree::carriers(Mark::Guest, launch.attempt), GRACE);
            launch.cgroup.kill(Leaf::View);
            gone
        });
        if !matches!(ended.await, Ok(true)) {
            warn!(attempt = %self.id, "what people ran beside an attempt could not be ended with it");
        }
    }

    /// Writes it down, however long that takes; an attempt that has ended takes no more.
    async fn write_seat(self: &Arc<Self>, context: &Context, seat: Seat) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut told = false;
        loop {
            let (handle, seat) = (Arc::clone(self), seat.clone());
            let append = move || handle.journal().map(|journal| journal.append_seat(seat)).transpose();
            let written: Result<_, JournalError> = tokio::task::spawn_blocking(append).await.unwrap_or(Ok(None));
            match written.map(Option::flatten) {
                Ok(None) => return,
                Ok(Some(sequence)) => {
                    let _ending = context.news.send(News::Recorded(self.id, sequence)).await;
                    return;
                }
                Err(error) if error.passes() && self.dir.exists() => {
                    if !std::mem::replace(&mut told, true) {
                        warn!(attempt = %self.id, %error, "could not write down what a person does; trying again");
                    }
                    backoff.wait().await;
                }
                Err(error) => return warn!(attempt = %self.id, %error, "could not write down what a person has done"),
            }
        }
    }
}
