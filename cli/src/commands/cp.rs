//! `sculpt cp`: files into a workspace, and out of it.

mod bounds;

use std::{
    ffi::{OsStr, OsString},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        process::CommandExt as _,
    },
    path::Path,
};

use sculpt_pairing::Right;

use self::bounds::There;
use super::{ssh::workspace, task_named};
use crate::{
    args::CpArgs,
    client::Client,
    exit::Exit,
    failure::Failure,
    output::clean,
    pairing::{OpenSsh, Purpose, Wish, no_program, openssh},
};

/// One side of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side<'a> {
    /// A path of this machine.
    Here(&'a [u8]),
    /// A path of a task's workspace.
    There { task: &'a str, path: &'a [u8] },
}

/// Which of two sides is the task's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy<'a> {
    Out { task: &'a str, from: &'a [u8], to: &'a [u8] },
    In { from: &'a [u8], task: &'a str, to: &'a [u8] },
}

pub(super) async fn run(args: CpArgs) -> Result<Exit, Failure> {
    const ATTEMPTED: &str = "copy files";
    let copy = Copy::of(&args.from, &args.to).map_err(|why| {
        Failure::new(Exit::BadInput, ATTEMPTED, why)
            .next("write 17:PATH for the task's side, and ./PATH for a name with a colon")
    })?;
    let attempted = format!("copy files of task {}", copy.task());
    let there = There::checked(copy.there(), copy.task(), &attempted)?;
    copy.is_there(&attempted)?;
    let client = Client::connect().await?;
    let task = task_named(&client, copy.task(), &attempted).await?;
    let wish = Wish { purpose: Purpose::Workspace, right: Some(Right::Shell), via: args.way.via() };
    let access = workspace(&client, &task, wish, &attempted).await?;
    if let Some(version) = OpenSsh::installed().await.filter(|version| *version < OpenSsh::COPIES) {
        let why = format!("scp of {version} cannot do it by sftp, and knows no other way that is safe");
        return Err(Failure::new(Exit::Failed, &attempted, why)
            .next(format!("install {} or newer, or use `sftp` after `sculpt config-ssh`", OpenSsh::COPIES)));
    }
    there.checked_there(&access).await?;
    // -s: the way of copying in which no shell reads the paths.
    let error =
        openssh("scp").arg("-F").arg(access.config()).args(["-s", "-r", "--"]).args(copy.words(&access.alias())).exec();
    Err(no_program("scp", &error, &attempted))
}

impl<'a> Side<'a> {
    fn of(text: &'a OsStr) -> Self {
        let bytes = text.as_bytes();
        let named = bytes.iter().position(|byte| *byte == b':').and_then(|colon| {
            let (task, path) = (std::str::from_utf8(&bytes[..colon]).ok()?, &bytes[colon + 1..]);
            // Numbers and uuids; a name before a slash is a path.
            let is_a_task = !task.is_empty() && task.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
            is_a_task.then_some(Self::There { task, path })
        });
        named.unwrap_or(Self::Here(bytes))
    }
}

impl<'a> Copy<'a> {
    fn of(from: &'a OsStr, to: &'a OsStr) -> Result<Self, &'static str> {
        match (Side::of(from), Side::of(to)) {
            (Side::There { task, path }, Side::Here(to)) => Ok(Self::Out { task, from: path, to }),
            (Side::Here(from), Side::There { task, path }) => Ok(Self::In { from, task, to: path }),
            (Side::Here(_), Side::Here(_)) => Err("neither side is a task's"),
            (Side::There { .. }, Side::There { .. }) => {
                Err("both sides are a task's, and one has to be of this machine")
            }
        }
    }

    fn task(&self) -> &'a str {
        match self {
            Self::Out { task, .. } | Self::In { task, .. } => task,
        }
    }

    /// Whether what is to be copied from this machine is there.
    fn is_there(&self, attempted: &str) -> Result<(), Failure> {
        let Self::In { from, .. } = self else { return Ok(()) };
        let missing = |error| format!("{}: {error}", clean(&String::from_utf8_lossy(from)));
        let found = Path::new(OsStr::from_bytes(from)).metadata().map_err(missing);
        found.map(drop).map_err(|why| Failure::new(Exit::BadInput, attempted, why))
    }

    fn there(&self) -> &'a [u8] {
        match self {
            Self::Out { from, .. } => from,
            Self::In { to, .. } => to,
        }
    }

    /// The two, as scp takes them for what they are.
    fn words(&self, host: &str) -> [OsString; 2] {
        match self {
            Self::Out { from, to, .. } => [there(host, &literal(from)), here(to)],
            Self::In { from, to, .. } => [here(from), there(host, to)],
        }
    }
}

fn there(host: &str, path: &[u8]) -> OsString {
    let prefix: &[u8] = match path.first() {
        None => b".",
        // scp would look for somebody's home.
        Some(b'~') => b"./",
        Some(_) => b"",
    };
    OsString::from_vec([host.as_bytes(), b":", prefix, path].concat())
}

/// A path before whose first colon is a slash.
fn here(path: &[u8]) -> OsString {
    let prefix: &[u8] = if path.starts_with(b"/") || path.is_empty() { b"" } else { b"./" };
    OsString::from_vec([prefix, path].concat())
}

/// scp takes what it fetches for a pattern.
fn literal(path: &[u8]) -> Vec<u8> {
    let mut literal = Vec::with_capacity(path.len());
    for byte in path {
        if b"*?[]\\{}".contains(byte) {
            literal.push(b'\\');
        }
        literal.push(*byte);
    }
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_they_are() {
        for (from, to, words) in [
            ("17:a", "b", Some(["sculpt.17:a", "./b"])),
            ("17:", ".", Some(["sculpt.17:.", "./."])),
            ("17:~a", "b", Some(["sculpt.17:./~a", "./b"])),
            ("17:/etc/a b", "/tmp/x:y", Some(["sculpt.17:/etc/a b", "/tmp/x:y"])),
            ("17:[id].tsx", "x:y", Some([r"sculpt.17:\[id\].tsx", "./x:y"])),
            ("-r", "0198c0de-00:d:e", Some(["./-r", "sculpt.17:d:e"])),
            ("./17:a", "17:-x", Some(["././17:a", "sculpt.17:-x"])),
            ("a[1]", "17:a[1]", Some(["./a[1]", "sculpt.17:a[1]"])),
            ("a", "b", None),
            ("17:a", "18:b", None),
            ("name:a", "b", None),
        ] {
            let copy = Copy::of(OsStr::new(from), OsStr::new(to));
            let made = copy.ok().map(|copy| copy.words("sculpt.17"));
            assert_eq!(made, words.map(|words| words.map(OsString::from)), "{from} {to}");
        }
    }
}
