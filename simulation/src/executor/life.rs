//! One attempt's life, as `attempts::life` of the executor drives it: look where it stands, do the next thing, look again.

use std::time::Duration;

use sculpt_executor::{
    attempts::{Link, News},
    report::{Cause, Ended, Exit, Failure, Outcome, Step},
    session::Wish,
    shim::Lease,
    spec::{Spec, digest},
};
use sculpt_proto::{
    executor::v1::{GetSpecRequest, PublishRequest, publish_request},
    id::AttemptId,
};
use tokio::sync::watch;
use tonic::{Code, Status};

use super::{
    machine::Found,
    roster::{Attempts, GRACE, Handle},
};
use crate::witness::Ending;

pub(super) async fn run(attempts: Attempts, attempt: AttemptId, handle: Handle, digest: Option<Vec<u8>>) {
    let work = live(&attempts, attempt, &handle, digest);
    tokio::select! {
        biased;
        () = handle.abandoned.cancelled() => attempts.forget(attempt).await,
        lives = Box::pin(work) => if !lives {
            attempts.forget(attempt).await;
        },
    }
}

/// False when it never began.
async fn live(attempts: &Attempts, attempt: AttemptId, handle: &Handle, digest: Option<Vec<u8>>) -> bool {
    if attempts.machine.record(attempt).is_none() && !fetch(attempts, attempt, &digest.unwrap_or_default()).await {
        return false;
    }
    let Some(spec) = attempts.spec(attempt) else { return false };
    // The session is gone only when everything ends.
    let _ending = attempts.context.news.send(News::Present(attempt)).await;
    let life = Life { attempts, attempt, spec, handle };
    while life.step().await {}
    true
}

/// Fetches the spec and writes it down; false when the controller does not give it.
async fn fetch(attempts: &Attempts, attempt: AttemptId, expected: &[u8]) -> bool {
    let context = &attempts.context;
    let mut backoff = context.dialer.backoff(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let Link { epoch, .. } = session(attempts).await;
        let executor_id = context.executor.to_string();
        let request = GetSpecRequest { executor_id, epoch, attempt_id: attempt.to_string() };
        let answer = match context.dialer.dial().await {
            Ok(mut client) => client.get_spec(request).await,
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        match answer {
            Ok(response) => {
                let spec = response.into_inner().spec;
                if digest(&spec) != expected {
                    attempts.world.wrong(format_args!("{attempt}: the spec has another digest than was announced"));
                    return false;
                }
                tokio::time::sleep(attempts.world.dice.millis(0..20)).await;
                attempts.machine.write_spec(attempt, spec);
                return true;
            }
            Err(status) if refuses(status.code()) => return false,
            Err(_) => backoff.wait().await,
        }
    }
}

/// Whether asking again would bring the same answer.
fn refuses(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition)
}

/// Asked for now and then: of several who wait for one signal chance wakes one first, and no seed decides it.
async fn session(attempts: &Attempts) -> Link {
    loop {
        let link = *attempts.context.link.borrow();
        match link {
            Some(link) => return link,
            None => attempts.pause().await,
        }
    }
}

/// Resolves when the wish is at least `least`.
async fn wished(mut wish: watch::Receiver<Wish>, least: Wish) {
    if wish.wait_for(|wish| *wish >= least).await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct Life<'a> {
    attempts: &'a Attempts,
    attempt: AttemptId,
    spec: Spec,
    handle: &'a Handle,
}

impl Life<'_> {
    /// Does the next thing; false when nothing is left to do.
    async fn step(&self) -> bool {
        let record = self.attempts.machine.record(self.attempt);
        let last = record.as_ref().and_then(|record| record.last_step().cloned());
        let same_boot = self.attempts.machine.same_boot(self.attempt);
        match (last, self.attempts.machine.look(self.attempt)) {
            (Some(Step::Ended(_)), _) => {
                self.attempts.context.log_growth.notify_one();
                return false;
            }
            (last, Found::Recorded(ending)) => self.finish(last, ending).await,
            (last, Found::Vanished) => {
                if same_boot {
                    self.attempts.world.wrong(format_args!("{} vanished without a reboot", self.attempt));
                }
                self.finish(last, Ending::Rebooted).await;
            }
            (last, Found::Alive) => self.attend(last).await,
            (last, Found::Never) => self.prepare(last).await,
        }
        true
    }

    async fn record(&self, step: Step) {
        self.attempts.record(self.attempt, step).await;
    }

    fn wished(&self) -> Wish {
        *self.handle.wish.borrow()
    }

    async fn prepare(&self, last: Option<Step>) {
        if last.is_none() {
            self.record(Step::Accepted).await;
        }
        if !matches!(last, Some(Step::Preparing)) {
            self.record(Step::Preparing).await;
        }
        tokio::time::sleep(self.attempts.world.dice.millis(0..3_000)).await;
        let lease = self.lease().await;
        let outcome = match self.wished() {
            Wish::Run | Wish::Hold => return self.attempts.machine.launch(self.attempt, lease),
            Wish::Stop => Outcome::Cancelled,
            Wish::Fence => Outcome::Fenced,
        };
        self.record(Step::Ended(Ended { outcome, exit: Exit::default(), log_length: 0, head: None })).await;
    }

    /// Waits for a lease that has not run out, or for the end of it all.
    async fn lease(&self) -> Option<Lease> {
        let lasts = self.spec.lease?;
        let wish = self.handle.wish.subscribe();
        loop {
            let confirmed = *self.attempts.context.lease.borrow();
            if let Some(lease) = confirmed.map(|confirmed| Lease { confirmed, lasts })
                && self.attempts.machine.boottime() < lease.ends()
            {
                return Some(lease);
            }
            tokio::select! {
                biased;
                () = wished(wish.clone(), Wish::Stop) => return None,
                () = self.attempts.pause() => {}
            }
        }
    }

    async fn attend(&self, last: Option<Step>) {
        if !matches!(last, Some(Step::Running { .. })) {
            self.record(Step::Running { pid: 7, tmux_socket: String::new() }).await;
        }
        let Some(mut news) = self.attempts.machine.follow(self.attempt) else { return };
        let mut wish = self.handle.wish.subscribe();
        self.attempts.context.log_growth.notify_one();
        loop {
            match self.wished() {
                Wish::Run | Wish::Hold => {}
                Wish::Stop => self.attempts.machine.stop(self.attempt, GRACE, Ending::Stopped),
                Wish::Fence => self.attempts.machine.stop(self.attempt, GRACE, Ending::Fenced),
            }
            tokio::select! {
                biased;
                told = news.changed() => {
                    self.attempts.context.log_growth.notify_one();
                    if told.is_err() {
                        return;
                    }
                }
                // Its sender lives as long as the executor.
                changed = wish.changed() => drop(changed),
                () = self.attempts.pause() => {
                    let confirmed = *self.attempts.context.lease.borrow();
                    if let Some(confirmed) = confirmed {
                        self.attempts.machine.renew(self.attempt, confirmed);
                    }
                }
            }
        }
    }

    async fn finish(&self, last: Option<Step>, ending: Ending) {
        let exit = match ending {
            Ending::Itself(code) => Exit { code: Some(code), signal: None },
            Ending::Stopped | Ending::Fenced | Ending::Lease => Exit { code: None, signal: Some(15) },
            Ending::Rebooted => Exit::default(),
        };
        if !matches!(last, Some(Step::Running { .. } | Step::Finalizing { .. })) {
            if last.is_none() {
                self.record(Step::Accepted).await;
            }
            if !matches!(last, Some(Step::Preparing)) {
                self.record(Step::Preparing).await;
            }
            self.record(Step::Running { pid: 0, tmux_socket: String::new() }).await;
        }
        if !matches!(last, Some(Step::Finalizing { .. })) {
            self.record(Step::Finalizing { exit }).await;
        }
        let head = tokio::select! {
            biased;
            () = wished(self.handle.wish.subscribe(), Wish::Fence) => None,
            head = Box::pin(publish(self.attempts, self.attempt)) => head,
        };
        let failed = |cause, message: &str| Outcome::Failed(Failure::new(cause, message));
        let outcome = match (self.wished(), ending) {
            (Wish::Fence, _) | (_, Ending::Fenced) => Outcome::Fenced,
            (_, Ending::Itself(0)) => Outcome::Completed,
            (_, Ending::Itself(_)) => failed(Cause::AgentExit, "it exited with another code than 0"),
            (_, Ending::Stopped) => Outcome::Cancelled,
            (_, Ending::Lease) => failed(Cause::ExecutorLost, "its lease ran out"),
            (_, Ending::Rebooted) => failed(Cause::Interrupted, "the host was rebooted"),
        };
        let log_length = self.attempts.machine.record(self.attempt).map_or(0, |record| record.spool.len() as u64);
        self.record(Step::Ended(Ended { outcome, exit, log_length, head })).await;
    }
}

/// The head that the controller took; none when it takes none.
pub(super) async fn publish(attempts: &Attempts, attempt: AttemptId) -> Option<String> {
    let head = format!("{:040x}", attempt.0.as_u128());
    let context = &attempts.context;
    let mut backoff = context.dialer.backoff(Duration::from_millis(200), Duration::from_secs(15));
    loop {
        let Link { epoch, .. } = session(attempts).await;
        let header = publish_request::Header {
            executor_id: context.executor.to_string(),
            epoch,
            attempt_id: attempt.to_string(),
            head: head.clone(),
            ..publish_request::Header::default()
        };
        let request = PublishRequest { part: Some(publish_request::Part::Header(header)) };
        let answer = match context.dialer.dial().await {
            Ok(mut client) => client.publish(tokio_stream::once(request)).await,
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        match answer {
            Ok(response) => return Some(response.into_inner().head),
            Err(status) if status.code() == Code::FailedPrecondition => return None,
            Err(_) => backoff.wait().await,
        }
    }
}
