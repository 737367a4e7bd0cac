//! `sculpt attach`: the attempt's tmux, on the machine where it runs.

use std::{
    env,
    io::{self, IsTerminal as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
    time::Duration,
};

use sculpt_proto::v1::{Attempt, GetExecutorRequest, Task};
use tokio::{process::Command, time::Instant};

use super::task_named;
use crate::{
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    follow::{Watch, outcome},
    git::repository::hostname,
    output::{note, tasks::current},
    up::sibling,
};

/// How long a terminal that was announced may take to be there.
const APPEARS: Duration = Duration::from_secs(10);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(50);
/// Exit code of the executor's program when the terminal closed.
const CLOSED: i32 = 10;
/// How long the end of a task may take to be known after its terminal closed.
const SETTLES: Duration = Duration::from_secs(2);

pub(super) async fn run(name: &str) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let attempted = format!("attach to task {name}");
    let task = task_named(&client, name, &attempted).await?;
    let (number, uuid) = (task.number, task.uuid.clone());
    let socket = tokio::select! {
        socket = socket(&client, task, &attempted) => socket?,
        _ = tokio::signal::ctrl_c() => {
            note(format!("task {number} is left as it is"));
            return Ok(Exit::Detached);
        }
    };
    refuse_without_terminal(&attempted)?;
    let detached = open(&socket, &attempted).await?;
    note(what_now(&client, number, &uuid, detached).await);
    Ok(Exit::Done)
}

/// Waits until the attempt has a terminal and gives its socket.
async fn socket(client: &Client, mut task: Task, attempted: &str) -> Result<String, Failure> {
    let mut watch: Option<Watch> = None;
    let mut said = String::new();
    let mut missing_since = None;
    loop {
        let number = task.number;
        let refuse = |exit, why: &str| Err(Failure::new(exit, attempted, why).next(format!("sculpt logs {number}")));
        if task.spec.as_ref().is_some_and(|spec| !spec.tty) {
            return refuse(Exit::Conflict, "it was started with --no-tty and has no terminal");
        }
        let attempt = current(&task);
        if let Some(attempt) = attempt.filter(|attempt| !attempt.tmux_socket.is_empty() && attempt.state != "ended") {
            if is_there(client, attempt, number, attempted).await? {
                return Ok(attempt.tmux_socket.clone());
            }
            // Its place is known before tmux has made it.
            let expected = Path::new(&attempt.tmux_socket).ancestors().nth(2).is_some_and(Path::is_dir);
            if !expected || missing_since.get_or_insert_with(Instant::now).elapsed() > APPEARS {
                return refuse(Exit::Conflict, &format!("its terminal {} is not there", attempt.tmux_socket));
            }
            let watch = watch.get_or_insert_with(|| Watch::new(client, number, &task.uuid, false));
            if let Ok(changed) = tokio::time::timeout(LOOK, watch.next()).await {
                task = changed?;
            }
            continue;
        }
        let over = Exit::of_state(task.state()).is_some() && !task.live;
        if over || attempt.is_some_and(|attempt| attempt.state == "finalizing") {
            return refuse(
                Exit::Conflict,
                &format!("it is {} and its terminal is gone", state_name(task.state()).replace('_', " ")),
            );
        }
        let why = task.waiting.as_ref().map(|waiting| format!(": {}", waiting.text)).unwrap_or_default();
        let state = format!("task {number} is {}{why}; waiting for its terminal", state_name(task.state()));
        if said != state {
            note(&state);
            said = state;
        }
        let watch = watch.get_or_insert_with(|| Watch::new(client, number, &task.uuid, false));
        task = watch.next().await?;
    }
}

/// Whether the socket stands on this machine; an error when it never will.
async fn is_there(client: &Client, attempt: &Attempt, number: u64, attempted: &str) -> Result<bool, Failure> {
    let here = std::fs::symlink_metadata(&attempt.tmux_socket);
    match here {
        Ok(data) if data.file_type().is_socket() => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Failure::new(
                Exit::NotAllowed,
                attempted,
                "its terminal belongs to another account of this machine",
            )
            .next("use the account that started the executor")
            .next(format!("sculpt logs -f {number}")));
        }
        Ok(_) | Err(_) => {}
    }
    let request = GetExecutorRequest { executor: attempt.executor_id.clone() };
    let executor =
        client.read(attempted, client.executors().get_executor(request)).await.ok().and_then(|answer| answer.executor);
    let machine = executor.map(|executor| executor.hostname).filter(|name| !name.is_empty() && *name != hostname());
    let Some(machine) = machine else { return Ok(false) };
    let why = format!("it runs on {machine}, and this is {}", hostname());
    Err(Failure::new(Exit::Conflict, attempted, why).next(format!("sculpt logs -f {number}")))
}

/// tmux needs a terminal that it knows.
fn refuse_without_terminal(attempted: &str) -> Result<(), Failure> {
    let refuse = |why, next: &str| Err(Failure::new(Exit::BadInput, attempted, why).next(next));
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return refuse("this is not a terminal", "`sculpt logs -f` needs none");
    }
    if env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        return refuse("TERM is unset or `dumb`, which tmux refuses", "export TERM=xterm-256color");
    }
    Ok(())
}

/// Sits in the attempt's tmux until it is left; true when the person left it, false when the terminal closed.
async fn open(socket: &str, attempted: &str) -> Result<bool, Failure> {
    let failed = |why: String| Failure::new(Exit::Failed, attempted, why);
    let unopened = |error| failed(format!("its terminal {socket} cannot be opened: {error}"));
    // Keys go there, so that a signal that comes here is meant for us and for it.
    let status = seat(socket).map_err(unopened)?.status().await;
    let status = status.map_err(|error| {
        failed(format!("sculpt-executor cannot be run: {error}"))
            .next("keep sculpt-executor beside sculpt, or on the PATH")
    })?;
    match status.code() {
        Some(0) => Ok(true),
        Some(CLOSED) => Ok(false),
        _ => Err(failed(format!("its terminal ended with {status}"))),
    }
}

/// The executor's program takes people to a terminal, as the account that the attempt's executor has: what answers there
/// may be the agent's own, and gets neither this terminal nor this environment.
fn seat(socket: &str) -> io::Result<Command> {
    let sockets = Path::new(socket).ancestors().nth(2).ok_or(io::ErrorKind::InvalidInput)?;
    let owner = std::fs::symlink_metadata(sockets)?;
    let mut seat = Command::new(sibling("executor"));
    seat.args(["shim", "seat"]).arg(socket);
    if rustix::process::geteuid().is_root() && owner.uid() != 0 {
        seat.uid(owner.uid()).gid(owner.gid());
    }
    Ok(seat)
}

/// What became of the task, and how to come back to it.
async fn what_now(client: &Client, number: u64, uuid: &str, detached: bool) -> String {
    let goes_on = format!("task {number} goes on; `sculpt attach {number}` opens its terminal again");
    if detached {
        return goes_on;
    }
    let ended = async {
        let mut watch = Watch::new(client, number, uuid, true);
        while let Ok(task) = watch.next().await {
            if !task.live && Exit::of_state(task.state()).is_some() {
                return outcome(&task);
            }
        }
        format!("`sculpt show {number}` says how task {number} stands")
    };
    tokio::time::timeout(SETTLES, ended)
        .await
        .unwrap_or_else(|_| format!("`sculpt show {number}` says how task {number} stands"))
}
