//! People who come through the controller.

use futures_util::FutureExt as _;
use sculpt_executor::{
    connect::{Dialer, Network},
    shim::Mode,
    ssh::Tunnel,
};
use sculpt_pairing::{Pass, Profile};
use sculpt_proto::{
    executor::v1::{Dial, Guest, Guests, Phase, control_response::Part, pairing_server::PairingServer},
    id::{PairingId, TunnelId},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
};
use tokio_stream::wrappers::TcpListenerStream;

use super::{
    relay::Relay,
    world::{PEOPLE, Person, World, finish, key, now},
};
use crate::{attempt::Attempt, host::Host};

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
            let id = relay.waits(person);
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

    let pass = Pass {
        pairing: PairingId::fresh(),
        attempt: id.parse().unwrap(),
        user: "ada".to_owned(),
        rights: Profile::Workspace.rights(),
    };
    let remaining = Some(prost_types::Duration { seconds: 600, nanos: 0 });
    let rights = pass.rights.iter().map(|right| right.as_str().to_owned()).collect();
    let (pairing_id, user) = (pass.pairing.to_string(), pass.user.clone());
    let guest = Guest { pairing_id: pairing_id.clone(), attempt_id: id.clone(), user, rights, remaining };
    let authorities = vec![key(PEOPLE).public_key().to_openssh().unwrap()];
    let say = |guests| host.controller.say(Part::Guests(Guests { guests, authorities: authorities.clone() }));
    say(vec![guest]);

    let people = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = people.local_addr().unwrap();
    let certificate = pass.certify(key(9).public_key(), now(), &key(PEOPLE)).unwrap();
    let relay = host.controller.relay();
    let person = Person::new(host.root.path(), address, relay.host, &pass, &certificate);
    let mut ssh = person.command("ssh", &["sculpt", "pwd; exec sleep 1000"]).spawn().unwrap();
    let tunnel_id = relay.waits(people.accept().await.unwrap().0).to_string();
    host.controller.say(Part::Dial(Dial { tunnel_id, pairing_id }));
    let mut line = String::new();
    BufReader::new(ssh.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line.trim_end(), host.workspace(&id).to_str().unwrap());
    say(Vec::new());
    let said = finish(ssh).await;
    assert!(said.code == Some(255) && said.err.contains("this pairing was taken back"), "{said:?}");
    host.controller.want(&id, Phase::Stop);
    host.controller.wait_ended(&id).await;
    host.stop();
}
