//! What must hold at the end of every scenario.

use std::{
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use sculpt_proto::v1::{ListTasksRequest, TaskState};

use super::{Stack, processes::Traces, soon};

/// How long what has been told to end may take to be gone.
const GONE: Duration = Duration::from_secs(20);

/// Fails when a task is still queued, running, or waiting for somebody.
pub(super) async fn no_open_task(stack: &Stack) -> Result<()> {
    let mut api = stack.api().await?;
    let request = ListTasksRequest { page_size: 1000, ..Default::default() };
    let tasks = api.tasks.list_tasks(request).await.context("list the tasks")?.into_inner().tasks;
    let open: Vec<String> = tasks
        .iter()
        .filter(|task| !is_over(task.state()))
        .map(|task| format!("{} is {}", task.number, task.state().as_str_name()))
        .collect();
    ensure!(open.is_empty(), "tasks are left over: {}", open.join(", "));
    Ok(())
}

fn is_over(state: TaskState) -> bool {
    use TaskState as S;
    match state {
        S::NeedsReview | S::Accepted | S::Merged | S::Rejected | S::Completed | S::Failed | S::Cancelled | S::Idle => {
            true
        }
        S::Unspecified | S::Queued | S::Starting | S::Running | S::Waiting | S::Paused | S::Limited | S::Lost => false,
    }
}

/// Fails when the executor does not tidy up by itself after the ends of its attempts.
pub(super) async fn tidied(root: &Path, data: &Path, traces: &Traces) -> Result<()> {
    let executor = data.join("executor");
    let places = [executor.join("run"), root.join("run/sculpt")];
    let mut left = Vec::new();
    let tidy = soon(GONE, "the executor to tidy up", || {
        left = cgroups_of(&traces.attempts())?;
        for place in places.iter().filter(|place| place.exists()) {
            left.extend(sockets_below(place)?);
        }
        Ok(left.is_empty().then_some(()))
    })
    .await;
    ensure!(tidy.is_ok(), "not tidied up: {left:#?}");
    Ok(())
}

/// Fails when something lives on, or stands where it should have been tidied away.
pub(super) async fn nothing_left(root: &Path, data: &Path, traces: &Traces) -> Result<()> {
    let mut left = Vec::new();
    let gone = soon(GONE, "every process of the stack to be gone", || {
        left = traces.processes();
        Ok(left.is_empty().then_some(()))
    })
    .await;
    ensure!(gone.is_ok(), "processes are left over: {left:#?}");
    let sockets = sockets_below(root)?;
    ensure!(sockets.is_empty(), "sockets are left over: {sockets:#?}");
    let groups = cgroups_of(&traces.attempts())?;
    ensure!(groups.is_empty(), "cgroups are left over: {groups:#?}");
    stray_workspaces(data)
}

/// Cgroups of these attempts, in every hierarchy.
pub(super) fn cgroups_of(attempts: &[String]) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts").context("list the mounts")?;
    let roots = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup").then(|| PathBuf::from(place).join("sculpt"))
    });
    let all = roots.flat_map(|root| attempts.iter().map(move |attempt| root.join(attempt)));
    Ok(all.filter(|path| path.exists()).collect())
}

fn sockets_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        // What is removed meanwhile holds no socket.
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let entry = entry?;
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_socket() {
                found.push(entry.path());
            } else if kind.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// A workspace is kept with its attempt, and goes with it.
fn stray_workspaces(data: &Path) -> Result<()> {
    let executor = data.join("executor");
    let Ok(workspaces) = fs::read_dir(executor.join("workspaces")) else { return Ok(()) };
    // What is put aside keeps its workspace, under its attempt's name with a number behind it.
    let aside = fs::read_dir(executor.join("quarantine")).into_iter().flatten().flatten();
    let aside: Vec<_> = aside.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    for workspace in workspaces {
        let name = workspace?.file_name().to_string_lossy().into_owned();
        if !executor.join("attempts").join(&name).is_dir() && !aside.iter().any(|kept| kept.starts_with(&name)) {
            bail!("the workspace {name} belongs to no attempt");
        }
    }
    Ok(())
}
