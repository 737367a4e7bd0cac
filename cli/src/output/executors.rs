//! Executors and projects for programs.

use std::collections::BTreeMap;

use sculpt_proto::v1::{Counters, Executor, Project};
use serde::Serialize;

use super::{tasks::filled, time::rfc3339};

/// An executor as `-o json` shows it.
#[derive(Debug, Serialize)]
pub struct ExecutorJson {
    name: String,
    uuid: String,
    pool: String,
    labels: BTreeMap<String, String>,
    slots: u32,
    slots_used: u32,
    liveness: String,
    draining: bool,
    closed_reason: Option<String>,
    disk_used: Option<u64>,
    disk_budget: Option<u64>,
    agents: Vec<String>,
    default_agent: Option<String>,
    separates: bool,
    /// Why it does not separate attempts.
    unseparated: Option<String>,
    closes_network: bool,
    /// By what it separates them.
    separated_by: Option<String>,
    ssh_address: Option<String>,
    /// By what it holds attempts to limits; absent when it does not say.
    counters: Option<CountersJson>,
    /// What its pool limits and nothing there counts.
    unmet: Vec<String>,
    /// Whose tasks alone it runs while it does not separate.
    owner: Option<String>,
    locked: bool,
    certified_until: Option<String>,
    hostname: Option<String>,
    version: Option<String>,
    connected_at: Option<String>,
    last_seen: Option<String>,
    epoch: u64,
    tasks: Vec<u64>,
    unknown_attempts: Vec<String>,
    notes: Vec<String>,
}

/// By what an executor holds attempts to limits; absent: by nothing.
#[derive(Debug, Serialize)]
pub struct CountersJson {
    memory: Option<String>,
    processes: Option<String>,
    cpu: Option<String>,
    /// Why something is absent.
    lacking: Option<String>,
}

impl From<&Counters> for CountersJson {
    fn from(counters: &Counters) -> Self {
        Self {
            memory: filled(&counters.memory),
            processes: filled(&counters.processes),
            cpu: filled(&counters.cpu),
            lacking: filled(&counters.lacking),
        }
    }
}

impl From<&Executor> for ExecutorJson {
    fn from(executor: &Executor) -> Self {
        Self {
            name: executor.name.clone(),
            uuid: executor.uuid.clone(),
            pool: executor.pool.clone(),
            labels: executor.labels.clone().into_iter().collect(),
            slots: executor.slots,
            slots_used: executor.slots_used,
            liveness: executor.liveness.clone(),
            draining: executor.draining,
            closed_reason: filled(&executor.closed_reason),
            disk_used: (executor.disk_budget > 0).then_some(executor.disk_used),
            disk_budget: (executor.disk_budget > 0).then_some(executor.disk_budget),
            agents: executor.agents.iter().map(|agent| agent.name.clone()).collect(),
            default_agent: executor.agents.iter().find(|agent| agent.is_default).map(|agent| agent.name.clone()),
            separates: executor.separates,
            unseparated: filled(&executor.unseparated),
            closes_network: executor.closes_network,
            separated_by: filled(&executor.separated_by),
            ssh_address: executor.ssh_address.clone(),
            counters: executor.counters.as_ref().map(CountersJson::from),
            unmet: executor.unmet.clone(),
            owner: filled(&executor.owner),
            locked: executor.locked,
            certified_until: rfc3339(executor.certified_until.as_ref()),
            hostname: filled(&executor.hostname),
            version: filled(&executor.version),
            connected_at: rfc3339(executor.connected_at.as_ref()),
            last_seen: rfc3339(executor.last_seen.as_ref()),
            epoch: executor.epoch,
            tasks: executor.tasks.clone(),
            unknown_attempts: executor.unknown_attempts.clone(),
            notes: executor.notes.clone(),
        }
    }
}

/// A project as `-o json` shows it.
#[derive(Debug, Serialize)]
pub struct ProjectJson {
    name: String,
    uuid: String,
    root_commit: Option<String>,
    remote: Option<String>,
    default_agent: Option<String>,
    commit_changes: bool,
    record_typing: bool,
    git_path: Option<String>,
    task_count: u64,
    created_at: Option<String>,
}

impl From<&Project> for ProjectJson {
    fn from(project: &Project) -> Self {
        Self {
            name: project.name.clone(),
            uuid: project.uuid.clone(),
            root_commit: filled(&project.root_commit),
            remote: filled(&project.remote),
            default_agent: filled(&project.default_agent),
            commit_changes: project.commit_changes,
            record_typing: project.record_typing,
            git_path: filled(&project.git_path),
            task_count: project.task_count,
            created_at: rfc3339(project.created_at.as_ref()),
        }
    }
}
