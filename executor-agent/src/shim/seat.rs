//! A person's seat at an attempt's tmux. Whoever answers on the attempt's socket can have its client run commands, and may be
//! the agent's own: so the client is where the agent is, on a terminal of its own, and the person's is only copied to.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::geteuid,
    stdio::stdout,
    termios::{tcgetwinsize, tcsetwinsize},
};
use signal_hook::{consts::signal::SIGWINCH, iterator::Signals};

use super::{Launch, view::Raw};
use crate::{
    pty,
    stage::Stage,
    tmux::{SESSION, Sits, View},
};

/// Leads from an attempt's directory of sockets to that of the attempt.
pub const ATTEMPT: &str = "attempt";

/// Exit code when the terminal has closed, and not the person left it.
pub(crate) const CLOSED: u8 = 10;

/// How long a server whose socket is there may take to have its session, too.
const APPEARS: Duration = Duration::from_secs(10);

/// Between two looks for it, each of which runs a program: at first, and at last.
const LOOK: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_millis(500);

/// What tmux is told of the person's own environment.
pub(crate) const TOLD: [&str; 4] = ["TERM", "COLORTERM", "LANG", "LC_ALL"];

/// Entry of `sculpt-executor shim seat TMUX_SOCKET`: attaches until the person leaves, or the terminal closes.
pub fn main(tmux_socket: &Path) -> io::Result<ExitCode> {
    let view = view(tmux_socket)?;
    if !begins(&view)? {
        return Ok(ExitCode::from(CLOSED));
    }
    let env =
        TOLD.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?.as_os_str().into()))).collect();
    let stage = view.seat(&Sits::Freely, env);
    let (master, slave) = pty::open(stage.identity.as_ref())?;
    let signals = Signals::new([SIGWINCH])?;
    let raw = Raw::enter();
    let size = |master: &OwnedFd| tcgetwinsize(stdout()).and_then(|size| tcsetwinsize(master, size));
    // A person without a size has the one that tmux takes.
    let _unknown = size(&master);
    let mut client = spawn(&stage, slave)?;
    resize(signals, master.try_clone()?)?;
    type_in(master.try_clone()?)?;
    let shown = show(File::from(master));
    let status = client.wait();
    drop(raw);
    shown?;
    if goes_on(&view)? {
        return Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    Ok(ExitCode::from(CLOSED))
}

/// The view behind a socket, as the attempt's launch says. Only what belongs to the caller is believed.
fn view(tmux_socket: &Path) -> io::Result<View> {
    let sockets = tmux_socket.ancestors().nth(2).ok_or(io::ErrorKind::InvalidInput)?;
    let attempt_dir = fs::read_link(sockets.join(ATTEMPT))?;
    for directory in [sockets, &attempt_dir] {
        let owner = fs::symlink_metadata(directory)?.uid();
        if owner != geteuid().as_raw() {
            let why = format!("{} belongs to account {owner}, which may not say what you run", directory.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
    }
    let launch = Launch::read(&attempt_dir)?;
    Ok(View::of(&attempt_dir, &launch, tmux_socket.to_owned(), program()?))
}

fn program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Waits until there is a session: a server listens before it has made one. False when none comes.
fn begins(view: &View) -> io::Result<bool> {
    comes(view.socket.parent().unwrap_or(&view.socket), || goes_on(view))
}

/// Whether `there` comes true, as it can while there is this directory. That there is no socket in it says nothing: a server
/// that begins removes what another has left, and makes its own.
fn comes(directory: &Path, mut there: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    let since = Instant::now();
    while !there()? {
        let waited = since.elapsed();
        if waited > APPEARS || !directory.is_dir() {
            return Ok(false);
        }
        thread::sleep(pause(waited));
    }
    Ok(true)
}

/// How long until the next look, after so long.
fn pause(waited: Duration) -> Duration {
    (waited / 2).clamp(LOOK, SELDOM)
}

/// Whether the session is there.
fn goes_on(view: &View) -> io::Result<bool> {
    let stage = view
        .stage(&["has-session".as_ref(), "-t".as_ref(), OsStr::new(SESSION)], [("TERM".into(), "xterm".into())].into());
    let mut ask = stage.command(&program()?);
    ask.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(ask.status()?.success())
}

fn spawn(stage: &Stage, slave: OwnedFd) -> io::Result<Child> {
    let mut command = stage.command(&program()?);
    command.env_clear().stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    command.spawn()
}

fn resize(mut signals: Signals, master: OwnedFd) -> io::Result<()> {
    thread::Builder::new().name("size".into()).spawn(move || {
        for _ in signals.forever() {
            // A terminal that is closing needs none.
            let _gone = tcgetwinsize(stdout()).and_then(|size| tcsetwinsize(master.as_fd(), size));
        }
    })?;
    Ok(())
}

fn type_in(master: OwnedFd) -> io::Result<()> {
    thread::Builder::new().name("input".into()).spawn(move || {
        let mut master = File::from(master);
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = io::stdin().lock().read(&mut buffer) {
            if master.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Copies what tmux paints until its client is gone.
fn show(mut master: File) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut buffer = [0; 1 << 16];
    loop {
        match master.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                out.write_all(&buffer[..length])?;
                out.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The other side has closed.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_where_no_session_can_come() {
        let root = tempfile::tempdir().unwrap();
        let view = root.path().join("view");
        fs::create_dir(&view).unwrap();
        let mut asked = 0;
        let came = comes(&view, || {
            asked += 1;
            if asked == 2 {
                fs::remove_dir(&view)?;
            }
            Ok(false)
        });
        assert_eq!((came.unwrap(), asked), (false, 2));
        let mut answers = [false, false, true].into_iter();
        assert!(comes(root.path(), || Ok(answers.next().unwrap())).unwrap(), "without a socket, too");
    }

    #[test]
    fn a_session_that_is_late_is_looked_for_less_often() {
        let next = |waited: &Duration| Some(*waited + pause(*waited));
        let looks = std::iter::successors(Some(Duration::ZERO), next).take_while(|waited| *waited < APPEARS);
        let looks: Vec<Duration> = looks.collect();
        assert!(looks.len() < 35 && looks[4] < Duration::from_millis(200), "{looks:?}");
    }
}
