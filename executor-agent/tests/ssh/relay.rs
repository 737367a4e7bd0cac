//! The scripted controller's part in taking people to executors.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::Stream;
use sculpt_pairing::Host;
use sculpt_proto::{
    executor::v1::{
        CertifyHostRequest, CertifyHostResponse, TunnelEnd, TunnelRequest, TunnelResponse, pairing_server::Pairing,
        tunnel_request, tunnel_response,
    },
    id::{ExecutorId, TunnelId},
};
use ssh_key::PublicKey;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::world::{HOSTS, key, now};

/// The controller's part.
#[derive(Clone)]
pub(crate) struct Relay {
    /// Who waits, by tunnel.
    waiting: Arc<Mutex<HashMap<String, TcpStream>>>,
    /// The name under which the executor proves itself to people.
    pub(crate) host: Host,
    /// Whether it certifies.
    pub(crate) certifies: Arc<AtomicBool>,
    /// Whether the person's end breaks off when it is closed, as that of a `sculpt tunnel` which is killed.
    pub(crate) breaks: Arc<AtomicBool>,
    /// The keys that it has certified, in the order of the asking.
    pub(crate) certified: Arc<Mutex<Vec<String>>>,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            waiting: Arc::default(),
            host: Host(ExecutorId::fresh()),
            certifies: Arc::new(AtomicBool::new(true)),
            breaks: Arc::default(),
            certified: Arc::default(),
        }
    }
}

impl Relay {
    /// Somebody waits now; for whom to dial.
    pub(crate) fn waits(&self, person: TcpStream) -> TunnelId {
        let id = TunnelId::fresh();
        self.waiting.lock().unwrap().insert(id.to_string(), person);
        id
    }
}

#[tonic::async_trait]
impl Pairing for Relay {
    type TunnelStream = Pin<Box<dyn Stream<Item = Result<TunnelResponse, Status>> + Send>>;

    async fn certify_host(
        &self,
        request: Request<CertifyHostRequest>,
    ) -> Result<Response<CertifyHostResponse>, Status> {
        if !self.certifies.load(Ordering::Acquire) {
            return Err(Status::unavailable("nothing is certified today"));
        }
        let line = request.into_inner().public_key;
        let public = PublicKey::from_openssh(&line).unwrap();
        self.certified.lock().unwrap().push(line);
        let certificate = self.host.certify(&public, now(), &key(HOSTS)).unwrap().to_openssh().unwrap();
        let renew_after = Some(prost_types::Duration { seconds: 300, nanos: 0 });
        Ok(Response::new(CertifyHostResponse { certificate, renew_after }))
    }

    async fn tunnel(&self, request: Request<Streaming<TunnelRequest>>) -> Result<Response<Self::TunnelStream>, Status> {
        let mut requests = request.into_inner();
        let Some(tunnel_request::Part::TunnelId(id)) = requests.message().await?.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("no tunnel is named first"));
        };
        let person = self.waiting.lock().unwrap().remove(&id);
        let (mut from, mut to) = person.ok_or_else(|| Status::not_found("nobody waits"))?.into_split();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                match request.part {
                    // Who has gone hears no more.
                    Some(tunnel_request::Part::Data(data)) => drop(to.write_all(&data).await),
                    Some(tunnel_request::Part::End(_)) => drop(to.shutdown().await),
                    other => panic!("{other:?}"),
                }
            }
        });
        let (answers, responses) = mpsc::channel(4);
        let breaks = Arc::clone(&self.breaks);
        tokio::spawn(async move {
            let mut buffer = vec![0; 65536];
            loop {
                let part = match from.read(&mut buffer).await.unwrap_or(0) {
                    0 if breaks.load(Ordering::Acquire) => {
                        let _gone = answers.send(Err(Status::unavailable("the person's end broke off"))).await;
                        return;
                    }
                    0 => tunnel_response::Part::End(TunnelEnd {}),
                    length => tunnel_response::Part::Data(buffer[..length].to_vec().into()),
                };
                let over = matches!(part, tunnel_response::Part::End(_));
                let gone = answers.send(Ok(TunnelResponse { part: Some(part) })).await.is_err();
                if over || gone {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}
