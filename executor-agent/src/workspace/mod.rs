//! Makes the directory that an agent works in: a clone of its own at the base commit, or an empty scratch directory.

pub mod compact;
pub mod git;
pub mod ownership;
mod store;
pub mod surviving;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, lchown},
    path::{Path, PathBuf},
    time::Duration,
};

pub use store::{StoreError, Stores};

use self::git::{GitError, path_argument};
use crate::{
    accounts::Account,
    blocking::{Blocking, GivenUp},
    spec::{Repository, Requester},
};

const CHECKOUT: Duration = Duration::from_secs(3_600);
const QUICK: Duration = Duration::from_secs(120);

/// How often lending is begun again when packs are joined meanwhile.
const LENDINGS: u32 = 5;

/// A workspace could not be made.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// A file or directory could not be made, given away or removed.
    #[error("could not {attempt} {path}: {source}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// It is not wanted any more.
    #[error(transparent)]
    GivenUp(#[from] GivenUp),
}

impl WorkspaceError {
    fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { attempt, path, source }
    }
}

/// A workspace that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where the agent starts.
    pub cwd: PathBuf,
    /// Remarks for people.
    pub notes: Vec<String>,
}

/// Makes an empty directory at `path`, removing what a half-done try has left.
pub fn scratch(path: &Path, account: Option<&Account>) -> Result<(), WorkspaceError> {
    remove(path)?;
    fs::DirBuilder::new().mode(0o700).create(path).map_err(WorkspaceError::io("make the directory", path))?;
    if let Some(account) = account {
        lchown(path, Some(account.uid), Some(account.gid)).map_err(WorkspaceError::io("give away", path))?;
    }
    Ok(())
}

/// Removes a workspace, whatever an agent has made of it; one that is not there is no error.
pub fn remove(path: &Path) -> Result<(), WorkspaceError> {
    sculpt_walk::remove(path).map_err(WorkspaceError::io("remove", path))
}

/// Checks the base commit out of `store` into a clone of its own at `path`, on the attempt's branch.
pub async fn check_out(
    path: &Path,
    store: &Path,
    repository: &Repository,
    requester: &Requester,
    account: Option<&Account>,
    work: &Blocking,
) -> Result<Ready, WorkspaceError> {
    let root = path.to_owned();
    work.run(move |_| scratch(&root, None)).await??;
    let directory = git::git_dir(path);
    let command = |arguments: &[&str]| {
        let mut command = git::trusted(&directory);
        command.arg(path_argument("--work-tree=", path)).args(arguments).current_dir(path);
        command
    };
    let format = store::object_format(&repository.base);
    let init = command(&["init", "--quiet", "--template=", format, "--initial-branch", &repository.branch]);
    git::run("make the workspace", init, None, QUICK).await?;
    borrow(store, &directory, account.is_some())?;
    // Written by git without our own settings in the way, and without the work tree being recorded.
    for (key, value) in [("user.name", &requester.name), ("user.email", &requester.email)] {
        git::run("set the author", command(&["config", "--local", key, value]), None, QUICK).await?;
    }
    let unset = command(&["config", "--local", "--unset-all", "core.worktree"]);
    git::output("forget the work tree's path", unset, None, QUICK).await?;
    let head = format!("refs/heads/{}", repository.branch);
    git::run("set the branch", command(&["update-ref", &head, &repository.base]), None, QUICK).await?;
    let checkout = command(&["reset", "--hard", "--quiet", "HEAD"]);
    git::run("check out the base commit", checkout, None, CHECKOUT).await?;

    let mut notes = Vec::new();
    let listed = git::run("list the files", command(&["ls-files", "--stage", "-z"]), None, QUICK).await?;
    let submodules = listed.stdout.split(|byte| *byte == 0).filter(|entry| entry.starts_with(b"160000 ")).count();
    if submodules > 0 {
        notes.push(format!("submodules are not fetched: {submodules} left empty"));
    }
    let lfs = command(&["ls-files", "-z", "--", ":(attr:filter=lfs)"]);
    let pointers = git::run("look for LFS pointers", lfs, None, QUICK).await?;
    let pointers = pointers.stdout.iter().filter(|byte| **byte == 0).count();
    if pointers > 0 {
        notes.push(format!("LFS pointers are left as they are: {pointers} files without their content"));
    }
    let cwd = starting_point(path, &repository.subdirectory, &mut notes);
    if let Some(account) = account.cloned() {
        let root = path.to_owned();
        work.run(move |given_up| ownership::give(&root, &account, given_up)).await??;
    }
    Ok(Ready { cwd, notes })
}

/// Lends the store's objects to a clone. Under an account of its own, which cannot pass through the stores, packs are
/// hard links that it can read and not change; an inode lives as long as one of its names.
fn borrow(store: &Path, directory: &Path, separate: bool) -> Result<(), WorkspaceError> {
    let objects = store.join("objects");
    if !separate {
        let alternates = directory.join("objects/info/alternates");
        let parent = directory.join("objects/info");
        fs::create_dir_all(&parent).map_err(WorkspaceError::io("make the directory", &parent))?;
        let mut line = objects.into_os_string().into_encoded_bytes();
        line.push(b'\n');
        return fs::write(&alternates, line).map_err(WorkspaceError::io("write", &alternates));
    }
    let target = directory.join("objects/pack");
    let packs = objects.join("pack");
    // While the packs of the store are being joined, some of what is lent may be gone before it is linked; what was
    // joined is then there under another name.
    for _ in 0..LENDINGS {
        remove(&target)?;
        fs::create_dir_all(&target).map_err(WorkspaceError::io("make the directory", &target))?;
        let before = compact::packs(store);
        match link_packs(&packs, &target) {
            Err(WorkspaceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            linked => linked?,
        }
        if compact::packs(store) == before && before == compact::packs(directory) {
            return Ok(());
        }
    }
    Err(WorkspaceError::io("lend", &packs)(io::Error::other("its packs keep changing")))
}

fn link_packs(packs: &Path, target: &Path) -> Result<(), WorkspaceError> {
    for entry in fs::read_dir(packs).map_err(WorkspaceError::io("list", packs))? {
        let entry = entry.map_err(WorkspaceError::io("list", packs))?;
        let path = entry.path();
        let lent = path.extension().is_some_and(|kind| kind == "pack" || kind == "idx" || kind == "rev");
        if lent && entry.file_name().as_encoded_bytes().starts_with(b"pack-") {
            let to = target.join(entry.file_name());
            fs::hard_link(&path, &to).map_err(WorkspaceError::io("lend", &path))?;
        }
    }
    Ok(())
}

/// The directory that the task was started in, when the base has it and it does not lead out of the workspace.
pub(crate) fn starting_point(root: &Path, subdirectory: &Path, notes: &mut Vec<String>) -> PathBuf {
    if subdirectory.as_os_str().is_empty() {
        return root.to_owned();
    }
    let wished = root.join(subdirectory);
    let inside = match (wished.canonicalize(), root.canonicalize()) {
        (Ok(wished), Ok(root)) => wished.is_dir() && wished.starts_with(root),
        _ => false,
    };
    if inside {
        return wished;
    }
    notes.push(format!("the base commit has no directory {subdirectory:?}; the agent starts in the root"));
    root.to_owned()
}
