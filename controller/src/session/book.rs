//! What sessions ask of the database. Each request is a transaction of its own, and its answer follows the commit.

use std::{collections::BTreeMap, future::Future};

use sculpt_proto::id::{AttemptId, ClusterId, ExecutorId};

use crate::{
    bus::Bus,
    dispatch::{Dispatch, DispatchError},
    session::{
        census::{self, Comparison},
        disk::Disk,
        reports::{self, Answer, Report, ReportError},
        state::Census,
    },
    store::{
        StoreError, adopt,
        sessions::{self, Epoch, Introduction, OpenError, Wish},
    },
};

/// The database as control sessions use it. The simulation has another one.
pub trait Book: Clone + Send + Sync + 'static {
    /// Told of what was committed.
    fn bus(&self) -> &Bus;

    /// Writes what the executor says of itself and raises its epoch.
    fn open(&self, who: Introduction) -> impl Future<Output = Result<Epoch, OpenError>> + Send;

    /// Writes that the session is over, and why; false when a newer one has taken its place.
    fn close(&self, epoch: Epoch, reason: String) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The executor was heard of, and may refuse work; false when a newer session has taken this one's place.
    fn seen(&self, epoch: Epoch, closed: Option<String>) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The executor told how full its disk is.
    fn disk(&self, _epoch: Epoch, _disk: Disk) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Applies a report and says what to answer.
    fn apply(&self, epoch: Epoch, report: Report) -> impl Future<Output = Result<Answer, ReportError>> + Send;

    /// Compares what the executor has with what it should have, and converges.
    fn reconcile(
        &self,
        cluster: ClusterId,
        epoch: Epoch,
        census: Census,
    ) -> impl Future<Output = Result<Comparison, DispatchError>> + Send;

    /// The attempts that a person wants taken over from the executor; the simulation has no such persons.
    fn adoptions(&self, _executor: ExecutorId) -> impl Future<Output = Result<Vec<AttemptId>, StoreError>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Everything that the executor should have.
    fn wishes(
        &self,
        executor: ExecutorId,
    ) -> impl Future<Output = Result<BTreeMap<AttemptId, Wish>, StoreError>> + Send;
}

impl Book for Dispatch {
    fn bus(&self) -> &Bus {
        self.bus()
    }

    async fn open(&self, who: Introduction) -> Result<Epoch, OpenError> {
        let opening = self.store().write(move |conn| {
            Box::pin(async move {
                let epoch = sessions::open(conn, &who).await;
                sculpt_failpoints::pass("session.before_commit");
                epoch
            })
        });
        let opened = opening.await;
        sculpt_failpoints::pass("session.committed");
        opened
    }

    async fn close(&self, epoch: Epoch, reason: String) -> Result<bool, StoreError> {
        self.store().write(move |conn| Box::pin(async move { sessions::close(conn, epoch, &reason).await })).await
    }

    async fn seen(&self, epoch: Epoch, closed: Option<String>) -> Result<bool, StoreError> {
        let mut conn = self.store().read().await?;
        sessions::seen(&mut conn, epoch, closed.as_deref()).await
    }

    async fn disk(&self, epoch: Epoch, disk: Disk) -> Result<(), StoreError> {
        let mut conn = self.store().read().await?;
        sessions::disk(&mut conn, epoch, disk.used, disk.budget).await
    }

    async fn apply(&self, epoch: Epoch, report: Report) -> Result<Answer, ReportError> {
        reports::apply(self, epoch, report).await
    }

    async fn reconcile(&self, cluster: ClusterId, epoch: Epoch, census: Census) -> Result<Comparison, DispatchError> {
        census::reconcile(self, cluster, epoch, census).await
    }

    async fn adoptions(&self, executor: ExecutorId) -> Result<Vec<AttemptId>, StoreError> {
        let mut conn = self.store().read().await?;
        adopt::wanted_of(&mut conn, executor).await
    }

    async fn wishes(&self, executor: ExecutorId) -> Result<BTreeMap<AttemptId, Wish>, StoreError> {
        let mut conn = self.store().read().await?;
        sessions::wishes(&mut conn, executor).await
    }
}
