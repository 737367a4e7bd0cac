//! Sitting beside an agent with the user's own ssh: the key and the certificate for it, what ssh is told, the way there.

mod access;
mod config;
mod ending;
mod folder;
mod grant;
mod keep;
mod leash;
mod open;
mod openssh;
mod route;
mod ssh;
mod standard;
mod standing;
mod terminal;
mod tunnel;
mod us;

pub(crate) use self::{
    access::{Access, forget, workspaces},
    config::{Unspeakable, quoted},
    ending::Ending,
    folder::Folders,
    keep::{Kept, Parting},
    leash::hold,
    open::{Wish, open},
    openssh::OpenSsh,
    route::{Address, Route, Via},
    ssh::{Heard, Sat, host, no_program, openssh, remote_line, sit, ssh},
    standing::{Need, Standing, afterwards, standing},
    terminal::{Terminal, needed as terminal_needed},
    tunnel::{Ends, REACH, carry},
    us::Us,
};

use sculpt_pairing::Right;
use sculpt_proto::v1::PairingProfile;

/// What somebody comes for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To look on.
    Observe,
    /// To work there, at the terminal and in the workspace.
    #[default]
    Workspace,
}

impl Purpose {
    const ALL: [Self; 2] = [Self::Observe, Self::Workspace];

    /// What its files are called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Workspace => "workspace",
        }
    }

    /// What is asked for, until one of them is granted. Who may do more than type has all of a terminal that they sit down
    /// at; who may only type has no use for a workspace.
    fn profiles(self, right: Option<Right>) -> &'static [PairingProfile] {
        match (self, right) {
            (Self::Observe, _) => &[PairingProfile::Observe],
            (Self::Workspace, Some(Right::Drive)) => &[PairingProfile::Workspace, PairingProfile::Attach],
            (Self::Workspace, _) => &[PairingProfile::Workspace],
        }
    }
}
