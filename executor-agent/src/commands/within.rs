//! `sculpt` within a workspace, where no other may be: this program under that name.

use std::{ffi::OsStr, path::Path, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::shim;

/// What an agent says of its task
#[derive(Debug, Parser)]
#[command(name = "sculpt", version, after_help = "Within a task's workspace there is only this much of it.")]
pub struct Within {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say in a line how far the task has come
    Milestone {
        /// The line
        text: String,
    },
}

impl Within {
    /// Whether this program was called by that name.
    pub fn is_meant() -> bool {
        let called = std::env::args_os().next();
        called.as_deref().map(Path::new).and_then(Path::file_name) == Some(OsStr::new(shim::TOOL))
    }

    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        let Command::Milestone { text } = self.command;
        match shim::say(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("sculpt: cannot say how far the task has come: {error}");
                ExitCode::FAILURE
            }
        }
    }
}
