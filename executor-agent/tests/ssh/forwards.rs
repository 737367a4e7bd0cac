//! Connections to what the attempt listens on, and to what the person does.

use std::{net::SocketAddr, process::Stdio};

use sculpt_executor::shim::Mode;
use sculpt_pairing::Profile;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    process::Child,
};

use super::{
    terminal::told,
    world::{Person, World, finish},
};
use crate::attempt::{Attempt, PATIENCE, eventually};

/// An agent that answers what it is asked, in capitals, on TCP and on a unix socket.
const AGENT: &str = r#"
import os, socketserver, threading
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())
        self.wfile.write(b"END\n")
class Tcp(socketserver.ThreadingMixIn, socketserver.TCPServer): pass
class Unix(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass
tcp, unix = Tcp(("127.0.0.1", 0), Answer), Unix("socket", Answer)
threading.Thread(target=unix.serve_forever).start()
open("port.new", "w").write(str(tcp.server_address[1]))
os.rename("port.new", "port")
tcp.serve_forever()
"#;

async fn world() -> World {
    World::around(Attempt::with_argv(Mode::Pipes, &["python3", "-c", AGENT]).in_cgroup()).await
}

/// A connection without commands that forwards, and a free port at which it does.
async fn forwarding(person: &Person, forward: impl Fn(u16) -> [String; 2]) -> (Child, u16) {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let [kind, what] = forward(port);
    let words = ["-o", "ExitOnForwardFailure=yes", "-v", "-N", &kind, &what, "sculpt"];
    let mut child = person.command("ssh", &words).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("ssh goes on");
        if line.contains("Entering interactive session") || line.contains("remote forward success") {
            break;
        }
    }
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, port)
}

async fn ask(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_attempt_listens_on_is_reached_from_the_persons_machine() {
    let mut world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let there = world.attempt.number("port").await;
    let (mut ssh, here) = forwarding(&person, |here| ["-L".into(), format!("{here}:localhost:{there}")]).await;
    let mut asking = Vec::new();
    for number in 0..20 {
        let ask = async move {
            let mut stream = TcpStream::connect(("127.0.0.1", here)).await.unwrap();
            ask(&mut stream, &format!("question {number}\n")).await
        };
        asking.push(tokio::spawn(ask));
    }
    for (number, answer) in asking.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap(), format!("QUESTION {number}\nEND\n"));
    }
    ssh.kill().await.unwrap();
    assert_eq!(told(&mut world, 2).await, ["ada gone", "ada ports"], "once for all of them");

    let (local, remote) = (person.directory.join("local"), world.attempt.work().join("socket"));
    let forward = format!("{}:{}", local.display(), remote.display());
    let (mut ssh, _) = forwarding(&person, |_| ["-L".into(), forward.clone()]).await;
    let mut stream = UnixStream::connect(&local).await.unwrap();
    assert_eq!(ask(&mut stream, "by path\n").await, "BY PATH\nEND\n");
    ssh.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_of_the_host_is_reached() {
    let world = world().await;
    let there = world.attempt.number("port").await;
    let person = world.person("ada", Profile::Workspace);
    let others = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = format!("localhost:{}", others.local_addr().unwrap().port());
    let path = person.directory.join("others");
    let _others = UnixListener::bind(&path).unwrap();
    let own = format!("localhost:{there}");
    let looks_on = world.person("eve", Profile::Attach);
    for (who, target, words) in [
        (&person, other.as_str(), "none of the attempt's own processes listens on port"),
        (&person, "192.0.2.1:80", "only what the attempt listens on"),
        (&looks_on, own.as_str(), "you may not reach"),
    ] {
        let said = who.run("ssh", &["-W", target, "sculpt"]).await;
        assert!(said.code == Some(255) && said.err.contains(words), "{target}: {said:?}");
    }
    let (local, forward) = (person.directory.join("local"), path.display());
    let (mut ssh, _) = forwarding(&person, |_| ["-L".into(), format!("{}:{forward}", local.display())]).await;
    let mut stream = UnixStream::connect(&local).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "it is closed");
    ssh.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_forward_leads_to_the_agents_terminal() {
    let mode = Mode::Terminal { columns: 200, rows: 50 };
    let world = World::around(Attempt::new(mode, "echo ready; exec sleep 1000")).await;
    let person = world.person("ada", Profile::Workspace);
    let (local, tmux) = (person.directory.join("local"), world.view().socket);
    assert!(UnixStream::connect(&tmux).await.is_ok());
    let forward = format!("{}:{}", local.display(), tmux.display());
    let (mut ssh, _) = forwarding(&person, |_| ["-L".into(), forward.clone()]).await;
    let mut stream = UnixStream::connect(&local).await.unwrap();
    // tmux would wait for what it is asked.
    let heard = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await.expect("it is closed");
    assert_eq!(heard.unwrap_or(0), 0);
    ssh.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_a_person_is_the_attempts_own() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let server = "python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); \
                  open(\"own.new\", \"w\").write(str(s.getsockname()[1])); import os; os.rename(\"own.new\", \"own\"); \
                  s.accept()[0].sendall(b\"hers\")'";
    let mut running = person.command("ssh", &["sculpt", server]).spawn().unwrap();
    let port = world.attempt.number("own").await;
    if world.attempt.launch.cgroup.unified.is_some() {
        let said = person.run("ssh", &["-W", &format!("localhost:{port}"), "sculpt"]).await;
        assert_eq!(said.out, "hers", "{said:?}");
    }
    running.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attempt_reaches_what_the_person_listens_on() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let theirs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at: SocketAddr = theirs.local_addr().unwrap();
    let (mut ssh, there) = forwarding(&person, |there| ["-R".into(), format!("*:{there}:{at}")]).await;
    let line = format!(
        "python3 -c 'import socket; s = socket.create_connection((\"127.0.0.1\", {there})); s.sendall(b\"hello\"); \
         s.shutdown(1); print(s.recv(100).decode())'"
    );
    // Nobody else of this host is let through: they are closed, and the first who comes is the attempt's.
    let strange = eventually(|| std::net::TcpStream::connect(("127.0.0.1", there)).ok()).await;
    strange.set_nonblocking(true).unwrap();
    let mut strange = TcpStream::from_std(strange).unwrap();
    assert_eq!(strange.read(&mut [0]).await.unwrap_or(0), 0, "it is closed");
    let asking = person.command("ssh", &["sculpt", &line]).stdin(Stdio::null()).spawn().unwrap();
    let (mut stream, _) = theirs.accept().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
    stream.write_all(b"back").await.unwrap();
    drop(stream);
    assert_eq!(finish(asking).await.out, "back\n");
    ssh.kill().await.unwrap();
    // Nothing listens for somebody who has gone.
    let free = || std::net::TcpListener::bind(("127.0.0.1", there)).is_ok().then_some(());
    eventually(free).await;
    let eve = world.person("eve", Profile::Attach);
    let words = ["-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:localhost:1", "sculpt"];
    let said = eve.run("ssh", &words).await;
    assert!(said.code == Some(255) && said.err.contains("remote port forwarding failed"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_keys_and_displays_are_not_forwarded() {
    let world = world().await;
    let person = world.person("ada", Profile::Workspace);
    let mut command = person.command("ssh", &["-v", "-A", "-X", "sculpt", "echo ${SSH_AUTH_SOCK-no} ${DISPLAY-no}"]);
    let said = finish(command.env("DISPLAY", ":77").spawn().unwrap()).await;
    assert_eq!(said.out, "no no\n", "{said:?}");
}
