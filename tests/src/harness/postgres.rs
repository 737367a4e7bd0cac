//! A Postgres of somebody's own, on TCP, so that a fault proxy can stand before it.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::{Stack, eventually};

/// Where Debian keeps the server's programs, by version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A running cluster; gone when dropped.
#[derive(Debug)]
pub struct Cluster {
    server: Child,
    port: u16,
    _directory: TempDir,
}

impl Cluster {
    /// Makes and starts one with an empty database `sculpt`.
    pub async fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("sct-pg-").tempdir_in("/tmp")?;
        let account = account()?;
        if let Some((user, group)) = account {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group))?;
        }
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))?;
        let data = directory.path().join("data");
        let mut initdb = server_program("initdb", account)?;
        initdb.arg("-D").arg(&data).args([
            "-U",
            "sculpt",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        let made = initdb.output().context("run initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut postgres = server_program("postgres", account)?;
        postgres.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        postgres.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "unix_socket_directories="]);
        let log = fs::File::create(directory.path().join("log"))?;
        let server = postgres.stdout(Stdio::null()).stderr(log).spawn().context("start Postgres")?;
        let cluster = Self { server, port, _directory: directory };
        eventually("Postgres to make a database", || {
            let url = cluster.url_at(cluster.port).replace("dbname=sculpt", "dbname=postgres");
            let made = Command::new("psql").args(["-X", "-q", "-c", "CREATE DATABASE sculpt", "-d", &url]).output()?;
            Ok(made.status.success().then_some(()))
        })
        .await?;
        Ok(cluster)
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url_at(&self, port: u16) -> String {
        format!("host=127.0.0.1 port={port} user=sculpt dbname=sculpt")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Stack {
    /// From the next start on the controller uses `cluster` and reaches it at `address`; the checker goes straight to it.
    pub fn uses(&mut self, cluster: &Cluster, address: &str) {
        let url = format!("postgres://sculpt@{address}/sculpt");
        self.ground.environment.push(("SCULPT_CONTROLLER_DATABASE_URL".to_owned(), url));
        self.database = Some(cluster.url_at(cluster.port));
    }
}

/// The account that a server runs under when the tests run as root, which Postgres refuses.
fn account() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd").context("look for the account postgres")?;
    let fields =
        accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == "postgres");
    let fields = fields.context("root cannot run Postgres, and there is no account postgres")?;
    Ok(Some((fields[2].parse()?, fields[3].parse()?)))
}

fn server_program(name: &str, account: Option<(u32, u32)>) -> Result<Command> {
    let mut found: Vec<PathBuf> = fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    let Some(path) = found.pop() else { bail!("{name} is not installed") };
    let mut command = Command::new(path);
    command.current_dir("/");
    if let Some((user, group)) = account {
        command.uid(user).gid(group);
    }
    Ok(command)
}
