//! Values of arguments, checked as they are read.

use std::time::Duration;

use clap::builder::TypedValueParser as _;
use sculpt_proto::v1::{OnLost, RoleBinding, TaskState};

use crate::{
    exit::{STATES, state_name},
    output::tasks::{ON_LOST, on_lost_name},
};

/// The state that a checked argument names.
pub(crate) fn state_named(name: &str) -> TaskState {
    STATES.into_iter().find(|state| state_name(*state) == name).unwrap_or(TaskState::Unspecified)
}

/// A role in one project, or in all, as it is typed: `viewer`, `operator@website`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    role: String,
    /// Empty: everywhere.
    project: String,
}

impl Binding {
    /// Whether it lets somebody act as an agent does, by its keyboard or beside it.
    pub(crate) fn is_as_good_as_the_agent(&self) -> bool {
        matches!(&*self.role, "driver" | "shell" | "pair" | "maintainer")
    }
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { role, project } = self;
        if project.is_empty() { f.write_str(role) } else { write!(f, "{role}@{project}") }
    }
}

impl From<Binding> for RoleBinding {
    fn from(Binding { role, project }: Binding) -> Self {
        Self { role, project }
    }
}

const ROLES: [&str; 8] = ["viewer", "operator", "driver", "shell", "forwarder", "pair", "maintainer", "admin"];

pub(crate) fn binding(text: &str) -> Result<Binding, String> {
    let (role, project) = text.split_once('@').unwrap_or((text, ""));
    if !ROLES.contains(&role) {
        return Err(format!("{role:?} is not a role; there are {}", ROLES.join(", ")));
    }
    if text.ends_with('@') {
        return Err("a project must follow the @".to_owned());
    }
    Ok(Binding { role: role.to_owned(), project: project.to_owned() })
}

pub(super) fn state() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(STATES.map(state_name))
}

pub(super) fn on_lost() -> impl clap::builder::TypedValueParser<Value = OnLost> {
    clap::builder::PossibleValuesParser::new(ON_LOST.map(on_lost_name))
        .map(|name| ON_LOST.into_iter().find(|on_lost| on_lost_name(*on_lost) == name).unwrap_or_default())
}

pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|_| "write it like 90s or \"2h 30m\"")?;
    if span.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(span) }
}

/// How many times as fast.
pub(crate) fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (0.01..=1000.0).contains(speed));
    speed.ok_or_else(|| "write a number from 0.01 to 1000, such as 2 or 0.5".to_owned())
}

/// A name, of whatever it is; what counts without one is had by saying nothing.
pub(crate) fn named(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty, and a name is needed".to_owned()) } else { Ok(text.to_owned()) }
}

/// A number between these, both included; the largest of its type stands for no limit.
pub(crate) fn whole<N>(least: i64, most: i64) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync
where
    N: TryFrom<i64> + Send + Sync,
{
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.and_then(|number| N::try_from(number).ok()).ok_or_else(|| {
            let range =
                if most < u32::MAX.into() { format!("from {least} to {most}") } else { format!("of {least} or more") };
            format!("write a whole number {range}")
        })
    }
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    let map = [(key.to_owned(), value.to_owned())];
    sculpt_proto::labels(map, "label").map_err(|error| error.problem)?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, value.to_owned()),
        None => {
            (text, std::env::var(text).map_err(|_| format!("this shell has no variable {text:?}; write {text}=VALUE"))?)
        }
    };
    if key.is_empty() || key.contains('\0') || value.contains('\0') {
        return Err("write it as KEY=VALUE, without NUL".to_owned());
    }
    Ok((key.to_owned(), value))
}
