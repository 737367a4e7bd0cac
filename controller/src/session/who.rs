//! Which executor is at the other end: its certificate says so, and nothing bars it.

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use sculpt_core::enrolment::{Barred, is_current};
use sculpt_proto::{
    FieldError,
    id::{ClusterId, ExecutorId},
};
use sculpt_tls::Caller;
use tonic::Status;

use crate::{store::Store, web::listen::Peer};

/// Where machines without a certificate, or with one that has run out, may call.
const JOIN: &str = "/sculpt.executor.v1.Enrolment/Join";
const RENEW: &str = "/sculpt.executor.v1.Enrolment/Renew";

/// The executor that calls; it speaks for no other. Among the extensions of each call that [`enter`] lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who(Option<ExecutorId>);

/// Lets executors in.
#[derive(Clone, Debug)]
pub struct Door {
    store: Store,
    cluster: ClusterId,
}

impl Who {
    /// For a network whose peers are known to be who they say, as the simulated one.
    pub fn unasked() -> Self {
        Self(None)
    }

    /// Who called.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Self, Status> {
        let found = request.extensions().get::<Self>().copied();
        found.ok_or_else(|| Status::unauthenticated("an executor calls with its certificate"))
    }

    /// The executor that a message names in `field`, if it is the one that calls.
    pub(super) fn named(self, id: &str, field: &'static str) -> Result<ExecutorId, Status> {
        self.is(FieldError::parse(id, field)?)
    }

    /// `id`, if it is the one that calls.
    pub(super) fn is(self, id: ExecutorId) -> Result<ExecutorId, Status> {
        match self.0 {
            Some(proved) if proved != id => Err(Status::permission_denied(format!(
                "the certificate is of executor {proved}, and the call names {id}"
            ))),
            Some(_) | None => Ok(id),
        }
    }
}

impl Door {
    /// Lets executors of `cluster` in, as `store` knows them.
    pub fn new(store: Store, cluster: ClusterId) -> Self {
        Self { store, cluster }
    }

    async fn judge(&self, peer: Option<&Peer>) -> Result<Who, Status> {
        let shown = peer.and_then(|peer| peer.executor.as_ref());
        let Some(Caller { subject, key, lapsed }) = shown.map(|shown| shown.caller) else {
            return Err(Status::unauthenticated(
                "an executor calls with its certificate; `sculpt-executor join` gets one for a token",
            ));
        };
        if subject.cluster != self.cluster {
            return Err(Status::permission_denied(format!(
                "the certificate is of cluster {}, this controller is cluster {}; join again with a token of this one",
                subject.cluster, self.cluster
            )));
        }
        if lapsed {
            return Err(Status::unauthenticated("the certificate has run out; it is renewed first"));
        }
        // One that the database does not know joined before it was restored: nothing of it is to be lost.
        let Some(holder) = self.store.holder(subject.executor).await? else { return Ok(Who(Some(subject.executor))) };
        if is_current(&holder, &key, subject.generation) {
            return Ok(Who(Some(subject.executor)));
        }
        Err(match holder.barred {
            Some(Barred::Removed) => {
                Status::permission_denied("the executor was removed; join again under a fresh data directory")
            }
            Some(Barred::Locked) => {
                Status::permission_denied("the executor is locked; `sculpt unlock executor` lets it in again")
            }
            None if holder.key != key => {
                Status::permission_denied("the executor has joined again with another key since")
            }
            None => Status::unauthenticated("a newer certificate was issued to this executor; it is renewed first"),
        })
    }
}

/// Lets a call through, with [`Who`] it is among its extensions, or answers it.
pub async fn enter(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path == JOIN || path == RENEW {
        return next.run(request).await;
    }
    match door.judge(request.extensions().get::<Peer>()).await {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(status) => {
            tracing::debug!(path, %status, "refused an executor's call");
            refused(&status, path.starts_with("/git/"))
        }
    }
}

fn refused(status: &Status, git: bool) -> Response {
    if !git {
        return status.clone().into_http::<Body>();
    }
    let mut response = Response::new(Body::from(format!("{}\n", status.message())));
    *response.status_mut() = match status.code() {
        tonic::Code::Unavailable => http::StatusCode::SERVICE_UNAVAILABLE,
        _ => http::StatusCode::FORBIDDEN,
    };
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_speaks_for_itself_alone() {
        let (own, other) = (ExecutorId::fresh(), ExecutorId::fresh());
        let who = Who(Some(own));
        assert_eq!(who.named(&own.to_string(), "executor_id").expect("it is the one"), own);
        let refused = who.is(other).expect_err("it is another");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        assert!(refused.message().contains(&other.to_string()), "{refused}");
        assert_eq!(who.named("x", "executor_id").expect_err("it is none").code(), tonic::Code::InvalidArgument);
        assert_eq!(Who::unasked().is(other).expect("nobody is asked"), other);
    }
}
