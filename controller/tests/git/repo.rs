//! A person's repository.

use std::{path::Path, process::Stdio};

use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};

pub(crate) struct Repo {
    directory: TempDir,
}

/// `git` as on a machine without any configuration.
pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "A U Thor")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "author@example.org")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs git with `input`; what it said on stdout, or on stderr when it failed.
pub(crate) async fn try_git(directory: &Path, args: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = command(directory).args(args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move { stdin.write_all(input).await.ok() };
    let (output, _) = tokio::join!(child.wait_with_output(), feed);
    let output = output.unwrap();
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

impl Repo {
    pub(crate) async fn new() -> Self {
        let repo = Self { directory: tempfile::tempdir().unwrap() };
        repo.git(&["init", "-q", "-b", "main"]).await;
        repo
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) async fn git(&self, args: &[&str]) -> String {
        let said = try_git(self.path(), args, b"").await.unwrap_or_else(|error| panic!("git {args:?}: {error}"));
        String::from_utf8(said).unwrap().trim().to_owned()
    }

    /// Writes a file and commits everything.
    pub(crate) async fn commit(&self, path: &str, content: impl AsRef<[u8]>) -> String {
        let file = self.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        self.commit_all().await
    }

    pub(crate) async fn commit_all(&self) -> String {
        self.git(&["add", "-A"]).await;
        self.git(&["commit", "-q", "--allow-empty", "-m", "Change"]).await;
        self.git(&["rev-parse", "HEAD"]).await
    }

    /// A thin pack of what `tip` has and `known` have not.
    pub(crate) async fn pack(&self, tip: &str, known: &[&str]) -> Vec<u8> {
        let wanted = known.iter().fold(format!("{tip}\n"), |text, commit| text + "^" + commit + "\n");
        let args = ["pack-objects", "--revs", "--thin", "--stdout", "-q", "--delta-base-offset"];
        try_git(self.path(), &args, wanted.as_bytes()).await.unwrap()
    }

    /// A pack of exactly these objects.
    pub(crate) async fn pack_of(&self, objects: &[&str]) -> Vec<u8> {
        try_git(self.path(), &["pack-objects", "--stdout", "-q"], objects.join("\n").as_bytes()).await.unwrap()
    }

    /// Writes an object as it is.
    pub(crate) async fn object(&self, kind: &str, bytes: &[u8]) -> String {
        let said = try_git(self.path(), &["hash-object", "-t", kind, "--literally", "-w", "--stdin"], bytes).await;
        String::from_utf8(said.unwrap()).unwrap().trim().to_owned()
    }

    /// A tree with one entry.
    pub(crate) async fn tree(&self, mode: &str, name: &str, object: &str) -> String {
        let id: Vec<u8> =
            (0..object.len()).step_by(2).map(|at| u8::from_str_radix(&object[at..at + 2], 16).unwrap()).collect();
        let mut tree = format!("{mode} {name}\0").into_bytes();
        tree.extend(id);
        self.object("tree", &tree).await
    }
}
