//! What this machine has.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::{Finding, Verdict};
use crate::{
    config::{Config, xdg},
    output::{shell_quoted, time::size},
    pairing::OpenSsh,
    up::{Places, data_of, sibling},
};

/// Oldest git that speaks what the workspaces need.
const GIT: (u32, u32) = (2, 30);
/// Free space under which nothing should be started, and under which it is worth a word.
const LITTLE: u64 = 1 << 30;
const SOME: u64 = 5 << 30;

pub(super) async fn check(findings: &mut Vec<Finding>) {
    token_files(findings);
    git(findings).await;
    program(findings, "tmux", "-V", Verdict::Fail, "terminals of attempts need it: apt install tmux").await;
    findings.push(ssh(version("ssh", "-V").await));
    parts(findings).await;
    executor_settings(findings);
    postgres(findings);
    disk(findings);
}

/// Every token in a file can be read by its owner only.
fn token_files(findings: &mut Vec<Finding>) {
    let config = Config::path().and_then(|file| Config::load(&file)).unwrap_or_default();
    for (name, entry) in config.contexts {
        let Ok(data) = fs::metadata(&entry.token_file) else { continue };
        if !data.is_file() {
            let text = format!("{} of context {name} is not a file", entry.token_file.display());
            let remedy = "let `token_file` of the context name the file with the token";
            findings.push(Finding::bad(Verdict::Fail, "token file", text, remedy));
            continue;
        }
        let mode = data.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let text = format!("the token of context {name} can be read by other users (mode {mode:o})");
            let file = shell_quoted(&entry.token_file.to_string_lossy());
            findings.push(Finding::bad(Verdict::Fail, "token file", text, format!("chmod 600 {file}")));
        }
    }
}

async fn git(findings: &mut Vec<Finding>) {
    let remedy = format!("install git {}.{} or newer: apt install git", GIT.0, GIT.1);
    let Some(said) = version("git", "--version").await else {
        findings.push(Finding::bad(Verdict::Fail, "git", "not found", remedy));
        return;
    };
    let mut numbers = said.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    findings.push(if found >= GIT {
        Finding::ok("git", said)
    } else {
        Finding::bad(Verdict::Fail, "git", said, remedy)
    });
}

async fn program(findings: &mut Vec<Finding>, name: &str, flag: &str, verdict: Verdict, remedy: &str) {
    findings.push(match version(name, flag).await {
        Some(said) => Finding::ok(name, said),
        None => Finding::bad(verdict, name, "not found", remedy),
    });
}

/// What people sit beside agents with, by what it says of itself.
fn ssh(said: Option<String>) -> Finding {
    const NAME: &str = "ssh";
    let warn = |text: String, remedy: String| Finding::bad(Verdict::Warn, NAME, text, remedy);
    let Some(said) = said else {
        return warn("not found".to_owned(), "sitting beside agents needs it: apt install openssh-client".to_owned());
    };
    match OpenSsh::of(&said) {
        Some(version) if version < OpenSsh::COPIES => {
            warn(said, format!("`sculpt cp` needs {} or newer: apt install openssh-client", OpenSsh::COPIES))
        }
        Some(_) | None => Finding::ok(NAME, said),
    }
}

/// The two programs that `sculpt up` starts.
async fn parts(findings: &mut Vec<Finding>) {
    for name in ["controller", "executor"] {
        let program = sibling(name);
        let title = format!("sculpt-{name}");
        findings.push(match version(&program.to_string_lossy(), "--version").await {
            Some(said) => Finding::ok(&title, said),
            None => Finding::bad(
                Verdict::Warn,
                &title,
                "not found; `sculpt up` needs it",
                format!("put {title} beside `sculpt`, or into a directory of PATH"),
            ),
        });
    }
}

/// The settings that the executor of each installation here would read at its next start.
fn executor_settings(findings: &mut Vec<Finding>) {
    let config = Config::path().and_then(|file| Config::load(&file)).unwrap_or_default();
    let data = config.contexts.values().filter_map(|entry| data_of(&entry.token_file));
    let mut files: Vec<PathBuf> = data.map(|data| data.join("executor.toml")).collect();
    files.extend(xdg("XDG_CONFIG_HOME", ".config").map(|base| base.join("sculpt/executor.toml")));
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        findings.push(match toml::from_str::<toml::Table>(&text) {
            Ok(_) => Finding::ok("executor settings", file.display().to_string()),
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
                let why = format!("{}, line {line}: {}", file.display(), error.message());
                Finding::bad(
                    Verdict::Fail,
                    "executor settings",
                    why,
                    "mend the file; `sculpt up` reads it when it starts",
                )
            }
        });
    }
}

/// The first line that a program says about itself.
async fn version(program: &str, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output().await.ok()?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let said = String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned();
    output.status.success().then_some(said)
}

/// The server's binaries, which Debian keeps out of PATH.
fn postgres(findings: &mut Vec<Finding>) {
    let mut versions: Vec<u32> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().join("bin/initdb").exists()))
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .collect();
    versions.sort_unstable();
    let in_path =
        || env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join("initdb").exists()));
    findings.push(match versions.last() {
        Some(newest) if *newest >= 14 => Finding::ok("postgres", format!("server binaries of version {newest}")),
        Some(newest) => Finding::bad(
            Verdict::Warn,
            "postgres",
            format!("version {newest} is too old"),
            "apt install postgresql (14 or newer)",
        ),
        None if in_path() => Finding::ok("postgres", "server binaries in PATH"),
        None => Finding::bad(
            Verdict::Warn,
            "postgres",
            "no server binaries; `sculpt up` needs them, a controller with a database URL does not",
            "apt install postgresql",
        ),
    });
}

fn disk(findings: &mut Vec<Finding>) {
    // Where an installation here keeps its token it keeps everything.
    let config = Config::path().and_then(|file| Config::load(&file)).unwrap_or_default();
    let mut tokens = config.contexts.into_values().map(|entry| entry.token_file);
    let Some(data) = tokens.find(|token| token.exists()).or_else(|| Places::default_data().ok()) else {
        return;
    };
    let place = existing(data.parent().unwrap_or(&data));
    let Ok(room) = rustix::fs::statvfs(&place) else { return };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let text = format!("{} free at {}", size(free), place.display());
    findings.push(match free {
        0..LITTLE => Finding::bad(Verdict::Fail, "disk", text, "make room: logs, clones and the database stand there"),
        LITTLE..SOME => {
            Finding::bad(Verdict::Warn, "disk", text, "make room soon: logs, clones and the database stand there")
        }
        _ => Finding::ok("disk", text),
    });
}

/// The nearest directory that is there already.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned()
}
