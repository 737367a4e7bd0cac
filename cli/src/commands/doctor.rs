//! `sculpt doctor`: every part, whether it works, and how to mend it.

mod fleet;
mod identity;
mod local;

use std::path::PathBuf;

use sculpt_proto::v1::{Check, GetInfoRequest};
use serde::Serialize;

use crate::{
    client::{Client, unusable},
    commands::config_ssh::{Reach, reach},
    config::{Config, Context, Overrides},
    exit::Exit,
    failure::Failure,
    output::{Format, clean, json, line, paint},
    up::start_command,
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
        findings.push(plain_ssh(&context));
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

/// Whether plain ssh reaches tasks of this context.
fn plain_ssh(context: &Context) -> Finding {
    const NAME: &str = "ssh settings";
    match reach(context) {
        Reach::Yes(file) => Finding::ok(NAME, format!("{}: `ssh sculpt.17` reaches task 17", file.display())),
        Reach::Not => Finding::ok(NAME, "plain ssh reaches no task; `sculpt config-ssh` lets it"),
        Reach::Otherwise(file) => {
            let text = format!("{} leads plain ssh elsewhere than to this context, or by an old path", file.display());
            Finding::bad(Verdict::Warn, NAME, text, "`sculpt config-ssh` writes our lines anew")
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
    findings.extend(info.checks.into_iter().map(judged));
    identity::check(&client, findings).await;
    fleet::check(&client, findings).await;
}

/// What the controller has found about a part of its own. With a part that is well it may say what to do so that it stays so.
fn judged(check: Check) -> Finding {
    let name = format!("controller {}", check.name);
    match check.ok {
        true if check.remedy.is_empty() => Finding::ok(&name, check.text),
        true => Finding::bad(Verdict::Warn, &name, check.text, check.remedy),
        false => Finding::bad(Verdict::Fail, &name, check.text, check.remedy),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_soon_is_a_warning() {
        for (ok, remedy, verdict) in [
            (true, "", Verdict::Ok),
            (true, "Renew it.", Verdict::Warn),
            (false, "Renew it.", Verdict::Fail),
            (false, "", Verdict::Fail),
        ] {
            let check = Check { name: "certificate".into(), ok, remedy: remedy.into(), ..Check::default() };
            let found = judged(check);
            assert_eq!((found.name.as_str(), found.verdict), ("controller certificate", verdict), "{ok} {remedy:?}");
            assert_eq!(found.remedy.unwrap_or_default(), remedy);
        }
    }
}
