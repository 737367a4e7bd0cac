//! What the executor knows of the machine it runs on.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// The kernel's id of this boot; changes with a reboot.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Time since boot, suspended time included; untouched by changes of the wall clock.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The shell that people get: one that they know, where it is there.
pub fn shell() -> &'static str {
    if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" }
}

/// Whether somebody can work in the shell that the environment names. Those of services name one that turns people away.
pub fn serves_people(shell: &Path) -> bool {
    let turns_away = ["nologin", "false", "true"].iter().any(|name| shell.ends_with(name));
    shell.is_absolute() && !turns_away
}

/// Whether the system is being shut down, as far as that can be seen: everything that is left is then told to end.
pub fn going_down() -> bool {
    let read = |path| std::fs::read(path).unwrap_or_default();
    says_so(&read("/proc/1/comm"), &read("/proc/1/cmdline"), Path::new("/run/nologin").exists())
}

/// From the name and the arguments of the first process, and whether nobody may log in any more.
fn says_so(name: &[u8], arguments: &[u8], closed: bool) -> bool {
    // systemd goes on as its own successor, cut to the 15 bytes of a name; an older init shows its runlevel.
    closed
        || name.starts_with(b"systemd-shutdow")
        || arguments.starts_with(b"init [0]")
        || arguments.starts_with(b"init [6]")
}

/// The machine's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A line of the password database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passwd {
    /// Login name.
    pub name: String,
    /// Numeric id of the account.
    pub uid: u32,
    /// Numeric id of its group.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// The local password database; lines that cannot be read are left out.
pub fn passwd() -> io::Result<Vec<Passwd>> {
    Ok(String::from_utf8_lossy(&std::fs::read("/etc/passwd")?).lines().filter_map(passwd_line).collect())
}

fn passwd_line(line: &str) -> Option<Passwd> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, _] = fields.as_slice() else { return None };
    Some(Passwd { name: (*name).to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
}

/// Name of the account that this process runs as; its number when it has no name.
pub fn owner() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let named = passwd().ok().and_then(|all| all.into_iter().find(|line| line.uid == uid));
    named.map_or_else(|| uid.to_string(), |line| line.name)
}

/// Home directory of the account that this process runs as, by the password database.
pub fn home() -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    passwd().ok().and_then(|all| all.into_iter().find(|line| line.uid == uid)).map(|line| line.home)
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_goes_down_is_told_from_one_that_runs() {
        for (name, arguments, closed, expected) in [
            (&b"systemd\n"[..], &b"/sbin/init\0splash\0"[..], false, false),
            (b"systemd\n", b"/sbin/init\0", true, true),
            (b"systemd-shutdow\n", b"/usr/lib/systemd/systemd-shutdown\0reboot\0", false, true),
            (b"init\n", b"init [2]  \0", false, false),
            (b"init\n", b"init [0]  \0", false, true),
            (b"init\n", b"init [6]  \0", false, true),
            (b"docker-init\n", b"docker-init\0--\0sh\0", false, false),
            (b"", b"", false, false),
        ] {
            assert_eq!(says_so(name, arguments, closed), expected, "{}", String::from_utf8_lossy(arguments));
        }
    }

    #[test]
    fn a_shell_that_turns_people_away_serves_nobody() {
        for (shell, serves) in [
            ("/bin/bash", true),
            ("/usr/bin/fish", true),
            ("/opt/tools/truefalse", true),
            ("/usr/sbin/nologin", false),
            ("/bin/false", false),
            ("/usr/bin/true", false),
            ("bash", false),
            ("", false),
        ] {
            assert_eq!(serves_people(Path::new(shell)), serves, "{shell:?}");
        }
        assert!(serves_people(Path::new(super::shell())));
    }

    #[test]
    fn a_line_of_the_password_database_is_read_or_left_out() {
        let root = passwd_line("root:x:0:0:root:/root:/bin/bash").unwrap();
        assert_eq!(root, Passwd { name: "root".into(), uid: 0, gid: 0, home: "/root".into() });
        assert_eq!(passwd_line("+::::::"), None);
        assert_eq!(passwd_line(""), None);
    }
}
