//! `sculpt attach`: the attempt's tmux, on the machine where it runs.

use std::{
    env,
    io::{self, IsTerminal as _},
    os::unix::{fs::FileTypeExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use sculpt_proto::v1::{Attempt, GetExecutorRequest, Task};

use super::task_named;
use crate::{
    client::Client,
    exit::{Exit, state_name},
    failure::Failure,
    follow::Watch,
    git::repository::hostname,
    output::{note, tasks::current},
};

pub(super) async fn run(name: &str) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let attempted = format!("attach to task {name}");
    let task = task_named(&client, name, &attempted).await?;
    let number = task.number;
    let socket = tokio::select! {
        socket = socket(&client, task, &attempted) => socket?,
        _ = tokio::signal::ctrl_c() => {
            note(format!("task {number} is left as it is"));
            return Ok(Exit::Detached);
        }
    };
    Err(open(&socket, &attempted))
}

/// Waits until the attempt has a terminal and gives its socket.
async fn socket(client: &Client, mut task: Task, attempted: &str) -> Result<String, Failure> {
    let mut watch: Option<Watch> = None;
    let mut said = String::new();
    loop {
        let number = task.number;
        let refuse = |exit, why: &str| Err(Failure::new(exit, attempted, why).next(format!("sculpt logs {number}")));
        if task.spec.as_ref().is_some_and(|spec| !spec.tty) {
            return refuse(Exit::Conflict, "it was started with --no-tty and has no terminal");
        }
        let attempt = current(&task);
        if let Some(attempt) = attempt.filter(|attempt| !attempt.tmux_socket.is_empty() && attempt.state != "ended") {
            check(client, attempt, number, attempted).await?;
            return Ok(attempt.tmux_socket.clone());
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
        let watch = watch.get_or_insert_with(|| Watch::new(client, &task.uuid, false));
        task = watch.next().await?;
    }
}

/// The socket must stand on this machine.
async fn check(client: &Client, attempt: &Attempt, number: u64, attempted: &str) -> Result<(), Failure> {
    let here = std::fs::symlink_metadata(&attempt.tmux_socket);
    match here {
        Ok(data) if data.file_type().is_socket() => return Ok(()),
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
    let why = match machine {
        Some(machine) => format!("it runs on {machine}, and this is {}", hostname()),
        None => format!("its terminal {} is not there", attempt.tmux_socket),
    };
    Err(Failure::new(Exit::Conflict, attempted, why).next(format!("sculpt logs -f {number}")))
}

/// Becomes tmux; returns only when that is not possible.
fn open(socket: &str, attempted: &str) -> Failure {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Failure::new(Exit::BadInput, attempted, "this is not a terminal").next("`sculpt logs -f` needs none");
    }
    if env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        return Failure::new(Exit::BadInput, attempted, "TERM is unset or `dumb`, which tmux refuses")
            .next("export TERM=xterm-256color");
    }
    let mut tmux = Command::new("tmux");
    // Inside another tmux it would refuse to nest; this is another server.
    tmux.arg("-S").arg(Path::new(socket)).arg("attach").env_remove("TMUX").env_remove("TMUX_PANE");
    let error = tmux.exec();
    Failure::new(Exit::Failed, attempted, format!("tmux cannot be started: {error}")).next("install tmux")
}
