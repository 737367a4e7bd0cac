//! A user's machine in a temporary directory: an empty home, repositories, and the real `sculpt` program.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sculpt_tls::{Kind, Pin, Token};

/// A user's token of no controller.
pub(crate) fn stray_token() -> String {
    Token::fresh(Kind::User, Some(Pin::from_bytes([7; Pin::BYTES]))).reveal()
}

/// A home directory with nothing in it.
pub(crate) struct Sandbox {
    root: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("home")).unwrap();
        Self { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A program that sees this home and nothing of the test's own environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(directory).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.path("home")).env("USER", "tester");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
        command
    }

    pub(crate) fn sculpt(&self, directory: &Path, args: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_sculpt"), directory);
        command.args(args);
        command
    }

    /// Runs git, which must succeed, and gives what it printed.
    pub(crate) fn git(&self, directory: &Path, args: &[&str]) -> String {
        let mut command = self.command("git", directory);
        command.args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "protocol.file.allow=always"]);
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A repository with this many commits, each of a file of its own.
    pub(crate) fn repository(&self, name: &str, commits: usize) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        self.git(&path, &["init", "-q", "-b", "main"]);
        for number in 0..commits {
            fs::write(path.join(format!("file{number}")), format!("{number}\n")).unwrap();
            self.git(&path, &["add", "."]);
            self.git(&path, &["commit", "-q", "-m", &format!("commit {number}")]);
        }
        path
    }

    /// Writes the configuration that `sculpt up` would write.
    pub(crate) fn context(&self, url: &str, token: &str) -> PathBuf {
        let file = self.path("token");
        fs::write(&file, format!("{token}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let config = self.path("home/.config/sculpt");
        fs::create_dir_all(&config).unwrap();
        let text =
            format!("current = \"local\"\n[contexts.local]\nurl = \"{url}\"\ntoken_file = \"{}\"\n", file.display());
        fs::write(config.join("config.toml"), text).unwrap();
        file
    }
}

/// What a program did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program to its end.
pub(crate) fn ran(mut command: Command) -> Ran {
    command.output().unwrap().into()
}

/// The same, while others go on.
pub(crate) async fn run(command: Command) -> Ran {
    tokio::task::spawn_blocking(|| ran(command)).await.unwrap()
}

/// Runs a program with these bytes on its standard input.
pub(crate) fn fed(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that refuses early closes its end.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap().into()
    })
}

impl Ran {
    #[track_caller]
    pub(crate) fn refuses(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert_eq!(self.stdout, "");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in {}", self.stderr);
        }
    }
}
