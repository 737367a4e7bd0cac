//! git on a hostile repository: as the attempt's account, inside its cgroup, with everything off that a repository
//! can make git do, and ended with all of its children.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::Command;

use super::{HarvestError, LONG, QUICK, sound};
use crate::{
    sandbox::Sandbox,
    stage::{Identity, Stage},
    text::ByteText,
    workspace::git::{self, Done, GitError, path_argument},
};

/// Where and as whom git runs on a hostile repository.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// The executor's own binary.
    pub program: PathBuf,
    /// Absent: the executor's account.
    pub identity: Option<Identity>,
    /// `cgroup.procs` files to enter.
    pub cgroups: Vec<PathBuf>,
    /// What is put around it. Absent: nothing.
    pub sandbox: Option<Sandbox>,
    /// The attempt, so that what git leaves behind is found with what the agent left behind.
    pub attempt: String,
}

impl Container {
    fn command(&self, cwd: &Path, arguments: Vec<ByteText>, extra: &[(&str, &str)]) -> Command {
        let mut env: BTreeMap<ByteText, ByteText> =
            git::environment().into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        env.insert("SCULPT_ATTEMPT".into(), self.attempt.as_str().into());
        let directory = git::git_dir(cwd);
        env.insert("GIT_OBJECT_DIRECTORY".into(), directory.join("objects").into());
        env.extend(extra.iter().map(|(key, value)| (ByteText::from(*key), ByteText::from(*value))));
        let stage = Stage {
            argv: [ByteText::from("git")].into_iter().chain(arguments).collect(),
            env: Some(env),
            cwd: Some(cwd.to_owned()),
            identity: self.identity.clone(),
            cgroups: self.cgroups.clone(),
            session: true,
            dies_with_parent: true,
            sandbox: self.sandbox.clone(),
            ..Stage::default()
        };
        Command::from(stage.command(&self.program))
    }
}

/// A hostile working copy.
pub(super) struct Repository<'a> {
    container: &'a Container,
    work_tree: &'a Path,
    /// `-c` settings that turn off the filters which this repository defines.
    filters: Vec<String>,
    /// Pathspecs of the files whose filter is required, and therefore cannot be added.
    held_back: Vec<String>,
}

impl<'a> Repository<'a> {
    /// Looks whether git can work there, and finds out which filters have to be turned off.
    pub(super) async fn open(container: &'a Container, work_tree: &'a Path) -> Result<Self, HarvestError> {
        sound::check(work_tree).await?;
        let mut repository = Self { container, work_tree, filters: Vec::new(), held_back: Vec::new() };
        let listed =
            ["config", "--null", "--name-only", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$"];
        let listed = repository.ask("list the filters", &listed).await?;
        // A filter that is required and off makes git refuse the file, which is better than publishing what the
        // filter would have hidden.
        let names = listed.stdout.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
        for name in names.filter(|name| !name.is_empty()) {
            match name.strip_prefix("filter.").and_then(|name| name.strip_suffix(".required")) {
                Some(driver) => repository.held_back.push(format!(":(exclude,attr:filter={driver})")),
                None => repository.filters.push(format!("{name}=")),
            }
        }
        Ok(repository)
    }

    /// Pathspecs that leave out the files which a required filter keeps from being added.
    pub(super) fn held_back(&self) -> impl Iterator<Item = &str> {
        self.held_back.iter().map(String::as_str)
    }

    /// Runs git; any exit code is an answer.
    pub(super) async fn ask(&self, attempt: &'static str, arguments: &[&str]) -> Result<Done, HarvestError> {
        self.run(attempt, arguments, &[], None, QUICK).await
    }

    /// The same for what reads the whole working copy.
    pub(super) async fn ask_long(
        &self,
        attempt: &'static str,
        arguments: &[&str],
        input: Option<&[u8]>,
    ) -> Result<Done, HarvestError> {
        self.run(attempt, arguments, &[], input, LONG).await
    }

    /// Runs git; an exit code other than 0 is an error.
    pub(super) async fn require(&self, attempt: &'static str, arguments: &[&str]) -> Result<Done, HarvestError> {
        succeeded(attempt, self.run(attempt, arguments, &[], None, LONG).await?)
    }

    /// Runs git with an identity and an input; an exit code other than 0 is an error.
    pub(super) async fn change(
        &self,
        attempt: &'static str,
        arguments: &[&str],
        extra: &[(&str, &str)],
        input: &[u8],
    ) -> Result<Done, HarvestError> {
        succeeded(attempt, self.run(attempt, arguments, extra, Some(input), LONG).await?)
    }

    /// Runs git with its output going into a file; an exit code other than 0 is an error.
    pub(super) async fn stream(
        &self,
        attempt: &'static str,
        arguments: &[&str],
        input: &[u8],
        output: File,
    ) -> Result<(), HarvestError> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let fail = |source| GitError::Run { attempt, source };
        let mut command = self.command(arguments, &[]);
        command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(fail)?;
        drop(command);
        let _group = git::Group::of(&child);
        let work = async {
            if let Some(mut stdin) = child.stdin.take() {
                let _unread = stdin.write_all(input).await;
            }
            let mut words = Vec::new();
            if let Some(stderr) = child.stderr.take() {
                stderr.take(64 << 10).read_to_end(&mut words).await.map_err(fail)?;
            }
            let status = child.wait().await.map_err(fail)?;
            Ok::<Done, GitError>(Done { code: status.code(), stdout: Vec::new(), stderr: words })
        };
        let done = tokio::time::timeout(LONG, work).await.map_err(|_| GitError::Slow { attempt, limit: LONG })??;
        succeeded(attempt, done).map(|_| ())
    }

    async fn run(
        &self,
        attempt: &'static str,
        arguments: &[&str],
        extra: &[(&str, &str)],
        input: Option<&[u8]>,
        limit: Duration,
    ) -> Result<Done, HarvestError> {
        Ok(git::output(attempt, self.command(arguments, extra), input, limit).await?)
    }

    fn command(&self, arguments: &[&str], extra: &[(&str, &str)]) -> Command {
        let directory = git::git_dir(self.work_tree);
        let mut all: Vec<ByteText> = Vec::new();
        for setting in git::SAFE.iter().copied().chain(self.filters.iter().map(String::as_str)) {
            all.extend([ByteText::from("-c"), ByteText::from(setting)]);
        }
        all.push(path_argument("--git-dir=", &directory).into());
        all.push(path_argument("--work-tree=", self.work_tree).into());
        all.extend(arguments.iter().map(|argument| ByteText::from(*argument)));
        self.container.command(self.work_tree, all, extra)
    }
}

fn succeeded(attempt: &'static str, done: Done) -> Result<Done, HarvestError> {
    match done.code {
        Some(0) => Ok(done),
        _ => Err(GitError::Failed { attempt, words: git::words(&done.stderr) }.into()),
    }
}
