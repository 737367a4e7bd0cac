//! Adoption: what an executor hands in of an attempt that this database does not know becomes a task's attempt.
//!
//! What comes is an executor's claim, and it is believed no further than it can do harm:
//!
//! | the database | what follows |
//! |---|---|
//! | nobody asked for it | refused |
//! | knows the attempt, of whichever task and executor | refused |
//! | its task was asked something else | refused |
//! | its task waits for this number, or an earlier one | attached |
//! | its task has an earlier attempt that is over or lost, and nobody found its result good | attached in its place |
//! | its task has an earlier attempt of this executor, taken over as well | asked for again, until that one is over |
//! | its task has another attempt, or waits for a later number | refused |
//! | does not know the task | made from the spec, as if its person had just asked for it |

use std::time::Duration;

use prost::Message as _;
use sculpt_core::{
    attempt::Fence,
    placement::AgentNeed,
    task::{Event, Run, Task},
};
use sculpt_proto::{
    FieldError,
    executor::v1::AttemptSpec,
    id::{AttemptId, ClusterId, ProjectId, RequestId, TaskId},
    required,
};
use sha2::{Digest as _, Sha256};

use crate::{
    dispatch::{Actor, Dispatch, DispatchError, Moved},
    grpc::spec::Wish,
    store::{
        Connection, StoreError,
        adopt::{self, Asker, ClaimedProject, Wanted},
        claims::{self, Order},
        sessions::Epoch,
        task_state,
        tasks::NewTask,
    },
};

/// Longest name of a project, as the table has it.
const MAX_PROJECT_NAME: usize = 63;

/// Highest number of an attempt that is believed: there must be room above it for those to come.
const HIGHEST_NUMBER: u32 = 1_000_000;

/// Why an attempt is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// A newer session has this executor.
    #[error("a newer session has this executor; end this one")]
    Superseded,
    /// Nobody wants it.
    #[error("nobody asked to take attempt {0} over")]
    Unasked(AttemptId),
    /// It cannot be.
    #[error("{why}")]
    Refused {
        /// What asked for it.
        request: RequestId,
        /// The reason for people.
        why: String,
    },
    /// It was refused before, and nobody has asked again.
    #[error("{0}")]
    Settled(String),
    /// An earlier attempt of its task was taken over before it, and is not over yet.
    #[error("the attempt before it was taken over and has yet to end; it is asked for again")]
    Early,
    /// The task could not be moved.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an executor says of an attempt, checked as far as it can be without the database.
#[derive(Debug)]
struct Claim {
    task: TaskId,
    task_number: u64,
    fence: Fence,
    project: Option<ClaimedProject>,
    spec: AttemptSpec,
    wish: Wish,
    digest: Vec<u8>,
}

impl Claim {
    fn read(attempt: AttemptId, body: &[u8]) -> Result<Self, FieldError> {
        let spec = AttemptSpec::decode(body).map_err(|error| FieldError::new("spec", error.to_string()))?;
        if FieldError::parse::<AttemptId>(&spec.attempt_id, "spec.attempt_id")? != attempt {
            return Err(FieldError::new("spec.attempt_id", "is another attempt's"));
        }
        let _minted_by: ClusterId = FieldError::parse(&spec.cluster_id, "spec.cluster_id")?;
        if spec.number == 0 || spec.number > HIGHEST_NUMBER {
            return Err(FieldError::new("spec.number", format!("{} is no attempt's number", spec.number)));
        }
        let asked = required(spec.task.clone(), "spec.task")?;
        let mut wish = Wish::try_from(asked)?;
        if spec.title.chars().count() <= 200 && !spec.title.chars().any(char::is_control) && !spec.title.is_empty() {
            wish.title.clone_from(&spec.title);
        }
        let project = project(&spec, &wish)?;
        if let Some(project) = &project {
            wish.spec.project = project.id.to_string();
        }
        Ok(Self {
            task: FieldError::parse(&spec.task_id, "spec.task_id")?,
            task_number: spec.task_number,
            fence: Fence { number: spec.number, id: attempt.0 },
            project,
            digest: Sha256::digest(body).to_vec(),
            spec,
            wish,
        })
    }

    /// Whether it is what a task of this order would have been given.
    fn fits(&self, order: &Order) -> bool {
        let project = order.project.as_ref().map(|project| ProjectId(project.id));
        self.spec.task.as_ref().is_some_and(|asked| {
            sculpt_proto::v1::TaskSpec::decode(order.spec.as_slice()).is_ok_and(|stored| stored == *asked)
        }) && project == self.project.as_ref().map(|project| project.id)
            && order.branch == self.spec.branch
            && order.number == self.task_number
    }

    fn new_task(&self, by: &str) -> NewTask {
        let agent = match (self.wish.prompt, self.spec.agent.as_str()) {
            (false, _) => AgentNeed::None,
            (true, "") => AgentNeed::Default,
            (true, name) => AgentNeed::Named(name.to_owned()),
        };
        NewTask {
            base: self.project.as_ref().map(|project| (project.id, project.base.clone())),
            needs: self.wish.needs(agent),
            title: self.wish.title.clone(),
            labels: self.wish.labels.clone(),
            priority: self.wish.spec.priority,
            created_by: by.to_owned(),
            policy: self.wish.policy,
            spec: self.wish.spec.encode_to_vec(),
            brief: crate::grpc::brief::brief(&self.wish.spec).map(|brief| brief.encode_to_vec()),
        }
    }
}

fn project(spec: &AttemptSpec, wish: &Wish) -> Result<Option<ClaimedProject>, FieldError> {
    let Some((_, base)) = &wish.base else {
        return if spec.project_id.is_empty() {
            Ok(None)
        } else {
            Err(FieldError::new("spec.project_id", "is set, but there is no base commit"))
        };
    };
    let name = &spec.project_name;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || name.len() > MAX_PROJECT_NAME || !name.chars().all(plain) {
        return Err(FieldError::new("spec.project_name", format!("{name:?} is no project's name")));
    }
    let id = FieldError::parse(&spec.project_id, "spec.project_id")?;
    Ok(Some(ClaimedProject { id, name: name.clone(), base: base.clone() }))
}

/// Takes `attempt` over by the spec that its executor hands in. Idempotent; a refusal is kept for the person who asked.
pub async fn take_over(dispatch: &Dispatch, epoch: Epoch, attempt: AttemptId, body: Vec<u8>) -> Result<(), AdoptError> {
    let claim = Claim::read(attempt, &body);
    let taken = dispatch.store().write(move |conn| {
        Box::pin(async move {
            if !adopt::hold_for_change(conn, epoch).await? {
                return Err(AdoptError::Superseded);
            }
            let asker = match adopt::wanted(conn, epoch.executor, attempt).await? {
                Wanted::No => return Err(AdoptError::Unasked(attempt)),
                Wanted::Done => {
                    adopt::learn(conn, epoch.executor, attempt).await?;
                    return Ok(None);
                }
                Wanted::Refused(why) => return Err(AdoptError::Settled(why)),
                Wanted::By(asker) => asker,
            };
            let refused = |error: FieldError| asker.refused(format!("what its executor handed in: {error}"));
            attach(conn, epoch, claim.map_err(refused)?, &asker).await.map(Some)
        })
    });
    match taken.await {
        Ok(Some(moved)) => {
            dispatch.after_commit(&moved);
            dispatch.bus().tell(epoch.executor);
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(AdoptError::Refused { request, why }) => {
            let said = why.clone();
            let noted = dispatch.store().write::<_, StoreError>(move |conn| {
                Box::pin(async move { adopt::refuse(conn, epoch.executor, attempt, request, &said).await })
            });
            noted.await?;
            dispatch.bus().journal();
            Err(AdoptError::Refused { request, why })
        }
        Err(other) => Err(other),
    }
}

impl Asker {
    fn refused(&self, why: String) -> AdoptError {
        AdoptError::Refused { request: self.request, why }
    }
}

async fn attach(conn: &mut Connection, epoch: Epoch, claim: Claim, asker: &Asker) -> Result<Moved, AdoptError> {
    let attempt = AttemptId(claim.fence.id);
    if let Some(known) = adopt::known(conn, attempt).await? {
        let text = format!("it is known already, as attempt {} of task {}", known.number, known.task);
        return Err(asker.refused(text));
    }
    let locked = match task_state::lock(conn, claim.task).await? {
        Some(locked) => {
            let order = claims::order(conn, claim.task, epoch.executor).await?;
            if !claim.fits(&order) {
                let text = format!("task {} is another one here than the attempt's spec says", locked.number);
                return Err(asker.refused(text));
            }
            locked
        }
        None => {
            if let Some(project) = &claim.project {
                adopt::ensure_project(conn, project).await?.map_err(|why| asker.refused(why))?;
            }
            let new = claim.new_task(&asker.name);
            adopt::make_task(conn, claim.task, claim.task_number, claim.fence.number, &new).await?;
            task_state::lock(conn, claim.task).await?.ok_or(DispatchError::NotFound(claim.task))?
        }
    };
    let event = Event::Adopted { fence: claim.fence, executor: epoch.executor.0 };
    let moved = match Dispatch::move_locked(conn, &locked, &event, &Actor::user(&asker.name), Duration::ZERO).await {
        Err(DispatchError::Illegal(_)) if follows(conn, epoch, &locked.task, claim.fence).await? => {
            return Err(AdoptError::Early);
        }
        Err(DispatchError::Illegal(_)) => {
            return Err(asker.refused(not_taken(locked.number, claim.fence, &locked.task)));
        }
        moved => moved?,
    };
    adopt::fulfil(conn, epoch.executor, attempt, claim.task, &claim.digest).await?;
    Ok(moved)
}

/// Whether the attempt with `fence` comes after one of the same executor that was taken over too: what ended before that is
/// told in a moment.
async fn follows(conn: &mut Connection, epoch: Epoch, task: &Task, fence: Fence) -> Result<bool, StoreError> {
    match &task.run {
        Run::Attempt(newest) if newest.fence.number < fence.number && !newest.ended() => {
            Ok(adopt::wanted(conn, epoch.executor, AttemptId(newest.fence.id)).await? == Wanted::Done)
        }
        Run::Attempt(_) | Run::Queued { .. } => Ok(false),
    }
}

/// PURE: why `task` does not take the attempt.
fn not_taken(number: u64, fence: Fence, task: &Task) -> String {
    let this = fence.number;
    match &task.run {
        Run::Attempt(newest) if newest.fence.number >= this => format!(
            "task {number} is at attempt {}, and this is attempt {this}: numbers only rise. What it made stays on its executor",
            newest.fence.number
        ),
        Run::Attempt(newest) if !newest.ended() => format!(
            "task {number} is at attempt {}, which has not ended; ask again for attempt {this} when it has, or after \
             `sculpt stop {number}`",
            newest.fence.number
        ),
        Run::Attempt(newest) => format!(
            "the result of attempt {} of task {number} was found good, and attempt {this} would take its place; what that one \
             made stays on its executor",
            newest.fence.number
        ),
        Run::Queued { next } if *next <= this => {
            format!("task {number} is to go on in a workspace that another executor has")
        }
        Run::Queued { next } => format!(
            "task {number} waits for its attempt {next}, and this is attempt {this}: numbers only rise. What it made stays on \
             its executor"
        ),
    }
}
