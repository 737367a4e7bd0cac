//! `sculpt milestone`.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::Path, process::Command};

use sculpt_proto::v1::DescribeTaskRequest;
use uuid::Uuid;

use super::no_task;
use crate::{
    args::MilestoneArgs,
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{Format, json, line, tasks::TaskJson},
};

const ATTEMPTED: &str = "say how far the task has come";

/// Names the socket where whoever is within a workspace says how far its task has come. Beside it stands the program that
/// speaks to it.
const SOCKET: &str = "SCULPT_SAY";

/// What is to be said, and where.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Of the task in whose workspace this runs.
    Here { socket: OsString, text: String },
    /// Of a task, under the caller's name.
    Of { task: String, intent: Option<String>, milestone: String },
}

pub(super) async fn run(args: MilestoneArgs, format: Format) -> Result<Exit, Failure> {
    match said(args, std::env::var_os(SOCKET))? {
        Said::Here { socket, text } => Err(within(&socket, &text)),
        Said::Of { task, intent, milestone } => of(task, intent, milestone, format).await,
    }
}

/// PURE: what the words mean, where `socket` is there within a workspace.
fn said(args: MilestoneArgs, socket: Option<OsString>) -> Result<Said, Failure> {
    let MilestoneArgs { words, intent } = args;
    let mut words = words.into_iter();
    match (words.next(), words.next(), intent, socket) {
        (Some(task), Some(milestone), intent, _) => Ok(Said::Of { task, intent, milestone }),
        (Some(task), None, Some(intent), _) if names_a_task(&task) => {
            Ok(Said::Of { task, intent: Some(intent), milestone: String::new() })
        }
        (_, None, Some(_), _) => {
            let why = "an intent is said of a task by its number, also within its workspace";
            Err(Failure::new(Exit::Usage, ATTEMPTED, why)
                .next("name it: sculpt milestone 17 --intent \"parse dates without a locale\""))
        }
        (Some(text), None, None, Some(socket)) => Ok(Said::Here { socket, text }),
        (Some(task), None, None, None) if names_a_task(&task) => {
            let why = format!("nothing is said of task {task}");
            Err(Failure::new(Exit::Usage, ATTEMPTED, why)
                .next(format!("say it behind its name: sculpt milestone {task} \"the tests pass\"")))
        }
        (_, None, None, _) | (None, _, _, _) => {
            let why = "this is no task's workspace, and no task is named";
            Err(Failure::new(Exit::Usage, ATTEMPTED, why).next("name it: sculpt milestone 17 \"the tests pass\""))
        }
    }
}

/// Whether it is a number, or what a uuid may begin with.
fn names_a_task(word: &str) -> bool {
    let digits = |allowed: fn(&u8) -> bool| word.bytes().all(|byte| byte == b'-' || allowed(&byte));
    word.parse::<u64>().is_ok() || (word.len() >= 4 && digits(u8::is_ascii_hexdigit))
}

/// Becomes the program that speaks to the socket; returns only when that fails.
fn within(socket: &OsString, text: &str) -> Failure {
    let program = Path::new(socket).with_file_name("sculpt");
    let error = Command::new(&program).arg("milestone").arg("--").arg(text).exec();
    Failure::new(Exit::Failed, ATTEMPTED, format!("{} does not run: {error}", program.display()))
        .next("the agent may have ended; with the number of the task it works wherever you are logged in")
}

async fn of(task: String, intent: Option<String>, milestone: String, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let attempted = format!("say of task {task} how far it has come");
    let request = DescribeTaskRequest { request_id: Uuid::new_v4().to_string(), task, intent, milestone };
    let answer = client.change(&attempted, async || client.tasks().describe_task(request.clone()).await).await?;
    let task = answer.task.ok_or_else(|| no_task(&attempted))?;
    match format {
        Format::Json => json(&TaskJson::from(&task))?,
        Format::Text => line(format!("noted of task {}", task.number))?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_wherever_there_is_none() {
        let said = |words: &[&str], intent: Option<&str>, within: bool| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            let args = MilestoneArgs { words, intent: intent.map(str::to_owned) };
            said(args, within.then(|| "/s".into())).ok()
        };
        let here = |text: &str| Some(Said::Here { socket: "/s".into(), text: text.into() });
        let of = |intent: Option<&str>, milestone: &str| {
            let intent = intent.map(str::to_owned);
            Some(Said::Of { task: "17".into(), intent, milestone: milestone.into() })
        };
        for (words, intent, within, expected) in [
            (&["half"][..], None, true, here("half")),
            (&["half"], None, false, None),
            (&["17", "half"], None, true, of(None, "half")),
            (&["17", "half"], None, false, of(None, "half")),
            (&["17"], Some("ship"), true, of(Some("ship"), "")),
            (&["17"], None, false, None),
            (&["the tests pass"], Some("ship"), true, None),
            (&[], Some("ship"), true, None),
            (&["17", "half"], Some(""), false, of(Some(""), "half")),
        ] {
            assert_eq!(said(words, intent, within), expected, "{words:?} {intent:?} {within}");
        }
    }
}
