//! Work on threads of its own, which goes on when the future that waits for it is dropped: whoever gives it up says so, and
//! waits until it has stopped.

use std::panic::resume_unwind;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Nobody wants the work any more.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the work was given up")]
pub struct GivenUp;

/// The work of one undertaking; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Blocking {
    running: TaskTracker,
    given_up: CancellationToken,
}

impl Blocking {
    /// Runs `work`, which is told when it is given up; long work looks at it. What is given up before it begins does nothing.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CancellationToken) -> T + Send + 'static,
    ) -> Result<T, GivenUp> {
        let given_up = self.given_up.clone();
        let work = self.running.spawn_blocking(move || {
            proceed(&given_up)?;
            Ok(work(&given_up))
        });
        match work.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(panic)) => resume_unwind(panic),
            Err(Err(_ending)) => Err(GivenUp),
        }
    }

    /// Gives all of it up; none of it runs any more when this returns.
    pub async fn give_up(&self) {
        self.given_up.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

/// An error once the work is given up.
pub fn proceed(given_up: &CancellationToken) -> Result<(), GivenUp> {
    if given_up.is_cancelled() { Err(GivenUp) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn what_is_given_up_has_stopped() {
        let (work, ended) = (Blocking::default(), Arc::<AtomicBool>::default());
        let (began, begins) = tokio::sync::oneshot::channel();
        let mark = Arc::clone(&ended);
        let dropped = work.run(move |given_up| {
            began.send(()).unwrap();
            while proceed(given_up).is_ok() {
                std::thread::yield_now();
            }
            mark.store(true, Ordering::Relaxed);
        });
        tokio::select! {
            biased;
            _ = dropped => panic!("it ended by itself"),
            began = begins => began.unwrap(),
        }
        assert!(!ended.load(Ordering::Relaxed));
        work.give_up().await;
        assert!(ended.load(Ordering::Relaxed));
        assert!(work.run(|_| ()).await.is_err(), "nothing begins any more");
    }
}
