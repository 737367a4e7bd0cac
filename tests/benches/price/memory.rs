//! Memory at rest: what stays in memory while agents wait. Proportional set sizes, so that shared pages count once.

use anyhow::{Context as _, Result};
use procfs::process::Process;
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::Stack;

use crate::{report::Row, samples::Samples};

/// Idle attempts.
const ATTEMPTS: usize = 4;

pub(crate) async fn measure(stack: &Stack) -> Result<Vec<Row>> {
    let before = Memory::of(stack);
    let mut tasks = Vec::new();
    for _ in 0..ATTEMPTS {
        tasks.push(stack.detached(stack.root(), ["--no-repo", "--", "sleep", "1d"]).await?);
    }
    for task in &tasks {
        stack.until(task, "it runs", |task| task.state() == TaskState::Running).await?;
    }
    let with = Memory::of(stack);
    for task in &tasks {
        stack.sculpt(["stop", task]).run().await?.done()?;
    }
    stack.sculpt(std::iter::once("wait").chain(tasks.iter().map(String::as_str))).run().await?.exits(4)?;
    let row = |name, mebibytes: f64| {
        let ours = Samples::of([mebibytes]).context("one sample")?;
        Ok::<_, anyhow::Error>(Row { name, unit: "MiB", ours, reference: None, bound: None })
    };
    let each = 1.0 / ATTEMPTS as f64;
    Ok(vec![
        row("memory at rest: controller", before.controller)?,
        row("memory at rest: Postgres", before.postgres)?,
        row("memory at rest: executor", before.executor)?,
        row("memory of an idle attempt: shim", with.shims * each)?,
        row("memory of an idle attempt: tmux and view", with.views * each)?,
        row("memory of an idle attempt: in the executor", (with.executor - before.executor) * each)?,
    ])
}

/// In MiB, by who holds it.
#[derive(Debug, Default)]
struct Memory {
    controller: f64,
    postgres: f64,
    executor: f64,
    shims: f64,
    views: f64,
}

impl Memory {
    fn of(stack: &Stack) -> Self {
        let mut memory = Self::default();
        for found in stack.processes("") {
            // What ends while it is looked at holds nothing.
            let Ok(mebibytes) = Process::new(found.pid).and_then(|process| proportional(&process)) else { continue };
            let command = &found.command;
            let holder = if command.contains("shim attach") || found.name.starts_with("tmux") {
                &mut memory.views
            } else if command.contains("shim run") {
                &mut memory.shims
            } else if found.name.starts_with("postgres") {
                &mut memory.postgres
            } else if command.contains("sculpt-controller") {
                &mut memory.controller
            } else if command.contains("sculpt-executor") {
                &mut memory.executor
            } else {
                continue;
            };
            *holder += mebibytes;
        }
        memory
    }
}

fn proportional(process: &Process) -> procfs::ProcResult<f64> {
    let maps = process.smaps_rollup()?.memory_map_rollup;
    let bytes: u64 = maps.iter().filter_map(|map| map.extension.map.get("Pss")).sum();
    Ok(bytes as f64 / f64::from(1 << 20))
}
