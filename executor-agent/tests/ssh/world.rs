//! An SSH server beside one attempt, a person with a certificate, and OpenSSH's own programs.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sculpt_executor::{
    layout::Layout,
    report::Seat,
    shim::Client,
    space::Standing,
    ssh::{Attempts, Beside, Guest, GuestList, HostProof, Means, Place, Server},
    tmux::View,
};
use sculpt_pairing::{Host, Pass, Profile, Rights, Window, login};
use sculpt_proto::id::{AttemptId, ExecutorId, PairingId};
use ssh_key::{Certificate, LineEnding, PrivateKey, private::Ed25519Keypair};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempt, PATIENCE, PROGRAM};

/// A key that is always the same for a number.
pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

/// Long enough for ssh on a busy machine, short enough to wait for.
const COMES_IN_WITHIN: Duration = Duration::from_secs(8);

/// Keys by what they are for.
pub(crate) const PEOPLE: u8 = 1;
pub(crate) const HOSTS: u8 = 2;
const HOST: u8 = 3;

/// The window of a certificate that is good now.
pub(crate) fn now() -> Window {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Window { since: now - 60, until: now + 600 }
}

/// All of it; ends with everything that it has started.
pub(crate) struct World {
    pub(crate) attempt: Attempt,
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    pub(crate) guests: watch::Sender<GuestList>,
    pub(crate) reports: mpsc::Receiver<(AttemptId, Seat)>,
    /// The server looks who has ended when this changes.
    pub(crate) ends: watch::Sender<u64>,
    pub(crate) disk: watch::Sender<Standing>,
    pub(crate) attempts: Attempts,
    pub(crate) cancel: CancellationToken,
    pub(crate) server: Server,
    executor: ExecutorId,
}

/// Somebody with a directory of their own.
pub(crate) struct Person {
    pub(crate) directory: PathBuf,
    pub(crate) pass: Pass,
}

impl World {
    /// A server beside `attempt`, which is started, and its view with it when it has a terminal.
    pub(crate) async fn around(attempt: Attempt) -> Self {
        Self::with_room(attempt, 1024).await
    }

    /// The same, which takes no more than so many reports until they are received.
    pub(crate) async fn with_room(mut attempt: Attempt, room: usize) -> Self {
        let layout = Layout::open(&attempt.path().join("data"), false).unwrap();
        let id = AttemptId(attempt.id);
        symlink(attempt.directory(), layout.attempt(id)).unwrap();
        let client = attempt.start().await;
        let attempts = Attempts::new(layout, PROGRAM.into());
        let place = attempts.find(id).unwrap();
        if place.has_terminal() {
            let begun = Instant::now();
            // A sandbox may not stand yet.
            while let Err(error) = place.view().ensure().await {
                assert!(begun.elapsed() < PATIENCE, "{error}");
            }
        }
        let executor = ExecutorId::fresh();
        let certificate = Host(executor).certify(key(HOST).public_key(), now(), &key(HOSTS)).unwrap();
        let (_, proof) = watch::channel(Some(HostProof { key: key(HOST), certificate }));
        let authorities = vec![key(PEOPLE).public_key().key_data().clone()];
        let (guests, told) = watch::channel(GuestList { authorities, ..GuestList::default() });
        let (report, reports) = Beside::default().reports(room);
        let (ends, ended) = watch::channel(0);
        let disk = watch::Sender::new(Standing::default());
        let cancel = CancellationToken::new();
        let server = Server::new(Means {
            proof,
            guests: told,
            attempts: attempts.clone(),
            reports: report,
            ends: ended,
            disk: disk.subscribe(),
            comes_in_within: COMES_IN_WITHIN,
            cancel: cancel.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = serving.clone();
                tokio::spawn(async move { server.serve(stream, None).await });
            }
        });
        Self { attempt, client, address, guests, reports, ends, disk, attempts, cancel, server, executor }
    }

    pub(crate) fn id(&self) -> AttemptId {
        AttemptId(self.attempt.id)
    }

    pub(crate) fn place(&self) -> Place {
        self.attempts.find(self.id()).unwrap()
    }

    pub(crate) fn view(&self) -> View {
        self.place().view()
    }

    /// A pass of `user` that nobody was told of.
    pub(crate) fn pass(&self, user: &str, rights: Rights) -> Pass {
        Pass { pairing: PairingId::fresh(), attempt: self.id(), user: user.to_owned(), rights }
    }

    /// Tells the executor of it.
    pub(crate) fn tell(&self, pass: &Pass) {
        let until = Instant::now() + Duration::from_secs(600);
        let guest = Guest { attempt: pass.attempt, user: pass.user.clone(), rights: pass.rights, until };
        self.guests.send_modify(|list| drop(list.guests.insert(pass.pairing, guest)));
    }

    pub(crate) fn take_back(&self, person: &Person) {
        self.guests.send_modify(|list| drop(list.guests.remove(&person.pass.pairing)));
    }

    /// Somebody who may do this, and whom the executor was told of.
    pub(crate) fn person(&self, user: &str, profile: Profile) -> Person {
        let pass = self.pass(user, profile.rights());
        self.tell(&pass);
        let certificate = pass.certify(key(9).public_key(), now(), &key(PEOPLE)).unwrap();
        self.holder(&pass, &certificate)
    }

    /// Somebody with a certificate.
    pub(crate) fn holder(&self, pass: &Pass, certificate: &Certificate) -> Person {
        Person::new(self.attempt.path(), self.address, Host(self.executor), pass, certificate)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Ok(place) = self.attempts.find(self.id()) {
            kill_server(&place.view().socket);
        }
    }
}

fn kill_server(socket: &Path) {
    let _gone = std::process::Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
}

impl Person {
    /// Somebody with a directory below `root`, for whom `host` is at `address`.
    pub(crate) fn new(root: &Path, address: SocketAddr, host: Host, pass: &Pass, certificate: &Certificate) -> Self {
        let directory = root.join(format!("person-{}", PairingId::fresh()));
        fs::create_dir(&directory).unwrap();
        let file = |name: &str, text: &str| {
            fs::write(directory.join(name), text).unwrap();
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        };
        file("key", &key(9).to_openssh(LineEnding::LF).unwrap());
        file("key-cert.pub", &certificate.to_openssh().unwrap());
        file("known_hosts", &format!("{}\n", host.known(key(HOSTS).public_key()).unwrap()));
        let (at, files) = (address, directory.display());
        let settings = [
            format!("HostName {}", at.ip()),
            format!("Port {}", at.port()),
            format!("User {}", login(pass.attempt)),
            format!("HostKeyAlias {}", host),
            format!("IdentityFile {files}/key"),
            format!("CertificateFile {files}/key-cert.pub"),
            format!("UserKnownHostsFile {files}/known_hosts"),
        ];
        let always = "IdentitiesOnly yes\nIdentityAgent none\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n\
                      UpdateHostKeys no\nBatchMode yes\n";
        file("config", &format!("Host sculpt\n{}\n{always}", settings.join("\n")));
        Self { directory, pass: pass.clone() }
    }

    /// One of OpenSSH's programs, with these words after its settings.
    pub(crate) fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(self.directory.join("config")).args(words).kill_on_drop(true);
        command.env_remove("LC_ALL").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, program: &str, words: &[&str]) -> Said {
        finish(self.command(program, words).spawn().unwrap()).await
    }

    /// `ssh sculpt WORDS`.
    pub(crate) async fn ssh(&self, words: &[&str]) -> Said {
        self.run("ssh", &[&["sculpt"], words].concat()).await
    }
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Waits for the end of a program.
pub(crate) async fn finish(child: Child) -> Said {
    let output: Output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}
