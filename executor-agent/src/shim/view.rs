//! The client that shows a shim's terminal: what runs in the tmux pane.

use std::{io, path::Path};

/// Entry of `sculpt-executor shim attach VIEW_SOCKET`: shows the terminal on stdout and takes input from stdin.
/// Returns when the shim has gone, or when the agent has ended and nobody looks at this tmux any more.
pub fn main(socket: &Path) -> io::Result<()> {
    let _ = socket;
    unimplemented!()
}
