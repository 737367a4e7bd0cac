//! Rows that tests begin with.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use prost::Message as _;
use sculpt_controller::{
    bus::Bus,
    dispatch::{Actor, Dispatch},
    store::{
        Store,
        requests::Request,
        sessions::{self, Epoch, Introduction},
        tasks::{NewTask, Start},
    },
};
use sculpt_core::{
    attempt::{Fence, Step},
    placement::{AgentNeed, Needs},
    task::{Event, OnLost, Policy},
};
use sculpt_proto::{
    id::{AttemptId, ExecutorId, ProjectId, RequestId, TaskId},
    v1::{Command, TaskSpec, task_spec::Work},
};
use uuid::Uuid;

use crate::harness;

/// A queued plain command.
pub(crate) async fn task(store: &Store) -> TaskId {
    create(store, command()).await
}

/// The same with a policy and a priority.
pub(crate) async fn task_with(store: &Store, policy: Policy, priority: i32) -> TaskId {
    create(store, NewTask { policy, priority, ..command() }).await
}

/// The same on a commit of a project.
pub(crate) async fn task_on(store: &Store, project: ProjectId, base: &str) -> TaskId {
    create(store, NewTask { base: Some((project, base.into())), ..command() }).await
}

async fn create(store: &Store, new: NewTask) -> TaskId {
    let request = Request { id: RequestId::fresh(), method: "CreateTask", digest: [0; 32] };
    let start = start(store, new.base.clone()).await;
    store.create_task(start, request, new).await.unwrap().0
}

/// An admin's right to start a task there.
pub(crate) async fn start(store: &Store, base: Option<(ProjectId, String)>) -> Start {
    let ada = harness::admin(store).await;
    match base {
        None => Start::WithoutProject(ada.may().unwrap()),
        Some((project, commit)) => {
            let project = store.project(&ada.sees(), &project.to_string()).await.unwrap();
            Start::At(ada.within(&project).unwrap(), commit)
        }
    }
}

/// A plain command.
pub(crate) fn command() -> NewTask {
    let spec = TaskSpec { work: Some(Work::Command(Command { argv: vec![b"true".to_vec()] })), ..Default::default() };
    NewTask {
        base: None,
        needs: Needs { pool: "default".into(), requirements: BTreeMap::new(), agent: AgentNeed::None },
        title: "true".into(),
        labels: BTreeMap::new(),
        priority: 0,
        created_by: "ada".into(),
        policy: Policy { on_lost: OnLost::Wait, lost_after: TimeDelta::minutes(15) },
        spec: spec.encode_to_vec(),
        brief: None,
    }
}

/// What an executor of this name says of itself.
pub(crate) fn introduction(name: &str, slots: u32) -> Introduction {
    Introduction {
        id: ExecutorId::fresh(),
        certified: None,
        name: name.into(),
        instance: Uuid::new_v4(),
        version: "0.1.0".into(),
        pool: "default".into(),
        labels: BTreeMap::new(),
        slots,
        agents: vec![],
        default_agent: None,
        separates: true,
        unseparated: String::new(),
        closes_network: true,
        separated_by: "account".into(),
        counters: None,
        ssh_address: None,
        hostname: "host".into(),
        notes: vec![],
        directory: None,
    }
}

/// An executor with four slots and an open session.
pub(crate) async fn executor(store: &Store, name: &str) -> Epoch {
    open(store, introduction(name, 4)).await
}

/// An attempt of `task` whose agent runs on `executor`, in a terminal.
pub(crate) async fn running(store: &Store, task: TaskId, executor: ExecutorId) -> AttemptId {
    let dispatch = Dispatch::new(store.clone(), Bus::new());
    let fence = Fence { number: 1, id: Uuid::now_v7() };
    let stepped = |step| Event::Stepped { fence, step };
    let claimed = Event::Claimed { fence, executor: executor.0 };
    for event in [claimed, stepped(Step::Accepted), stepped(Step::Preparing), stepped(Step::Running)] {
        let _ = dispatch.apply(task, event, Actor::system()).await.unwrap();
    }
    let terminal = "UPDATE attempts SET tmux_socket = '/run/t' WHERE id = $1";
    sqlx::query(terminal).bind(fence.id).execute(&mut *store.read().await.unwrap()).await.unwrap();
    AttemptId(fence.id)
}

/// A session of an executor.
pub(crate) async fn open(store: &Store, who: Introduction) -> Epoch {
    store.write(move |conn| Box::pin(async move { sessions::open(conn, &who).await })).await.unwrap()
}
