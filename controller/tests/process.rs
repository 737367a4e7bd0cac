//! The program itself, with its built-in Postgres.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use sculpt_proto::v1;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    time::timeout,
};
use tonic::{Code, Request};

/// What a shutdown may take.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long anything may take before the test is taken to hang.
const DEADLINE: Duration = Duration::from_secs(60);

/// A data directory whose server is gone with it, also when a test fails.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("sculpt-process-").tempdir_in("/tmp").expect("a directory"))
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("controller")
    }

    fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data().join("postgres/postmaster.pid")).ok()?;
        Pid::from_raw(text.lines().next()?.parse().ok()?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pid) = self.postmaster() {
            let _ = kill_process(pid, Signal::QUIT);
        }
    }
}

/// A running controller; killed when dropped.
struct Program {
    child: Child,
    lifeline: ChildStdin,
    ready: serde_json::Value,
}

fn command(data: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sculpt-controller"));
    command.arg("serve").arg("--data-dir").arg(data).args(more).env_remove("DATABASE_URL");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn start(data: &Path) -> Program {
    let mut child = command(data, &["--listen", "127.0.0.1:0", "--lifeline"]).spawn().expect("it can be run");
    let lifeline = child.stdin.take().expect("stdin is piped");
    let mut said = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let line = timeout(DEADLINE, said.next_line()).await.expect("it is ready in time").expect("it can be read");
    let Some(line) = line else {
        let output = child.wait_with_output().await.expect("it has ended");
        panic!("it ended: {}", String::from_utf8_lossy(&output.stderr));
    };
    Program { child, lifeline, ready: serde_json::from_str(&line).expect("a line of JSON") }
}

/// Runs what is expected to be refused; what it says.
async fn refused(data: &Path, more: &[&str]) -> String {
    let output = timeout(DEADLINE, command(data, more).output()).await.expect("it ends").expect("it can be run");
    assert!(!output.status.success(), "{output:?}");
    assert!(!output.stderr.contains(&0x1b), "no colours where nobody sees them: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Program {
    async fn end(mut self, how: impl FnOnce(&Child, ChildStdin)) -> ExitStatus {
        let begin = Instant::now();
        how(&self.child, self.lifeline);
        let status = timeout(SHUTDOWN, self.child.wait()).await.expect("it ends in time").expect("it is waited for");
        assert!(begin.elapsed() < SHUTDOWN);
        status
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("it runs");
    kill_process(pid, signal).expect("it is signalled");
}

fn gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err() || !Path::new(&format!("/proc/{}/cwd", pid.as_raw_pid())).exists()
}

#[tokio::test]
async fn serves_is_killed_is_adopted_and_ends_in_order() {
    let place = Place::new();
    let first = start(&place.data()).await;
    assert_eq!(first.ready["ready"], true);
    assert!(first.ready["postgres"].as_str().is_some_and(|version| version.ends_with("(built-in)")));
    let announced = fs::read_to_string(place.data().join("controller.json")).expect("it says where it is");
    let announced: serde_json::Value = serde_json::from_str(&announced).expect("JSON");
    assert_eq!(announced["pid"].as_u64(), first.child.id().map(u64::from));
    assert_eq!(announced["user_url"], first.ready["user_url"]);

    let second = refused(&place.data(), &["--listen", "127.0.0.1:0"]).await;
    assert!(second.contains(&format!("pid {}", announced["pid"])), "{second}");

    let postmaster = place.postmaster().expect("it runs");
    first.end(|child, _| signal(child, Signal::KILL)).await;
    let again = start(&place.data()).await;
    assert_eq!(place.postmaster(), Some(postmaster), "the server was adopted");
    assert_eq!(again.ready["cluster_id"], announced["cluster_id"]);
    assert!(again.end(|child, _| signal(child, Signal::TERM)).await.success());
    assert!(place.postmaster().is_none() && gone(postmaster));

    let third = start(&place.data()).await;
    assert!(third.end(|_, lifeline| drop(lifeline)).await.success(), "its parent has gone");
    assert!(place.postmaster().is_none() && !place.data().join("controller.json").exists());
}

#[tokio::test]
async fn a_database_that_dies_is_unavailable_and_comes_back() {
    let place = Place::new();
    let program = start(&place.data()).await;
    let url = program.ready["user_url"].as_str().expect("a URL").to_owned();
    let trust = program.ready["trust"].as_str().expect("a path").to_owned();
    let channel = crate::harness::connect(&url, trust.as_ref()).await;
    let token = fs::read_to_string(place.data().join("tokens/user")).expect("a token");
    let mut tasks = v1::tasks_client::TasksClient::new(channel);
    let mut ask = async || {
        let mut request = Request::new(v1::ListTasksRequest::default());
        let bearer = format!("Bearer {}", token.trim()).parse().expect("a value");
        request.metadata_mut().insert("authorization", bearer);
        tasks.list_tasks(request).await.map(|_| ()).map_err(|status| status.code())
    };
    ask().await.expect("it answers");
    for _ in 0..3 {
        kill_process(place.postmaster().expect("it runs"), Signal::KILL).expect("it is killed");
        let begin = Instant::now();
        loop {
            match ask().await {
                Ok(()) => break,
                Err(code) => assert_eq!(code, Code::Unavailable),
            }
            assert!(begin.elapsed() < DEADLINE, "it does not come back");
        }
    }
    assert!(program.end(|child, _| signal(child, Signal::INT)).await.success());
}

#[tokio::test]
async fn a_database_that_is_away_is_refused_and_replaced_by_no_other() {
    let place = Place::new();
    let away = "postgres://nobody@127.0.0.1:1/none";
    let away = refused(&place.data(), &["--listen", "127.0.0.1:0", "--database-url", away]).await;
    assert!(away.contains("cannot use the database at 127.0.0.1:1/none") && away.contains("start again"), "{away}");
    assert!(!place.data().join("postgres").exists());
}

/// Runs a command of the controller's host; what it answers, or what it says of why not.
async fn told(data: &Path, words: &[&str]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sculpt-controller"));
    command.args(words).arg("--data-dir").arg(data).env_remove("DATABASE_URL").kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.expect("it ends").expect("it can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

async fn is_admin(program: &Program, token: &str) -> bool {
    let url = program.ready["user_url"].as_str().expect("a URL");
    let trust = program.ready["trust"].as_str().expect("a path");
    let channel = crate::harness::connect(url, trust.as_ref()).await;
    let mut identity = v1::identity_client::IdentityClient::new(crate::harness::authorised(channel, token));
    identity.list_users(v1::ListUsersRequest {}).await.is_ok()
}

#[tokio::test]
async fn a_lost_admin_is_replaced_whether_the_controller_runs_or_not() {
    let place = Place::new();
    let reset = ["admin", "reset"];
    let error = told(&place.data(), &reset).await.expect_err("there is nothing");
    assert!(error.contains("there is no authority in") && !place.data().exists(), "{error}");

    let program = start(&place.data()).await;
    let running = told(&place.data(), &reset).await.expect("beside it");
    assert!(is_admin(&program, &running).await);
    assert!(program.end(|child, _| signal(child, Signal::TERM)).await.success());

    let stopped = told(&place.data(), &reset).await.expect("in its place");
    assert!(place.postmaster().is_none(), "nothing is left running");
    let program = start(&place.data()).await;
    assert!(is_admin(&program, &stopped).await && !is_admin(&program, &running).await);
    let postgres = place.data().join("postgres");
    assert!(program.end(|child, _| signal(child, Signal::TERM)).await.success());

    fs::rename(&postgres, place.0.path().join("elsewhere")).expect("it is moved");
    let error = told(&place.data(), &reset).await.expect_err("there is no database");
    assert!(error.contains("there is no database in") && error.contains("--database-url"), "{error}");
    fs::rename(place.0.path().join("elsewhere"), &postgres).expect("it is moved back");
}

/// Those below `directory` that another account may do something with. The server looks after its own.
fn open_to_others(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("it can be read") {
        let path = entry.expect("an entry").path();
        let data = fs::symlink_metadata(&path).expect("it is there");
        if data.is_symlink() || path.ends_with("controller/postgres") {
            continue;
        }
        if data.permissions().mode() & 0o077 != 0 {
            found.push(path.clone());
        }
        if data.is_dir() {
            open_to_others(&path, found);
        }
    }
}

/// One after the other, what stands in the way of each step behind the start of the database.
#[tokio::test]
async fn a_start_that_fails_late_leaves_no_server_behind_and_the_next_one_is_closed_to_others() {
    let place = Place::new();
    fs::create_dir(place.data()).expect("make");
    fs::set_permissions(place.data(), Permissions::from_mode(0o755)).expect("open it");
    let log = place.data().join("postgres.log");
    for (name, what) in [("tokens", "the first admin"), ("trust.pem", "whom to trust"), ("controller.json", "name")] {
        let obstacle = place.data().join(name);
        if name == "tokens" {
            fs::write(&obstacle, "not a directory").expect("write");
        } else {
            fs::create_dir_all(obstacle.join("not a file")).expect("make");
        }
        let begun = fs::read_to_string(&log).unwrap_or_default().len();
        let said = refused(&place.data(), &["--listen", "127.0.0.1:0"]).await;
        assert!(said.contains(what), "{name}: {said}");
        let log = fs::read_to_string(&log).expect("there was a server");
        let log = &log[begun..];
        assert!(log.contains("ready to accept connections") && log.contains("database system is shut down"), "{log}");
        assert!(place.postmaster().is_none(), "{name}: it is still there");
        if name == "tokens" { fs::remove_file(obstacle) } else { fs::remove_dir_all(obstacle) }.expect("clear it");
    }

    let program = start(&place.data()).await;
    let mode = fs::metadata(place.data()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o066, 0, "{mode:o}");
    let mut open = Vec::new();
    open_to_others(&place.data(), &mut open);
    assert!(open.is_empty(), "{open:?}");
    assert!(program.end(|child, _| signal(child, Signal::TERM)).await.success());
}
