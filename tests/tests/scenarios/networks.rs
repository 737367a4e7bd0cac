//! Several machines: a controller with an address, executors that nobody can reach, people at machines of their own. What is
//! typed here is what the README says under "On several machines".

pub(crate) mod fleet;

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{Counting, Network, Repo, Stack, eventually, within};

use self::fleet::{EXECUTORS, Fleet, git_log};
use crate::machine::Machine;

/// How long a lock, or a removal, may take to cut off whom it is about.
const CUT: Duration = Duration::from_secs(10);

/// Runs a program on the controller's machine and fails unless that one fails.
fn is_refused(network: &Network, command: &[&str]) -> Result<()> {
    let [program, argument] = network.controller();
    let output = Command::new(program).arg(argument).args(command).output()?;
    ensure!(!output.status.success(), "{command:?} works: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// A task that counts, on this executor alone.
async fn counting(stack: &Stack, executor: &str) -> Result<Counting> {
    stack.counting(&["--pool", executor]).await
}

/// A task on `executor` that changes something, seen on its branch by who asked for it.
async fn changes(fleet: &Fleet, repo: &Repo, executor: &str) -> Result<()> {
    let typed = |line: String| fleet.ada.types(&fleet.stack, &line).dir(repo.path()).run();
    let run = format!("sculpt run -q -d --commit --pool {executor} -- cp README.md made.txt");
    let task = typed(run).await?.done()?.text();
    typed(format!("sculpt wait {task}")).await?.done()?;
    typed(format!("sculpt fetch {task}")).await?.done()?;
    let shown = fleet.stack.show(&task).await?;
    ensure!(shown["executor"] == executor, "{shown:#}");
    let branch = shown["branch"].as_str().with_context(|| format!("a branch in {shown:#}"))?;
    ensure!(repo.git(["show", &format!("{branch}:made.txt")])? == "A project.");
    Ok(())
}

/// Over routers that let nobody in, a commit goes out to each executor and what it made comes back.
#[tokio::test]
async fn a_task_runs_on_each_of_two_executors_that_nobody_can_reach() -> Result<()> {
    let Some(fleet) = Fleet::start(&EXECUTORS).await? else { return Ok(()) };
    is_refused(&fleet.network, &["ip", "route", "get", "192.168.1.2"])?;
    let repo = fleet.stack.repo()?;
    for executor in EXECUTORS {
        changes(&fleet, &repo, executor).await.with_context(|| format!("a task on {executor}"))?;
        let seen = fs::read(git_log(&fleet.stack, executor))?;
        ensure!(String::from_utf8_lossy(&seen).contains("GIT_SSL_KEY="), "no git of {executor} proved who it is");
    }
    fleet.finish().await
}

/// A lock cuts the executor off, its agent goes on, and unlocked it is back without anybody's help. One that is removed does
/// not come back.
#[tokio::test]
async fn a_locked_executor_is_gone_within_10_s_and_so_is_a_removed_one_for_good() -> Result<()> {
    let Some(mut fleet) = Fleet::start(&EXECUTORS).await? else { return Ok(()) };
    let running = counting(&fleet.stack, "build-1").await?;
    fleet.ada("sculpt lock executor build-1 --reason stolen").await?;
    let log = fleet.stack.root().join("build-1.log");
    let told = || Ok(fs::read_to_string(&log)?.contains("locked (stolen)").then_some(()));
    within(CUT, "build-1 to be cut off", eventually("it to be told", told)).await?;
    let shown = fleet.ada("sculpt executor show build-1").await?;
    ensure!(shown.contains("locked (stolen)"), "nobody is told why it is gone: {shown}");
    let found = fleet.stack.until(&running.task, "cut off", |task| task.unreachable).await?;
    ensure!(found.state() == TaskState::Running, "nothing is stopped by a lock: {found:?}");
    running.counter.prints(50).await?;
    running.lives_on()?;
    fleet.ada("sculpt unlock executor build-1").await?;
    running.arrives(&fleet.stack).await?;
    running.ends_well(&fleet.stack).await?;

    fleet.ada("sculpt executor rm build-2").await?;
    let (machine, service) = fleet.executors.pop().context("two executors")?;
    let ended = within(CUT, "build-2 to be cut off", service.gone()).await?;
    ensure!(!ended.success(), "an executor that was removed ends as if all were well");
    let listed = fleet.ada("sculpt executor ls -o json").await?;
    ensure!(!listed.contains("build-2"), "{listed}");
    let log = fs::read_to_string(fleet.stack.root().join("build-2.log"))?;
    ensure!(log.contains("removed"), "{log}");
    drop(machine);
    fleet.finish().await
}

/// Who has a role in one project sees that project and nothing else, from a machine of their own.
#[tokio::test]
async fn a_second_user_sees_the_project_of_their_role_alone() -> Result<()> {
    let Some(mut fleet) = Fleet::start(&[]).await? else { return Ok(()) };
    let (theirs, other) = (fleet.stack.empty_repo("theirs")?, fleet.stack.empty_repo("other")?);
    let mut tasks = Vec::new();
    // Two that begin with the same commit would be one project.
    for (repo, readme) in [(&theirs, "Theirs.\n"), (&other, "Another one.\n")] {
        repo.commit("README.md", readme)?;
        let line = "sculpt run -q -d -- true";
        let task = fleet.ada.types(&fleet.stack, line).dir(repo.path()).run().await?.done()?.text();
        // Nobody is there to run it.
        fleet.ada(&format!("sculpt stop {task}")).await?;
        tasks.push(task);
    }
    let bob = Machine::new(&fleet.stack, fleet.network.beside()?, "bob")?;
    fleet.ada("sculpt admin user add bob --role viewer@theirs").await?;
    let token = fleet.ada("sculpt token create --user bob --ttl 1h").await?;
    let login = format!("sculpt login {}", fleet.stack.url()?);
    fleet.stack.token_made(&token)?;
    bob.types(&fleet.stack, &login).stdin(token).run().await?.done()?;

    let listed = bob.types(&fleet.stack, "sculpt ls -o json").run().await?.done()?.json()?;
    let numbers: Vec<String> =
        listed.as_array().context("a list")?.iter().map(|task| task["number"].to_string()).collect();
    ensure!(numbers == [tasks[0].clone()], "{listed:#}");
    let projects = bob.types(&fleet.stack, "sculpt project ls -o json").run().await?.done()?.json()?;
    ensure!(projects.as_array().is_some_and(|all| all.len() == 1 && all[0]["name"] == "theirs"), "{projects:#}");
    bob.types(&fleet.stack, &format!("sculpt show {}", tasks[0])).run().await?.done()?;
    bob.types(&fleet.stack, &format!("sculpt show {}", tasks[1])).run().await?.exits(6)?;
    bob.types(&fleet.stack, &format!("sculpt logs {}", tasks[1])).run().await?.exits(6)?;
    // To look is not to touch.
    bob.types(&fleet.stack, &format!("sculpt retry {}", tasks[0])).run().await?.exits(77)?;
    bob.types(&fleet.stack, "sculpt executor token").run().await?.exits(77)?;
    bob.types(&fleet.stack, "sculpt lock executor build-1").run().await?.exits(77)?;
    fleet.finish().await
}
