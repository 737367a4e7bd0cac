//! The client that shows a shim's terminal: what runs in the tmux pane.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustix::{
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr},
};
use signal_hook::{consts::signal::SIGWINCH, iterator::Signals};

use super::{
    lock,
    wire::{MAX_INPUT, ViewMessage, send_view},
};

/// Size where stdout is no terminal.
const SIZE: (u16, u16) = (200, 50);
/// How often an ended agent's last picture asks whether anybody looks at it.
const LOOK: Duration = Duration::from_millis(500);

/// Entry of `sculpt-executor shim attach VIEW_SOCKET`: shows the terminal on stdout and takes input from stdin.
/// Returns when the shim has gone, or when the agent has ended and nobody looks at this tmux any more.
pub fn main(socket: &Path) -> io::Result<()> {
    let raw = Raw::enter();
    let stream = UnixStream::connect(socket)?;
    let sender = Arc::new(Mutex::new(stream.try_clone()?));
    // Registered before the size is read, so that no change is missed.
    let signals = Signals::new([SIGWINCH])?;
    send_view(&mut *lock(&sender), &size())?;
    send_sizes(signals, Arc::clone(&sender))?;
    send_input(sender)?;
    let shown = show(&stream);
    if shown.is_ok() {
        stay_while_watched();
    }
    drop(raw);
    shown
}

fn size() -> ViewMessage {
    let (columns, rows) = tcgetwinsize(stdout()).map_or(SIZE, |size| (size.ws_col, size.ws_row));
    if columns == 0 || rows == 0 {
        return ViewMessage::Size { columns: SIZE.0, rows: SIZE.1 };
    }
    ViewMessage::Size { columns, rows }
}

fn send_sizes(mut signals: Signals, sender: Arc<Mutex<UnixStream>>) -> io::Result<()> {
    thread::Builder::new().name("size".into()).spawn(move || {
        for _ in signals.forever() {
            if send_view(&mut *lock(&sender), &size()).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

fn send_input(sender: Arc<Mutex<UnixStream>>) -> io::Result<()> {
    thread::Builder::new().name("input".into()).spawn(move || {
        let mut buffer = vec![0; MAX_INPUT];
        loop {
            let read = io::stdin().lock().read(&mut buffer);
            let Ok(length @ 1..) = read else { return };
            if send_view(&mut *lock(&sender), &ViewMessage::Input(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Copies the terminal's bytes until no more will come.
fn show(mut stream: &UnixStream) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut buffer = vec![0; MAX_INPUT];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                out.write_all(&buffer[..length])?;
                out.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The shim was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Keeps the last picture on the screen of those who look at it.
fn stay_while_watched() {
    // Set by tmux: socket, pid of the server, session, separated by commas; the last two hold none.
    let Some(tmux) = std::env::var_os("TMUX") else { return };
    let tmux = tmux.into_encoded_bytes();
    let Some(socket) = tmux.rsplitn(3, |byte| *byte == b',').nth(2) else { return };
    let socket = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(socket);
    loop {
        let clients = Command::new("tmux")
            .arg("-S")
            .arg(socket)
            .args(["list-clients", "-F", "#{client_pid}"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        if !clients.is_ok_and(|clients| clients.status.success() && !clients.stdout.is_empty()) {
            return;
        }
        thread::sleep(LOOK);
    }
}

/// A terminal that gives every key as it is, for as long as this lives.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let Ok(before) = tcgetattr(stdin()) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        Self(tcsetattr(stdin(), OptionalActions::Now, &raw).ok().map(|()| before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing more can be done for a terminal that has gone.
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}
