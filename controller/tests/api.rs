//! The public API, over a real listener.

mod access;
mod adopt;
mod describe;
mod events;
mod projects;
mod tasks;
mod tunnel;
mod watch;

use sculpt_proto::v1;
use uuid::Uuid;

/// A task that runs a command without a repository.
pub(crate) fn command(words: &[&str]) -> v1::TaskSpec {
    let argv = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    v1::TaskSpec { work: Some(v1::task_spec::Work::Command(v1::Command { argv })), ..v1::TaskSpec::default() }
}

/// A task for an agent.
fn prompt(text: &str) -> v1::TaskSpec {
    v1::TaskSpec { work: Some(v1::task_spec::Work::Prompt(text.to_owned())), ..v1::TaskSpec::default() }
}

pub(crate) fn create(spec: v1::TaskSpec) -> v1::CreateTaskRequest {
    v1::CreateTaskRequest { request_id: fresh(), spec: Some(spec) }
}

fn fresh() -> String {
    Uuid::new_v4().to_string()
}
