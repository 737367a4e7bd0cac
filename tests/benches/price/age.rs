//! How old a line is when a person sees it: `sculpt logs -f` beside `ssh HOST tail -f`, both of the same lines of one agent.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{DEADLINE, Follow, Service, Stack, eventually};

use crate::{report::Row, samples::Samples};

/// Says what time it is, on its terminal and into a file, once both are looked at.
const AGENT: &str = r#"
until [ -e "$1/go" ]; do sleep 0.02; done
for ((n = 0; n < $2; n++)); do
    now=$EPOCHREALTIME
    echo "at $now"
    echo "at $now" >> "$1/log"
    sleep 0.03
done
"#;

pub(crate) async fn measure(stack: &Stack, lines: usize) -> Result<Vec<Row>> {
    let scratch = stack.root().join("age");
    fs::create_dir_all(&scratch)?;
    fs::write(scratch.join("log"), "at 0\n")?;
    let place = scratch.to_str().context("a path of the tests is text")?;
    let sshd = Sshd::start(stack, &scratch).await?;
    let count = lines.to_string();
    let task = stack.detached(stack.root(), ["--no-repo", "--", "bash", "-c", AGENT, "agent", place, &count]).await?;
    stack.until(&task, "it runs", |task| task.state() == TaskState::Running).await?;
    let ours = stack.sculpt(["logs", &task, "-f"]).follow()?;
    let mut theirs = sshd.tail(stack, &scratch.join("log"))?;
    theirs.line(|line| line == "at 0").await.context("ssh has connected")?;
    fs::write(scratch.join("go"), "")?;
    let (ours, theirs) = tokio::try_join!(ages(ours, lines), ages(theirs, lines))?;
    stack.done(&task).await?;
    sshd.service.end(Signal::TERM, DEADLINE).await?;
    let reference = Some(("ssh localhost tail -f", theirs));
    Ok(vec![Row { name: "age of a line when it is seen", unit: "ms", ours, reference }])
}

async fn ages(mut follow: Follow, lines: usize) -> Result<Samples> {
    let mut ages = Vec::new();
    while ages.len() < lines {
        let line = follow.line(|line| line.starts_with("at ")).await?;
        let seen = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let said: f64 = line["at ".len()..].parse().with_context(|| format!("the agent's clock says {line:?}"))?;
        ages.push((seen - said) * 1e3);
    }
    Samples::of(ages).context("no line")
}

/// An SSH server of its own: keys, settings and port are nobody else's.
struct Sshd {
    service: Service,
    port: u16,
    directory: PathBuf,
}

impl Sshd {
    async fn start(stack: &Stack, directory: &Path) -> Result<Self> {
        for name in ["host", "user"] {
            let key = directory.join(name);
            let key = key.to_str().context("a path of the tests is text")?;
            stack.shell("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]).run().await?.done()?;
        }
        if rustix::process::geteuid().is_root() {
            // Debian's own service makes it at its start; without it sshd refuses to run as root.
            fs::create_dir_all("/run/sshd").context("make /run/sshd")?;
        }
        // Free now; nothing else takes ports while the benchmark runs.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let here = directory.display();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\n\
             StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        );
        let file = directory.join("sshd_config");
        fs::write(&file, settings)?;
        let mut command = stack.command("/usr/sbin/sshd");
        command.arg("-D").arg("-e").arg("-f").arg(&file);
        let log = directory.join("sshd.log");
        let service = Service::begin("sshd", command, log.clone())?;
        let listening = format!("listening on 127.0.0.1 port {port}");
        eventually("sshd to listen", || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            ensure!(service.pid().is_ok(), "sshd has ended: {said}");
            Ok(said.contains(&listening).then_some(()))
        })
        .await?;
        Ok(Self { service, port, directory: directory.to_owned() })
    }

    fn tail(&self, stack: &Stack, file: &Path) -> Result<Follow> {
        let key = self.directory.join("user").display().to_string();
        let known = format!("UserKnownHostsFile={}/known_hosts", self.directory.display());
        let host = fs::read_to_string(self.directory.join("host.pub"))?;
        fs::write(self.directory.join("known_hosts"), format!("[127.0.0.1]:{} {host}", self.port))?;
        let (port, file) = (self.port.to_string(), file.display().to_string());
        let arguments = ["-F", "none", "-i", &key, "-o", &known, "-o", "BatchMode=yes", "-p", &port, "127.0.0.1"];
        stack.shell("ssh", arguments.into_iter().chain(["tail", "-n", "+1", "-f", &file])).follow()
    }
}
