//! How a machine becomes an executor, and stays one: a token for a certificate, and a certificate for the next.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sculpt_core::enrolment::{Refusal, Renewal};
use sculpt_proto::{
    FieldError,
    executor::v1::{
        Credentials, JoinRequest, JoinResponse, RenewRequest, RenewResponse,
        enrolment_server::{Enrolment, EnrolmentServer},
    },
    id::{ClusterId, ExecutorId},
    to_duration,
};
use sculpt_tls::{Caller, Kind, Subject, Token};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    bus::Bus,
    grpc::status::internal,
    pki::{Authority, PublicKey},
    session::hello,
    store::{
        Store,
        certificates::{Asked, RenewError},
        joins::{Join, JoinError, Joined},
    },
    web::listen::Peer,
};

/// Larger than any request of a machine that joins.
const LARGEST: usize = 64 << 10;

/// Enrols executors.
#[derive(Clone, Debug)]
pub struct EnrolmentApi {
    /// Who joined, and with what.
    pub store: Store,
    /// Told of who may no more than before.
    pub bus: Bus,
    /// Who certifies.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// Whose executors they are.
    pub cluster: ClusterId,
    /// How long a certificate is good. Renewed at two thirds of it.
    pub life: Duration,
}

impl EnrolmentApi {
    /// As a service with its limits.
    pub fn into_service(self) -> EnrolmentServer<Self> {
        EnrolmentServer::new(self).max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST)
    }

    /// A certificate of `generation` for who has `key`.
    fn certify(
        &self,
        authority: &Authority,
        key: &PublicKey,
        executor: ExecutorId,
        generation: u64,
    ) -> Result<Credentials, Status> {
        let subject = Subject { cluster: self.cluster, executor, generation };
        let certificate =
            authority.executor(key, &subject, SystemTime::now(), self.life).map_err(|error| internal(&error))?;
        Ok(Credentials {
            chain: vec![certificate.to_vec()],
            trust: authority.trust().to_pem(),
            renew_after: Some(to_duration(self.life * 2 / 3)),
            valid_for: Some(to_duration(self.life)),
            generation,
        })
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentApi {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let address = peer(&request)?.address.ip().to_string();
        let message = request.into_inner();
        let token = Token::parse(&message.token, Kind::Join)
            .map_err(|error| Status::unauthenticated(format!("{error}; `sculpt executor token` makes another one")))?;
        if !message.cluster_id.is_empty() && message.cluster_id != self.cluster.to_string() {
            let text = format!(
                "the executor belongs to cluster {}, this controller is cluster {}; `sculpt-executor rebind` lets it forget \
                 the old one. The token is not used up",
                message.cluster_id, self.cluster
            );
            return Err(Status::failed_precondition(text));
        }
        let key = PublicKey::requested(&message.certificate_request)
            .map_err(|error| Status::invalid_argument(format!("the certificate request is refused: {error}")))?;
        let authority = Arc::clone(&self.authority.borrow());
        let join = Join {
            digest: token.secret.digest(),
            id: FieldError::parse(&message.join_id, "join_id")?,
            executor: FieldError::parse(&message.executor_id, "executor_id")?,
            key: key.digest(),
            name: hello::word(message.name, "name")?,
            hostname: hello::short(&message.hostname),
            version: hello::short(&message.version),
            address,
            valid_for: self.life,
            authority: authority.pin().bytes(),
            trusted: authority.trusted(),
        };
        let Joined { executor, name, pool, labels, generation } = self.store.join(join).await?;
        tracing::info!(%executor, name, pool, "an executor has joined");
        let credentials = self.certify(&authority, &key, executor, generation)?;
        Ok(Response::new(JoinResponse {
            credentials: Some(credentials),
            cluster_id: self.cluster.to_string(),
            executor_id: executor.to_string(),
            name,
            pool,
            labels: labels.into_iter().collect(),
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let shown = peer(&request)?.executor.clone();
        let shown = shown.ok_or_else(|| Status::unauthenticated("a certificate is renewed by who shows it"))?;
        let Caller { subject, key, .. } = shown.caller;
        let certified = PublicKey::certified(&shown.certificate).map_err(|error| internal(&error))?;
        if subject.cluster != self.cluster {
            let text =
                format!("the certificate is of cluster {}, this controller is {}", subject.cluster, self.cluster);
            return Err(Status::permission_denied(text));
        }
        let id = FieldError::parse(&request.into_inner().renewal_id, "renewal_id")?;
        let authority = Arc::clone(&self.authority.borrow());
        let asked = Asked {
            executor: subject.executor,
            renewal: Renewal { key, generation: subject.generation, id },
            valid_for: self.life,
            authority: authority.pin().bytes(),
            trusted: authority.trusted(),
        };
        let renewed = self.store.renew(asked).await;
        if matches!(renewed, Err(RenewError::Stolen)) {
            self.bus.access();
        }
        let generation = renewed?;
        let credentials = self.certify(&authority, &certified, subject.executor, generation)?;
        Ok(Response::new(RenewResponse { credentials: Some(credentials) }))
    }
}

pub(super) fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    request.extensions().get::<Peer>().ok_or_else(|| Status::internal("internal error"))
}

impl From<JoinError> for Status {
    fn from(error: JoinError) -> Self {
        let text = error.to_string();
        match error {
            JoinError::Foreign | JoinError::Expired | JoinError::Revoked | JoinError::UsedUp => {
                Self::unauthenticated(text)
            }
            JoinError::Removed(_)
            | JoinError::Locked(_)
            | JoinError::OtherKey(_)
            | JoinError::OtherPool { .. }
            | JoinError::MakerRemoved(_)
            | JoinError::MakerLocked(_) => Self::permission_denied(text),
            JoinError::NameTaken(_) | JoinError::Reused | JoinError::Renewed(_) | JoinError::Repeated(_) => {
                Self::already_exists(text)
            }
            JoinError::Unknown(_) => Self::not_found(text),
            JoinError::Ambiguous(_) => Self::invalid_argument(text),
            JoinError::PoolRemoved(_) => Self::failed_precondition(text),
            JoinError::Lost(unknown) => unknown.into(),
            JoinError::Request(error) => error.into(),
            JoinError::Store(error) => error.into(),
        }
    }
}

impl From<RenewError> for Status {
    fn from(error: RenewError) -> Self {
        let text = error.to_string();
        match error {
            RenewError::Stolen | RenewError::Refused(Refusal::Removed | Refusal::Locked | Refusal::OtherKey) => {
                Self::permission_denied(text)
            }
            RenewError::Store(error) => error.into(),
        }
    }
}
