//! Whose an attempt is: the cluster's that minted it, or, after its controller's database was lost, of the one that took
//! it over.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use sculpt_proto::{
    FieldError,
    executor::v1::PutSpecRequest,
    id::{AttemptId, ClusterId},
};
use tonic::Status;
use tracing::{info, warn};

use super::{Attempts, Context, Handle, Link, News, files};
use crate::{connect::ConnectError, disk::write_durably};

/// Whose an attempt is since it was taken over; empty for one that never was.
#[derive(Debug, Default)]
pub(super) struct Owner(Mutex<Taken>);

#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    by: Option<ClusterId>,
    times: u64,
}

impl Owner {
    /// As it stands in the attempt's directory.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let by = match fs::read_to_string(dir.join(files::CLUSTER)) {
            Ok(text) => Some(text.trim().parse().map_err(io::Error::other)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self(Mutex::new(Taken { by, times: 0 })))
    }

    fn get(&self) -> Taken {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, cluster: ClusterId) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = Taken { by: Some(cluster), times: taken.times + 1 };
    }
}

impl Handle {
    /// The cluster in whose name it may be ended; none until its spec is here.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.owner.get().by.or_else(|| self.spec().map(|spec| spec.cluster))
    }

    /// How often it was taken over since this process began: what was said of it before counts no more.
    pub fn takeovers(&self) -> u64 {
        self.owner.get().times
    }

    /// From now on it is `cluster`'s, also after a restart, and owes it everything from the beginning.
    fn belong(&self, context: &Context, cluster: ClusterId) -> io::Result<()> {
        write_durably(&self.dir.join(files::CLUSTER), cluster.to_string().as_bytes())?;
        self.unrelease();
        self.owner.set(cluster);
        context.log_growth.notify_one();
        Ok(())
    }
}

impl Attempts {
    /// Hands the specs of attempts to a controller that takes them over: those of one task in the order in which they were,
    /// since a task takes none that is older than what it has. Tried once: the controller asks again.
    pub fn hand_in(&self, mut ids: Vec<AttemptId>) {
        ids.sort_by_key(|id| self.get(*id).and_then(|handle| handle.spec().map(|spec| spec.number)));
        let attempts = self.clone();
        self.tracker.spawn(async move {
            let context = Arc::clone(&attempts.context);
            for attempt in ids {
                let handed = tokio::select! {
                    () = context.cancel.cancelled() => return,
                    handed = Box::pin(attempts.try_hand_in(attempt)) => handed,
                };
                match &handed {
                    Ok(cluster) => info!(%attempt, %cluster, "the controller has taken it over"),
                    Err(error) => warn!(%attempt, %error, "the controller has not taken it over"),
                }
                let _ending = context.news.send(News::HandedIn(attempt, handed.ok())).await;
            }
        });
    }

    async fn try_hand_in(&self, attempt: AttemptId) -> Result<ClusterId, HandInError> {
        let handle = self.get(attempt).ok_or(HandInError::Gone)?;
        let link = *self.context.link.borrow();
        let Link { epoch, .. } = link.ok_or(HandInError::NoSession)?;
        let request = PutSpecRequest {
            executor_id: self.context.executor.to_string(),
            epoch,
            attempt_id: attempt.to_string(),
            spec: fs::read(handle.dir.join(files::SPEC))?,
        };
        let mut client = self.context.dialer.dial().await?;
        let answer = client.put_spec(request).await?.into_inner();
        let cluster = FieldError::parse(&answer.cluster_id, "cluster_id")?;
        handle.belong(&self.context, cluster)?;
        Ok(cluster)
    }
}

/// An attempt was not taken over now.
#[derive(Debug, thiserror::Error)]
enum HandInError {
    #[error("it is not here any more")]
    Gone,
    #[error("there is no session with the controller")]
    NoSession,
    #[error("its spec could not be read, or it could not be written down whose it is: {0}")]
    Files(#[from] io::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller refused it: {} ({:?})", .0.message(), .0.code())]
    Refused(#[from] Status),
    #[error("the controller said something that makes no sense: {0}")]
    Nonsense(#[from] FieldError),
}
