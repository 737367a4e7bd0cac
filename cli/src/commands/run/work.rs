//! What is to be done: a prompt or a command.

use std::{
    io::{self, IsTerminal as _, Read as _},
    os::unix::ffi::OsStrExt as _,
};

use sculpt_proto::{
    MAX_PROMPT,
    v1::{Command, task_spec},
};

use super::ATTEMPTED;
use crate::{args::RunArgs, exit::Exit, failure::Failure};

/// Checked work.
pub(super) enum Work {
    Prompt(String),
    Command(Vec<Vec<u8>>),
}

impl From<Work> for task_spec::Work {
    fn from(work: Work) -> Self {
        match work {
            Work::Prompt(prompt) => Self::Prompt(prompt),
            Work::Command(argv) => Self::Command(Command { argv }),
        }
    }
}

/// The work of this command line; a prompt may come from standard input.
pub(super) fn work(args: &RunArgs) -> Result<Work, Failure> {
    let command = &args.command;
    match (&args.prompt, command.first()) {
        (Some(_), Some(_)) => {
            Err(refusal("both a prompt and a command were given").next("give one of them; a command stands after `--`"))
        }
        (None, Some(program)) if program.is_empty() => Err(refusal("the command is empty")),
        (None, Some(_)) if args.agent.is_some() => {
            Err(refusal("--agent is for prompts, and a command was given").next("leave --agent or the command away"))
        }
        (None, Some(_)) => Ok(Work::Command(command.iter().map(|arg| arg.as_bytes().to_vec()).collect())),
        (Some(prompt), None) if prompt == "-" => prompt_from_stdin(),
        (Some(prompt), None) => checked(prompt.clone()),
        (None, None) if io::stdin().is_terminal() => Err(nothing()),
        (None, None) => prompt_from_stdin(),
    }
}

/// Whether something was piped or redirected to a command, which runs elsewhere.
pub(super) fn leaves_input(args: &RunArgs) -> bool {
    use rustix::fs::FileType;
    let input = || rustix::fs::fstat(io::stdin()).ok();
    let is_data = |stat: rustix::fs::Stat| match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => true,
        FileType::RegularFile => stat.st_size > 0,
        _ => false,
    };
    !args.command.is_empty() && input().is_some_and(is_data)
}

/// The title without blanks around it; empty when the controller is to derive one.
pub(super) fn title(args: &RunArgs) -> Result<String, Failure> {
    one_line(args.title.as_deref(), "title")
}

/// What the task is for, without blanks around it; empty when its title says it.
pub(super) fn intent(args: &RunArgs) -> Result<String, Failure> {
    one_line(args.intent.as_deref(), "intent")
}

fn one_line(text: Option<&str>, name: &str) -> Result<String, Failure> {
    let text = text.unwrap_or_default().trim();
    if text.chars().count() > 200 || text.chars().any(char::is_control) {
        return Err(refusal(&format!("the {name} is longer than 200 characters or holds control characters"))
            .next("shorten it; the prompt can say the rest"));
    }
    Ok(text.to_owned())
}

fn prompt_from_stdin() -> Result<Work, Failure> {
    let mut bytes = Vec::new();
    let limit = MAX_PROMPT as u64 + 1;
    io::stdin()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| refusal(&format!("the prompt cannot be read from standard input: {error}")))?;
    if bytes.is_empty() {
        return Err(nothing());
    }
    too_long(bytes.len())?;
    checked(String::from_utf8(bytes).map_err(|_| refusal("the prompt on standard input is not UTF-8 text"))?)
}

fn checked(prompt: String) -> Result<Work, Failure> {
    too_long(prompt.len())?;
    if prompt.trim().is_empty() {
        return Err(refusal("the prompt is empty").next("say what the agent is to do, or give a command after `--`"));
    }
    if prompt.contains('\0') {
        return Err(refusal("the prompt holds NUL bytes").next("send text; data belongs into files of the repository"));
    }
    Ok(Work::Prompt(prompt))
}

fn too_long(length: usize) -> Result<(), Failure> {
    if length > MAX_PROMPT {
        return Err(refusal("the prompt is longer than 1 MiB")
            .next("put the material into a file of the repository and name it in the prompt"));
    }
    Ok(())
}

fn nothing() -> Failure {
    refusal("neither a prompt nor a command was given")
        .next("sculpt run \"fix the flaky test\"      for an agent")
        .next("sculpt run -- make test              for a command")
}

fn refusal(why: &str) -> Failure {
    Failure::new(Exit::BadInput, ATTEMPTED, why)
}
