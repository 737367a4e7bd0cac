//! What people have without sculpt: an SSH server of their own, whose keys, settings and port are nobody else's.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_tests::harness::{Cli, DEADLINE, Service, Stack, eventually};

pub(crate) struct Sshd {
    service: Service,
    port: u16,
    directory: PathBuf,
}

impl Sshd {
    /// What its host is called.
    pub(crate) const HOST: &str = "reference";

    pub(crate) async fn start(stack: &Stack, directory: &Path) -> Result<Self> {
        for name in ["host", "user"] {
            let key = directory.join(name);
            let key = key.to_str().context("a path of the tests is text")?;
            stack.shell("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]).run().await?.done()?;
        }
        if rustix::process::geteuid().is_root() {
            // Debian's own service makes it at its start; without it sshd refuses to run as root.
            fs::create_dir_all("/run/sshd").context("make /run/sshd")?;
        }
        // Free now; nothing else takes ports while the benchmark runs.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let here = directory.display();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\n\
             StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             Subsystem sftp internal-sftp\n"
        );
        let file = directory.join("sshd_config");
        fs::write(&file, settings)?;
        let host = fs::read_to_string(directory.join("host.pub"))?;
        fs::write(directory.join("known_hosts"), format!("{} {host}", Self::HOST))?;
        let mut command = stack.command("/usr/sbin/sshd");
        command.arg("-D").arg("-e").arg("-f").arg(&file);
        let log = directory.join("sshd.log");
        let service = Service::begin("sshd", command, log.clone())?;
        let listening = format!("listening on 127.0.0.1 port {port}");
        eventually("sshd to listen", || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            ensure!(service.pid().is_ok(), "sshd has ended: {said}");
            Ok(said.contains(&listening).then_some(()))
        })
        .await?;
        Ok(Self { service, port, directory: directory.to_owned() })
    }

    /// On which port of loopback it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The settings for ssh that lead there by this port.
    pub(crate) fn settings(&self, port: u16) -> Result<String> {
        let (host, here) = (Self::HOST, self.directory.display());
        let file = self.directory.join(format!("ssh_config-{port}"));
        let settings = format!(
            "Host {host}\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias {host}\n  IdentityFile {here}/user\n  \
             IdentitiesOnly yes\n  UserKnownHostsFile {here}/known_hosts\n  BatchMode yes\n"
        );
        fs::write(&file, settings)?;
        Ok(file.to_str().context("a path of the tests is text")?.to_owned())
    }

    /// One of OpenSSH's programs, about to be run.
    pub(crate) fn program(&self, stack: &Stack, program: &str, words: &[&str]) -> Result<Cli> {
        let settings = self.settings(self.port)?;
        Ok(stack.shell(program, ["-F", &settings].into_iter().chain(words.iter().copied())))
    }

    pub(crate) async fn end(self) -> Result<()> {
        self.service.end(Signal::TERM, DEADLINE).await.map(drop)
    }
}
