//! `sculpt ssh`: a shell, or a command, in the workspace of an agent.

use std::{
    io::{self, IsTerminal as _},
    os::unix::process::CommandExt as _,
};

use sculpt_pairing::Right;
use sculpt_proto::v1::Task;

use super::task_named;
use crate::{
    args::SshArgs,
    client::Client,
    exit::Exit,
    failure::Failure,
    pairing::{
        Access, Need, Purpose, Standing, Wish, afterwards, no_program, open, openssh, remote_line, ssh, standing,
    },
};

pub(super) async fn run(args: SshArgs) -> Result<Exit, Failure> {
    let attempted = format!("open a shell beside task {}", args.task);
    let remote = remote_line(&args.command)
        .map_err(|error| Failure::new(Exit::BadInput, &attempted, format!("the command cannot be quoted: {error}")))?;
    let client = Client::connect().await?;
    let task = task_named(&client, &args.task, &attempted).await?;
    let wish = Wish { purpose: Purpose::Workspace, right: Some(Right::Shell), via: args.way.via() };
    let access = workspace(&client, &task, wish, &attempted).await?;
    // Nobody has heard of the host of which ssh would say that it was left, and nobody minds where it gives no terminal.
    let quiet = ["-o", "LogLevel=ERROR"];
    let options: &[&str] = match args.terminal {
        true => &["-t"],
        false if io::stdin().is_terminal() => &[],
        false => &["-T"],
    };
    let options = [&quiet, options].concat();
    // From here on there is only ssh: its signals, its streams and its exit code are the caller's.
    let error = openssh("ssh").args(ssh(&access, &options, remote)).exec();
    Err(no_program("ssh", &error, &attempted))
}

/// An access to the workspace of a task whose agent is there.
pub(super) async fn workspace(client: &Client, task: &Task, wish: Wish, attempted: &str) -> Result<Access, Failure> {
    match standing(task, Need::Workspace) {
        Standing::Ready(attempt) => open(client, (task, attempt), wish, attempted).await,
        Standing::Later(why) => {
            Err(Failure::new(Exit::Conflict, attempted, why)
                .next(format!("`sculpt pair {}` waits for it", task.number)))
        }
        Standing::Never(why) => Err(Failure::new(Exit::Conflict, attempted, why).advised(afterwards(task))),
    }
}
