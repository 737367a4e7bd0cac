//! What an attempt is to do, checked once at the edge.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Component, PathBuf},
    time::Duration,
};

use sculpt_proto::{
    FieldError, commit_id, duration,
    executor::v1::{self as wire, AttemptSpec},
    id::{AttemptId, ClusterId, ProjectId, TaskId},
    required,
    v1::{self, OnLost, task_spec},
};
use sha2::{Digest as _, Sha256};

use crate::{cgroup::Limits, sandbox::Network};

/// `lost_after` of a task that names none.
const LOST_AFTER: Duration = Duration::from_secs(15 * 60);

/// Nothing is lost earlier than its executor is shown as unreachable.
const SHORTEST_LEASE: Duration = Duration::from_secs(30);

/// SHA-256 of an encoded spec.
pub fn digest(encoded: &[u8]) -> [u8; 32] {
    Sha256::digest(encoded).into()
}

/// What the agent is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A text for an agent.
    Prompt(String),
    /// A program and its arguments.
    Command(Vec<OsString>),
}

/// Where the work is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// The project.
    pub project: ProjectId,
    /// Its name, for people.
    pub name: String,
    /// The commit to start from.
    pub base: String,
    /// Local branch name, `sculpt/17-fix-login`.
    pub branch: String,
    /// Path on the controller's listener.
    pub git_path: String,
    /// Relative, without `..`; empty for the root.
    pub subdirectory: PathBuf,
}

/// Author of what is committed for the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// user.name
    pub name: String,
    /// user.email
    pub email: String,
}

/// What one attempt is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The cluster that minted it.
    pub cluster: ClusterId,
    /// The attempt.
    pub attempt: AttemptId,
    /// Its task.
    pub task: TaskId,
    /// The task's number, as people know it.
    pub task_number: u64,
    /// The attempt's number within its task.
    pub number: u32,
    /// What the agent is given.
    pub work: Work,
    /// Name of the agent; none: the executor's default.
    pub agent: Option<String>,
    /// None: an empty scratch directory.
    pub repository: Option<Repository>,
    /// Whether uncommitted changes are committed at the end.
    pub commit_changes: bool,
    /// A terminal, or pipes.
    pub tty: bool,
    /// Added to the agent's environment.
    pub env: BTreeMap<String, String>,
    /// Counted from the start of the agent.
    pub timeout: Option<Duration>,
    /// With `on_lost = retry`: how long the agent may run without word that the controller knows of its executor.
    pub lease: Option<Duration>,
    /// Author of what is committed.
    pub requester: Requester,
    /// One line for people.
    pub title: String,
    /// What the task is for, in one line; empty: as the title says.
    pub intent: String,
    /// The attempt on this executor whose workspace it goes on in; none: a clone of its own.
    pub workspace_of: Option<AttemptId>,
    /// What its pool allows.
    pub confinement: Confinement,
    /// Whether reports hold what people type into its terminal.
    pub record_typing: bool,
}

/// What a pool allows its attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// What they reach.
    pub network: Network,
    /// What they use.
    pub limits: Limits,
}

impl TryFrom<AttemptSpec> for Spec {
    type Error = FieldError;

    fn try_from(wire: AttemptSpec) -> Result<Self, FieldError> {
        let task = required(wire.task, "task")?;
        let on_lost = task.on_lost();
        let repository = if wire.project_id.is_empty() {
            None
        } else {
            Some(Repository {
                project: FieldError::parse(&wire.project_id, "project_id")?,
                name: wire.project_name,
                base: commit_id(&task.base, "task.base")?,
                branch: branch(wire.branch)?,
                git_path: git_path(wire.git_path)?,
                subdirectory: subdirectory(task.subdirectory)?,
            })
        };
        Ok(Self {
            cluster: FieldError::parse(&wire.cluster_id, "cluster_id")?,
            attempt: FieldError::parse(&wire.attempt_id, "attempt_id")?,
            task: FieldError::parse(&wire.task_id, "task_id")?,
            task_number: wire.task_number,
            number: wire.number,
            work: work(task.work)?,
            agent: Some(wire.agent).filter(|name| !name.is_empty()),
            repository,
            commit_changes: wire.commit_changes,
            tty: task.tty,
            env: environment(task.env)?,
            timeout: task.timeout.map(|span| duration(span, "task.timeout")).transpose()?,
            lease: lease(on_lost, task.lost_after)?,
            requester: requester(task.requester.unwrap_or_default()),
            title: wire.title,
            intent: task.intent,
            workspace_of: match wire.workspace_of.as_str() {
                "" => None,
                id => Some(FieldError::parse(id, "workspace_of")?),
            },
            confinement: confinement(wire.confinement.unwrap_or_default())?,
            record_typing: wire.record_typing,
        })
    }
}

/// The controller waits for as long, and then some, before another attempt begins.
fn lease(on_lost: OnLost, lost_after: Option<prost_types::Duration>) -> Result<Option<Duration>, FieldError> {
    let span = lost_after.map(|span| duration(span, "task.lost_after")).transpose()?;
    Ok((on_lost == OnLost::Retry).then(|| span.unwrap_or(LOST_AFTER).max(SHORTEST_LEASE)))
}

fn confinement(wire: wire::Confinement) -> Result<Confinement, FieldError> {
    let network = match wire::confinement::Network::try_from(wire.network) {
        Ok(wire::confinement::Network::Unspecified | wire::confinement::Network::Host) => Network::Host,
        Ok(wire::confinement::Network::None) => Network::None,
        // A later controller's: what it forbids is not known.
        Err(_) => return Err(FieldError::new("confinement.network", format!("{} is not known here", wire.network))),
    };
    let some = |number: u64| Some(number).filter(|number| *number > 0);
    let limits = Limits { memory: some(wire.memory), pids: some(wire.processes), cpu_millis: some(wire.cpu) };
    Ok(Confinement { network, limits })
}

fn work(work: Option<task_spec::Work>) -> Result<Work, FieldError> {
    match required(work, "task.work")? {
        task_spec::Work::Prompt(text) => Ok(Work::Prompt(text)),
        task_spec::Work::Command(v1::Command { argv }) => {
            if argv.first().is_none_or(Vec::is_empty) {
                return Err(FieldError::new("task.command.argv", "names no program"));
            }
            if argv.iter().any(|argument| argument.contains(&0)) {
                return Err(FieldError::new("task.command.argv", "holds a NUL byte"));
            }
            Ok(Work::Command(argv.into_iter().map(OsString::from_vec).collect()))
        }
    }
}

fn environment(map: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<String, String>, FieldError> {
    let map: BTreeMap<_, _> = map.into_iter().collect();
    for (key, value) in &map {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(FieldError::new("task.env", format!("{key:?} cannot be a variable")));
        }
    }
    Ok(map)
}

/// Git strips `<`, `>` and newlines from an identity and refuses one that is empty afterwards.
fn requester(wire: v1::Requester) -> Requester {
    let clean = |text: String| -> String {
        text.chars().filter(|c| !c.is_control() && !"<>".contains(*c)).collect::<String>().trim().to_owned()
    };
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    Requester { name: or(clean(wire.name), "sculpt"), email: or(clean(wire.email), "sculpt@localhost") }
}

/// What git takes as a branch, and nothing that could be read as an option or a revision expression.
fn branch(name: String) -> Result<String, FieldError> {
    let bad_part =
        |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock") || part.ends_with('.');
    let bad = name.len() > 200
        || name.starts_with('-')
        || name == "HEAD"
        || name.contains("..")
        || name.contains("@{")
        || name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
        || name.split('/').any(bad_part);
    if bad { Err(FieldError::new("branch", format!("{name:?} is not a branch name"))) } else { Ok(name) }
}

fn git_path(path: String) -> Result<String, FieldError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if path.starts_with("/git/") && path.chars().all(plain) && !path.contains("..") {
        Ok(path)
    } else {
        Err(FieldError::new("git_path", format!("{path:?} is not a repository's path")))
    }
}

fn subdirectory(bytes: Vec<u8>) -> Result<PathBuf, FieldError> {
    let path = PathBuf::from(OsString::from_vec(bytes));
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if inside && !path.as_os_str().as_encoded_bytes().contains(&0) {
        Ok(path)
    } else {
        Err(FieldError::new("task.subdirectory", format!("{path:?} leads out of the repository")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> AttemptSpec {
        let id = || uuid::Uuid::now_v7().to_string();
        AttemptSpec {
            cluster_id: id(),
            attempt_id: id(),
            task_id: id(),
            task_number: 17,
            number: 1,
            task: Some(v1::TaskSpec {
                work: Some(task_spec::Work::Prompt("fix it".into())),
                base: "a".repeat(40),
                ..v1::TaskSpec::default()
            }),
            project_id: id(),
            branch: "sculpt/17-fix-it".into(),
            git_path: "/git/x.git".into(),
            ..AttemptSpec::default()
        }
    }

    fn refused(change: impl FnOnce(&mut AttemptSpec)) -> &'static str {
        let mut wire = wire();
        change(&mut wire);
        Spec::try_from(wire).unwrap_err().field
    }

    #[test]
    fn a_spec_that_could_do_harm_is_refused_by_the_name_of_its_field() {
        assert!(Spec::try_from(wire()).is_ok());
        for name in ["-x", "a..b", "a b", "a.lock", "", "a//b", "a@{1}", "a/.b", "HEAD", "a\nb"] {
            assert_eq!(refused(|wire| wire.branch = name.into()), "branch", "{name:?}");
        }
        for path in ["/etc", "/git/../x", "/git/a b"] {
            assert_eq!(refused(|wire| wire.git_path = path.into()), "git_path");
        }
        for path in ["../x", "/x", "a/../../b"] {
            assert_eq!(refused(|wire| wire.task.as_mut().unwrap().subdirectory = path.into()), "task.subdirectory");
        }
        assert_eq!(refused(|wire| wire.task.as_mut().unwrap().base = "--upload-pack=x".into()), "task.base");
        assert_eq!(refused(|wire| wire.task = None), "task");
        assert_eq!(refused(|wire| wire.cluster_id = "x".into()), "cluster_id");
        let later = wire::Confinement { network: 99, ..wire::Confinement::default() };
        assert_eq!(refused(|wire| wire.confinement = Some(later)), "confinement.network");
        let command = |argv| Some(task_spec::Work::Command(v1::Command { argv }));
        assert_eq!(refused(|wire| wire.task.as_mut().unwrap().work = command(vec![])), "task.command.argv");
        assert_eq!(
            refused(|wire| wire.task.as_mut().unwrap().work = command(vec![b"a\0".to_vec()])),
            "task.command.argv"
        );
    }

    #[test]
    fn an_identity_is_always_one_that_git_takes() {
        let of = |name: &str, email: &str| requester(v1::Requester { name: name.into(), email: email.into() });
        assert_eq!(of("A <b>\n", " a@b "), Requester { name: "A b".into(), email: "a@b".into() });
        assert_eq!(of("", "<>"), Requester { name: "sculpt".into(), email: "sculpt@localhost".into() });
    }
}
