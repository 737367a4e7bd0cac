//! Standard input and output of a process that does nothing but carry bytes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsFd as _,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::unix::pipe,
};

/// Where bytes come from, and where they go.
pub(super) type Input = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Standard input and output. Nothing else of this process holds the latter then, so that its end can be told.
///
/// ssh gives us pipes. They are opened once more, so that not to wait is ours alone: other threads that wait would cost a key
/// on its way more than the network does.
pub(super) fn both() -> io::Result<(Input, Output)> {
    let pipes = pipe::OpenOptions::new();
    let from: Input = match pipes.open_receiver("/proc/self/fd/0") {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::io::stdin()),
    };
    let to: Output = match pipes.open_sender("/proc/self/fd/1") {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::fs::File::from_std(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
    };
    rustix::stdio::dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?)?;
    Ok((from, to))
}
