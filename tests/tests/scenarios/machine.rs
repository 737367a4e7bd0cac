//! Somebody's machine: a HOME of their own, and maybe a place of its own on a network.

use std::{fs, path::PathBuf};

use anyhow::Result;
use sculpt_tests::harness::{Cli, Desk, Stack, Via};
use tokio::process::Command;

/// A machine, and who types there.
#[derive(Debug)]
pub(crate) struct Machine {
    via: Vec<String>,
    pub(crate) home: PathBuf,
}

impl Machine {
    /// On the network.
    pub(crate) fn new(stack: &Stack, via: Via, name: &str) -> Result<Self> {
        Self::with(stack, via.into(), name)
    }

    /// Beside the stack.
    pub(crate) fn here(stack: &Stack, name: &str) -> Result<Self> {
        Self::with(stack, Vec::new(), name)
    }

    fn with(stack: &Stack, via: Vec<String>, name: &str) -> Result<Self> {
        let home = stack.root().join(name);
        fs::create_dir_all(&home)?;
        Ok(Self { via, home })
    }

    /// A program, where it is installed, with what it is started through.
    fn line(&self, stack: &Stack, words: &[&str]) -> Vec<String> {
        let (program, rest) = words.split_first().unwrap_or((&"true", &[]));
        let program = stack.installed(program).to_string_lossy().into_owned();
        self.via.iter().cloned().chain([program]).chain(rest.iter().map(|word| (*word).to_owned())).collect()
    }

    /// A program and its arguments.
    pub(crate) fn runs(&self, stack: &Stack, words: &[&str]) -> Cli {
        let line = self.line(stack, words);
        stack.shell(&line[0], &line[1..]).env("HOME", &self.home).dir(&self.home)
    }

    /// The same as it is typed: words with single spaces between them.
    pub(crate) fn types(&self, stack: &Stack, line: &str) -> Cli {
        self.runs(stack, &line.split(' ').collect::<Vec<_>>())
    }

    /// The same in a terminal.
    pub(crate) fn sits(&self, stack: &Stack, line: &str) -> Desk {
        let line = self.line(stack, &line.split(' ').collect::<Vec<_>>());
        stack.desk(&line[0], &line[1..]).env("HOME", &self.home)
    }

    /// A program and its arguments, to be started in another way.
    pub(crate) fn command(&self, stack: &Stack, words: &[&str]) -> Command {
        let line = self.line(stack, words);
        let mut command = stack.command(&line[0]);
        command.args(&line[1..]).env("HOME", &self.home).current_dir(&self.home);
        command
    }
}
