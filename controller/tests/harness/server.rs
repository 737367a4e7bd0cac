//! The Postgres of this test program. It ends with the program, however that ends.

use std::{
    io::Write as _,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use sculpt_controller::{
    postgres::{Postgres, Settings},
    store::{Database, migrate},
};
use tokio::{
    runtime::Builder,
    sync::{Mutex, mpsc, oneshot},
};

const TEMPLATE: &str = "template_of_tests";

/// The server, run by a thread of its own: a test's runtime ends with the test.
pub(super) struct Server {
    database: Database,
    sockets: String,
    count: AtomicU32,
    /// A template can be copied by one connection at a time.
    copying: Mutex<()>,
    removed: mpsc::UnboundedSender<String>,
    /// Its end of file tells the reaper that this program has ended.
    _reaper: ChildStdin,
}

/// The server, started on first need.
pub(super) fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| thread::spawn(start).join().expect("the server of the tests starts"))
}

impl Server {
    /// A database of the server.
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// The URL of one of its databases, as this role.
    pub(super) fn url(&self, role: &str, name: &str) -> String {
        format!("postgres://{role}@localhost/{name}?host={}", self.sockets.replace('/', "%2F"))
    }

    /// A new database, with the schema or without; its name.
    pub(super) async fn fresh(&self, schema: bool) -> String {
        self.copy(if schema { TEMPLATE } else { "template1" }).await
    }

    /// A new database like this one, to which nobody is connected; its name.
    pub(super) async fn copy(&self, template: &str) -> String {
        let name = format!("test_{}", self.count.fetch_add(1, Ordering::Relaxed));
        let _one = self.copying.lock().await;
        self.database.copy(template, &name).await.expect("make a database");
        name
    }

    /// Removes a database, in its own time.
    pub(super) fn remove(&self, name: String) {
        let _ = self.removed.send(name);
    }
}

fn start() -> Server {
    let directory = tempfile::Builder::new().prefix("sculpt-test-").tempdir_in("/tmp").expect("make a directory");
    let directory = directory.keep();
    let pid_file = directory.join("postgres/postmaster.pid");
    let mut reaper = reaper(&directory);
    let (ready, started) = oneshot::channel();
    let (removed, mut names) = mpsc::unbounded_channel::<String>();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let settings = Settings { durable: false };
            let postgres = Postgres::start(&directory.join("postgres"), settings).await.expect("start Postgres");
            let database = postgres.database().clone();
            database.ensure(TEMPLATE).await.expect("make the template");
            migrate(&database.named(TEMPLATE)).await.expect("migrate the template");
            let pid = *postgres.postmaster().borrow();
            ready.send((database.clone(), pid)).expect("somebody waits");
            while let Some(name) = names.recv().await {
                // It may be gone already with the whole server.
                let _ = database.remove(&name).await;
            }
        });
    });
    let (database, pid) = started.blocking_recv().expect("Postgres starts");
    writeln!(reaper, "{}", pid.expect("it runs")).expect("tell the reaper");
    let told = std::fs::read_to_string(pid_file).expect("a server has a pid file");
    let sockets = told.lines().nth(4).expect("it names its socket's directory").to_owned();
    Server { database, sockets, count: AtomicU32::new(0), copying: Mutex::new(()), removed, _reaper: reaper }
}

/// A process that outlives this one just long enough to end the server and remove its directory.
#[expect(clippy::zombie_processes, reason = "it outlives this process")]
fn reaper(directory: &Path) -> ChildStdin {
    use std::os::unix::process::CommandExt as _;

    let script = r#"
        trap '' INT HUP TERM
        read -r pid; while read -r _; do :; done
        if [ -n "$pid" ]; then
            sockets=$(sed -n 5p "$0/postgres/postmaster.pid")
            kill -QUIT "$pid" 2>/dev/null
            while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
        fi
        rm -rf "$0" ${sockets:+"$sockets"}
    "#;
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start the reaper");
    child.stdin.take().expect("stdin is piped")
}
