//! What a person asks for, checked: a task that passes here can be carried out as it stands.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use prost::Message as _;
use sculpt_core::{
    liveness::DEFAULT_LOST_AFTER,
    naming,
    placement::{AgentNeed, Needs},
    task::{OnLost, Policy},
};
use sculpt_proto::{FieldError, MAX_PROMPT, commit_id, duration, labels, v1};
use sha2::{Digest as _, Sha256};

use super::describe::line;
use crate::store::milestones::MAX_INTENT;

/// Longest title in characters.
const MAX_TITLE: usize = 200;

/// Most bytes of a command's arguments together; the kernel takes 2 MiB with the environment.
const MAX_ARGV: usize = 1 << 20;

/// Longest single argument in bytes, less the NUL behind it: `MAX_ARG_STRLEN` of Linux.
const MAX_ARGUMENT: usize = (128 << 10) - 1;

/// Most bytes of a task's environment.
const MAX_ENV: usize = 256 << 10;

/// Pool of a task that names none.
const DEFAULT_POOL: &str = "default";

/// Shortest and longest `lost_after` of a task. Silence is seen after 30 s at the earliest, whatever a task says.
const LOST_AFTER: (TimeDelta, TimeDelta) = (TimeDelta::seconds(1), TimeDelta::days(366));

/// A checked wish.
#[derive(Debug)]
pub(crate) struct Wish {
    /// As it is kept.
    pub(crate) spec: v1::TaskSpec,
    /// Shown in lists.
    pub(crate) title: String,
    /// The project's name or uuid, and the commit to begin at.
    pub(crate) base: Option<(String, String)>,
    /// Whether it is a prompt, which needs an agent.
    pub(crate) prompt: bool,
    /// What it needs beyond an agent.
    pub(crate) pool: String,
    pub(crate) requirements: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) policy: Policy,
}

impl Wish {
    /// What it needs of an executor, once the agent is known.
    pub(crate) fn needs(&self, agent: AgentNeed) -> Needs {
        Needs { pool: self.pool.clone(), requirements: self.requirements.clone(), agent }
    }
}

impl TryFrom<v1::TaskSpec> for Wish {
    type Error = FieldError;

    fn try_from(mut spec: v1::TaskSpec) -> Result<Self, FieldError> {
        let (prompt, said) = work(&spec)?;
        if !prompt && !spec.agent.is_empty() {
            return Err(FieldError::new("spec.agent", "a command runs without an agent; leave one of the two out"));
        }
        name(&spec.agent, "spec.agent")?;
        name(&spec.pool, "spec.pool")?;
        if spec.pool.is_empty() {
            spec.pool = DEFAULT_POOL.to_owned();
        }
        env(&spec)?;
        requester(&spec)?;
        let base = base(&spec)?;
        if !(-1000..=1000).contains(&spec.priority) {
            return Err(FieldError::new("spec.priority", format!("{} is not within -1000 to 1000", spec.priority)));
        }
        spec.intent = line(&spec.intent, MAX_INTENT, "spec.intent")?.unwrap_or_default();
        if spec.timeout.map(|span| duration(span, "spec.timeout")).transpose()?.is_some_and(|span| span.is_zero()) {
            return Err(FieldError::new("spec.timeout", "is zero; leave it out for no limit"));
        }
        Ok(Self {
            title: title(&spec.title, &said)?,
            base,
            prompt,
            pool: spec.pool.clone(),
            requirements: labels(spec.requirements.clone(), "spec.requirements")?,
            labels: labels(spec.labels.clone(), "spec.labels")?,
            policy: policy(&spec)?,
            spec,
        })
    }
}

/// SHA-256 of a spec, the same for the same content: maps are hashed in the order of their keys.
pub(super) fn digest(spec: &v1::TaskSpec) -> [u8; 32] {
    let mut plain = spec.clone();
    let maps = [&mut plain.env, &mut plain.requirements, &mut plain.labels].map(std::mem::take);
    let mut hash = Sha256::new();
    let body = plain.encode_to_vec();
    hash.update((body.len() as u64).to_be_bytes());
    hash.update(body);
    for map in maps {
        hash.update((map.len() as u64).to_be_bytes());
        for text in map.iter().flat_map(|(key, value)| [key, value]) {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
    }
    hash.finalize().into()
}

/// Whether it is a prompt, and what a title can be made of.
fn work(spec: &v1::TaskSpec) -> Result<(bool, String), FieldError> {
    match &spec.work {
        Some(v1::task_spec::Work::Prompt(prompt)) => {
            let refuse = |problem: String| Err(FieldError::new("spec.prompt", problem));
            if prompt.trim().is_empty() {
                return refuse("is blank; say what the agent is to do".to_owned());
            }
            if prompt.len() > MAX_PROMPT {
                return refuse(format!("has {} bytes; at most {MAX_PROMPT} are taken", prompt.len()));
            }
            if prompt.contains('\0') {
                return refuse("holds a NUL character, which no program can be handed".to_owned());
            }
            Ok((true, prompt.clone()))
        }
        Some(v1::task_spec::Work::Command(command)) => {
            let refuse = |problem: String| Err(FieldError::new("spec.command.argv", problem));
            if command.argv.first().is_none_or(Vec::is_empty) {
                return refuse("is empty; name the program to run".to_owned());
            }
            if command.argv.iter().any(|argument| argument.contains(&0)) {
                return refuse("holds a NUL byte, which no program can be handed".to_owned());
            }
            if let Some(long) = command.argv.iter().find(|argument| argument.len() > MAX_ARGUMENT) {
                return refuse(format!("has an argument of {} bytes; Linux takes {MAX_ARGUMENT}", long.len()));
            }
            let total: usize = command.argv.iter().map(|argument| argument.len() + 1).sum();
            if total > MAX_ARGV {
                return refuse(format!("has {total} bytes; at most {MAX_ARGV} are taken"));
            }
            Ok((false, command_line(&command.argv)))
        }
        None => Err(FieldError::new("spec.work", "is missing; give a prompt or a command")),
    }
}

/// The command as it could be typed, up to its first line end: `sh -c 'a b'` and `sh -c a b` are two commands.
fn command_line(argv: &[Vec<u8>]) -> String {
    let words: Vec<_> = argv.iter().map(|argument| String::from_utf8_lossy(argument)).collect();
    let typed = shlex::try_join(words.iter().map(AsRef::as_ref)).unwrap_or_else(|_| words.join(" "));
    match typed.split_once('\n') {
        Some((first, _)) => format!("{first}…"),
        None => typed,
    }
}

fn title(given: &str, said: &str) -> Result<String, FieldError> {
    let given = given.trim();
    if given.chars().count() > MAX_TITLE || given.chars().any(char::is_control) {
        let problem = format!("has more than {MAX_TITLE} characters, or control characters such as a line end");
        return Err(FieldError::new("spec.title", problem));
    }
    Ok(if given.is_empty() { naming::title(said) } else { given.to_owned() })
}

/// Names of agents and pools, which executors choose.
fn name(name: &str, field: &'static str) -> Result<(), FieldError> {
    if name.len() > 63 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(FieldError::new(field, format!("{name:?} is longer than 63 bytes, or holds spaces")));
    }
    Ok(())
}

fn env(spec: &v1::TaskSpec) -> Result<(), FieldError> {
    let refuse = |problem: String| Err(FieldError::new("spec.env", problem));
    let mut total = 0;
    for (key, value) in &spec.env {
        let plain = |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || at > 0 && c.is_ascii_digit();
        if key.is_empty() || !key.chars().enumerate().all(plain) {
            return refuse(format!("{key:?} is not the name of a variable"));
        }
        if key.starts_with("SCULPT_") {
            return refuse(format!("{key}: names that begin with SCULPT_ are set by sculpt itself"));
        }
        if value.contains('\0') {
            return refuse(format!("the value of {key} holds a NUL character"));
        }
        total += key.len() + value.len() + 2;
    }
    if total > MAX_ENV {
        return refuse(format!("has {total} bytes; at most {MAX_ENV} are taken"));
    }
    Ok(())
}

fn requester(spec: &v1::TaskSpec) -> Result<(), FieldError> {
    let Some(person) = &spec.requester else { return Ok(()) };
    for (text, field) in [(&person.name, "spec.requester.name"), (&person.email, "spec.requester.email")] {
        if text.len() > 255 || text.chars().any(|c| c.is_control() || "<>".contains(c)) {
            return Err(FieldError::new(field, format!("{text:?} cannot stand in a commit")));
        }
    }
    Ok(())
}

fn base(spec: &v1::TaskSpec) -> Result<Option<(String, String)>, FieldError> {
    let path = &spec.subdirectory;
    let steps = path.split(|byte| *byte == b'/');
    if path.first() == Some(&b'/') || path.contains(&0) || steps.clone().any(|step| step == b"..") || path.len() > 4096
    {
        return Err(FieldError::new("spec.subdirectory", "is not a relative path without \"..\""));
    }
    if spec.project.is_empty() {
        if !spec.base.is_empty() || !path.is_empty() {
            return Err(FieldError::new("spec.project", "is missing; a base or subdirectory needs one"));
        }
        return Ok(None);
    }
    if spec.base.is_empty() {
        return Err(FieldError::new("spec.base", "is missing; a task of a project begins at a commit"));
    }
    Ok(Some((spec.project.clone(), commit_id(&spec.base, "spec.base")?)))
}

/// What the task says about an executor that stays away.
pub(super) fn policy(spec: &v1::TaskSpec) -> Result<Policy, FieldError> {
    let on_lost = match v1::OnLost::try_from(spec.on_lost) {
        Ok(v1::OnLost::Unspecified | v1::OnLost::Wait) => OnLost::Wait,
        Ok(v1::OnLost::Retry) => OnLost::Retry,
        Ok(v1::OnLost::Fail) => OnLost::Fail,
        Err(_) => return Err(FieldError::new("spec.on_lost", format!("{} is not known here", spec.on_lost))),
    };
    if v1::CommitPolicy::try_from(spec.commit).is_err() {
        return Err(FieldError::new("spec.commit", format!("{} is not known here", spec.commit)));
    }
    let lost_after = match spec.lost_after {
        None => DEFAULT_LOST_AFTER,
        Some(span) => {
            let span = duration(span, "spec.lost_after")?;
            let (least, most) = LOST_AFTER;
            TimeDelta::from_std(span).ok().filter(|span| (least..=most).contains(span)).ok_or_else(|| {
                let days = most.num_days();
                FieldError::new("spec.lost_after", format!("{span:?} is not within 1 second to {days} days"))
            })?
        }
    };
    Ok(Policy { on_lost, lost_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(text: &str) -> v1::TaskSpec {
        v1::TaskSpec { work: Some(v1::task_spec::Work::Prompt(text.to_owned())), ..v1::TaskSpec::default() }
    }

    fn command(argv: &[&[u8]]) -> v1::TaskSpec {
        let argv = argv.iter().map(|argument| argument.to_vec()).collect();
        v1::TaskSpec { work: Some(v1::task_spec::Work::Command(v1::Command { argv })), ..v1::TaskSpec::default() }
    }

    #[track_caller]
    fn refused(spec: v1::TaskSpec, field: &str) {
        let error = Wish::try_from(spec).expect_err("it is refused");
        assert_eq!(error.field, field, "{error}");
    }

    #[test]
    fn refuses_what_cannot_be_done() {
        refused(v1::TaskSpec::default(), "spec.work");
        refused(prompt(" \n\t"), "spec.prompt");
        refused(prompt(&"x".repeat(MAX_PROMPT + 1)), "spec.prompt");
        refused(prompt("a\0b"), "spec.prompt");
        refused(command(&[]), "spec.command.argv");
        refused(command(&[b""]), "spec.command.argv");
        refused(command(&[b"a\0b"]), "spec.command.argv");
        refused(command(&[b"sh", &vec![b'x'; MAX_ARGUMENT + 1]]), "spec.command.argv");
        refused(v1::TaskSpec { agent: "robot".to_owned(), ..command(&[b"sh"]) }, "spec.agent");
        refused(v1::TaskSpec { priority: 1001, ..prompt("x") }, "spec.priority");
        refused(v1::TaskSpec { title: "a\nb".to_owned(), ..prompt("x") }, "spec.title");
        refused(v1::TaskSpec { title: "x".repeat(201), ..prompt("x") }, "spec.title");
        refused(v1::TaskSpec { base: "0".repeat(40), ..prompt("x") }, "spec.project");
        refused(v1::TaskSpec { project: "p".to_owned(), ..prompt("x") }, "spec.base");
        refused(v1::TaskSpec { project: "p".to_owned(), base: "main".to_owned(), ..prompt("x") }, "spec.base");
        refused(v1::TaskSpec { subdirectory: b"a/../b".to_vec(), ..prompt("x") }, "spec.subdirectory");
        refused(v1::TaskSpec { subdirectory: b"/a".to_vec(), ..prompt("x") }, "spec.subdirectory");
        for key in ["", "1A", "A=B", "A B", "SCULPT_TASK"] {
            refused(v1::TaskSpec { env: [(key.to_owned(), "1".to_owned())].into(), ..prompt("x") }, "spec.env");
        }
        let zero = prost_types::Duration::default();
        refused(v1::TaskSpec { timeout: Some(zero), ..prompt("x") }, "spec.timeout");
        refused(v1::TaskSpec { on_lost: 9, ..prompt("x") }, "spec.on_lost");
        for (seconds, nanos) in [(0, 0), (0, 999_999_999), (-60, 0), (366 * 86_400, 1), (i64::MAX, 0)] {
            let lost_after = Some(prost_types::Duration { seconds, nanos });
            refused(v1::TaskSpec { lost_after, ..prompt("x") }, "spec.lost_after");
        }
    }

    #[test]
    fn takes_a_prompt_of_the_whole_size_and_arguments_that_are_not_text() {
        let wish = Wish::try_from(prompt(&"x".repeat(MAX_PROMPT))).expect("it is taken");
        assert_eq!(wish.pool, "default");
        assert!(wish.title.ends_with('…'));
        let wish = Wish::try_from(command(&[b"printf", b"\xff"])).expect("it is taken");
        assert_eq!(wish.title, "printf '\u{fffd}'");
    }

    #[test]
    fn the_title_of_a_command_can_be_typed() {
        for (argv, title) in [
            (&["make", "test"][..], "make test"),
            (&["sh", "-c", "a b"], "sh -c 'a b'"),
            (&["sh", "-c", "a", "b"], "sh -c a b"),
            (&["echo", "", "it's", "$HOME"], "echo '' \"it's\" '$HOME'"),
            (&["sh", "-c", "first\nsecond"], "sh -c 'first…"),
        ] {
            let argv: Vec<&[u8]> = argv.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(Wish::try_from(command(&argv)).expect("it is taken").title, title);
        }
    }

    #[test]
    fn a_task_says_what_follows_when_its_executor_stays_away() {
        use v1::OnLost as Wire;
        for (on_lost, expected) in [
            (Wire::Unspecified, OnLost::Wait),
            (Wire::Wait, OnLost::Wait),
            (Wire::Retry, OnLost::Retry),
            (Wire::Fail, OnLost::Fail),
        ] {
            for (seconds, lost_after) in
                [(None, DEFAULT_LOST_AFTER), (Some(1), LOST_AFTER.0), (Some(366 * 86_400), LOST_AFTER.1)]
            {
                let span = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
                let spec = v1::TaskSpec { on_lost: on_lost.into(), lost_after: span, ..prompt("x") };
                let wish = Wish::try_from(spec).expect("it is taken");
                assert_eq!(wish.policy, Policy { on_lost: expected, lost_after });
            }
        }
    }

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_maps() {
        let labels = |order: &[&str]| order.iter().map(|key| ((*key).to_owned(), "1".to_owned())).collect();
        let keys = ["a", "b", "c", "d", "e", "f"];
        let back: Vec<_> = keys.iter().rev().copied().collect();
        let one = v1::TaskSpec { labels: labels(&keys), ..prompt("x") };
        let other = v1::TaskSpec { labels: labels(&back), ..prompt("x") };
        assert_eq!(digest(&one), digest(&other));
        let moved = v1::TaskSpec { env: labels(&keys), ..prompt("x") };
        assert_ne!(digest(&one), digest(&moved), "the same pairs in another map are other content");
    }
}
