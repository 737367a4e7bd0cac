//! What a person may do beside an agent.

use std::{fmt, str::FromStr};

/// One thing that a person may do beside an agent. None follows from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Right {
    /// See its terminal.
    Observe,
    /// Type into its terminal.
    Drive,
    /// Run programs in its workspace, and copy files.
    Shell,
    /// Reach what its own processes listen on, and be reached by them.
    Forward,
}

/// A set of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Rights(u8);

/// What somebody comes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// To look on.
    Observe,
    /// To sit down at the terminal.
    Attach,
    /// To work in the workspace, with whatever tools.
    Workspace,
}

/// What is not the name of a right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a right beside an agent; there are observe, drive, shell and forward")]
pub struct UnknownRight(pub String);

impl Right {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Observe, Self::Drive, Self::Shell, Self::Forward];

    /// Its name, in certificates and for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Drive => "drive",
            Self::Shell => "shell",
            Self::Forward => "forward",
        }
    }
}

impl FromStr for Right {
    type Err = UnknownRight;

    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        Self::ALL.into_iter().find(|right| right.as_str() == text).ok_or_else(|| UnknownRight(text.to_owned()))
    }
}

impl Rights {
    /// No right.
    pub const NONE: Self = Self(0);

    /// Whether `right` is among them.
    pub fn has(self, right: Right) -> bool {
        self.0 & bit(right) != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }

    /// Those that are in `other`, too.
    pub fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

fn bit(right: Right) -> u8 {
    1 << right as u8
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights.into_iter().fold(Self::NONE, |all, right| Self(all.0 | bit(right)))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// As a certificate has them: names, each once, in the order of [`Right::ALL`], with commas.
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, right) in self.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{}", right.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for Rights {
    type Err = UnknownRight;

    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        text.split(',').map(str::parse).collect()
    }
}

impl Profile {
    /// What it is about: whoever lacks all of these has no use for it.
    pub fn rights(self) -> Rights {
        match self {
            Self::Observe => [Right::Observe].into_iter().collect(),
            Self::Attach => [Right::Observe, Right::Drive].into_iter().collect(),
            Self::Workspace => Right::ALL.into_iter().collect(),
        }
    }
}
