//! What the repository is, where we stand in it, and who we are.

use std::{
    collections::HashSet,
    env,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use git2::{ErrorCode, Oid, Repository};
use sculpt_proto::v1::Requester;

use super::{GitError, program};

/// Commits that are looked at when something in common with the controller is sought.
const WALK: usize = 50_000;
/// The newest commits are all asked for; further back they are spaced by a twentieth.
const DENSE: usize = 256;

/// The repository that a command was started in.
pub(crate) struct Repo {
    inner: Repository,
    /// Where git commands run: the directory that the user stands in.
    pub(crate) directory: PathBuf,
}

impl Repo {
    /// The repository around `directory`, as git itself would find it.
    pub(crate) fn open(directory: &Path) -> Result<Self, GitError> {
        let directory = fs::canonicalize(directory)
            .map_err(|source| GitError::NoDirectory { path: directory.to_owned(), source })?;
        let found = if env::var_os("GIT_DIR").is_some() {
            Repository::open_from_env()
        } else {
            Repository::open_ext(&directory, git2::RepositoryOpenFlags::empty(), &[] as &[&OsStr])
        };
        match found {
            Ok(inner) => Ok(Self { inner, directory }),
            Err(error) if error.code() == ErrorCode::NotFound => Err(GitError::NoRepository(directory)),
            Err(error) => Err(error.into()),
        }
    }

    /// The repository that stands exactly here, if one does.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        Some(Self { inner: Repository::open(path).ok()?, directory: path.to_owned() })
    }

    /// The repository around the working directory.
    pub(crate) fn here() -> Result<Self, GitError> {
        let directory =
            env::current_dir().map_err(|source| GitError::File { doing: "find the working directory", source })?;
        Self::open(&directory)
    }

    /// Top of the working tree; the git directory of a bare repository.
    pub(crate) fn top(&self) -> &Path {
        self.inner.workdir().unwrap_or_else(|| self.inner.path())
    }

    /// Whether there are files to snapshot.
    pub(crate) fn is_bare(&self) -> bool {
        self.inner.is_bare()
    }

    /// The index that belongs to this working tree.
    pub(crate) fn index_file(&self) -> PathBuf {
        env::var_os("GIT_INDEX_FILE").map_or_else(|| self.inner.path().join("index"), PathBuf::from)
    }

    /// The commit that HEAD points to, on a branch or detached.
    pub(crate) fn head(&self) -> Result<Oid, GitError> {
        match self.inner.head().and_then(|head| head.peel_to_commit()) {
            Ok(commit) => Ok(commit.id()),
            Err(error) if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => {
                Err(GitError::Empty(self.top().to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The commit that a branch, a tag, an id or an expression names; HEAD without one.
    pub(crate) fn resolve(&self, revision: Option<&str>) -> Result<Oid, GitError> {
        let Some(revision) = revision else { return self.head() };
        let found = self.inner.revparse_single(revision).and_then(|object| object.peel_to_commit());
        match found {
            Ok(commit) => Ok(commit.id()),
            Err(_) if self.has_no_commit() => Err(GitError::Empty(self.top().to_owned())),
            Err(_) => Err(GitError::UnknownBase(revision.to_owned())),
        }
    }

    fn has_no_commit(&self) -> bool {
        self.head().is_err() && self.inner.references().is_ok_and(|mut all| all.next().is_none())
    }

    /// The working directory below the top, as bytes; empty at the top and in a bare repository.
    pub(crate) fn subdirectory(&self) -> Vec<u8> {
        let top = self.inner.workdir().and_then(|top| fs::canonicalize(top).ok());
        let below = top.as_deref().and_then(|top| self.directory.strip_prefix(top).ok());
        below.map(|path| path.as_os_str().as_bytes().to_vec()).unwrap_or_default()
    }

    /// The first commit of the default history: that of the remote's default branch, else of HEAD.
    pub(crate) async fn root_commit(&self, remote: Option<&str>) -> Result<String, GitError> {
        let default = remote
            .and_then(|name| self.inner.find_reference(&format!("refs/remotes/{name}/HEAD")).ok())
            .and_then(|reference| reference.peel_to_commit().ok())
            .map(|commit| commit.id());
        let tip = match default {
            Some(tip) => tip,
            None => self.head()?,
        }
        .to_string();
        let roots = program::text(&self.directory, &["rev-list", "--max-parents=0", &tip]).await?;
        roots.lines().min().map(str::to_owned).ok_or_else(|| GitError::Empty(self.top().to_owned()))
    }

    /// Name and URL of the remote that tells this project apart: `origin`, else the first that is not ours.
    pub(crate) fn origin(&self) -> Option<(String, String)> {
        let remotes = self.inner.remotes().ok()?;
        let mut names: Vec<String> = remotes
            .iter()
            .filter_map(|name| name.ok().flatten().map(str::to_owned))
            .filter(|name| name != super::remote::NAME)
            .collect();
        names.sort_by_key(|name| (name != "origin", name.clone()));
        let name = names.into_iter().next()?;
        let url = self.inner.find_remote(&name).ok()?.url().ok()?.to_owned();
        Some((name, url))
    }

    /// Commits whose parents this clone does not have.
    pub(crate) fn shallow_commits(&self) -> HashSet<String> {
        let list = fs::read_to_string(self.inner.commondir().join("shallow")).unwrap_or_default();
        list.lines().map(str::to_owned).collect()
    }

    /// Commits to ask the controller about: the newest ones before `tip`, then ever sparser ones.
    pub(crate) fn candidates(&self, tip: Oid) -> Result<Vec<String>, GitError> {
        let mut walk = self.inner.revwalk()?;
        walk.push(tip)?;
        let mut chosen = Vec::new();
        let mut next = 0;
        for (index, commit) in walk.take(WALK).enumerate() {
            // In a shallow clone the walk ends with an error at the border.
            let Ok(commit) = commit else { break };
            if index == next {
                chosen.push(commit.to_string());
                next += if index < DENSE { 1 } else { index / 20 };
            }
        }
        Ok(chosen)
    }

    /// Whether the commit's tree has a folder at this path.
    pub(crate) fn has_folder(&self, commit: Oid, path: &[u8]) -> bool {
        let tree = self.inner.find_commit(commit).and_then(|commit| commit.tree());
        let entry = tree.and_then(|tree| tree.get_path(Path::new(OsStr::from_bytes(path))));
        entry.is_ok_and(|entry| entry.kind() == Some(git2::ObjectType::Tree))
    }

    /// Author of what is committed for a task: git's user, else the account on this machine.
    pub(crate) fn requester(&self) -> Requester {
        requester(self.inner.config().and_then(|mut config| config.snapshot()).ok())
    }

    pub(crate) fn inner(&self) -> &Repository {
        &self.inner
    }
}

/// Author of what is committed for a task started outside of a repository.
pub(crate) fn requester_anywhere() -> Requester {
    requester(git2::Config::open_default().and_then(|mut config| config.snapshot()).ok())
}

fn requester(config: Option<git2::Config>) -> Requester {
    let setting =
        |name| config.as_ref().and_then(|config| config.get_string(name).ok()).filter(|text| !text.trim().is_empty());
    let account = || env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "sculpt".to_owned());
    Requester {
        name: setting("user.name").unwrap_or_else(account),
        email: setting("user.email").unwrap_or_else(|| format!("{}@{}", account(), hostname())),
    }
}

/// This machine's name.
pub(crate) fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}
