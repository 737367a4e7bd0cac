//! Room: executors and controllers close before their disks are full, people see what takes space, and nobody who is slow
//! or silent makes memory grow. Mounting needs root.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sculpt_proto::v1::{GetInfoRequest, ReadLogRequest, WatchEventsRequest};
use sculpt_tests::harness::{Disk, Stack, eventually, within};
use tokio::{io::AsyncReadExt as _, net::TcpSocket};

/// How long a level may take to be noticed, at both ends.
const NOTICED: Duration = Duration::from_secs(60);

/// Waits until the command line's answer holds `text`.
async fn says(stack: &Stack, arguments: &[&str], text: &str) -> Result<()> {
    within(NOTICED, &format!("{arguments:?} to say {text:?}"), async {
        while !stack.sculpt(arguments.iter().copied()).run().await?.text().contains(text) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_executor_whose_disk_is_nearly_full_takes_no_work_and_says_so() -> Result<()> {
    let Some((disk, stack)) = Disk::under("executor", 64).await? else { return Ok(()) };
    stack.done(&stack.detached(stack.root(), ["--no-repo", "--", "true"]).await?).await?;
    disk.fill(8 << 20)?;
    says(&stack, &["executor", "ls"], "closed").await?;
    let waiting = stack.detached(stack.root(), ["--no-repo", "--", "true"]).await?;
    let shown = stack.sculpt(["show", &waiting]).run().await?.done()?.text();
    ensure!(shown.contains("disk is nearly full"), "a queued task says why it waits: {shown}");
    let doctor = stack.sculpt(["doctor"]).run().await?.text();
    ensure!(doctor.contains("takes no new work") && doctor.contains("executor gc"), "{doctor}");
    disk.relieve()?;
    let done = stack.done(&waiting).await?;
    ensure!(done["state"] == "completed", "it goes on by itself: {done:#}");
    stack.finish().await
}

#[tokio::test]
async fn a_dry_run_lists_what_then_goes() -> Result<()> {
    let stack = Stack::options().settings("keep_workspaces = '1h'").parts().await?;
    let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", "echo kept > file"]).await?;
    stack.done(&task).await?;
    let workspaces = stack.data().join("executor/workspaces");
    let there = || Ok::<_, anyhow::Error>(fs::read_dir(&workspaces)?.count());
    ensure!(there()? == 1, "a finished workspace is kept for a retry");
    let gc = |arguments: &'static [&'static str]| {
        let all = ["executor", "gc", "-o", "json"].into_iter().chain(arguments.iter().copied());
        let command = stack.sculpt(all);
        async move { command.run().await?.done()?.json() }
    };
    let going = |plan: &serde_json::Value| {
        let lines = plan.as_array().cloned().unwrap_or_default();
        lines.into_iter().filter(|line| line["action"] == "remove").collect::<Vec<_>>()
    };
    ensure!(going(&gc(&[]).await?).is_empty(), "what is young stays");
    // The attempt's shim goes within moments of its end; until then somebody may be in its terminal.
    let planned = within(NOTICED, "the workspace to be free", async {
        loop {
            let plan = gc(&["--dry-run", "--all"]).await?;
            if !going(&plan).is_empty() {
                return Ok(plan);
            }
        }
    })
    .await?;
    ensure!(there()? == 1, "a dry run removes nothing");
    let line = &going(&planned)[0];
    ensure!(line["kind"] == "workspace" && line["task"] == task.parse::<u64>()?, "{planned:#}");
    ensure!(line["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{planned:#}");
    let done = gc(&["--all"]).await?;
    ensure!(done == planned, "what was said is what was done: {planned:#} {done:#}");
    ensure!(there()? == 0);
    stack.finish().await
}

#[tokio::test]
async fn what_was_made_on_a_disk_that_is_full_at_the_end_is_published_once_there_is_room() -> Result<()> {
    let Some((disk, stack)) = Disk::under("executor", 64).await? else { return Ok(()) };
    let repo = stack.repo()?;
    let gate = stack.root().join("gate");
    let path = gate.to_string_lossy();
    let script = r#"head -c 6000000 /dev/urandom > big; git add big; git commit -qm big; echo made
        while [ ! -e "$1" ]; do sleep 0.02; done"#;
    let task = stack.detached(repo.path(), ["--", "sh", "-c", script, "x", &path]).await?;
    stack.log_until(&task, "the commit to be made", |log| log.starts_with(b"made")).await?;
    disk.fill(1 << 20)?;
    fs::write(&gate, "")?;
    says(&stack, &["show", &task], "the executor's disk is full").await?;
    disk.relieve()?;
    let done = stack.done(&task).await?;
    ensure!(done["state"] == "needs_review" && done["head"].is_string(), "{done:#}");
    stack.finish().await
}

#[tokio::test]
async fn a_controller_whose_disk_fills_closes_then_refuses_and_opens_again() -> Result<()> {
    let Some((disk, stack)) = Disk::under("controller", 400).await? else { return Ok(()) };
    let counter = stack.counter()?;
    let command = counter.command();
    let all = ["--no-repo", "--"].into_iter().chain(command.iter().map(String::as_str));
    let running = stack.detached(stack.root(), all).await?;
    counter.prints(20).await?;

    // What the reserve is for: Postgres goes on, log bytes wait on the executor's disk.
    disk.fill(24 << 20)?;
    says(&stack, &["doctor"], "log bytes and packs are not taken").await?;
    let waiting = stack.detached(stack.root(), ["--no-repo", "--", "true"]).await?;
    let shown = stack.sculpt(["show", &waiting]).run().await?.done()?.text();
    ensure!(shown.contains("the controller's disk is"), "a queued task says why it waits: {shown}");
    counter.prints(200).await?;
    ensure!(disk.free()? > 0, "the disk was never full");
    let mut api = stack.api().await?;
    let checks = api.system.get_info(GetInfoRequest {}).await?.into_inner().checks;
    ensure!(checks.iter().any(|check| check.name == "database" && check.ok), "{checks:#?}");

    disk.relieve()?;
    let printed = counter.prints(20).await?;
    let last = format!("line {printed}");
    let arrived = |log: &[u8]| String::from_utf8_lossy(log).lines().any(|line| line == last);
    stack.log_until(&running, "what was printed meanwhile", arrived).await?;
    counter.stop()?;
    stack.done(&running).await?;
    counter.check(&stack.logs(&running).await?)?;
    stack.done(&waiting).await?;
    stack.finish().await
}

/// Resident memory of the controller, in KiB.
fn resident(stack: &Stack) -> Result<u64> {
    let found = stack.processes("sculpt-controller");
    let process = found.iter().find(|process| process.command.contains("serve")).context("the controller")?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    line.trim().trim_end_matches(" kB").trim().parse().context("read VmRSS")
}

#[tokio::test]
async fn followers_that_read_nothing_cost_no_memory_and_hold_nobody_up() -> Result<()> {
    let stack = Stack::parts().await?;
    let script = "head -c 60000000 /dev/zero | tr '\\0' x";
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "sh", "-c", script]).await?;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut api = stack.api().await?;
        let request = ReadLogRequest { task: task.clone(), attempt: 0, from_offset: 0, follow: true };
        let log = api.logs.read_log(request).await?;
        let events = api.events.watch_events(WatchEventsRequest::default()).await?;
        stuck.push((api, log, events));
    }
    stack.done(&task).await?;
    ensure!(stack.logs(&task).await?.len() == 60_000_000, "others read on");
    let peak = resident(&stack)?;
    // Twenty readers of 60 MB each; what may stand in memory of each is its window and one read of the log.
    ensure!(peak < 400 << 10, "the controller takes {peak} KiB with {} readers that read nothing", stuck.len());
    drop(stuck);
    stack.finish().await
}

#[tokio::test]
async fn clients_that_say_nothing_whole_are_cut_while_executors_and_people_are_served() -> Result<()> {
    let stack = Stack::parts().await?;
    let people = stack.url()?.trim_start_matches("https://").to_owned();
    let executors = stack.executor_address()?;
    let mut silent = Vec::new();
    for n in 0..300_u16 {
        let address = if n % 2 == 0 { people.as_str() } else { executors.as_str() };
        // From several hosts: one alone would not get so many.
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 2 + (n % 6) as u8], 0)))?;
        silent.push(socket.connect(address.parse()?).await?);
    }
    let task = stack.detached(stack.root(), ["--no-repo", "--", "true"]).await?;
    stack.done(&task).await?;
    within(Duration::from_secs(40), "every silent connection to be cut", async {
        for stream in &mut silent {
            let mut byte = [0];
            let _reset = stream.read(&mut byte).await;
        }
        Ok(())
    })
    .await?;
    let found = stack.processes("sculpt-controller");
    let process = found.iter().find(|process| process.command.contains("serve")).context("the controller")?;
    let descriptors = format!("/proc/{}/fd", process.pid);
    eventually("their descriptors to be given back", || Ok((fs::read_dir(&descriptors)?.count() < 200).then_some(())))
        .await?;
    stack.finish().await
}
