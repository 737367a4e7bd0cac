//! An executor that stays away: what is shown, what goes on by itself, what another executor takes over, and when.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{Counting, DEADLINE, Repo, Service, Stack, eventually, within};

/// Commits, then says every 50 ms that it lives, by the clock that no suspension stops: `ATTEMPT SECONDS`.
const SCRIPT: &str = r#"
git commit -q --allow-empty -m "by $SCULPT_ATTEMPT"
echo begun
while [ ! -e "$1/stop" ]; do
    read up _ < /proc/uptime
    echo "$SCULPT_ATTEMPT $up" >> "$1/alive"
    sleep 0.05
done
"#;

/// A task whose agents witness when they live.
struct Witnessed {
    task: String,
    place: PathBuf,
}

impl Witnessed {
    async fn start(stack: &Stack, repo: &Repo, on_lost: &[&str]) -> Result<Self> {
        let place = stack.fresh("witnessed");
        fs::create_dir_all(&place)?;
        let path = place.to_string_lossy();
        let arguments = on_lost.iter().copied().chain(["--no-tty", "--", "sh", "-c", SCRIPT, "x", &path]);
        let task = stack.detached(repo.path(), arguments).await?;
        let witnessed = Self { task, place };
        stack.until(&witnessed.task, "running", |task| task.state() == TaskState::Running).await?;
        witnessed.lives(&stack.attempt_of(&witnessed.task).await?).await?;
        Ok(witnessed)
    }

    /// First and last second at which each attempt said that it lives, in the order of their first words.
    fn lives_of_attempts(&self) -> Result<Vec<(String, f64, f64)>> {
        let mut lives: Vec<(String, f64, f64)> = Vec::new();
        for line in fs::read_to_string(self.place.join("alive")).unwrap_or_default().lines() {
            let (attempt, second) = line.split_once(' ').context("an attempt and a second")?;
            let second = second.parse()?;
            match lives.iter_mut().find(|(known, ..)| known == attempt) {
                Some((_, _, last)) => *last = second,
                None => lives.push((attempt.to_owned(), second, second)),
            }
        }
        Ok(lives)
    }

    /// Waits until `attempt` says that it lives, once more if it has said so before.
    async fn lives(&self, attempt: &str) -> Result<()> {
        let last = |lives: Vec<(String, f64, f64)>| lives.into_iter().find(|life| life.0 == attempt).map(|life| life.2);
        let before = last(self.lives_of_attempts()?);
        let what = format!("attempt {attempt} to live");
        eventually(&what, || Ok(last(self.lives_of_attempts()?).filter(|now| Some(*now) != before).map(drop))).await
    }

    fn stop(&self) -> Result<()> {
        fs::write(self.place.join("stop"), "").context("stop the agent")
    }
}

/// One executor dies for minutes with three tasks on it, each with another wish for that case.
#[tokio::test]
async fn an_executor_stays_away_beyond_lost_after() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let repo = stack.repo()?;
    let waits = stack.counting(&["--lost-after", "1s"]).await?;
    let fails = stack.counting(&["--lost-after", "1s", "--on-lost", "fail"]).await?;
    let retries = Witnessed::start(&stack, &repo, &["--lost-after", "1s", "--on-lost", "retry"]).await?;
    let first = stack.attempt_of(&retries.task).await?;
    let spare = stack.another_executor(&stack.data().join("spare"), "spare").await?;
    stack.executor()?.kill().await?;

    // Shown, and nothing is stopped that may go on.
    stack.until(&waits.task, "lost", |task| task.state() == TaskState::Lost && task.unreachable).await?;
    waits.counter.prints(10).await?;
    // The shim alone, by its own clock, ends the one that is to be replaced.
    let mut last = f64::NAN;
    eventually("the first attempt to be ended by its shim", || {
        let now = retries.lives_of_attempts()?.first().context("the first attempt has lived")?.2;
        let quiet = (now - std::mem::replace(&mut last, now)).abs() < f64::EPSILON;
        let up: f64 = fs::read_to_string("/proc/uptime")?.split(' ').next().context("the uptime")?.parse()?;
        Ok((quiet && up - now > 2.0).then_some(()))
    })
    .await?;

    // Only then, and a margin later, does another executor begin.
    let replaced = |task: &sculpt_proto::v1::Task| task.attempts.len() == 2 && task.state() == TaskState::Running;
    within(2 * DEADLINE, "a second attempt", stack.until(&retries.task, "a second attempt", replaced)).await?;
    let second = stack.attempt_of(&retries.task).await?;
    retries.lives(&second).await?;
    let lives = retries.lives_of_attempts()?;
    let [(one, _, until), (other, from, _)] = lives.as_slice() else { anyhow::bail!("two attempts, not {lives:?}") };
    ensure!((one, other) == (&first, &second), "{lives:?}");
    ensure!(from - until > 30.0, "the second attempt began {} s after the first", from - until);
    stack.sculpt(["wait", &fails.task]).run().await?.exits(1)?;
    ensure!(stack.show(&fails.task).await?["cause"] == "executor_lost");
    fails.counter.prints(5).await.context("a task that failed by its executor's absence is not ended by a clock")?;

    back_again(stack, &repo, waits, fails, (retries, &first), spare).await
}

/// The executor is back: what waited goes on, what was given up ends there, and what is stale reaches nobody.
async fn back_again(
    mut stack: Stack,
    repo: &Repo,
    waits: Counting,
    fails: Counting,
    (retries, first): (Witnessed, &str),
    spare: Service,
) -> Result<()> {
    stack.start_executor().await?;
    stack.until(&waits.task, "running again", |task| task.state() == TaskState::Running && !task.unreachable).await?;
    waits.arrives(&stack).await?;
    waits.ends_well(&stack).await?;
    eventually("the agent of the failed task to be ended", || Ok(fails.is_gone().then_some(()))).await?;
    ensure!(stack.show(&fails.task).await?["cause"] == "executor_lost", "an end is told once");
    let second = stack.attempt_of(&retries.task).await?;
    retries.lives(&second).await?;
    retries.stop()?;
    let shown = stack.done(&retries.task).await?;
    ensure!(shown["state"] == "needs_review" && shown["attempt"] == 2, "{shown:#}");
    let head = shown["head"].as_str().context("a head")?;
    stack.sculpt(["fetch", &retries.task]).dir(repo.path()).run().await?.done()?;
    let said = stack.shell("git", ["log", "-1", "--format=%s", head]).dir(repo.path()).run().await?.done()?.text();
    ensure!(said == format!("by {second}"), "the published commit is {said:?}");
    ensure!(retries.lives_of_attempts()?.len() == 2);
    // What only the stale attempt has committed reaches nobody by itself, and is thrown away by nobody but people.
    let kept = stack.executor_data().join("workspaces").join(first);
    let log = stack.shell("git", ["log", "-1", "--format=%s"]).dir(&kept).run().await?.done()?.text();
    ensure!(log == format!("by {first}"), "the stale attempt's workspace has {log:?}");
    fs::remove_dir_all(&kept)?;
    stack.check().await?;
    spare.end(Signal::TERM, DEADLINE).await?;
    stack.finish().await
}
