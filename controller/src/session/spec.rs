//! The spec of an attempt: made once, at the claim, and kept encoded, so that its digest is that of what is handed out.

use prost::Message as _;
use sculpt_core::{attempt::Fence, task::Event};
use sculpt_proto::{
    executor::v1::{AttemptSpec, Confinement, confinement::Network},
    id::{AttemptId, ClusterId, TaskId},
    v1::{CommitPolicy, TaskSpec, task_spec::Work},
};
use sha2::{Digest as _, Sha256};

use crate::{
    dispatch::{Actor, Dispatch, DispatchError},
    store::{
        Connection, StoreError, attempts,
        claims::{Allowance, Order},
        sessions,
        sessions::Epoch,
        task_state,
    },
};

/// A spec that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the stored spec of task {number} cannot be read")]
pub struct SpecError {
    /// The task's number.
    number: u64,
    source: prost::DecodeError,
}

/// An encoded spec and its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// An encoded `AttemptSpec`.
    pub body: Vec<u8>,
    /// Its SHA-256.
    pub digest: Vec<u8>,
}

/// What the attempt `fence` of `task` is to do.
pub fn build(cluster: ClusterId, task: TaskId, fence: Fence, order: Order) -> Result<Sealed, SpecError> {
    let mut spec =
        TaskSpec::decode(order.spec.as_slice()).map_err(|source| SpecError { number: order.number, source })?;
    if let Some(intent) = order.intent {
        spec.intent = intent;
    }
    let record_typing = order.project.as_ref().is_some_and(|project| project.record_typing);
    let (project_id, project_name, git_path, project_commits) = match order.project {
        None => (String::new(), String::new(), String::new(), false),
        Some(project) => {
            let path = format!("/git/{}.git", project.id);
            (project.id.to_string(), project.name, path, project.commit_changes)
        }
    };
    let with_repository = !project_id.is_empty();
    let commit_changes = with_repository
        && match spec.commit() {
            CommitPolicy::Always => true,
            CommitPolicy::Never => false,
            CommitPolicy::Unspecified => project_commits && matches!(spec.work, Some(Work::Prompt(_))),
        };
    let body = AttemptSpec {
        cluster_id: cluster.to_string(),
        attempt_id: AttemptId(fence.id).to_string(),
        task_id: task.to_string(),
        task_number: order.number,
        number: fence.number,
        task: Some(spec),
        project_id,
        project_name,
        branch: order.branch,
        git_path,
        commit_changes,
        agent: order.agent.unwrap_or_default(),
        title: order.title,
        workspace_of: order.workspace_of.map(|attempt| attempt.to_string()).unwrap_or_default(),
        confinement: Some(confinement(order.allowance)),
        record_typing,
    }
    .encode_to_vec();
    let digest = Sha256::digest(&body).to_vec();
    Ok(Sealed { body, digest })
}

fn confinement(allowance: Allowance) -> Confinement {
    let Allowance { no_network, memory, processes, cpu } = allowance;
    Confinement {
        network: if no_network { Network::None } else { Network::Host }.into(),
        memory: memory.unwrap_or_default(),
        processes: processes.unwrap_or_default(),
        cpu: cpu.unwrap_or_default(),
    }
}

/// Why a spec is not handed out.
#[derive(Debug, thiserror::Error)]
pub enum HandOutError {
    /// A newer session has this executor.
    #[error("a newer session has this executor; end this one")]
    Superseded,
    /// Not an attempt of this executor.
    #[error("there is no attempt {0} for this executor")]
    Unknown(AttemptId),
    /// It may not begin any more.
    #[error("attempt {0} may not begin: it has begun before, or its task has gone on without it")]
    Over(AttemptId),
    /// The task could not be moved.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Hands the spec of an offered attempt out; from then on its executor may have begun. May be repeated until the executor
/// says that it has it.
pub async fn hand_out(dispatch: &Dispatch, epoch: Epoch, attempt: AttemptId) -> Result<Vec<u8>, HandOutError> {
    let spec =
        dispatch.store().write(move |conn| Box::pin(async move { hand_out_in(conn, epoch, attempt).await })).await;
    sculpt_failpoints::pass("spec.before_answer");
    spec
}

async fn hand_out_in(conn: &mut Connection, epoch: Epoch, attempt: AttemptId) -> Result<Vec<u8>, HandOutError> {
    if !sessions::holds(conn, epoch).await? {
        return Err(HandOutError::Superseded);
    }
    let unknown = HandOutError::Unknown(attempt);
    let Some(task) = attempts::task_of(conn, attempt, epoch.executor).await? else { return Err(unknown) };
    let Some(locked) = task_state::lock(conn, task).await? else { return Err(unknown) };
    let offered = locked.task.attempt().filter(|current| {
        current.fence.id == attempt.0 && matches!(current.state, sculpt_core::attempt::AttemptState::Offered { .. })
    });
    let Some(offered) = offered else { return Err(HandOutError::Over(attempt)) };
    let event = Event::SpecRead { fence: offered.fence };
    // It moves nothing that people see: there are no effects.
    let _ = Dispatch::move_locked(conn, &locked, &event, &Actor::system(), std::time::Duration::ZERO).await?;
    sculpt_failpoints::pass("spec.before_commit");
    attempts::spec(conn, attempt).await?.ok_or(unknown)
}
