//! Which executor is at the other end: its certificate says so, and nothing bars it.

use std::time::{Duration, SystemTime};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use sculpt_core::enrolment::is_current;
use sculpt_proto::{
    FieldError,
    executor::v1::{Reject, reject},
    id::{ClusterId, ExecutorId},
};
use sculpt_tls::Subject;
use tonic::{Code, Status};

use super::{hello, present::Present, present::Stay};
use crate::{
    access::Guarded,
    store::{Store, locks::Bar, sessions::Certified},
    web::{
        is_grpc,
        listen::{Peer, Shown},
    },
};

/// Where machines without a certificate, or with one that has run out, may call.
const JOIN: &str = "/sculpt.executor.v1.Enrolment/Join";
const RENEW: &str = "/sculpt.executor.v1.Enrolment/Renew";

/// Whose answer can say more than a status does, and says itself why it ends.
const CONTROL: &str = "/sculpt.executor.v1.ExecutorService/Control";

/// How soon a locked executor asks again: an unlocked one is back by itself, and nobody waits for it meanwhile.
const LOCKED: Duration = Duration::from_secs(15);

/// How soon one asks again that renews its certificate, or whose controller has lost its database.
const SOON: Duration = Duration::from_secs(2);

/// The executor that calls; it speaks for no other. Among the extensions of each call that [`enter`] lets through. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct Who(Option<Proved>);

/// An executor that has shown its certificate.
#[derive(Clone, Debug)]
struct Proved {
    executor: ExecutorId,
    certified: Certified,
    stay: Stay,
}

/// Why a caller is no executor that may call. Among the extensions of a Control call, which says it in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Away {
    /// It shows no certificate.
    #[error("an executor calls with its certificate; `sculpt-executor join` gets one for a token")]
    Stranger,
    /// Its certificate is of another cluster.
    #[error(
        "the certificate is of cluster {theirs}, this controller is cluster {ours}; where it has taken that one's place, let \
         `sculpt-executor rebind --data-dir DIR` forget the old one, and join with a token of this one"
    )]
    Cluster {
        /// That of the certificate.
        theirs: ClusterId,
        /// That of this controller.
        ours: ClusterId,
    },
    /// Removed, locked, or without a certificate that is good.
    #[error("{0}")]
    Barred(Bar),
    /// It is not the one that has the id now.
    #[error("the executor has joined again with another key since")]
    OtherKey,
    /// It may be a copy: its renewal will tell.
    #[error("a newer certificate was issued to this executor; it is renewed first")]
    Older,
    /// Nobody knows now.
    #[error("the controller's database is out of reach")]
    Database,
}

impl Away {
    /// For the executor's session.
    pub(super) fn reject(&self) -> Reject {
        let text = self.to_string();
        match self {
            Self::Cluster { .. } => hello::permanent(reject::Code::Cluster, text),
            Self::Stranger | Self::OtherKey | Self::Barred(Bar::Removed) => {
                hello::permanent(reject::Code::Barred, text)
            }
            // By the code it knows that it is the one that is turned away, and that the controller is well.
            Self::Barred(Bar::Locked(_)) => {
                Reject { code: reject::Code::Barred.into(), ..hello::for_now(text, LOCKED) }
            }
            // Its own clock may say that there is time.
            Self::Barred(Bar::Lapsed) | Self::Older => {
                Reject { code: reject::Code::Renew.into(), ..hello::for_now(text, SOON) }
            }
            Self::Database => hello::for_now(text, SOON),
        }
    }

    /// For any other call. What may be over in a while is no refusal of what was called for: an executor keeps what it has
    /// and tries again.
    fn status(&self) -> Status {
        let code = match self {
            Self::Stranger => Code::Unauthenticated,
            Self::Cluster { .. } | Self::OtherKey | Self::Barred(Bar::Removed) => Code::PermissionDenied,
            Self::Barred(Bar::Locked(_) | Bar::Lapsed) | Self::Older | Self::Database => Code::Unavailable,
        };
        Status::new(code, self.to_string())
    }
}

impl Who {
    /// For a network whose peers are known to be who they say, as the simulated one.
    #[cfg(any(test, feature = "unasked"))]
    pub fn unasked() -> Self {
        Self(None)
    }

    /// Who called.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let found = request.extensions().get::<Self>().cloned();
        found.ok_or_else(|| Away::Stranger.status())
    }

    /// Which executor it has proved to be.
    pub fn executor(&self) -> Option<ExecutorId> {
        self.0.as_ref().map(|proved| proved.executor)
    }

    /// The executor that calls, where it has to be one.
    pub(super) fn proved(&self) -> Result<ExecutorId, Status> {
        self.executor().ok_or_else(|| Away::Stranger.status())
    }

    /// What it has shown.
    pub(super) fn certified(&self) -> Option<Certified> {
        self.0.as_ref().map(|proved| proved.certified.clone())
    }

    /// The executor that a message names in `field`, if it is the one that calls.
    pub(super) fn named(&self, id: &str, field: &'static str) -> Result<ExecutorId, Status> {
        self.is(FieldError::parse(id, field)?)
    }

    /// `id`, if it is the one that calls.
    pub(super) fn is(&self, id: ExecutorId) -> Result<ExecutorId, Status> {
        match self.executor() {
            Some(proved) if proved != id => Err(Status::permission_denied(format!(
                "the certificate is of executor {proved}, and the call names {id}"
            ))),
            Some(_) | None => Ok(id),
        }
    }

    /// Waits until it may call no more.
    pub(super) async fn sent_away(self) -> Away {
        match self.0 {
            Some(proved) => Away::Barred(proved.stay.over().await),
            None => std::future::pending().await,
        }
    }
}

/// Lets executors in.
#[derive(Clone, Debug)]
pub struct Door {
    store: Store,
    cluster: ClusterId,
    present: Present,
}

impl Door {
    /// Lets executors of `cluster` in, as `store` knows them, for as long as they may be `present`.
    pub fn new(store: Store, cluster: ClusterId, present: Present) -> Self {
        Self { store, cluster, present }
    }

    async fn judge(&self, peer: Option<&Peer>) -> Result<Who, Away> {
        let (shown, address) =
            peer.and_then(|peer| Some((peer.executor.as_ref()?, peer.address))).ok_or(Away::Stranger)?;
        let Subject { cluster, executor, generation } = shown.caller.subject;
        if cluster != self.cluster {
            return Err(Away::Cluster { theirs: cluster, ours: self.cluster });
        }
        let until = good_until(shown, SystemTime::now()).ok_or(Away::Barred(Bar::Lapsed))?;
        let key = shown.caller.key;
        let proved = Proved {
            executor,
            certified: Certified { key, generation, until: until.into(), address: address.ip().to_string() },
            stay: self.present.enter(executor),
        };
        // One that the database does not know joined before it was restored: nothing of it is to be lost.
        let Some(holder) = self.store.holder(executor).await? else { return Ok(Who(Some(proved))) };
        if is_current(&holder, &key, generation) {
            return Ok(Who(Some(proved)));
        }
        if holder.barred.is_some()
            && let Some((_, bar)) = self.store.barred(&[executor]).await?.pop()
        {
            return Err(Away::Barred(bar));
        }
        Err(if holder.key.is_none_or(|known| known == key) { Away::Older } else { Away::OtherKey })
    }
}

impl From<crate::store::StoreError> for Away {
    fn from(error: crate::store::StoreError) -> Self {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot see whether an executor may call");
        Self::Database
    }
}

/// Until when the certificate is good; nothing when it was `now`, however long the connection has stood.
fn good_until(shown: &Shown, now: SystemTime) -> Option<SystemTime> {
    let (_, until) = sculpt_tls::validity(&shown.certificate)?;
    (now <= until).then_some(until)
}

/// Lets a call through, with [`Who`] it is among its extensions, or answers it. A call that takes long, and an answer that
/// goes on for long, end when the executor is sent away.
pub async fn enter(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == JOIN || path == RENEW {
        return next.run(request).await;
    }
    let (control, grpc) = (path == CONTROL, is_grpc(request.headers()));
    match door.judge(request.extensions().get::<Peer>()).await {
        Ok(who) if control => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Ok(who) => {
            request.extensions_mut().insert(who.clone());
            let answer = tokio::select! {
                biased;
                answer = next.run(request) => answer,
                away = who.clone().sent_away() => return refused(&away.status(), grpc),
            };
            let lost = async move { who.sent_away().await.status() };
            answer.map(|body| Body::new(Guarded::new(body, lost, grpc)))
        }
        Err(away) => {
            tracing::debug!(path, %away, "refused an executor's call");
            if !control || away == Away::Stranger {
                return refused(&away.status(), grpc);
            }
            request.extensions_mut().insert(away);
            next.run(request).await
        }
    }
}

fn refused(status: &Status, grpc: bool) -> Response {
    if grpc {
        return status.clone().into_http::<Body>();
    }
    let mut response = Response::new(Body::from(format!("{}\n", status.message())));
    *response.status_mut() = match status.code() {
        Code::Unavailable => http::StatusCode::SERVICE_UNAVAILABLE,
        _ => http::StatusCode::FORBIDDEN,
    };
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(executor: ExecutorId) -> Who {
        let certified =
            Certified { key: [0; 32], generation: 1, until: SystemTime::now().into(), address: String::new() };
        Who(Some(Proved { executor, certified, stay: Present::default().enter(executor) }))
    }

    #[test]
    fn an_executor_speaks_for_itself_alone() {
        let (own, other) = (ExecutorId::fresh(), ExecutorId::fresh());
        let who = who(own);
        assert_eq!(who.named(&own.to_string(), "executor_id").expect("it is the one"), own);
        let refused = who.is(other).expect_err("it is another");
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains(&other.to_string()), "{refused}");
        assert_eq!(who.named("x", "executor_id").expect_err("it is none").code(), Code::InvalidArgument);
        assert_eq!(Who::unasked().is(other).expect("nobody is asked"), other);
    }

    #[test]
    fn who_may_come_back_is_told_so() {
        let cluster = || Away::Cluster { theirs: ClusterId::fresh(), ours: ClusterId::fresh() };
        for (away, word, back, code) in [
            (Away::Stranger, reject::Code::Barred, false, Code::Unauthenticated),
            (cluster(), reject::Code::Cluster, false, Code::PermissionDenied),
            (Away::OtherKey, reject::Code::Barred, false, Code::PermissionDenied),
            (Away::Barred(Bar::Removed), reject::Code::Barred, false, Code::PermissionDenied),
            (Away::Barred(Bar::Locked("lost".into())), reject::Code::Barred, true, Code::Unavailable),
            (Away::Barred(Bar::Lapsed), reject::Code::Renew, true, Code::Unavailable),
            (Away::Older, reject::Code::Renew, true, Code::Unavailable),
            (Away::Database, reject::Code::Unavailable, true, Code::Unavailable),
        ] {
            let (reject, status) = (away.reject(), away.status());
            assert_eq!(reject.code(), word, "{away:?}");
            assert_eq!((reject.retry_after.is_some(), status.code()), (back, code), "{away:?}");
            assert_eq!(reject.text, status.message());
        }
    }
}
