//! Real repositories to work on.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs git with a clean environment and a fixed identity; returns its output without the last newline.
pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = try_git(directory, arguments);
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// The same, whatever its exit code is.
pub(crate) fn try_git(directory: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new("git")
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs([("GIT_AUTHOR_NAME", "T"), ("GIT_AUTHOR_EMAIL", "t@x"), ("GIT_COMMITTER_NAME", "T")])
        .env("GIT_COMMITTER_EMAIL", "t@x")
        .args(["-c", "safe.directory=*", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .output()
        .unwrap()
}

/// A bare repository with one commit of these files, and that commit.
pub(crate) fn project(root: &Path, files: &[(&[u8], &str)]) -> (PathBuf, String) {
    use std::os::unix::ffi::OsStrExt as _;
    let work = root.join("work");
    std::fs::create_dir_all(&work).unwrap();
    git(&work, &["init", "-q", "-b", "main"]);
    for (name, content) in files {
        let path = work.join(std::ffi::OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    git(&work, &["add", "-A"]);
    git(&work, &["commit", "-qm", "base"]);
    let base = git(&work, &["rev-parse", "HEAD"]);
    let bare = root.join("project.git");
    git(root, &["clone", "-q", "--bare", work.to_str().unwrap(), bare.to_str().unwrap()]);
    (bare, base)
}
