//! Calls of the kernel that nothing in an attempt gets an answer to. What an account adds to the kernel's keys outlives its
//! processes, and can be locked against everybody who would remove it: only who never had a key leaves none.

use std::{io, thread};

use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, apply_filter, sock_filter};

/// The ways a kernel may be called, by the name that its filters have for them, and `add_key`, `request_key` and `keyctl` there.
const KEYS: [(u32, &[u32]); 5] = [
    // x86_64, and with the bit set x32.
    (0xc000_003e, &[248, 249, 250, 0x4000_00f8, 0x4000_00f9, 0x4000_00fa]),
    // i386
    (0x4000_0003, &[286, 287, 288]),
    // aarch64
    (0xc000_00b7, &[217, 218, 219]),
    // arm
    (0x4000_0028, &[309, 310, 311]),
    // riscv64
    (0xc000_00f3, &[217, 218, 219]),
];

/// Where a filter finds what it judges.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Refuses this thread, and all that it starts from now on, the calls, for good. A program of another account gives it no
/// right from now on either.
pub(super) fn give_up() -> io::Result<()> {
    apply_filter(&filter()).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        other => io::Error::other(other),
    })
}

/// Why [`give_up`] cannot be done here. Tried on a thread, which ends with what it has given up.
pub(super) fn cannot() -> Option<io::Error> {
    let tried = thread::Builder::new().name("refused".to_owned()).spawn(give_up);
    match tried.map(thread::JoinHandle::join) {
        Ok(Ok(tried)) => tried.err(),
        Ok(Err(_)) => Some(io::Error::other("it could not be tried")),
        Err(error) => Some(error),
    }
}

/// Answers as a kernel without keys. Who calls in a way that is not known here is ended, as it could mean anything.
fn filter() -> BpfProgram {
    let end = SeccompAction::KillProcess;
    let known = KEYS.iter().flat_map(|(architecture, calls)| of_architecture(*architecture, calls));
    [load(ARCHITECTURE)].into_iter().chain(known).chain([answer(end)]).collect()
}

/// Passed over by calls of other architectures, and left by none of its own.
fn of_architecture(architecture: u32, calls: &[u32]) -> BpfProgram {
    let count = u8::try_from(calls.len()).unwrap_or(u8::MAX);
    let to_the_refusal = (1..=count).rev();
    let refused = calls.iter().zip(to_the_refusal).map(|(call, steps)| when(*call, steps, 0));
    let no_keys = Errno::NOSYS.raw_os_error().unsigned_abs();
    [when(architecture, 0, count.saturating_add(3)), load(NUMBER)]
        .into_iter()
        .chain(refused)
        .chain([answer(SeccompAction::Allow), answer(SeccompAction::Errno(no_keys))])
        .collect()
}

const fn load(offset: u32) -> sock_filter {
    sock_filter { code: 0x20, jt: 0, jf: 0, k: offset }
}

/// Passes over as many instructions as are said for what is loaded.
const fn when(is: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter { code: 0x15, jt: then, jf: otherwise, k: is }
}

fn answer(action: SeccompAction) -> sock_filter {
    sock_filter { code: 0x06, jt: 0, jf: 0, k: action.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would find.
    fn judge(architecture: u32, number: u32) -> u32 {
        let filter = filter();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = &filter[at];
            at += 1;
            match (step.code, step.k) {
                (0x20, NUMBER) => loaded = number,
                (0x20, ARCHITECTURE) => loaded = architecture,
                (0x15, is) => at += usize::from(if loaded == is { step.jt } else { step.jf }),
                (0x06, answer) => return answer,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn calls_for_keys_are_refused_however_the_kernel_is_called() {
        let (allowed, refused) = (u32::from(SeccompAction::Allow), u32::from(SeccompAction::Errno(38)));
        for (what, architecture, first) in [
            ("x86_64", 0xc000_003e, 248),
            ("x32", 0xc000_003e, 0x4000_0000 + 248),
            ("i386", 0x4000_0003, 286),
            ("aarch64", 0xc000_00b7, 217),
            ("arm", 0x4000_0028, 309),
            ("riscv64", 0xc000_00f3, 217),
        ] {
            for (number, expected) in [(first - 1, allowed), (first + 3, allowed), (0, allowed), (u32::MAX, allowed)] {
                assert_eq!(judge(architecture, number), expected, "{what} {number}");
            }
            for number in first..first + 3 {
                assert_eq!(judge(architecture, number), refused, "{what} {number}");
            }
        }
        assert_eq!(judge(0x8000_0016, 280), u32::from(SeccompAction::KillProcess), "s390x");
    }

    #[test]
    fn what_is_tried_is_not_given_up_by_who_tries() {
        assert!(cannot().is_none(), "{:?}", cannot());
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("Seccomp:\t0"), "{status}");
    }
}
