//! A person who uses the stack while it is being harmed: creates a task, looks at it, perhaps sits down beside its agent,
//! perhaps stops it, perhaps tries again.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};

use super::{Deeds, Plan, World};
use crate::harness::{Dice, Output};

/// Prints numbered lines and notes each in its own account, commits, exits as told.
const SCRIPT: &str = r#"
n=0
while [ $n -lt "$2" ]; do
    n=$((n + 1))
    echo "line $n"
    echo "line $n" >> "$1/$SCULPT_ATTEMPT"
    sleep "$3"
done
if [ "$4" = commit ]; then
    echo "$SCULPT_ATTEMPT" > made.txt && git add made.txt && git commit -q -m Made
fi
exit "$5"
"#;

/// Longest life of one command: outages are waited out by the command itself, or by asking again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What somebody wants of one task.
pub(super) struct Person {
    pub(super) title: String,
    pub(super) plan: Plan,
    follows: bool,
    sits: bool,
    stops_after: Option<Duration>,
    retries: bool,
}

impl Person {
    /// Number `number`, with wishes by the dice.
    pub(super) fn new(number: u64, dice: &mut Dice) -> Self {
        let plan = Plan {
            lines: dice.between(5, 80),
            pace: dice.between(10, 60),
            exit: if dice.chance(0.25) { 3 } else { 0 },
            commits: dice.chance(0.35),
            tty: dice.chance(0.5),
        };
        Self {
            title: format!("plan {number}"),
            plan,
            follows: dice.chance(0.3),
            sits: dice.chance(0.3),
            stops_after: dice.chance(0.15).then(|| dice.pause(50, 4000)),
            retries: dice.chance(0.5),
        }
    }

    /// Lives until the task is over for good.
    pub(super) async fn live(self, world: Arc<World>) -> Result<()> {
        world.deed(|deeds| deeds.plans.insert(self.title.clone(), self.plan.clone()));
        let Some(task) = self.create(&world).await? else { return Ok(()) };
        let follower = self.follows.then(|| tokio::spawn(follow(Arc::clone(&world), task.clone())));
        let sits = self.sits && self.plan.tty;
        let seat = if sits { Some(world.stack.lock().await.terminal(&["pair", &task])?) } else { None };
        if let Some(pause) = self.stops_after {
            tokio::time::sleep(pause).await;
            self.intend(&world, |deeds, title| deeds.stopped.insert(title));
            world.sculpt(["stop", &task]).await?;
        }
        let code = wait(&world, &task).await?;
        // Whatever broke meanwhile, they are there to the end, or were told why not, and nobody has to help them away.
        if let Some(seat) = seat {
            seat.ends().await.with_context(|| format!("who sat beside task {task}"))?;
        }
        if let Some(follower) = follower {
            follower.await??;
        }
        if code == 1 && self.retries {
            self.intend(&world, |deeds, title| *deeds.retried.entry(title).or_default() += 1);
            world.sculpt(["retry", &task]).await?;
            wait(&world, &task).await?;
        }
        Ok(())
    }

    /// The number of the task; none when nobody answered, and then it may be there or not.
    async fn create(&self, world: &World) -> Result<Option<String>> {
        let plan = &self.plan;
        let (lines, pace, exit) = (plan.lines.to_string(), format!("0.{:03}", plan.pace), plan.exit.to_string());
        let mut words = vec!["run", "-q", "-d", "--title", &self.title];
        words.extend((!plan.tty).then_some("--no-tty"));
        words.extend((!plan.commits).then_some("--no-repo"));
        let work = if plan.commits { "commit" } else { "print" };
        words.extend(["--", "sh", "-c", SCRIPT, "person", &world.account, &lines, &pace, work, &exit]);
        let output = world.sculpt(words).await?;
        Ok((output.code == 0).then(|| output.text()))
    }

    /// Before it is asked for: whether the question arrives is not known when nobody answers.
    fn intend<T>(&self, world: &World, write: impl FnOnce(&mut Deeds, String) -> T) {
        world.deed(|deeds| write(deeds, self.title.clone()));
    }
}

/// Waits for the end of `task` as often as it takes, and gives the exit code.
async fn wait(world: &World, task: &str) -> Result<i32> {
    loop {
        let output: Output = world.sculpt(["wait", task, "--timeout", "30s"]).await?;
        match output.code {
            // Time is up, or nobody answers: ask again.
            69 | 124 | -1 => tokio::time::sleep(Duration::from_millis(200)).await,
            code => return Ok(code),
        }
    }
}

/// Follows the log to its end; what it shows is compared by the checker.
async fn follow(world: Arc<World>, task: String) -> Result<()> {
    let follow = world.prepare(["logs", "-f", &task]).await.follow()?;
    // An attempt that is stopped before it began has no log to follow.
    let _ended = tokio::time::timeout(4 * PATIENCE, follow.rest()).await;
    Ok(())
}

impl World {
    /// Runs `sculpt` to its end; only what is wrong with the program itself is an error.
    async fn sculpt<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        self.prepare(words).await.deadline(PATIENCE).run().await
    }
}
