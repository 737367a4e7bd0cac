//! PURE: how much a channel keeps of what is sent into it, by what it is for.

use sculpt_pairing::Rights;

use super::request::{Request, Service, service};

/// What a channel keeps for who takes it, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes in memory.
    pub(super) held: usize,
    /// Bytes of a file on disk with what is more. None: a channel with more is closed.
    pub(super) part: Option<u64>,
    /// Who takes more bytes a second than this is waited for, and nothing is written; who does not holds a connection up by no
    /// more than its packets take at this rate.
    pub(super) rate: u32,
}

impl Limits {
    /// Before anything was asked to run, there is nobody to whom anything could be sent.
    pub(super) const UNASKED: Self = Self { held: 32 << 10, part: None, rate: u32::MAX };

    /// Who types, or pastes, sends little.
    const TYPED: Self = Self { held: 64 << 10, part: None, rate: 64 << 10 };

    /// A program without a terminal, or who is connected, may be sent much.
    pub(super) const READ: Self = Self { held: 512 << 10, part: Some(128 << 20), rate: 2 << 20 };

    /// Those of what somebody with `rights` has asked to run.
    pub(super) fn of(request: Request, rights: Rights, has_terminal: bool) -> Self {
        match service(request, rights) {
            Service::Shell | Service::Command(_) | Service::Sftp if !has_terminal => Self::READ,
            Service::Shell | Service::Command(_) | Service::Sftp | Service::Seat { .. } | Service::Refused(_) => {
                Self::TYPED
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sculpt_pairing::Profile;

    use super::*;

    #[test]
    fn only_what_reads_without_a_terminal_may_be_sent_much() {
        let [observe, all] = [Profile::Observe, Profile::Workspace].map(Profile::rights);
        let exec = |line: &str| Request::Exec(line.into());
        for (request, rights, has_terminal, expected) in [
            (Request::Shell, all, false, Limits::READ),
            (Request::Shell, all, true, Limits::TYPED),
            (exec("cat"), all, false, Limits::READ),
            (exec("cat"), all, true, Limits::TYPED),
            (exec("sculpt-attach"), all, true, Limits::TYPED),
            (exec("sculpt-attach"), all, false, Limits::TYPED),
            (Request::Subsystem("sftp".to_owned()), all, false, Limits::READ),
            (Request::Shell, observe, false, Limits::TYPED),
            (exec("cat"), observe, false, Limits::TYPED),
            (Request::Subsystem("sftp".to_owned()), observe, false, Limits::TYPED),
        ] {
            assert_eq!(
                Limits::of(request.clone(), rights, has_terminal),
                expected,
                "{request:?} {rights:?} {has_terminal}"
            );
        }
    }
}
