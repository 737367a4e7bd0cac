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

use sculpt_executor::{shim::Mode, space::Standing};
use sculpt_pairing::Profile;
use sculpt_space::{Level, Space};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
};

use super::world::{Person, World, finish};
use crate::attempt::Attempt;

/// More than sockets, windows and buffers hold on the whole way.
const MUCH: usize = 100 << 20;

/// What goes to disk until somebody has waited long enough.
const ON_DISK: u64 = 4 << 20;

/// What memory holds on the whole way, of which this process has little.
const ON_THE_WAY: u64 = 24 << 20;

/// An agent that reads nothing of a connection before it is let; then it says all of it back, in small pieces.
const AGENT: &str = r#"
import os, socket, time
listener = socket.create_server(("127.0.0.1", 0))
open("port.new", "w").write(str(listener.getsockname()[1]))
os.rename("port.new", "port")
stream, _ = listener.accept()
while not os.path.exists("reads"): time.sleep(0.01)
while piece := stream.recv(1 << 12): stream.sendall(piece)
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

    /// Does small things beside it until much of what nobody reads is on disk.
    async fn goes_on_until_kept(&self, world: &World, sent: &AtomicU64) {
        while kept(&world.attempt) < ON_DISK {
            let said = finish(self.command(&["sculpt", "echo alive"]).spawn().unwrap()).await;
            assert_eq!(said.out, "alive\n", "{said:?}");
            let elsewhere = sent.load(Ordering::Acquire).saturating_sub(kept(&world.attempt));
            assert!(elsewhere < ON_THE_WAY, "{elsewhere} bytes are in memory");
        }
    }

    async fn close(self) {
        let said = finish(self.command(&["-O", "exit", "sculpt"]).spawn().unwrap()).await;
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

/// The bytes in files without a name that this process has in the attempt's directory.
pub(super) fn kept(attempt: &Attempt) -> u64 {
    let nameless = |entry: fs::DirEntry| {
        let file = fs::read_link(entry.path()).ok()?;
        let ours = file.starts_with(attempt.directory()) && file.to_str()?.ends_with(" (deleted)");
        ours.then(|| fs::metadata(entry.path()).ok())?
    };
    fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(nameless).map(|file| file.len()).sum()
}

/// Sends all of it, and counts.
async fn send(mut to: impl AsyncWrite + Unpin, data: Arc<Vec<u8>>, sent: Arc<AtomicU64>) {
    for piece in data.chunks(64 << 10) {
        to.write_all(piece).await.unwrap();
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
    let (data, sent) = (Arc::new(half_empty(MUCH)), Arc::new(AtomicU64::new(0)));
    let stream = UnixStream::connect(shared.path("forward")).await.unwrap();
    let (mut from, to) = stream.into_split();
    let sending = tokio::spawn(send(to, Arc::clone(&data), Arc::clone(&sent)));
    shared.goes_on_until_kept(&world, &sent).await;
    // And nothing is lost of what had to wait.
    fs::write(world.attempt.work().join("reads"), "").unwrap();
    let mut back = Vec::with_capacity(MUCH);
    from.read_to_end(&mut back).await.unwrap();
    assert!(back == *data);
    assert_eq!(kept(&world.attempt), 0);
    sending.await.unwrap();
    shared.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_nothing_stops_no_other() {
    let world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    let person = world.person("ada", Profile::Workspace);
    let shared = Shared::open(&person, |_| Vec::new()).await;
    let line = "until test -e reads; do sleep 0.01; done; sha256sum";
    let mut program = shared.command(&["sculpt", line]).stdin(Stdio::piped()).spawn().unwrap();
    let (data, sent) = (Arc::new(half_empty(MUCH)), Arc::new(AtomicU64::new(0)));
    let sending = tokio::spawn(send(program.stdin.take().unwrap(), Arc::clone(&data), Arc::clone(&sent)));
    shared.goes_on_until_kept(&world, &sent).await;
    fs::write(world.attempt.work().join("reads"), "").unwrap();
    let said = finish(program).await;
    let sum: String = Sha256::digest(data.as_slice()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(said.out, format!("{sum}  -\n"), "{said:?}");
    sending.await.unwrap();
    shared.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_ends_its_own_channel_alone() {
    let world = World::around(Attempt::new(Mode::Pipes, "echo ready; exec sleep 1000")).await;
    let person = world.person("ada", Profile::Workspace);
    let shared = Shared::open(&person, |_| Vec::new()).await;
    let space = Space { used: 99, budget: 100 };
    world.disk.send_replace(Standing { space, level: Level::Full });
    let mut other = shared.command(&["sculpt", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut command = shared.command(&["sculpt", "exec sleep 1000"]);
    let said = finish(command.stdin(fs::File::open("/dev/zero").unwrap()).spawn().unwrap()).await;
    assert_eq!(said.code, Some(129), "{said:?}");
    assert!(said.err.contains("is not read, and the disk of this host is nearly full"), "{said:?}");
    other.stdin.take().unwrap().write_all(b"still here").await.unwrap();
    assert_eq!(finish(other).await.out, "still here");
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
