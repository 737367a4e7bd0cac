//! What people do beside attempts, in the attempts' journals.

use std::{sync::Arc, time::Duration};

use sculpt_proto::id::{AttemptId, SeatId};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{Attempts, Context, Handle, News, tmux_socket};
use crate::{
    cgroup::Leaf,
    connect::Backoff,
    journal::{Journal, JournalError},
    report::Seat,
    shim::Launch,
    ssh::LOOKS_ON,
    tmux::View,
    tree::{self, Mark},
};

/// How often it is looked whether somebody at the host itself still looks on after the end.
const LOOK: Duration = Duration::from_secs(5);

/// How long an end waits for what people did before it.
const LAST_KEYS: Duration = Duration::from_secs(1);

/// From the asking to the kill of what people have left.
const GRACE: Duration = Duration::from_secs(2);

/// Between tries to write it down.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why somebody went whose end nobody saw.
const RESTARTED: &str = "the executor was restarted";

impl Attempts {
    /// Writes down what people do until nobody tells any more, in the order in which it is told. While the disk takes nothing,
    /// whoever tells waits; when the executor ends, what the disk still does not take is lost.
    pub async fn write_seats(&self, mut told: mpsc::Receiver<(AttemptId, Seat)>) {
        while let Some((attempt, seat)) = told.recv().await {
            if let Some(handle) = self.get(attempt) {
                let left = match &seat {
                    Seat::Detached { seat, .. } => Some(*seat),
                    Seat::Attached { .. } | Seat::Typed { .. } => None,
                };
                handle.write_seat(&self.context, handle.recorded(seat)).await;
                let hands_back = |left| handle.journal().is_some_and(|journal| journal.hands_back(left));
                if left.is_some_and(hands_back) {
                    // Apart: a shim that hangs holds nobody up.
                    self.tracker.spawn(handle.hand_back(Arc::clone(&self.context)));
                }
            }
            self.context.people.beside.written(attempt);
        }
    }
}

impl Handle {
    /// Says of these seats that they were left, as who sat there was cut off with the executor.
    pub(super) async fn leave_seats(self: Arc<Self>, context: Arc<Context>, seats: Vec<SeatId>) {
        for seat in seats {
            self.write_seat(&context, Seat::Detached { seat, why: RESTARTED.to_owned() }).await;
        }
    }

    /// Writes down what is being typed beside it at its end, after all that was told before: somebody may have ended it so.
    pub(super) async fn write_last_keys(self: &Arc<Self>, context: &Context) {
        let beside = &context.people.beside;
        let typed = beside.typed(self.id);
        if timeout(LAST_KEYS, beside.settled(self.id)).await.is_err() {
            warn!(attempt = %self.id, "what people did last is not written down yet; the attempt ends without it");
        }
        let there = self.journal().map(Journal::seats).unwrap_or_default();
        for seat in typed {
            // That they came may not have been written.
            if matches!(&seat, Seat::Typed { seat, .. } if there.contains(seat))
                && let Err(error) = self.append_seat(context, self.recorded(seat)).await
            {
                warn!(attempt = %self.id, %error, "what was typed last was not written down");
            }
        }
    }

    /// What is written down of it.
    fn recorded(&self, seat: Seat) -> Seat {
        let recorded = self.spec().is_some_and(|spec| spec.record_typing);
        if recorded { seat } else { seat.silent() }
    }

    /// Says to who looks on that the agent has ended: its last picture does not.
    pub(super) async fn tell_of_the_end(self: Arc<Self>, context: Arc<Context>) {
        let Ok(launch) = Launch::read(&self.dir) else { return };
        let view = self.view(&context, &launch);
        if view.socket.exists()
            && let Err(error) = view.tell_of_the_end().await
        {
            // Its sandbox may have ended with it, and the view with that.
            debug!(attempt = %self.id, %error, "who looks on was not told that the agent has ended");
        }
    }

    fn view(&self, context: &Context, launch: &Launch) -> View {
        View::of(&self.dir, launch, tmux_socket(&context.layout, self.id), context.program.clone())
    }

    /// Ends what people have left running beside it, once nobody looks on at its last picture any more.
    pub(super) async fn send_home(self: Arc<Self>, context: Arc<Context>) {
        let Ok(launch) = Launch::read(&self.dir) else { return };
        let view = self.view(&context, &launch);
        let alone = async {
            loop {
                context.people.beside.left(self.id).await;
                // Only who is at the host itself is unknown.
                if !view.socket.exists() || !matches!(view.attached_clients().await, Ok(1..)) {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = context.cancel.cancelled() => return,
            _late = timeout(LOOKS_ON, alone) => {}
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

    /// Writes it down, however long that takes as long as the executor goes on; an attempt that has ended takes no more.
    async fn write_seat(self: &Arc<Self>, context: &Context, seat: Seat) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut told = false;
        loop {
            let error = match self.append_seat(context, seat.clone()).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if !error.passes() || !self.dir.exists() || context.cancel.is_cancelled() {
                return warn!(attempt = %self.id, %error, "could not write down what a person has done");
            }
            if !std::mem::replace(&mut told, true) {
                warn!(attempt = %self.id, %error, "could not write down what a person does; trying again");
            }
            tokio::select! {
                () = context.cancel.cancelled() => {}
                () = backoff.wait() => {}
            }
        }
    }

    /// Tries to write it down once.
    async fn append_seat(self: &Arc<Self>, context: &Context, seat: Seat) -> Result<(), JournalError> {
        let handle = Arc::clone(self);
        let append = move || match handle.journal() {
            Some(journal) => journal.append_seat(seat),
            None => {
                warn!(attempt = %handle.id, "what a person does is not written down: the attempt's journal cannot be read");
                Ok(None)
            }
        };
        if let Some(sequence) = tokio::task::spawn_blocking(append).await.unwrap_or(Ok(None))? {
            let _ending = context.news.send(News::Recorded(self.id, sequence)).await;
        }
        Ok(())
    }
}
