//! One file for each verb.

mod admin;
mod audit;
mod completion;
mod config_ssh;
mod cp;
mod diff;
mod doctor;
mod events;
mod executor;
mod fetch;
mod git_credential;
mod lock;
mod login;
mod logout;
mod logs;
mod ls;
mod milestone;
mod pair;
mod pool;
mod port_forward;
mod project;
mod replay;
mod retry;
mod run;
mod show;
mod ssh;
mod stop;
mod token;
mod tunnel;
mod wait;

pub(crate) use self::{
    admin::AdminVerb,
    audit::AuditArgs,
    executor::{RmArgs as ExecutorRmArgs, TokenArgs as ExecutorTokenArgs},
    lock::{LockArgs, TargetArgs as LockTargetArgs},
    login::LoginArgs,
    logout::LogoutArgs,
    pool::PoolVerb,
    replay::ReplayArgs,
    token::TokenVerb,
};

use sculpt_proto::v1::{Attempt, GetTaskRequest, Task};

use crate::{
    args::Verb,
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{Format, note},
    pairing::hold,
    up,
};

/// Does what was asked.
pub(crate) async fn run(verb: Verb, format: Format) -> Result<Exit, Failure> {
    refuse_json(&verb, format)?;
    match verb {
        Verb::Up(args) => Box::pin(up::run(args)).await,
        Verb::Run(args) => Box::pin(run::run(*args, format)).await,
        Verb::Ls(args) => Box::pin(ls::run(args, format)).await,
        Verb::Show(args) => show::run(&args.task, format).await,
        Verb::Wait(args) => wait::run(args, format).await,
        Verb::Logs(args) => Box::pin(logs::run(args, format)).await,
        Verb::Replay(args) => Box::pin(replay::run(args, format)).await,
        Verb::Pair(args) => Box::pin(pair::run(args, format)).await,
        Verb::Ssh(args) => Box::pin(ssh::run(args)).await,
        Verb::Cp(args) => Box::pin(cp::run(args)).await,
        Verb::PortForward(args) => Box::pin(port_forward::run(args)).await,
        Verb::ConfigSsh(args) => Box::pin(config_ssh::run(args)).await,
        Verb::Tunnel(args) => Box::pin(tunnel::run(args)).await,
        Verb::Stop(args) => stop::run(&args.tasks, format).await,
        Verb::Retry(args) => retry::run(&args, format).await,
        Verb::Milestone(args) => milestone::run(args, format).await,
        Verb::Diff(args) => Box::pin(diff::run(args, format)).await,
        Verb::Fetch(args) => Box::pin(fetch::run(args)).await,
        Verb::Project(verb) => Box::pin(project::run(verb, format)).await,
        Verb::Executor(verb) => executor::run(verb, format).await,
        Verb::Pool(verb) => pool::run(verb, format).await,
        Verb::Login(args) => Box::pin(login::login(args, format)).await,
        Verb::Logout(args) => Box::pin(logout::run(args)).await,
        Verb::Whoami => login::whoami(format).await,
        Verb::Token(verb) => Box::pin(token::run(verb, format)).await,
        Verb::Lock(args) => lock::lock(args, format).await,
        Verb::Unlock(target) => lock::unlock(target, format).await,
        Verb::Locks => lock::ls(format).await,
        Verb::Audit(args) => Box::pin(audit::run(args, format)).await,
        Verb::Admin(verb) => Box::pin(admin::run(verb, format)).await,
        Verb::Events(args) => Box::pin(events::run(args, format)).await,
        Verb::Doctor => Box::pin(doctor::run(format)).await,
        Verb::Completion(args) => completion::run(&args.shell),
        Verb::Leash { holder, words } => Err(hold(holder, &words)),
        Verb::Known { what } => Box::pin(completion::known::run(what)).await,
        Verb::GitCredential(args) => Box::pin(git_credential::run(&args.operation)).await,
    }
}

/// Programs that ask for JSON must not take for it what another program says.
fn refuse_json(verb: &Verb, format: Format) -> Result<(), Failure> {
    let next = match verb {
        Verb::Pair(args) if !args.print => "`sculpt pair --print -o json` says what leads there",
        Verb::Ssh(_) | Verb::Cp(_) | Verb::PortForward(_) | Verb::ConfigSsh(_) | Verb::Tunnel(_) => {
            "leave `-o json` out"
        }
        _ => return Ok(()),
    };
    match format {
        Format::Text => Ok(()),
        Format::Json => Err(Failure::new(Exit::Usage, "answer in JSON", "this command has none to give").next(next)),
    }
}

/// The task of this name, or a failure that names it.
async fn task_named(client: &Client, task: &str, attempted: &str) -> Result<Task, Failure> {
    let request = GetTaskRequest { task: task.to_owned() };
    let answer = client.read(attempted, client.tasks().get_task(request)).await;
    let answer = answer.map_err(|failure| match failure.exit {
        Exit::NotFound if !failure.mentions("sculpt ls") => failure.next("`sculpt ls` shows the tasks there are"),
        _ => failure,
    })?;
    answer.task.ok_or_else(|| no_task(attempted))
}

/// The attempt of this number, or a failure that says how many there are; `verb` is what was to be done with it.
fn attempt_numbered<'a>(task: &'a Task, wanted: u32, verb: &str) -> Result<&'a Attempt, Failure> {
    task.attempts.iter().find(|attempt| attempt.number == wanted).ok_or_else(|| {
        let why = format!("the task has had {} so far", crate::output::counted(task.attempts.len(), "attempt"));
        Failure::new(Exit::NotFound, format!("{verb} attempt {wanted} of task {}", task.number), why)
    })
}

/// What was committed for a task of a removed project is kept where nothing reads it.
fn refuse_removed_project(task: &Task, attempted: &str) -> Result<(), Failure> {
    if !task.project_removed {
        return Ok(());
    }
    let why = format!("its project {} was removed", crate::output::clean(&task.project));
    Err(Failure::new(Exit::Conflict, attempted, why)
        .next("`sculpt project add` in a clone of it brings the project back, with its tasks and branches"))
}

/// An answer without the task that it is about.
fn no_task(attempted: &str) -> Failure {
    Failure::new(Exit::Failed, attempted, "the controller's answer holds no task")
}

/// Does the same to several tasks: all are tried, and the first failure decides the exit code.
async fn each<F>(tasks: &[String], mut act: impl FnMut(String) -> F) -> Result<Exit, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut first: Option<Failure> = None;
    for task in tasks {
        if let Err(failure) = act(task.clone()).await {
            match &first {
                None => first = Some(failure),
                Some(_) => failure.lines().iter().for_each(note),
            }
        }
    }
    first.map_or(Ok(Exit::Done), Err)
}
