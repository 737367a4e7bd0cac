//! People who come through the controller.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures_util::{FutureExt as _, Stream};
use sculpt_executor::{
    connect::{Dialer, Network},
    shim::Mode,
    ssh::Tunnel,
};
use sculpt_pairing::Profile;
use sculpt_proto::{
    executor::v1::{
        CertifyHostRequest, CertifyHostResponse, TunnelEnd, TunnelRequest, TunnelResponse,
        pairing_server::{Pairing, PairingServer},
        tunnel_request, tunnel_response,
    },
    id::TunnelId,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::world::World;
use crate::attempt::Attempt;

/// The controller's part: who waits, by tunnel.
#[derive(Clone, Default)]
struct Relay(Arc<Mutex<HashMap<String, TcpStream>>>);

#[tonic::async_trait]
impl Pairing for Relay {
    type TunnelStream = Pin<Box<dyn Stream<Item = Result<TunnelResponse, Status>> + Send>>;

    async fn certify_host(&self, _: Request<CertifyHostRequest>) -> Result<Response<CertifyHostResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn tunnel(&self, request: Request<Streaming<TunnelRequest>>) -> Result<Response<Self::TunnelStream>, Status> {
        let mut requests = request.into_inner();
        let Some(tunnel_request::Part::TunnelId(id)) = requests.message().await?.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("no tunnel is named first"));
        };
        let person = self.0.lock().unwrap().remove(&id);
        let (mut from, mut to) = person.ok_or_else(|| Status::not_found("nobody waits"))?.into_split();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                match request.part {
                    Some(tunnel_request::Part::Data(data)) => to.write_all(&data).await.unwrap(),
                    Some(tunnel_request::Part::End(_)) => to.shutdown().await.unwrap(),
                    other => panic!("{other:?}"),
                }
            }
        });
        let (answers, responses) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut buffer = vec![0; 65536];
            loop {
                let part = match from.read(&mut buffer).await.unwrap_or(0) {
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

/// Lets everybody who dials the world's new address in through a tunnel. The way to the controller.
async fn through_a_controller(world: &mut World) -> Dialer {
    let relay = Relay::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = PairingServer::new(relay.clone());
    let serving = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let network = Network { connect: |endpoint| async move { endpoint.connect().await }.boxed(), jitter: || 0.5 };
    let dialer = Dialer::over(network, &url).unwrap();
    let people = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.address = people.local_addr().unwrap();
    let (server, dials) = (world.server.clone(), dialer.clone());
    tokio::spawn(async move {
        loop {
            let (person, _) = people.accept().await.unwrap();
            let id = TunnelId::fresh();
            relay.0.lock().unwrap().insert(id.to_string(), person);
            let (server, dials) = (server.clone(), dials.clone());
            tokio::spawn(async move { server.serve(Tunnel::dial(&dials, id).await.unwrap()).await });
        }
    });
    dialer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_carries_everything_both_ways() {
    let mut world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    let dialer = through_a_controller(&mut world).await;
    let person = world.person("ada", Profile::Workspace);
    assert_eq!(person.ssh(&["echo in; exit 3"]).await.code, Some(3));
    let given = person.directory.join("given");
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(&given, &large).unwrap();
    let said = person.run("scp", &[given.to_str().unwrap(), "sculpt:taken"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(std::fs::read(world.attempt.work().join("taken")).unwrap() == large);
    let back = person.directory.join("back");
    let said = person.run("scp", &["sculpt:taken", back.to_str().unwrap()]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(std::fs::read(back).unwrap() == large);
    let nobody = Tunnel::dial(&dialer, TunnelId::fresh()).await.err().expect("nobody waits for it");
    assert!(nobody.to_string().contains("nobody waits"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_taken_back_is_cut_in_a_tunnel_too() {
    let mut world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    through_a_controller(&mut world).await;
    let person = world.person("ada", Profile::Workspace);
    let cut = person.command("ssh", &["sculpt", "echo $$ > begun; sleep 1000"]).spawn().unwrap();
    world.attempt.number("begun").await;
    world.take_back(&person);
    let said = super::world::finish(cut).await;
    assert!(said.code == Some(255) && said.err.contains("this pairing was taken back"), "{said:?}");
}
