//! What must hold at the end of every scenario.

use std::{
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use sculpt_proto::v1::{ListTasksRequest, TaskState};

use super::{Stack, eventually, processes};

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

/// Fails when something lives on, or stands where it should have been tidied away.
pub(super) async fn nothing_left(root: &Path, data: &Path) -> Result<()> {
    let mut left = Vec::new();
    let gone = eventually("every process of the stack to be gone", || {
        left = processes::of(root);
        Ok(left.is_empty().then_some(()))
    })
    .await;
    ensure!(gone.is_ok(), "processes are left over: {left:#?}");
    let sockets = sockets_below(root)?;
    ensure!(sockets.is_empty(), "sockets are left over: {sockets:#?}");
    stray_workspaces(data)
}

fn sockets_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
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
    for workspace in workspaces {
        let name = workspace?.file_name();
        if !executor.join("attempts").join(&name).is_dir() {
            bail!("the workspace {} belongs to no attempt", name.to_string_lossy());
        }
    }
    Ok(())
}
