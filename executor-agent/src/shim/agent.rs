//! The agent's process and what it is connected to.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::{
    fs::{Gid, Mode as FileMode, OFlags, Uid, fchmod, fchown, fcntl_getfl, fcntl_setfl},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::{Mode, launch::Launch, pump::Source, terminal::Size};
use crate::{spool::Stream, tree::ProcessId};

/// Room in a pipe, so that an agent that prints a lot is rarely waited for.
const PIPE: usize = 1 << 20;

/// What connects the shim and the agent.
pub(super) enum Connection {
    /// A terminal: our side and the agent's.
    Terminal { master: Arc<OwnedFd>, slave: OwnedFd, size: Size },
    /// Pipes: ours, and the agent's.
    Pipes { ours: [OwnedFd; 2], theirs: [OwnedFd; 2] },
}

impl Connection {
    /// Makes what `launch` wants.
    pub(super) fn open(launch: &Launch) -> io::Result<Self> {
        match launch.mode {
            Mode::Terminal { columns, rows } => terminal(launch, Size::clamped(columns, rows)),
            Mode::Pipes => {
                let (out, their_out) = pipe()?;
                let (err, their_err) = pipe()?;
                Ok(Self::Pipes { ours: [out, err], theirs: [their_out, their_err] })
            }
        }
    }

    /// Starts the agent through the stage; it is killed when the calling thread dies.
    pub(super) fn spawn(&self, launch: &Launch, attempt_dir: &Path) -> io::Result<u32> {
        let stdin = launch.stdin.as_ref().map(|path| File::open(path.as_path())).transpose()?.map(Stdio::from);
        // The link leads to this very binary, also when the file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("sculpt-executor").args(["stage", "--launch"]).arg(attempt_dir).env_clear();
        match self {
            Self::Terminal { slave, .. } => {
                let stdin = stdin.map_or_else(|| slave.try_clone().map(Stdio::from), Ok)?;
                command.stdin(stdin).stdout(slave.try_clone()?).stderr(slave.try_clone()?);
            }
            Self::Pipes { theirs: [out, err], .. } => {
                let stdin = stdin.unwrap_or_else(Stdio::null);
                command.stdin(stdin).stdout(out.try_clone()?).stderr(err.try_clone()?);
            }
        }
        Ok(command.spawn()?.id())
    }

    /// Where output comes from, and the terminal's other side to hold on to; the agent's ends of pipes are closed.
    pub(super) fn into_sources(self) -> (Vec<Source>, Option<OwnedFd>) {
        match self {
            Self::Terminal { master, slave, .. } => {
                (vec![Source { descriptor: master, stream: Stream::Terminal }], Some(slave))
            }
            Self::Pipes { ours: [out, err], .. } => {
                let source = |descriptor, stream| Source { descriptor: Arc::new(descriptor), stream };
                (vec![source(out, Stream::Stdout), source(err, Stream::Stderr)], None)
            }
        }
    }
}

fn terminal(launch: &Launch, size: Size) -> io::Result<Connection> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    tcsetwinsize(&slave, Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 })?;
    if let Some(identity) = &launch.identity {
        // The agent opens its own terminal by name; others do not.
        fchown(&slave, Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)))?;
        fchmod(&slave, FileMode::RUSR | FileMode::WUSR)?;
    }
    without_waiting(&master)?;
    Ok(Connection::Terminal { master: Arc::new(master), slave, size })
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    // An ordinary user may be past the limit for large ones.
    let _ = fcntl_setpipe_size(&ours, PIPE);
    without_waiting(&ours)?;
    Ok((ours, theirs))
}

fn without_waiting(descriptor: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfl(descriptor, fcntl_getfl(descriptor)? | OFlags::NONBLOCK)?)
}

/// Its identity, also when it has ended already and is a zombie.
pub(super) fn identity(pid: u32) -> ProcessId {
    ProcessId::of(pid).unwrap_or(ProcessId { pid, start: 0 })
}
