//! Agents to sit beside, and people who do.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{Cli, DEADLINE, Options, Repo, Stack, Terminal, again};
use serde_json::Value;
use tokio::process::Command;

use crate::machine::Machine;

/// How long somebody may be cut after they may not be there any more.
pub(super) const CUT: Duration = Duration::from_secs(10);

/// Answers each line, says who it is, and tells of each size that its window gets.
const LISTENER: &str = r#"
import os, signal, sys
def say(text): os.write(1, f"{text}\n".encode())
def resized(*_): say("window of {0.columns}x{0.lines}".format(os.get_terminal_size()))
signal.signal(signal.SIGWINCH, resized)
say(f"agent {os.getpid()} listens")
for line in sys.stdin: say(f"{os.getpid()} heard {line.strip()}")
"#;

/// Says where it works, and answers in capitals on a port of loopback and on a socket in its workspace.
pub(super) const SERVER: &str = r#"
import os, socketserver, threading
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line.upper())
class Tcp(socketserver.ThreadingMixIn, socketserver.TCPServer): pass
class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass
tcp, unix = Tcp(("127.0.0.1", 0), Answer), Unix(os.getcwd() + "/served", Answer)
threading.Thread(target=unix.serve_forever).start()
print(f"serves {tcp.server_address[1]} in {os.getcwd()}", flush=True)
tcp.serve_forever()
"#;

/// A stack, and ada, who is an admin of it.
pub(super) struct World {
    pub(super) stack: Stack,
    pub(super) ada: Machine,
}

/// An agent that serves.
pub(super) struct Server {
    pub(super) task: String,
    pub(super) port: u16,
    /// Where it works.
    pub(super) place: PathBuf,
}

impl Server {
    /// The agent of `task`, which runs [`SERVER`], once it serves.
    pub(super) async fn of(stack: &Stack, task: String) -> Result<Self> {
        let log = stack.log_until(&task, "its place", |log| log.ends_with(b"\n")).await?;
        let log = String::from_utf8(log)?;
        let said = log.trim().strip_prefix("serves ").and_then(|said| said.split_once(" in "));
        let (port, place) = said.with_context(|| format!("an agent that serves, not {log:?}"))?;
        Ok(Self { task, port: port.parse()?, place: place.into() })
    }
}

impl World {
    /// Controller and executor apart, and ada signed in.
    pub(super) async fn start() -> Result<Self> {
        Self::with(Stack::options()).await
    }

    /// The same with a stack that is not the default one.
    pub(super) async fn with(options: Options) -> Result<Self> {
        let stack = options.parts().await?;
        let ada = person(&stack, "ada", "admin").await?;
        Ok(Self { stack, ada })
    }

    /// The same with ada's ssh set up, and an agent in a repository that serves.
    pub(super) async fn with_server() -> Result<(Self, Server)> {
        let world = Self::start().await?;
        world.ada("sculpt config-ssh").await?;
        let server = world.serves(&world.stack.repo()?).await?;
        Ok((world, server))
    }

    /// Somebody else with this role everywhere, signed in.
    pub(super) async fn person(&self, name: &str, role: &str) -> Result<Machine> {
        person(&self.stack, name, role).await
    }

    /// Types as ada, and fails unless that works.
    pub(super) async fn ada(&self, line: &str) -> Result<String> {
        Ok(self.ada.types(&self.stack, line).run().await?.done()?.text())
    }

    /// A task of a project, which is everybody's who has a role, and whose agent listens; its number, once it does.
    pub(super) async fn listens(&self) -> Result<String> {
        self.listens_in(&self.stack.repo()?).await
    }

    /// The same in the project of this repository.
    pub(super) async fn listens_in(&self, repo: &Repo) -> Result<String> {
        let task = self.stack.detached(repo.path(), ["--", "python3", "-c", LISTENER]).await?;
        self.stack.log_until(&task, "a sign of life", |log| holds(log, "listens")).await?;
        Ok(task)
    }

    /// A task whose agent serves, in a clone of `repo`.
    pub(super) async fn serves(&self, repo: &Repo) -> Result<Server> {
        let task = self.stack.detached(repo.path(), ["--no-tty", "--", "python3", "-c", SERVER]).await?;
        Server::of(&self.stack, task).await
    }

    /// Somebody in a terminal of the agent.
    pub(super) fn sits(&self, who: &Machine, line: &str) -> Result<Terminal> {
        who.sits(&self.stack, line).sit()
    }

    /// One of OpenSSH's programs, as `who` would type it after `sculpt config-ssh`.
    pub(super) fn ssh(&self, who: &Machine, words: &[&str]) -> Cli {
        who.runs(&self.stack, &configured(&ssh_config(who).to_string_lossy(), words))
    }

    /// The same, to be started in another way.
    pub(super) fn ssh_command(&self, who: &Machine, words: &[&str]) -> Command {
        who.command(&self.stack, &configured(&ssh_config(who).to_string_lossy(), words))
    }

    /// Waits until somebody sits beside `task`.
    pub(super) async fn is_joined(&self, task: &str) -> Result<()> {
        again(DEADLINE, &format!("somebody to sit beside task {task}"), async || {
            let shown = self.stack.show(task).await?;
            Ok(shown["attached"].as_array().is_some_and(|all| !all.is_empty()).then_some(()))
        })
        .await
    }

    /// Waits until who sits beside `task` is as wished.
    pub(super) async fn attached(&self, task: &str, wished: &[(&str, &str)]) -> Result<()> {
        let mut seen = Value::Null;
        let what = format!("{wished:?} to sit beside task {task}");
        let waited = again(DEADLINE, &what, async || {
            seen = self.stack.show(task).await?["attached"].clone();
            let all = seen.as_array().into_iter().flatten();
            let all: Vec<_> = all.map(|one| (one["user"].as_str(), one["role"].as_str())).collect();
            let wished: Vec<_> = wished.iter().map(|(user, role)| (Some(*user), Some(*role))).collect();
            Ok((all == wished).then_some(()))
        });
        waited.await.with_context(|| format!("attached is {seen:#}"))
    }

    /// The entries of the journal about who sat beside `task`, once there are so many.
    pub(super) async fn deeds(&self, task: &str, count: usize) -> Result<Vec<Value>> {
        let number: u64 = task.parse()?;
        again(DEADLINE, &format!("{count} deeds beside task {task} in the journal"), async || {
            let journal = self.stack.sculpt(["events", "-o", "json"]).run_unnoted().await?.done()?.text();
            let all: Vec<Value> = journal.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
            let ours = |event: &Value| {
                event["task"] == number && event["kind"].as_str().is_some_and(|kind| kind.starts_with("pairing."))
            };
            let deeds: Vec<Value> = all.into_iter().filter(ours).collect();
            Ok((deeds.len() >= count).then_some(deeds))
        })
        .await
    }

    /// Fails unless the agent of `task` is the process it was.
    pub(super) async fn goes_on(&self, task: &str) -> Result<()> {
        let found = self.stack.until(task, "known as running", |task| task.state() == TaskState::Running).await?;
        ensure!(found.attempts.len() == 1, "{found:?}");
        let log = String::from_utf8_lossy(&self.stack.logs(task).await?).into_owned();
        ensure!(log.matches(" listens").count() == 1, "the agent began again: {log}");
        Ok(())
    }

    /// Stops `task` and waits for its end.
    pub(super) async fn stops(&self, task: &str) -> Result<()> {
        self.stack.sculpt(["stop", task]).run().await?.done()?;
        self.stack.sculpt(["wait", task]).run().await?.exits(4).map(drop)
    }

    /// Stops `task`, and everything else.
    pub(super) async fn ends(self, task: &str) -> Result<()> {
        self.stops(task).await?;
        self.stack.finish().await
    }
}

/// Somebody with this role everywhere and a HOME of their own, signed in.
async fn person(stack: &Stack, name: &str, role: &str) -> Result<Machine> {
    stack.sculpt(["admin", "user", "add", name, "--role", role]).run().await?.done()?;
    let token = stack.sculpt(["token", "create", "--user", name, "--ttl", "1h"]).run().await?.done()?.text();
    stack.token_made(&token)?;
    let machine = Machine::here(stack, name)?;
    machine.types(stack, &format!("sculpt login {}", stack.url()?)).stdin(token).run().await?.done()?;
    Ok(machine)
}

/// A program of OpenSSH with these settings: it asks the accounts of this machine where somebody is at home, and not the
/// environment.
fn configured<'a>(config: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    let (program, rest) = words.split_first().unwrap_or((&"ssh", &[]));
    [&[*program, "-F", config], rest].concat()
}

/// The settings that `sculpt config-ssh` writes for `who`.
pub(super) fn ssh_config(who: &Machine) -> PathBuf {
    who.home.join(".ssh/config")
}

/// Whether `log` has said this.
pub(super) fn holds(log: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(log).contains(text)
}
