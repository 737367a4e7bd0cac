//! Tells what is broken from what is only short for now.

use std::io;

/// Whether the same may succeed later: the process or the host is short of something, or the disk does not give out for
/// now what stands on it. Only content that is wrong, or not there, proves damage.
pub(crate) fn passes(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::INTR, Errno::NOSPC, Errno::DQUOT];
    let closed = [Errno::ACCESS, Errno::PERM, Errno::ROFS];
    let away = [Errno::IO, Errno::NXIO, Errno::NODEV, Errno::STALE, Errno::TIMEDOUT, Errno::NOTCONN, Errno::HOSTDOWN];
    let passing = [short.as_slice(), &closed, &away].concat();
    error.raw_os_error().is_some_and(|code| passing.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_for_now_passes_and_damage_does_not() {
        let of = |errno: rustix::io::Errno| passes(&io::Error::from(errno));
        use rustix::io::Errno;
        assert!([Errno::MFILE, Errno::NOSPC, Errno::NOMEM, Errno::IO, Errno::ACCESS].into_iter().all(of));
        assert!(![Errno::NOENT, Errno::ISDIR, Errno::NOTDIR, Errno::LOOP].into_iter().any(of));
        assert!(!passes(&io::ErrorKind::InvalidData.into()));
    }
}
