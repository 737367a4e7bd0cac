//! `sculpt doctor`: every part, whether it works, and how to mend it.

mod local;

use std::path::{Path, PathBuf};

use sculpt_proto::v1::{GetInfoRequest, ListExecutorsRequest};
use serde::Serialize;

use crate::{
    client::{Client, unusable},
    config::{Config, Context, Overrides},
    exit::Exit,
    failure::Failure,
    output::{Format, clean, json, line, paint},
    up::{data_of, running, start_command},
};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One part of the installation.
#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    verdict: Verdict,
    text: String,
    /// How to mend it.
    remedy: Option<String>,
}

impl Finding {
    fn ok(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict: Verdict::Ok, text: text.into(), remedy: None }
    }

    fn bad(verdict: Verdict, name: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.to_owned(), verdict, text: text.into(), remedy: Some(remedy.into()) }
    }

    /// A failure of a command as a finding.
    fn failure(name: &str, failure: &Failure) -> Self {
        let lines = failure.lines();
        let text = lines.first().map(|line| line.trim_start_matches("sculpt: ").to_owned()).unwrap_or_default();
        let remedy: Vec<&str> = lines.iter().skip(1).map(|line| line.trim()).collect();
        Self::bad(Verdict::Fail, name, text, remedy.join("; "))
    }
}

pub(super) async fn run(format: Format) -> Result<Exit, Failure> {
    let mut findings = Vec::new();
    let context = context(&mut findings);
    if let Some(context) = context {
        controller(context, &mut findings).await;
    }
    local::check(&mut findings).await;
    match format {
        Format::Json => json(&findings)?,
        Format::Text => {
            let width = findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or_default();
            for finding in &findings {
                show(finding, width)?;
            }
        }
    }
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn context(findings: &mut Vec<Finding>) -> Option<Context> {
    let file = Config::path().unwrap_or_else(|_| PathBuf::from("sculpt/config.toml"));
    match Context::load() {
        Ok(context) => {
            findings.push(Finding::ok(
                "context",
                format!("{} at {} ({})", context.name, context.address(), file.display()),
            ));
            findings.push(Finding::ok("token", format!("from {}", context.token_source)));
            Some(context)
        }
        Err(error) => {
            findings.push(Finding::failure("context", &unusable(&error)));
            None
        }
    }
}

async fn controller(context: Context, findings: &mut Vec<Finding>) {
    let token = PathBuf::from(&context.token_source);
    let start = start_command(&token);
    let client = match Client::to(context).await {
        Ok(client) => client,
        Err(failure) => return findings.push(absent(&failure, &start)),
    };
    let info = match client.read("ask the controller how it is", client.system().get_info(GetInfoRequest {})).await {
        Ok(info) => info,
        Err(failure) => return findings.push(absent(&failure, &start)),
    };
    let ours = env!("CARGO_PKG_VERSION");
    let text = format!("version {}, Postgres {}, you are {}", info.version, info.postgres, info.user);
    findings.push(if info.version == ours {
        Finding::ok("controller", text)
    } else {
        Finding::bad(
            Verdict::Warn,
            "controller",
            format!("{text}; this command is version {ours}"),
            "use the same version on both sides",
        )
    });
    for check in info.checks {
        let name = format!("controller {}", check.name);
        findings.push(match check.ok {
            true => Finding::ok(&name, check.text),
            false => Finding::bad(Verdict::Fail, &name, check.text, check.remedy),
        });
    }
    executors(&client, &token, findings).await;
}

/// A controller that does not answer; what other commands advise then is to ask the doctor.
fn absent(failure: &Failure, start: &str) -> Finding {
    let finding = Finding::failure("controller", failure);
    // A variable that says where it is has its own advice.
    if failure.exit != Exit::OutOfReach || Overrides::from_environment().url.is_some() {
        return finding;
    }
    let remedy = format!(
        "start it with `{start}`; if it runs, logs/controller.log in its data directory says what it waits for"
    );
    Finding { remedy: Some(remedy), ..finding }
}

async fn executors(client: &Client, token: &Path, findings: &mut Vec<Finding>) {
    let list = match client.read("list executors", client.executors().list_executors(ListExecutorsRequest {})).await {
        Ok(list) => list.executors,
        Err(failure) => return findings.push(Finding::failure("executors", &failure)),
    };
    let connected = list.iter().filter(|executor| executor.liveness == "connected").count();
    let text = format!("{connected} of {} connected", list.len());
    findings.push(if connected == 0 {
        Finding::bad(Verdict::Fail, "executors", text, absent_executor(token))
    } else if connected < list.len() {
        Finding::bad(Verdict::Warn, "executors", text, "`sculpt executor ls` shows which are away; their agents go on")
    } else {
        Finding::ok("executors", text)
    });
    for executor in list {
        if !executor.closed_reason.is_empty() {
            let text = format!("takes no new work: {}", executor.closed_reason);
            let remedy = format!("`sculpt executor gc {} --dry-run` shows what can go", executor.name);
            findings.push(Finding::bad(Verdict::Warn, &format!("executor {}", executor.name), text, remedy));
        }
        for remark in executor.notes {
            let name = format!("executor {}", executor.name);
            findings.push(Finding::bad(
                Verdict::Warn,
                &name,
                remark,
                format!("sculpt executor show {}", executor.name),
            ));
        }
    }
}

/// What to do when no executor is connected; the one of a running `sculpt up` is being seen to.
fn absent_executor(token: &Path) -> String {
    match data_of(token).and_then(|data| running(&data).map(|pid| (data, pid))) {
        Some((data, pid)) => {
            let log = data.join("logs/executor.log");
            format!(
                "`sculpt up` runs (pid {pid}) and keeps one here: {} says why it is away; its agents go on",
                log.display()
            )
        }
        None => format!("start one: `{}` on this machine; queued tasks wait for it", start_command(token)),
    }
}

fn show(finding: &Finding, width: usize) -> Result<(), Failure> {
    let (word, colour) = match finding.verdict {
        Verdict::Ok => ("ok  ", "32"),
        Verdict::Warn => ("warn", "33"),
        Verdict::Fail => ("FAIL", "31"),
    };
    line(format!("{} {:<width$}  {}", paint(word, colour), clean(&finding.name), clean(&finding.text)))?;
    match &finding.remedy {
        Some(remedy) => line(format!("     {:<width$}  → {}", "", clean(remedy))),
        None => Ok(()),
    }
}
