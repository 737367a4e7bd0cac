//! Who reads slowly, or nothing: it is nobody's fault but theirs, and stops nobody else.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sculpt_executor::shim::Mode;
use sculpt_pairing::Profile;
use tempfile::TempDir;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
};

use super::world::{Person, World, finish};
use crate::attempt::Attempt;

/// More than sockets, windows and buffers hold on the whole way.
const MUCH: u64 = 128 << 20;

/// An agent that reads nothing of a connection before it is let; then says how much there was.
const AGENT: &str = r#"
import os, socket, time
listener = socket.create_server(("127.0.0.1", 0))
open("port.new", "w").write(str(listener.getsockname()[1]))
os.rename("port.new", "port")
stream, _ = listener.accept()
while not os.path.exists("reads"): time.sleep(0.01)
read, buffer = 0, bytearray(1 << 20)
while length := stream.recv_into(buffer): read += length
open("read.new", "w").write(str(read))
os.rename("read.new", "read")
"#;

/// A connection of somebody's in which all that they do goes on, as editors have it.
struct Shared<'a> {
    person: &'a Person,
    directory: TempDir,
}

impl<'a> Shared<'a> {
    /// With these words for the connection itself, given where its files are.
    async fn open(person: &'a Person, words: impl FnOnce(&str) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let words = words(directory.path().to_str().unwrap());
        let mut command = person.command("ssh", &["-M", "-N", "-f", "-o", "ExitOnForwardFailure=yes", "-S"]);
        command.arg(directory.path().join("shared")).args(words).arg("sculpt");
        let opened = command.stdout(Stdio::null()).stderr(Stdio::null()).status().await.unwrap();
        assert!(opened.success(), "{opened}");
        Self { person, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, words: &[&str]) -> tokio::process::Command {
        self.person.command("ssh", &[&["-S", self.path("shared").to_str().unwrap()], words].concat())
    }

    /// Does small things beside it until nothing more goes into what nobody reads.
    async fn goes_on_until_stalled(&self, sent: &AtomicU64) {
        let (mut still, mut before) = (0, 0);
        while still < 5 {
            let said = finish(self.command(&["sculpt", "echo alive"]).spawn().unwrap()).await;
            assert_eq!(said.out, "alive\n", "{said:?}");
            let now = sent.load(Ordering::Acquire);
            still = if now == before && now > 0 { still + 1 } else { 0 };
            before = now;
        }
        assert!(before < MUCH, "all of it was taken for somebody who reads nothing");
    }

    async fn close(self) {
        let said = finish(self.command(&["-O", "exit", "sculpt"]).spawn().unwrap()).await;
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

/// Sends very much, and counts.
async fn send_much(mut to: impl AsyncWrite + Unpin, sent: Arc<AtomicU64>) {
    let piece = vec![7; 64 << 10];
    while sent.load(Ordering::Acquire) < MUCH {
        to.write_all(&piece).await.unwrap();
        sent.fetch_add(piece.len() as u64, Ordering::AcqRel);
    }
    to.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_reads_stops_no_other() {
    let world = World::around(Attempt::with_argv(Mode::Pipes, &["python3", "-c", AGENT]).in_cgroup()).await;
    let person = world.person("ada", Profile::Workspace);
    let port = world.attempt.number("port").await;
    let shared = Shared::open(&person, |at| vec!["-L".into(), format!("{at}/forward:localhost:{port}")]).await;
    let sent = Arc::new(AtomicU64::new(0));
    let stream = UnixStream::connect(shared.path("forward")).await.unwrap();
    let sending = tokio::spawn(send_much(stream, Arc::clone(&sent)));
    shared.goes_on_until_stalled(&sent).await;
    // And nothing is lost of what had to wait.
    fs::write(world.attempt.work().join("reads"), "").unwrap();
    assert_eq!(u64::from(world.attempt.number("read").await), MUCH);
    sending.await.unwrap();
    shared.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_nothing_stops_no_other() {
    let world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    let person = world.person("ada", Profile::Workspace);
    let shared = Shared::open(&person, |_| Vec::new()).await;
    let line = "until test -e reads; do sleep 0.01; done; wc -c";
    let mut program = shared.command(&["sculpt", line]).stdin(Stdio::piped()).spawn().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let sending = tokio::spawn(send_much(program.stdin.take().unwrap(), Arc::clone(&sent)));
    shared.goes_on_until_stalled(&sent).await;
    fs::write(world.attempt.work().join("reads"), "").unwrap();
    let said = finish(program).await;
    assert_eq!(said.out.trim(), MUCH.to_string(), "{said:?}");
    sending.await.unwrap();
    shared.close().await;
}

/// Of every 64 bytes one half says nothing: packed it is about half as long.
fn half_empty(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 32]);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_write_more_than_it_reads() {
    let world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    let person = world.person("ada", Profile::Workspace);
    let plain = half_empty(100 << 20);
    let file = |name: &str| person.directory.join(name);
    fs::write(file("plain"), &plain).unwrap();
    let packed = tokio::process::Command::new("gzip").arg("-1").arg(file("plain")).status().await.unwrap();
    assert!(packed.success());
    for (line, given, expected) in
        [("zcat", "plain.gz", &plain), ("cat", "plain.gz", &fs::read(file("plain.gz")).unwrap())]
    {
        let mut command = person.command("ssh", &["sculpt", line]);
        command.stdin(fs::File::open(file(given)).unwrap()).stdout(fs::File::create(file("taken")).unwrap());
        let said = finish(command.spawn().unwrap()).await;
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
        assert!(fs::read(file("taken")).unwrap() == *expected, "{line}");
    }
}
