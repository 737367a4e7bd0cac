//! How people get to an executor: the certificate by which it is known to them, and the tunnels that it dials for them.

use std::{sync::Arc, time::SystemTime};

use sculpt_pairing::HostError;
use sculpt_proto::{
    FieldError,
    executor::v1::{
        CertifyHostRequest, CertifyHostResponse, TunnelRequest, TunnelResponse,
        pairing_server::{Pairing, PairingServer},
        tunnel_request::Part,
    },
    id::TunnelId,
    to_duration,
};
use ssh_key::{HashAlg, PublicKey};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{enrolment::peer, who::Who};
use crate::{
    grpc::{
        pieces::{first, nameless},
        status::{internal, shutting_down},
    },
    pki::{HOST_LIFE, SshAuthorities},
    relay::{OUTBOX, Piece, Relay, carry},
    store::Store,
};

/// Larger than any message, in bytes.
const LARGEST: usize = 128 << 10;

/// Serves executors that people come to.
#[derive(Clone, Debug)]
pub struct PairingApi {
    /// The database.
    pub store: Store,
    /// Where they and their people meet.
    pub relay: Relay,
    /// Who certifies hosts.
    pub ssh: Arc<SshAuthorities>,
    /// Ends all tunnels.
    pub shutdown: CancellationToken,
    /// Tunnels that are to end before the controller does.
    pub tracker: TaskTracker,
}

impl PairingApi {
    /// As a service with its limits.
    pub fn into_service(self) -> PairingServer<Self> {
        PairingServer::new(self).max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST)
    }
}

#[tonic::async_trait]
impl Pairing for PairingApi {
    async fn certify_host(
        &self,
        request: Request<CertifyHostRequest>,
    ) -> Result<Response<CertifyHostResponse>, Status> {
        let executor = Who::of(&request)?.proved()?;
        let address = peer(&request)?.address.ip().to_string();
        let key: PublicKey = FieldError::parse(&request.into_inner().public_key, "public_key")?;
        let certified = self.ssh.certify_host(executor, &key, SystemTime::now());
        let certificate = certified.map_err(|error| match &error {
            HostError::Kind(_) => Status::from(FieldError::new("public_key", error.to_string())),
            HostError::Certificate(_) => internal(&error),
        })?;
        self.store.certified_host(executor, key.fingerprint(HashAlg::Sha256).to_string(), address).await?;
        Ok(Response::new(CertifyHostResponse {
            certificate: certificate.to_openssh().map_err(|error| internal(&error))?,
            renew_after: Some(to_duration(HOST_LIFE * 2 / 3)),
        }))
    }

    type TunnelStream = ReceiverStream<Result<TunnelResponse, Status>>;

    async fn tunnel(&self, request: Request<Streaming<TunnelRequest>>) -> Result<Response<Self::TunnelStream>, Status> {
        let executor = Who::of(&request)?.proved()?;
        let mut inbound = request.into_inner();
        let tunnel = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return Err(shutting_down()),
            tunnel = first(&mut inbound, named) => tunnel?,
        };
        let end = self.relay.take(tunnel, executor)?;
        let (out, outbox) = mpsc::channel(OUTBOX);
        let pieces = inbound.map(|request| Ok::<_, Status>(Piece::try_from(request?)?));
        self.tracker.spawn(carry(end, pieces, out, self.shutdown.clone()));
        Ok(Response::new(ReceiverStream::new(outbox)))
    }
}

/// The tunnel that the first message names.
fn named(first: TunnelRequest) -> Result<TunnelId, FieldError> {
    match first.part {
        Some(Part::TunnelId(tunnel)) => FieldError::parse(&tunnel, "tunnel_id"),
        _ => Err(nameless()),
    }
}
