//! How a person sits beside an agent.

use std::str::FromStr;

/// How a person sits beside an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// They look on at the terminal.
    Observer,
    /// They type into it.
    Driver,
    /// They work in the workspace, at a terminal of their own.
    Shell,
    /// They run a program there, without a terminal.
    Command,
    /// They copy files.
    Files,
    /// They reach what its processes listen on, and nothing else.
    Ports,
}

/// What is not the name of a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not how anybody sits beside an agent; there are observer, driver, shell, command, files and ports")]
pub struct UnknownRole(pub String);

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Observer, Self::Driver, Self::Shell, Self::Command, Self::Files, Self::Ports];

    /// Its name, on the wire and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observer => "observer",
            Self::Driver => "driver",
            Self::Shell => "shell",
            Self::Command => "command",
            Self::Files => "files",
            Self::Ports => "ports",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}
