//! A stage that stands ahead of what its program is to read: both come by the same stdin.

use std::{io, path::Path, process::Command};

use rustix::{
    io::Errno,
    stdio::{dup2_stdin, stdin, stdout},
    termios::isatty,
};

use super::{Error, Stage, close_inherited_descriptors, failed};
use crate::descriptors;

/// A command that runs the stage which stands ahead of everything else on its stdin, as [`ahead`] has it. What follows there
/// is for the program, unless its stdout is a terminal: that is its stdin then, too.
pub fn command_ahead(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("stage").arg("--ahead").env_clear().envs(descriptors::environment());
    command
}

/// What is written for [`command_ahead`]: the length in four bytes, the greatest first, then JSON.
pub fn ahead(stage: &Stage) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(stage)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &json].concat())
}

/// Entry of `sculpt-executor stage --ahead`; returns only when it fails. Call it before any thread is started.
pub fn main_ahead() -> Error {
    close_inherited_descriptors();
    let read = || -> io::Result<Stage> {
        let mut length = [0; 4];
        read_exactly(&mut length)?;
        let mut json = vec![0; u32::from_be_bytes(length).try_into().map_err(io::Error::other)?];
        read_exactly(&mut json)?;
        if isatty(stdout()) {
            dup2_stdin(stdout())?;
        }
        Ok(serde_json::from_slice(&json)?)
    };
    match read() {
        Ok(stage) => stage.exec(),
        Err(error) => failed("read the stage", error),
    }
}

/// Takes from stdin so much and nothing beyond it.
fn read_exactly(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match rustix::io::read(stdin(), &mut *buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => buffer = &mut buffer[length..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
