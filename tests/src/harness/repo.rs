//! Real repositories.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// A repository with a work tree, and nobody's configuration but its own.
#[derive(Clone, Debug)]
pub struct Repo {
    path: PathBuf,
    home: PathBuf,
}

impl Repo {
    /// An empty one at `path`.
    pub(super) fn init(path: PathBuf, home: &Path) -> Result<Self> {
        fs::create_dir_all(&path).context("make the repository's directory")?;
        let repo = Self { path, home: home.to_owned() };
        repo.git(["init", "-q", "-b", "main"])?;
        Ok(repo)
    }

    /// A clone of this one at `path`; `extra` are further arguments of `git clone`.
    pub fn clone_to(&self, path: PathBuf, extra: &[&str]) -> Result<Self> {
        let url = format!("file://{}", self.path.display());
        let mut arguments = vec!["clone", "-q"];
        arguments.extend(extra);
        let target = path.to_string_lossy().into_owned();
        arguments.extend([url.as_str(), target.as_str()]);
        self.git(arguments)?;
        Ok(Self { path, home: self.home.clone() })
    }

    /// Its work tree.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs git in it and gives what it prints.
    pub fn git<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GIT_")) {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .current_dir(&self.path)
            .env("HOME", &self.home)
            .env_remove("XDG_CONFIG_HOME")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(
                ["AUTHOR", "COMMITTER"].iter().flat_map(|who| {
                    [(format!("GIT_{who}_NAME"), "Ada"), (format!("GIT_{who}_EMAIL"), "ada@example.com")]
                }),
            );
        let output = command.output().context("run git")?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Commits `content` as `file` and gives the commit's id.
    pub fn commit(&self, file: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<String> {
        let path = self.path.join(file);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).context("make the file's directory")?;
        }
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        self.git(["add", "--all"])?;
        self.git(["commit", "-q", "-m", "Change"])?;
        self.head()
    }

    /// Id of the commit that is checked out.
    pub fn head(&self) -> Result<String> {
        self.git(["rev-parse", "HEAD"])
    }

    /// The branch that was fetched for `task`, as a name that git understands.
    pub fn fetched(&self, task: &str) -> Result<String> {
        let refs = self.git(["for-each-ref", "--format=%(refname)"])?;
        let found = refs.lines().find(|name| name.contains(&format!("sculpt/{task}-")));
        found.map(str::to_owned).with_context(|| format!("no branch of task {task} among: {refs}"))
    }
}
