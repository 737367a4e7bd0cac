//! A program that runs for a person: started where the agent is, and gone when they are, as with OpenSSH's own server.

use std::{io, os::fd::OwnedFd, path::Path, process::Stdio, time::Duration};

use russh::Pty;
use rustix::{
    process::Signal,
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::modes;
use crate::{
    pty::{self, Master, Size},
    stage::{self, Stage},
    tree::{self, ProcessId, Session},
};

/// From the first asking to the kill of what is to end with its person.
const GRACE: Duration = Duration::from_secs(2);

/// It, and what it has started and not sent away.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// The first process; in a sandbox it waits outside for the program.
    root: Option<ProcessId>,
    inside: bool,
    terminal: Option<Master>,
}

/// The terminal that a program is to have.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) size: Size,
    /// Those of the person's own.
    pub(super) modes: Vec<(Pty, u32)>,
}

/// Its ends.
pub(super) struct Streams {
    pub(super) input: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) output: Box<dyn AsyncRead + Send + Unpin>,
    /// Apart from output only without a terminal.
    pub(super) errors: Box<dyn AsyncRead + Send + Unpin>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself.
    Code(u32),
    /// By a signal of this number.
    Signal(i32),
}

/// How much of it ends with its person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// It, and what it has started and not sent away: they may have nothing here any more.
    All,
    /// It, and what the loss of its terminal ends. What it has left in the background stays: an editor begins its server so,
    /// and comes back to it after its connection was lost.
    Program,
}

impl Process {
    /// Starts `stage` through `program`, the executor's own binary, on a terminal or on pipes. It lives no longer than the
    /// calling thread, which therefore has to be one of the runtime's own.
    pub(super) async fn start(program: &Path, stage: &Stage, window: Option<&Window>) -> io::Result<(Self, Streams)> {
        let ahead = stage::ahead(stage)?;
        let (mut child, master) = match window {
            None => (spawn(program, None)?, None),
            Some(window) => {
                let (master, slave) = pty::open(stage.identity.as_ref())?;
                let mut terminal = tcgetattr(&slave)?;
                modes::give(&mut terminal, &window.modes);
                tcsetattr(&slave, OptionalActions::Now, &terminal)?;
                let master = Master::new(master)?;
                master.resize(window.size)?;
                (spawn(program, Some(slave))?, Some(master))
            }
        };
        let root = child.id().and_then(ProcessId::of);
        let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(&ahead).await?;
        let streams = match (&master, child.stdout.take(), child.stderr.take()) {
            (Some(master), ..) => Streams {
                input: Box::new(master.clone()),
                output: Box::new(master.clone()),
                errors: Box::new(tokio::io::empty()),
            },
            (None, Some(output), Some(errors)) => {
                Streams { input: Box::new(stdin), output: Box::new(output), errors: Box::new(errors) }
            }
            (None, ..) => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        Ok((Self { child, root, inside: stage.inside.is_some(), terminal: master }, streams))
    }

    /// Whether it has a terminal and not pipes.
    pub(super) fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> io::Result<Ending> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.child.wait().await?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Code(u32::try_from(code).unwrap_or(1)),
            (None, Some(signal)) => Ending::Signal(signal),
            (None, None) => Ending::Code(1),
        })
    }

    /// Gives its terminal another size.
    pub(super) fn resize(&self, size: Size) {
        // A terminal that is closing needs none.
        let _gone = self.terminal.as_ref().map(|terminal| terminal.resize(size));
    }

    /// Sends it, and what it has started in its session, a signal.
    pub(super) async fn signal(&self, signal: Signal) {
        let session = self.session();
        // What has gone meanwhile needs none.
        let _sent = tokio::task::spawn_blocking(move || tree::signal_all(|| members(session), signal)).await;
    }

    /// Ends what is left of it. What has begun a session of its own was sent away, and stays.
    pub(super) async fn end(self, ends: Ends) {
        let (root, session) = (self.root, self.session());
        // The kernel hangs up on what is in the foreground of a terminal.
        drop(self.terminal);
        let ending = tokio::task::spawn_blocking(move || {
            let left = || match ends {
                Ends::All => members(session),
                Ends::Program => session.and_then(leader).into_iter().collect(),
            };
            tree::signal_all(left, Signal::HUP);
            tree::end(left, GRACE)
        });
        if !matches!(ending.await, Ok(true)) {
            tracing::warn!(process = ?root, "what ran for a person could not be ended");
        }
    }

    /// The session of the program.
    fn session(&self) -> Option<Session> {
        let root = self.root?;
        let leader = if self.inside { tree::first_child(root.pid).unwrap_or(root) } else { root };
        Some(Session { id: leader.pid, start: leader.start })
    }
}

/// The program itself, while it lives.
fn leader(session: Session) -> Option<ProcessId> {
    Some(ProcessId { pid: session.id, start: session.start }).filter(|process| process.is_alive())
}

fn members(session: Option<Session>) -> Vec<ProcessId> {
    session.map(|session| tree::members(&[session])).unwrap_or_default()
}

/// Starts a stage that is still to be told what it is.
fn spawn(program: &Path, terminal: Option<OwnedFd>) -> io::Result<Child> {
    let mut command = Command::from(stage::command_ahead(program));
    command.stdin(Stdio::piped()).kill_on_drop(true);
    match terminal {
        Some(slave) => command.stdout(slave.try_clone()?).stderr(slave),
        None => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
    };
    command.spawn()
}
