//! Where a path of the task's side may lead: into the workspace, and nowhere else.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{
    exit::Exit,
    failure::Failure,
    output::clean,
    pairing::{Access, no_program, openssh, ssh},
};

/// What says over there where a session begins: as it is called, and as it is without links.
const ASK: &str = "pwd; pwd -P";

/// A path of the task's side.
pub(super) struct There<'a> {
    path: &'a Path,
    task: &'a str,
    attempted: &'a str,
}

impl<'a> There<'a> {
    /// Refuses one that leads out by itself. Of whole paths nothing is known here.
    pub(super) fn checked(path: &'a [u8], task: &'a str, attempted: &'a str) -> Result<Self, Failure> {
        let there = Self { path: Path::new(OsStr::from_bytes(path)), task, attempted };
        if there.path.is_absolute() { Ok(there) } else { there.within(&[]).map(|()| there) }
    }

    /// Refuses a whole path that leads out: where the workspace is, the task's side says.
    pub(super) async fn checked_there(&self, access: &Access) -> Result<(), Failure> {
        if self.path.is_absolute() { self.within(&asked(access, self.attempted).await?) } else { Ok(()) }
    }

    fn within(&self, roots: &[PathBuf]) -> Result<(), Failure> {
        let Self { path, task, attempted } = self;
        if leads_inside(path, roots) {
            return Ok(());
        }
        let how = if goes_up(path) { "goes up, which may lead" } else { "is" };
        let why = format!("{} {how} outside of its workspace", clean(&path.to_string_lossy()));
        Err(Failure::new(Exit::BadInput, attempted, why)
            .next(format!("`sculpt ssh {task} -- cat PATH` reads what its agent may read elsewhere")))
    }
}

/// PURE: whether a path stays within the workspace, which stands at one of `roots`. Links are not looked at: what they lead to,
/// the agent has made a part of it. What lies above that is not, and so none goes up, from wherever it seems to.
fn leads_inside(path: &Path, roots: &[PathBuf]) -> bool {
    let rest = match path.is_absolute() {
        false => Some(path),
        true => roots.iter().find_map(|root| path.strip_prefix(root).ok()),
    };
    rest.is_some_and(|rest| !goes_up(rest))
}

fn goes_up(path: &Path) -> bool {
    path.components().any(|component| component == Component::ParentDir)
}

async fn asked(access: &Access, attempted: &str) -> Result<Vec<PathBuf>, Failure> {
    let arguments = ssh(access, &["-T", "-o", "LogLevel=ERROR"], Some(ASK.into()));
    let mut ssh = Command::from(openssh("ssh"));
    ssh.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = ssh.output().await.map_err(|error: io::Error| no_program("ssh", &error, attempted))?;
    if !output.status.success() {
        return Err(Failure::new(Exit::OutOfReach, attempted, "it did not say where its workspace is")
            .next("a path that begins in the workspace, without a slash, needs no answer"));
    }
    let lines = output.stdout.split(|byte| *byte == b'\n').map(|line| Path::new(OsStr::from_bytes(line)));
    Ok(lines.filter(|line| line.is_absolute()).map(Path::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside() {
        let roots = ["/w/17".into(), "/real/w/17".into()];
        for (path, inside) in [
            ("", true),
            ("a", true),
            ("./a/b/.", true),
            ("a/..", false),
            ("link/../passwd", false),
            ("..a", true),
            ("~root/.ssh", true),
            ("..", false),
            ("../evil", false),
            ("a/../../evil", false),
            ("../17/a", false),
            ("/w/17", true),
            ("/w/17/a", true),
            ("/real/w/17/a/b", true),
            ("/real/w/17/a/../b", false),
            ("/w/170/a", false),
            ("/w/17/../18", false),
            ("/w/17/a/../../x", false),
            ("/etc/passwd", false),
            ("//w/17/a", true),
        ] {
            assert_eq!(leads_inside(Path::new(path), &roots), inside, "{path:?}");
        }
    }
}
