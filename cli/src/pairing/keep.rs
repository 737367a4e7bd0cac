//! Staying connected with an agent: whatever breaks on the way, the agent goes on, and so the connection is made again.

use std::time::Duration;

use sculpt_proto::v1::{Attempt, Task};
use tokio::time::Instant;

use super::{
    Ending, Need, Sat, Standing,
    access::Access,
    open::{Wish, detour, open},
    standing,
    standing::afterwards,
};
use crate::{
    client::{Backoff, Client},
    exit::Exit,
    failure::Failure,
    follow::Watch,
    output::note,
};

/// How often it is tried when it never worked.
const TRIES: u32 = 3;

/// ssh takes itself for let in before anything runs there. A connection counts once it has stood for so long; after so many in
/// a row that did not, another one would not either.
const STANDS: Duration = Duration::from_secs(5);
const SHORT: u32 = 4;

/// How long the end of a task may take to be known after its terminal closed.
const SETTLES: Duration = Duration::from_secs(2);

/// What somebody wants to stay connected with.
pub(crate) struct Kept<'a> {
    pub(crate) client: &'a Client,
    pub(crate) wish: Wish,
    pub(crate) need: Need,
    /// Whether to wait for an agent that is not there yet.
    pub(crate) waits: bool,
    pub(crate) attempted: &'a str,
}

/// How a person and an agent part.
#[derive(Debug)]
pub(crate) enum Parting {
    /// The person has left.
    Left,
    /// The agent has ended; the task as it is now, if that is known yet.
    Ended(Option<Box<Task>>),
}

/// What is done after a connection.
enum Next {
    Part(Parting),
    Again(String),
}

impl Kept<'_> {
    /// Connects by `sit`, again and again, until somebody has left or the agent has ended.
    pub(crate) async fn stay(
        &self,
        mut task: Task,
        mut sit: impl AsyncFnMut(&Access) -> Result<Sat, Failure>,
    ) -> Result<Parting, Failure> {
        let (number, mut backoff, mut tries, mut was_in) = (task.number, Backoff::new(), 0, false);
        let (mut doubted, mut is_new, mut short) = (false, true, 0);
        loop {
            let attempt;
            (task, attempt) = match self.ready(task, std::mem::take(&mut is_new)).await {
                // It ended while nobody was connected.
                Err(Unready::Never(task, _)) if was_in => return Ok(Parting::Ended(Some(task))),
                Err(Unready::Never(_, failure) | Unready::Failed(failure)) => return Err(failure),
                Ok(ready) => ready,
            };
            let next = match open(self.client, (&task, &attempt), self.wish, self.attempted).await {
                Err(failure) if was_in && failure.exit == Exit::OutOfReach => Next::Again(String::new()),
                // It may have ended since it was looked at; how it stands says so.
                Err(failure) if was_in && failure.exit == Exit::Conflict && tries < TRIES => Next::Again(String::new()),
                Err(failure) => return Err(failure),
                Ok(access) => {
                    let begun = Instant::now();
                    let sat = sit(&access).await?;
                    was_in |= sat.was_in;
                    if sat.was_in && begun.elapsed() >= STANDS {
                        (tries, short, doubted) = (0, 0, false);
                        backoff.reset();
                    } else {
                        short += u32::from(sat.was_in);
                    }
                    match sat.ending {
                        // Its certificate may be older than what was changed since.
                        Ending::Refused(Exit::NotAllowed, why) if !doubted => {
                            access.forget();
                            doubted = true;
                            Next::Again(why)
                        }
                        Ending::Refused(exit, why) => return Err(refused(exit, &why, self.attempted)),
                        Ending::Left => Next::Part(Parting::Left),
                        Ending::Closed => self.settled(&task, &attempt).await?,
                        Ending::Broken(why) => {
                            if !sat.was_in {
                                detour(self.client, &access).await;
                            }
                            Next::Again(why)
                        }
                    }
                }
            };
            match next {
                Next::Part(parting) => return Ok(parting),
                Next::Again(why) => {
                    tries += 1;
                    if (!was_in && tries >= TRIES) || short >= SHORT {
                        return Err(Failure::new(Exit::OutOfReach, self.attempted, why)
                            .next(format!("`sculpt show {number}` says whether its executor is there")));
                    }
                    if was_in && !why.is_empty() {
                        note(format!(
                            "task {number}: the connection is lost ({why}); connecting again, Ctrl-C gives up"
                        ));
                    }
                    backoff.pause().await;
                }
            }
        }
    }

    /// Waits until there is an agent; `is_new` says that the task was looked at just now.
    async fn ready(&self, mut task: Task, mut is_new: bool) -> Result<(Task, Attempt), Unready> {
        let number = task.number;
        let mut watch = Watch::new(self.client, number, &task.uuid, false);
        let mut said = String::new();
        loop {
            if !std::mem::take(&mut is_new) {
                task = watch.next().await.map_err(Unready::Failed)?;
            }
            let refusal = |why: String| Failure::new(Exit::Conflict, self.attempted, why);
            match standing(&task, self.need) {
                Standing::Ready(attempt) => {
                    let attempt = attempt.clone();
                    return Ok((task, attempt));
                }
                Standing::Never(why) => {
                    let failure = refusal(why).advised(afterwards(&task));
                    return Err(Unready::Never(Box::new(task), failure));
                }
                Standing::Later(why) if !self.waits => {
                    return Err(Unready::Failed(refusal(why).next("without --no-wait it is waited for")));
                }
                Standing::Later(why) => {
                    let waiting = format!("task {number}: {why}; waiting for its agent");
                    if waiting != said {
                        note(&waiting);
                        said = waiting;
                    }
                }
            }
        }
    }

    /// What a terminal that closed means: the end, or that it is made anew around an agent that goes on.
    async fn settled(&self, task: &Task, attempt: &Attempt) -> Result<Next, Failure> {
        let mut watch = Watch::new(self.client, task.number, &task.uuid, true);
        let until = Instant::now() + SETTLES;
        let mut last = None;
        while let Ok(changed) = tokio::time::timeout_at(until, watch.next()).await {
            let task = changed?;
            if !task.live && Exit::of_state(task.state()).is_some() {
                return Ok(Next::Part(Parting::Ended(Some(Box::new(task)))));
            }
            last = Some(task);
        }
        let goes_on = last.as_ref().is_some_and(
            |task| matches!(standing(task, self.need), Standing::Ready(running) if running.uuid == attempt.uuid),
        );
        let again = || Next::Again("its terminal has closed".to_owned());
        Ok(if goes_on { again() } else { Next::Part(Parting::Ended(last.map(Box::new))) })
    }
}

/// A refusal of a certificate that was fetched just now. SSH has no words for one that is not good yet, or not any more.
fn refused(exit: Exit, why: &str, attempted: &str) -> Failure {
    let failure = Failure::new(exit, attempted, why);
    match why.contains("Permission denied (") {
        true => failure
            .next("a certificate is good for minutes by its executor's clock: see that the machines' clocks agree"),
        false => failure,
    }
}

/// Why there is no agent to connect with.
enum Unready {
    /// There will be none.
    Never(Box<Task>, Failure),
    Failed(Failure),
}
