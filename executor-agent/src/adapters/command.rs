//! A plain command: no prompt, no session.

use std::{ffi::OsString, path::Path};

use super::{Adapter, AdapterError, Start};

/// A program and its arguments, exactly as they were given.
pub(super) struct Command {
    argv: Vec<OsString>,
    name: String,
}

impl Command {
    pub(super) fn new(argv: Vec<OsString>) -> Self {
        let name = argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
        Self { argv, name }
    }
}

impl Adapter for Command {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, _prompt_file: &Path) -> Result<Start, AdapterError> {
        Start { argv: self.argv.clone(), ..Start::default() }.checked()
    }
}
