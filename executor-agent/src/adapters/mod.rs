//! How an agent is started. Later kinds also say how its session is resumed, how it is handed a message, and how what
//! it does is read; each of these becomes a method here, so that nothing else needs to know one agent from another.

mod command;
mod template;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use crate::{
    config::Settings,
    spec::{Spec, Work},
};

/// Longest prompt that is handed over as an argument, in bytes; the kernel refuses single arguments over 128 KiB.
pub const LONGEST_ARGUMENT: usize = 100 << 10;

/// Longest argument that the kernel takes, in bytes: 128 KiB with the NUL at its end.
const LONGEST: usize = (128 << 10) - 1;

/// An agent that cannot be started as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AdapterError {
    /// No agent of that name.
    #[error("this executor has no agent {name:?}; it has: {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The task names none, and neither does the executor.
    #[error("the task names no agent and this executor has no default_agent; it has: {known}")]
    NoDefault {
        /// Those there are.
        known: String,
    },
    /// The prompt does not fit into an argument.
    #[error(
        "the prompt has {bytes} bytes, and agent {agent:?} takes it as an argument, which holds at most {LONGEST_ARGUMENT}; give the agent prompt = \"stdin\" or prompt = \"file\""
    )]
    TooLong {
        /// The agent.
        agent: String,
        /// Length of the prompt.
        bytes: usize,
    },
    /// The system takes no such argument.
    #[error(
        "argument {number} of the command has {bytes} bytes, and the system takes at most {LONGEST}; put what it says into a file"
    )]
    Argument {
        /// 0 for the program.
        number: usize,
        /// Its length.
        bytes: usize,
    },
    /// Arguments cannot hold NUL.
    #[error(
        "the prompt holds a NUL byte, and agent {agent:?} takes it as an argument; give the agent prompt = \"stdin\" or prompt = \"file\""
    )]
    Nul {
        /// The agent.
        agent: String,
    },
}

/// How to start an agent's process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Added to the environment, below the task's own.
    pub env: BTreeMap<String, String>,
    /// Written to the prompt's file before the start.
    pub prompt_file: Option<String>,
    /// The prompt's file is the agent's standard input.
    pub prompt_on_stdin: bool,
}

impl Start {
    /// Refuses what the kernel would refuse without saying which argument it is about.
    fn checked(self) -> Result<Self, AdapterError> {
        match self.argv.iter().position(|argument| argument.len() > LONGEST) {
            Some(number) => Err(AdapterError::Argument { number, bytes: self.argv[number].len() }),
            None => Ok(self),
        }
    }
}

/// One kind of agent.
pub trait Adapter: Send + Sync {
    /// Name for people.
    fn name(&self) -> &str;

    /// How to start it on its first turn; `prompt_file` is where a prompt can be written for it.
    fn start(&self, prompt_file: &std::path::Path) -> Result<Start, AdapterError>;
}

/// The adapter for what a spec asks.
pub fn of(settings: &Settings, spec: &Spec) -> Result<Box<dyn Adapter>, AdapterError> {
    let prompt = match &spec.work {
        Work::Command(argv) => return Ok(Box::new(command::Command::new(argv.clone()))),
        Work::Prompt(prompt) => prompt.clone(),
    };
    let known = || {
        let names: Vec<&str> = settings.agents.keys().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let name = spec.agent.as_ref().or(settings.default_agent.as_ref());
    let name = name.ok_or_else(|| AdapterError::NoDefault { known: known() })?;
    let template = settings.agents.get(name);
    let template = template.ok_or_else(|| AdapterError::Unknown { name: name.clone(), known: known() })?;
    Ok(Box::new(template::Template::new(name.clone(), template.clone(), prompt)))
}

/// The file that a prompt is written to, beside the workspace.
pub fn prompt_file(workspace: &std::path::Path) -> PathBuf {
    workspace.with_extension("prompt")
}
