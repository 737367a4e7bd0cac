//! Tells what is broken from what is only short for now.

use std::io;

/// Whether the same may succeed later: the process or the host is short of something.
pub(crate) fn passes(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::INTR, Errno::NOSPC, Errno::DQUOT];
    error.raw_os_error().is_some_and(|code| short.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_passes_and_damage_does_not() {
        let of = |errno: rustix::io::Errno| passes(&io::Error::from(errno));
        use rustix::io::Errno;
        assert!([Errno::MFILE, Errno::NOSPC, Errno::NOMEM].into_iter().all(of));
        assert!(![Errno::IO, Errno::NOENT, Errno::ACCESS, Errno::ISDIR].into_iter().any(of));
        assert!(!passes(&io::ErrorKind::InvalidData.into()));
    }
}
