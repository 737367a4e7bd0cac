//! People who come through the controller.

use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use sculpt_executor::{
    connect::{Dialer, Network},
    shim::Mode,
    ssh::Tunnel,
};
use sculpt_pairing::Profile;
use sculpt_proto::{
    executor::v1::{Dial, Phase, control_response::Part, pairing_server::PairingServer},
    id::{PairingId, TunnelId},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_stream::wrappers::TcpListenerStream;

use super::{
    relay::Relay,
    visit::{let_in, visitor},
    world::{World, finish},
};
use crate::{
    attempt::{Attempt, PATIENCE},
    host::Host,
};

/// A controller, and the way to it.
async fn controller() -> (Relay, Dialer) {
    let relay = Relay::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = PairingServer::new(relay.clone());
    let serving = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let network = Network { connect: |endpoint| async move { endpoint.connect().await }.boxed(), jitter: || 0.5 };
    (relay, Dialer::over(network, &url).unwrap())
}

/// Lets everybody who dials the world's new address in through a tunnel. The way to the controller.
async fn through_a_controller(world: &mut World) -> Dialer {
    let (relay, dialer) = controller().await;
    let people = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.address = people.local_addr().unwrap();
    let (server, dials) = (world.server.clone(), dialer.clone());
    tokio::spawn(async move {
        loop {
            let (person, _) = people.accept().await.unwrap();
            let id = relay.waits(person);
            let (server, dials) = (server.clone(), dials.clone());
            tokio::spawn(async move {
                let (tunnel, last_words) = Tunnel::dial(&dials, id).await.unwrap();
                let _ended = server.serve(tunnel, None).await;
                last_words.arrive().await;
            });
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
async fn what_was_written_last_arrives_after_the_tunnel_was_dropped() {
    let (relay, dialer) = controller().await;
    let people = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut person = TcpStream::connect(people.local_addr().unwrap()).await.unwrap();
    let id = relay.waits(people.accept().await.unwrap().0);
    let (mut tunnel, last_words) = Tunnel::dial(&dialer, id).await.unwrap();
    // More than the network takes at once.
    let said: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    tunnel.write_all(&said).await.unwrap();
    drop(tunnel);
    let arriving = tokio::spawn(last_words.arrive());
    let mut heard = vec![0; said.len()];
    tokio::time::timeout(PATIENCE, person.read_exact(&mut heard)).await.expect("it comes").unwrap();
    assert!(heard == said);
    // The person has gone: nothing more is waited for.
    drop(person);
    arriving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_taken_back_is_cut_in_a_tunnel_too() {
    let mut world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    through_a_controller(&mut world).await;
    let person = world.person("ada", Profile::Workspace);
    let cut = person.command("ssh", &["sculpt", "echo $$ > begun; sleep 1000"]).spawn().unwrap();
    world.attempt.number("begun").await;
    world.take_back(&person);
    let said = finish(cut).await;
    assert!(said.code == Some(255) && said.err.contains("this pairing was taken back"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_takes_in_whom_its_controller_says() {
    let mut host = Host::new().await;
    host.start().await;
    let mut spec = host.shell("echo ready; exec sleep 1000");
    spec.task.as_mut().unwrap().tty = true;
    host.controller.offer(&spec);
    let id = spec.attempt_id.clone();
    host.controller.wait("the agent", |memory| memory.log(&id).starts_with(b"ready").then_some(())).await;

    let people = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (person, guest) = visitor(&host, &id, "ada", Profile::Workspace, people.local_addr().unwrap());
    let pairing_id = guest.pairing_id.clone();
    let_in(&host, vec![guest]);
    let dial_for = async |pairing_id: String| {
        let tunnel_id = host.controller.relay().waits(people.accept().await.unwrap().0).to_string();
        host.controller.say(Part::Dial(Dial { tunnel_id, pairing_id }));
    };
    let dial = || dial_for(pairing_id.clone());
    let (said, ()) = tokio::join!(person.ssh(&["echo in"]), dial_for(PairingId::fresh().to_string()));
    assert!(said.err.contains("this tunnel was asked for with another pairing"), "{said:?}");
    host.controller.relay().breaks.store(true, Ordering::Release);
    let (said, ()) = tokio::join!(person.ssh(&["echo in"]), dial());
    assert_eq!(said.out, "in\n");
    let mut ssh = person.command("ssh", &["sculpt", "pwd; exec sleep 1000"]).spawn().unwrap();
    dial().await;
    let mut line = String::new();
    BufReader::new(ssh.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line.trim_end(), host.workspace(&id).to_str().unwrap());
    let_in(&host, Vec::new());
    let said = finish(ssh).await;
    assert!(said.code == Some(255) && said.err.contains("this pairing was taken back"), "{said:?}");
    host.controller.want(&id, Phase::Stop);
    host.controller.wait_ended(&id).await;
    host.stop();
    assert!(!host.log().contains("a person's connection was ended"), "who leaves is no news: {}", host.log());
}
