//! The view of an attempt: one tmux server on a socket of its own, whose pane shows the shim's terminal. Losing it loses nothing.

mod modes;
mod seat;
mod status;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt as _, chown},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{io::AsyncWriteExt as _, net::UnixStream, time::timeout};

pub(crate) use seat::Sits;
pub use status::Status;

use crate::{
    cgroup::Leaf,
    sandbox::Inside,
    shim::{self, Launch},
    stage::{self, Identity, Stage},
    text::ByteText,
    tree::{Mark, ProcessId},
};

/// What an attempt's tmux server is made of.
#[derive(Clone, Debug)]
pub struct View {
    /// The server's socket, in a directory of the attempt's account.
    pub socket: PathBuf,
    /// The shim's view socket.
    pub view_socket: PathBuf,
    /// The executor's own binary; under another account it must be executable for that account.
    pub program: PathBuf,
    /// Where shells that people open in it begin.
    pub cwd: PathBuf,
    /// The whole environment of these shells; TERM is set by tmux.
    pub env: BTreeMap<ByteText, ByteText>,
    /// Absent: the executor's account.
    pub identity: Option<Identity>,
    /// The agent's sandbox. Absent: it has none.
    pub inside: Option<Inside>,
    /// `cgroup.procs` files of the view's leaf.
    pub cgroups: Vec<PathBuf>,
}

/// A tmux command that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be run at all.
    #[error("cannot run tmux to {attempt}: {source}; is tmux installed?")]
    Run {
        /// What it was to do.
        attempt: &'static str,
        /// Why it did not run.
        source: io::Error,
    },
    /// It ran and refused.
    #[error("tmux cannot {attempt}: {text}")]
    Refused {
        /// What it was to do.
        attempt: &'static str,
        /// What it said.
        text: String,
    },
    /// It did not answer.
    #[error("tmux did not {attempt} within {seconds} s; its server may be stopped")]
    Silent {
        /// What it was to do.
        attempt: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// Whether a tmux server is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It answers and has the session.
    Present,
    /// There is none.
    Absent,
    /// It cannot be said now.
    Unknown,
}

/// How long tmux may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The only session of a server.
pub(crate) const SESSION: &str = "main";
/// What the server and its panes are told; all of it fixed text, as tmux expands and executes what it is given.
const OPTIONS: [&[&str]; 6] = [
    &["set-option", "-g", "history-limit", "10000"],
    &["set-option", "-g", "remain-on-exit", "off"],
    &["set-option", "-g", "focus-events", "on"],
    &["set-option", "-g", "window-size", "latest"],
    &["set-option", "-s", "escape-time", "10"],
    &["set-option", "-s", "default-terminal", "tmux-256color"],
];

impl View {
    /// The view of the attempt in `attempt_dir`, which was launched so.
    pub fn of(attempt_dir: &Path, launch: &Launch, socket: PathBuf, program: PathBuf) -> Self {
        Self {
            socket,
            view_socket: launch.view_socket.clone(),
            program,
            cwd: launch.cwd.as_path().to_owned(),
            env: guests(launch),
            identity: launch.identity.clone(),
            inside: launch.sandbox.as_ref().map(|sandbox| Inside {
                note: attempt_dir.join(shim::files::SANDBOX),
                program: sandbox.program.clone(),
            }),
            cgroups: launch.cgroup.procs_files(Leaf::View),
        }
    }

    /// Starts the server and its session unless they are there; true when it was started.
    pub async fn ensure(&self) -> Result<bool, Error> {
        if self.alive().await == Liveness::Present {
            return Ok(false);
        }
        self.start().await.map(|_| true)
    }

    /// Starts the server and its session, of which there must be none; returns the server.
    pub async fn start(&self) -> Result<ProcessId, Error> {
        const ATTEMPT: &str = "start a server";
        if let Some(directory) = self.socket.parent() {
            let made = self.make_directory(directory);
            made.map_err(|source| Error::Run { attempt: ATTEMPT, source })?;
        }
        let mut arguments: Vec<&OsStr> = vec!["start-server".as_ref()];
        for option in status::LINE.into_iter().chain(OPTIONS).chain(modes::KEPT) {
            arguments.push(";".as_ref());
            arguments.extend(option.iter().map(|word| OsStr::new(*word)));
        }
        arguments.push(";".as_ref());
        let session = ["new-session", "-d", "-x", "200", "-y", "50", "-s", SESSION, "-P", "-F", "#{pid}", "--"];
        arguments.extend(session.map(OsStr::new));
        // With more than one word tmux runs the words as they are, without a shell.
        arguments.extend([self.program.as_os_str(), "shim".as_ref(), "attach".as_ref(), self.view_socket.as_os_str()]);
        let output = self.run(ATTEMPT, &arguments).await?;
        self.process(ATTEMPT, &output).await
    }

    /// The server's process. As long as that lives, looking for it is much cheaper than asking it.
    pub async fn server(&self) -> Result<ProcessId, Error> {
        const ATTEMPT: &str = "say which process it is";
        let output = self.run(ATTEMPT, &["display-message", "-p", "#{pid}"].map(OsStr::new)).await?;
        self.process(ATTEMPT, &output).await
    }

    async fn process(&self, attempt: &'static str, output: &Output) -> Result<ProcessId, Error> {
        let found = self.named(output).await.ok_or_else(|| refused(attempt, output))?;
        if self.owns(found) {
            return Ok(found);
        }
        Err(Error::Refused { attempt, text: format!("what answers names process {}, which is not its own", found.pid) })
    }

    /// The process whose pid tmux printed. In a sandbox that means nothing here, and the kernel is asked who listens.
    async fn named(&self, output: &Output) -> Option<ProcessId> {
        if self.inside.is_none() {
            return String::from_utf8_lossy(&output.stdout).trim().parse().ok().and_then(ProcessId::of);
        }
        if !output.status.success() {
            return None;
        }
        let stream = timeout(PATIENCE, UnixStream::connect(&self.socket)).await.ok()?.ok()?;
        stream.peer_cred().ok()?.pid().and_then(|pid| u32::try_from(pid).ok()).and_then(ProcessId::of)
    }

    /// Whether the place where servers of this view are is still being made.
    pub fn is_coming(&self) -> bool {
        self.inside.as_ref().is_some_and(Inside::is_coming)
    }

    /// Whether a process is where servers of this view are. An agent can put anything in the place of its server, and the
    /// executor signals what it takes for one.
    fn owns(&self, server: ProcessId) -> bool {
        self.identity.as_ref().is_none_or(|identity| server.is_of_account(identity.uid))
            && self.inside.as_ref().is_none_or(|inside| inside.holds(server.pid))
    }

    /// Lets a living server make its socket again if something has removed it: who is attached stays attached. True if
    /// it was gone.
    pub fn mend_socket(&self, server: ProcessId) -> bool {
        let gone = !self.socket.exists();
        if gone {
            server.signal(Signal::USR1);
        }
        gone
    }

    /// Whether the server is there.
    pub async fn alive(&self) -> Liveness {
        if !self.socket.exists() {
            return Liveness::Absent;
        }
        match self.run("look for a session", &["has-session".as_ref(), "-t".as_ref(), "=main".as_ref()]).await {
            Ok(output) if output.status.success() => Liveness::Present,
            // tmux itself says so: no server on the socket, or no session in it.
            Ok(output) if output.status.code() == Some(1) => Liveness::Absent,
            Ok(_) | Err(_) => Liveness::Unknown,
        }
    }

    /// How many people are attached.
    pub async fn attached_clients(&self) -> Result<usize, Error> {
        const ATTEMPT: &str = "list who is attached";
        let arguments = ["list-clients", "-F", "#{client_pid}"].map(OsStr::new);
        let output = self.run(ATTEMPT, &arguments).await?;
        if output.status.success() {
            return Ok(output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count());
        }
        if self.alive().await == Liveness::Absent { Ok(0) } else { Err(refused(ATTEMPT, &output)) }
    }

    /// Ends the server with everything in it. No server is no error.
    pub async fn kill(&self) -> Result<(), Error> {
        const ATTEMPT: &str = "end its server";
        if self.alive().await == Liveness::Absent {
            // The socket of a server that was killed stays.
            let _ = std::fs::remove_file(&self.socket);
            return Ok(());
        }
        let output = self.run(ATTEMPT, &["kill-server".as_ref()]).await?;
        let _ = std::fs::remove_file(&self.socket);
        if output.status.success() || output.status.code() == Some(1) { Ok(()) } else { Err(refused(ATTEMPT, &output)) }
    }

    fn make_directory(&self, directory: &Path) -> io::Result<()> {
        if directory.exists() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        match &self.identity {
            Some(identity) => chown(directory, Some(identity.uid), Some(identity.gid)),
            None => Ok(()),
        }
    }

    /// tmux with `arguments`, where the server of this view is.
    pub(crate) fn stage(&self, arguments: &[&OsStr], mut env: BTreeMap<ByteText, ByteText>) -> Stage {
        let tmux = ["tmux", "-u", "-f", "/dev/null", "-S"].map(ByteText::from).into_iter();
        let argv = tmux.chain([ByteText::from(self.socket.as_path())]);
        env.entry("PATH".into()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".into());
        Stage {
            argv: argv.chain(arguments.iter().map(|argument| ByteText::from(*argument))).collect(),
            env: Some(env),
            cwd: Some(self.cwd.clone()).filter(|cwd| cwd.is_dir()),
            identity: self.identity.clone(),
            cgroups: self.cgroups.clone(),
            // Nothing that ends the executor's session, such as Ctrl-C, reaches the server.
            session: true,
            inside: self.inside.clone(),
            ..Stage::default()
        }
    }

    async fn run(&self, attempt: &'static str, arguments: &[&OsStr]) -> Result<Output, Error> {
        let mut env = self.env.clone();
        // tmux refuses an unset or dumb terminal, also for a server that has none.
        env.insert("TERM".into(), "xterm-256color".into());
        // A client that waits for a stopped server is given up, with whoever waits for it outside of a sandbox; the server
        // itself is no child of it.
        let stage = Stage { dies_with_parent: self.inside.is_some(), ..self.stage(arguments, env) };
        let fail = |source| Error::Run { attempt, source };
        let mut command = tokio::process::Command::from(stage::command_by_stdin(&self.program));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let json = serde_json::to_vec(&stage).map_err(|error| fail(error.into()))?;
        let work = async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(&json).await?;
            }
            child.wait_with_output().await
        };
        match timeout(PATIENCE, work).await {
            Ok(output) => output.map_err(fail),
            Err(_) => Err(Error::Silent { attempt, seconds: PATIENCE.as_secs() }),
        }
    }
}

/// The agent's environment for what runs for people: it is not swept with the agent.
pub(crate) fn guests(launch: &Launch) -> BTreeMap<ByteText, ByteText> {
    let mut env = launch.env.clone();
    env.remove(&Mark::Agent.name().into());
    env.insert(Mark::Guest.name().into(), launch.attempt.to_string().as_str().into());
    env
}

fn refused(attempt: &'static str, output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Error::Refused { attempt, text: if text.is_empty() { output.status.to_string() } else { text } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_the_attempts_own_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let own = ProcessId::of(std::process::id()).unwrap();
        let uid = rustix::process::getuid().as_raw();
        let view = |identity: Option<u32>, inside: Option<Inside>| View {
            socket: directory.path().join("tmux"),
            view_socket: directory.path().join("view"),
            program: "/bin/true".into(),
            cwd: "/".into(),
            env: BTreeMap::new(),
            identity: identity.map(|uid| Identity { uid, gid: uid, groups: Vec::new() }),
            inside,
            cgroups: Vec::new(),
        };
        assert!(view(None, None).owns(own));
        assert!(view(Some(uid), None).owns(own));
        assert!(!view(Some(uid + 1), None).owns(own), "another account's");

        let link = std::fs::read_link("/proc/self/ns/pid").unwrap().to_string_lossy().into_owned();
        let namespace: u64 = link.trim_start_matches("pid:[").trim_end_matches(']').parse().unwrap();
        let sandbox = |namespace: u64| {
            let note = directory.path().join(namespace.to_string());
            let text = format!("{{\"child-pid\": 1, \"pid-namespace\": {namespace}}}");
            std::fs::write(&note, text).unwrap();
            Inside { note, program: "/bin/true".into() }
        };
        assert!(view(None, Some(sandbox(namespace))).owns(own));
        assert!(!view(None, Some(sandbox(namespace + 1))).owns(own), "outside of the sandbox");
        let lost = Inside { note: directory.path().join("absent"), program: "/bin/true".into() };
        assert!(!view(None, Some(lost)).owns(own), "nobody knows which sandbox");
    }
}
