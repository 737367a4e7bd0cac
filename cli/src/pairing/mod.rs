//! Sitting beside an agent with the user's own ssh: the key and the certificate for it, what ssh is told, the way there.

mod access;
mod config;
mod ending;
mod folder;
mod grant;
mod keep;
mod leave;
mod openssh;
mod route;
mod ssh;
mod standing;
mod terminal;
mod tunnel;
mod us;

pub(crate) use self::{
    access::{Access, Wish, forget, open, workspaces},
    config::{Unspeakable, quoted},
    ending::Ending,
    folder::Folders,
    keep::{Kept, Parting},
    leave::Leave,
    openssh::OpenSsh,
    route::{Address, Route, Via},
    ssh::{Heard, Sat, host, no_program, remote_line, sit, ssh},
    standing::{Need, Standing, standing},
    terminal::{Terminal, needed as terminal_needed},
    tunnel::{Ends, REACH, carry},
    us::Us,
};

use sculpt_proto::v1::PairingProfile;

/// What somebody comes for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To look on.
    Observe,
    /// To sit down at the terminal.
    Attach,
    /// To work in the workspace.
    #[default]
    Workspace,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Observe, Self::Attach, Self::Workspace];

    /// What its files are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Attach => "attach",
            Self::Workspace => "workspace",
        }
    }
}

impl From<Purpose> for PairingProfile {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Observe => Self::Observe,
            Purpose::Attach => Self::Attach,
            Purpose::Workspace => Self::Workspace,
        }
    }
}
