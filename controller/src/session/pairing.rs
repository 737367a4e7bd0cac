//! How people get to an executor: the certificate by which it is known to them, and the tunnels that it dials for them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sculpt_pairing::HostError;
use sculpt_proto::{
    FieldError,
    executor::v1::{
        CertifyHostRequest, CertifyHostResponse, TunnelEnd, TunnelRequest, TunnelResponse,
        pairing_server::{Pairing, PairingServer},
        tunnel_request::Part,
        tunnel_response,
    },
    id::TunnelId,
    required, to_duration,
};
use ssh_key::PublicKey;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::who::Who;
use crate::{
    grpc::status::{internal, shutting_down},
    pki::{HOST_LIFE, SshAuthorities},
    relay::{OUTBOX, Piece, Relay, carry},
};

/// Larger than any message, in bytes.
const LARGEST: usize = 128 << 10;

/// How long the first message of a tunnel may take.
const FIRST: Duration = Duration::from_secs(10);

/// Serves executors that people come to.
#[derive(Clone, Debug)]
pub struct PairingApi {
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
        let key: PublicKey = FieldError::parse(&request.into_inner().public_key, "public_key")?;
        let certified = self.ssh.certify_host(executor, &key, SystemTime::now());
        let certificate = certified.map_err(|error| match &error {
            HostError::Kind(_) => Status::from(FieldError::new("public_key", error.to_string())),
            HostError::Certificate(_) => internal(&error),
        })?;
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
            tunnel = first(&mut inbound) => tunnel?,
        };
        let end = self.relay.take(tunnel, executor)?;
        let (out, outbox) = mpsc::channel(OUTBOX);
        let pieces = inbound.map(|request| Ok::<_, Status>(Piece::try_from(request?)?));
        self.tracker.spawn(carry(end, pieces, out, self.shutdown.clone()));
        Ok(Response::new(ReceiverStream::new(outbox)))
    }
}

/// The tunnel that a call is about, which it says first.
async fn first(inbound: &mut Streaming<TunnelRequest>) -> Result<TunnelId, Status> {
    let first = timeout(FIRST, inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no tunnel was named within 10 s"))??;
    match first.and_then(|first| first.part) {
        Some(Part::TunnelId(tunnel)) => Ok(FieldError::parse(&tunnel, "tunnel_id")?),
        Some(Part::Data(_) | Part::End(_)) | None => {
            Err(FieldError::new("part", "the first message of Tunnel must name the tunnel").into())
        }
    }
}

impl TryFrom<TunnelRequest> for Piece {
    type Error = FieldError;

    fn try_from(request: TunnelRequest) -> Result<Self, FieldError> {
        match required(request.part, "part")? {
            Part::Data(data) => Self::data(data),
            Part::End(_) => Ok(Self::End),
            Part::TunnelId(_) => Err(Self::named_again()),
        }
    }
}

impl From<Piece> for TunnelResponse {
    fn from(piece: Piece) -> Self {
        let part = match piece {
            Piece::Data(data) => tunnel_response::Part::Data(data),
            Piece::End => tunnel_response::Part::End(TunnelEnd {}),
        };
        Self { part: Some(part) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_piece() {
        let piece = |part| Piece::try_from(TunnelRequest { part }).map_err(|error| error.field);
        let data = bytes::Bytes::from_static(b"SSH-2.0");
        assert_eq!(piece(Some(Part::Data(data.clone()))), Ok(Piece::Data(data)));
        assert_eq!(piece(Some(Part::End(TunnelEnd {}))), Ok(Piece::End));
        assert_eq!(piece(Some(Part::TunnelId("again".into()))), Err("part"));
        assert_eq!(piece(None), Err("part"));
    }
}
