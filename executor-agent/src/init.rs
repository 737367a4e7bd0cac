//! The first process of a container. Whatever loses its parent there becomes its child, and stays as a zombie unless it is
//! waited for; so this process does nothing but that, and the executor is its child.

use std::{ffi::OsString, io, os::unix::process::ExitStatusExt as _, path::Path, process::Command, thread};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait},
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Whether this process is the first one of its system or container.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs `program`, hands on the signals that end it, and waits for everything that ends, until it has ended itself.
/// Returns its exit code; as everywhere, 128 and the signal's number for one that was killed.
pub fn look_after(program: &Path, arguments: impl Iterator<Item = OsString>) -> io::Result<u8> {
    // Before there is a child: what comes meanwhile is handed on, too.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let child = Pid::from_child(&Command::new(program).args(arguments).spawn()?);
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let signal = if signal == SIGINT { Signal::INT } else { Signal::TERM };
            let _ended = kill_process(child, signal);
        }
    })?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == child => return Ok(code(status)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let status = std::process::ExitStatus::from_raw(status.as_raw());
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
