//! How long to wait before the next try.

use std::time::Duration;

/// Draws a part of a wait, from one half to the whole.
pub type Jitter = fn() -> f64;

/// Doubles from try to try up to a limit, with jitter so that a fleet does not come back all at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    tries: u32,
    jitter: Jitter,
}

impl Backoff {
    /// Starts at `first` and never waits longer than `limit`.
    pub fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, tries: 0, jitter: || rand::random_range(0.5..=1.0) }
    }

    /// The same, with chance from elsewhere.
    pub(super) fn with_jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    /// Between half of the full wait and all of it.
    pub fn next_wait(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.tries.min(20)).min(self.limit);
        self.tries = self.tries.saturating_add(1);
        full.mul_f64((self.jitter)().clamp(0.5, 1.0))
    }

    /// A try has succeeded.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Waits before the next try.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for expected in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            let wait = backoff.next_wait().as_millis();
            assert!((expected / 2..=expected).contains(&wait), "{wait} for {expected}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }
}
