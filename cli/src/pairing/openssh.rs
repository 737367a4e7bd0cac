//! Which OpenSSH a person has.

use std::{fmt, process::Stdio};

use tokio::process::Command;

/// A version of OpenSSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OpenSsh {
    major: u32,
    minor: u32,
}

impl OpenSsh {
    /// The first whose scp copies by sftp when it is told to.
    pub(crate) const COPIES: Self = Self { major: 8, minor: 7 };

    /// The one that is run here; none where there is none, or it is another program.
    pub(crate) async fn installed() -> Option<Self> {
        let output = Command::new("ssh").arg("-V").stdin(Stdio::null()).output().await.ok()?;
        Self::of(&String::from_utf8_lossy(&output.stderr))
    }

    /// Of what `ssh -V` says.
    pub(crate) fn of(said: &str) -> Option<Self> {
        // Windows' own says `OpenSSH_for_Windows_9.5p1`.
        let (name, _) = said.split_once([',', ' ']).unwrap_or((said, ""));
        let (major, rest) = name.strip_prefix("OpenSSH_")?.rsplit('_').next()?.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for OpenSsh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenSSH {}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::OpenSsh;

    #[test]
    fn a_version_is_read_and_compared() {
        for (said, version, copies) in [
            ("OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.15 3 Sep 2024", "OpenSSH 9.2", true),
            ("OpenSSH_8.7p1, OpenSSL 3.0.1", "OpenSSH 8.7", true),
            ("OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.1", "OpenSSH 10.0", true),
            ("OpenSSH_for_Windows_9.5p1, LibreSSL 3.8.2", "OpenSSH 9.5", true),
            ("OpenSSH_8.4p1 Debian-5, OpenSSL 1.1.1n", "OpenSSH 8.4", false),
            ("OpenSSH_7.10, OpenSSL 1.0.2", "OpenSSH 7.10", false),
        ] {
            let found = OpenSsh::of(said).unwrap();
            assert_eq!((found.to_string().as_str(), found >= OpenSsh::COPIES), (version, copies), "{said}");
        }
        for other in ["", "dropbear 2022.83", "OpenSSH_", "OpenSSH_x.y"] {
            assert_eq!(OpenSsh::of(other), None, "{other}");
        }
    }
}
