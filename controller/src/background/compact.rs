//! Keeps the number of packs of every project small.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    git::{GitError, Repositories},
    store::{
        Store,
        packs::{self, PackError},
    },
};

/// Packs that a project may have before they are rolled up.
pub const CROWDED: u32 = 50;

/// How often projects are looked at.
pub const PERIOD: Duration = Duration::from_secs(60);

/// Rolls up the packs of crowded projects until `stop`.
pub async fn run(store: Store, repositories: Repositories, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if stop.run_until_cancelled(sweep(&store, &repositories)).await.is_none() {
            return;
        }
    }
}

/// Looks at every project once.
pub async fn sweep(store: &Store, repositories: &Repositories) {
    let projects = match packs::crowded(store, CROWDED).await {
        Ok(projects) => projects,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "look for projects with many packs");
            return;
        }
    };
    for project in projects {
        match repositories.compact(project).await {
            Ok(Some(done)) => {
                tracing::info!(%project, packs = done.packs, objects = done.objects, "packs were rolled up into one");
            }
            Ok(None) => {}
            Err(GitError::Pack(PackError::Replaced)) => {
                tracing::debug!(%project, "another replica was faster to roll up the packs");
            }
            Err(error) => {
                tracing::warn!(%project, error = &error as &dyn std::error::Error, "roll up the packs of a project");
            }
        }
    }
}
