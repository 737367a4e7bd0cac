//! The account that the server runs as: our own, or an unprivileged one when we are root.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::fs::{Gid, Uid};
use tokio::process::Command;

use super::{PostgresError, file};

/// Accounts to run the server as when we are root, the best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// Lets a program pass directories that its account could not, without letting it write there.
const PASS: [&str; 4] = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"];

/// Who runs the server, and how it gets there.
#[derive(Clone, Debug)]
pub(super) enum Account {
    /// Whoever we are.
    Own,
    /// Another than root.
    Other {
        name: String,
        uid: u32,
        gid: u32,
        /// A directory on the way to the data that it cannot enter by itself.
        barred: Option<PathBuf>,
    },
}

impl Account {
    /// The account for the data in `directory`.
    pub(super) fn choose(directory: &Path) -> Result<Self, PostgresError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        let table = fs::read_to_string("/etc/passwd").map_err(file("read", Path::new("/etc/passwd")))?;
        // Data that exists says whose it is.
        let owner = fs::metadata(directory).ok().map(|data| data.uid()).filter(|uid| *uid != 0);
        let known = UNPRIVILEGED.iter().find_map(|name| entry(&table, |entry| entry.name == *name));
        let chosen = owner.and_then(|uid| entry(&table, |entry| entry.uid == uid)).or(known);
        let Entry { name, uid, gid } = chosen.ok_or(PostgresError::NoAccount)?;
        let barred = barred(directory, uid, gid)?;
        Ok(Self::Other { name: name.to_owned(), uid, gid, barred })
    }

    /// `program` as this account, without our environment, terminal and process group.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = match self {
            Self::Other { uid, gid, barred: Some(_), .. } => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
                command.args(PASS).arg("--").arg(program);
                command
            }
            Self::Other { uid, gid, barred: None, .. } => {
                let mut command = Command::new(program);
                command.uid(*uid).gid(*gid);
                command
            }
            Self::Own => Command::new(program),
        };
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        command.current_dir("/").stdin(Stdio::null()).process_group(0);
        command
    }

    /// Makes `path` its own.
    pub(super) fn give(&self, path: &Path) -> Result<(), PostgresError> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid, .. } => {
                rustix::fs::chown(path, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))
                    .map_err(|error| file("give away", path)(error.into()))
            }
        }
    }

    /// Its number.
    pub(super) fn uid(&self) -> u32 {
        match self {
            Self::Own => rustix::process::geteuid().as_raw(),
            Self::Other { uid, .. } => *uid,
        }
    }

    /// Says now, with a clear word, when the account cannot come to its data.
    pub(super) async fn check(&self) -> Result<(), PostgresError> {
        let Self::Other { name, barred: Some(parent), .. } = self else { return Ok(()) };
        let unreachable = |reason| PostgresError::Unreachable { account: name.clone(), parent: parent.clone(), reason };
        let mut enter = self.command(Path::new("test"));
        enter.arg("-e").arg(parent.join("."));
        match enter.stdout(Stdio::null()).stderr(Stdio::piped()).output().await {
            Ok(told) if told.status.success() => Ok(()),
            Ok(told) => {
                let words = String::from_utf8_lossy(&told.stderr).trim().to_owned();
                Err(unreachable(if words.is_empty() { "it may not grant dac_read_search".to_owned() } else { words }))
            }
            Err(error) => Err(unreachable(format!("cannot run it: {error}"))),
        }
    }
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

/// The first line of a passwd file that `fits`.
fn entry<'a>(table: &'a str, fits: impl Fn(&Entry<'a>) -> bool) -> Option<Entry<'a>> {
    let entries = table.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some(Entry { name, uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    });
    entries.into_iter().find(|entry| entry.uid != 0 && fits(entry))
}

/// The first directory above `directory` that the account cannot enter by its mode.
fn barred(directory: &Path, uid: u32, gid: u32) -> Result<Option<PathBuf>, PostgresError> {
    let parent = directory.parent().unwrap_or(directory);
    let parent = parent.canonicalize().map_err(file("find", parent))?;
    let mut above: Vec<&Path> = parent.ancestors().collect();
    above.reverse();
    for place in above {
        let data = fs::metadata(place).map_err(file("look at", place))?;
        let enter = if data.uid() == uid {
            0o100
        } else if data.gid() == gid {
            0o010
        } else {
            0o001
        };
        if data.mode() & enter == 0 {
            return Ok(Some(place.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::entry;

    #[test]
    fn reads_the_table_of_accounts() {
        let table = "root:x:0:0::/root:/bin/sh\nbroken\npostgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash\n";
        let found = entry(table, |entry| entry.name == "postgres").expect("it is there");
        assert_eq!((found.uid, found.gid), (101, 104));
        assert!(entry(table, |entry| entry.name == "root").is_none(), "never root");
    }
}
