//! An executor with a living attempt on it, and a hostile one beside that.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::{Stack, eventually};
use serde_json::Value;
use uuid::Uuid;

use super::attempts::Attack;

/// What keeps agents apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// Accounts, made by root.
    Accounts,
    /// bubblewrap, run by an ordinary user.
    Bubblewrap,
    /// Nothing.
    Open,
}

/// What the other attempt's secret begins with, in two halves that meet in no script.
const HALVES: [&str; 2] = ["the-others", "own-secret"];

/// Leaves a key with its account, where the kernel has any for it, and makes memory by a number.
const KEEP: &str = r#"perl -e 'my ($kind, $name, $key) = ("user", "theirs-$ENV{SCULPT_ATTEMPT}", "secret");
    syscall(`uname -m` =~ /x86_64/ ? 248 : 217, $kind, $name, $key, 6, -5) >= 0 or $!{ENOSYS} or print "no key: $!\n";
    defined shmget hex substr($ENV{SCULPT_ATTEMPT}, -7), 64, 01600 or print "no memory: $!\n"'"#;

impl World {
    /// An executor of this world; none where only root could make it.
    pub(crate) async fn stack(self, settings: &str) -> Result<Option<Stack>> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make every world");
            return Ok(None);
        }
        // As an account of services has it, whom nobody is to sit down as.
        let options = Stack::options().settings(settings).env("SHELL", "/usr/sbin/nologin");
        let options = match self {
            Self::Accounts => options.separate(),
            Self::Bubblewrap => options.ordinary().separate(),
            Self::Open => options.ordinary(),
        };
        options.parts().await.map(Some)
    }
}

/// An attempt that minds its own business.
pub(crate) struct Victim {
    pub(crate) task: String,
    /// Where its view is reached.
    pub(crate) view: String,
    /// Its process.
    pub(crate) agent: u64,
    environment: Vec<(String, String)>,
}

impl Victim {
    /// Starts it, in a project of its own, and finds out where everything of it is.
    pub(crate) async fn start(stack: &Stack) -> Result<Self> {
        let repo = stack.empty_repo("theirs")?;
        repo.commit("secret-file", "of another project\n")?;
        let blob = repo.git(["rev-parse", "HEAD:secret-file"])?;
        give_away(stack, repo.path())?;
        let script = format!(
            "umask 077; echo mine > secret; echo mine > ~/secret-home; echo mine > /tmp/theirs-$SCULPT_ATTEMPT
            {KEEP}; echo \"at $HOME\"; exec sleep 4242"
        );
        // Beside this one others may be tried, whose secrets stand in the arguments by which they are made.
        let own = Uuid::new_v4().simple();
        let secret = format!("SECRET={}{own}", HALVES.concat());
        let all = ["--env", &secret, "--title", "theirs", "--", "sh", "-c", &script];
        let task = stack.detached(repo.path(), all).await?;
        let log = stack.log_until(&task, "its home", |log| log.ends_with(b"\n")).await?;
        let log = String::from_utf8(log)?;
        let home = log.trim().strip_prefix("at ").context("its home")?.to_owned();
        let data = stack.executor_data();
        let attempts = stack.traces().attempts();
        let [attempt] = attempts.as_slice() else { anyhow::bail!("one attempt, not {attempts:?}") };
        let lock: Value = serde_json::from_slice(&fs::read(data.join("attempts").join(attempt).join("shim.lock"))?)?;
        let shim = lock["pid"].as_u64().context("the shim's pid")?;
        stack.sculpt(["wait", &task, "--for", "running"]).run().await?.done()?;
        let shown = stack.show(&task).await?;
        let socket = shown["attempts"][0]["tmux_socket"].as_str().context("its socket")?.to_owned();
        let sockets = Path::new(&socket).ancestors().nth(3).context("the directory of sockets")?.to_owned();
        eventually("the view to be there", || Ok(fs::exists(&socket)?.then_some(()))).await?;
        let stores = directories(&data.join("stores"))?;
        let [store] = stores.as_slice() else { anyhow::bail!("one store, not {stores:?}") };
        let setuid = stack.root().join("setuid-id");
        fs::copy("/usr/bin/id", &setuid)?;
        fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755))?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let agent = agent(shim)?;
        let environment = [
            ("EXECUTOR", fs::read_to_string(data.join("lock"))?.trim().to_owned()),
            ("SETTINGS", text(&private(&stack.data().join("executor.toml"))?)),
            ("JOIN_TOKEN", text(&private(&written_beside(&data.join("identity/key.pem"), "join-token")?)?)),
            ("PROGRAMS", text(stack.program("sculpt-executor").parent().context("its directory")?)),
            ("CONTROLLER", text(&stack.data().join("controller"))),
            ("WORK", text(&data.join("workspaces").join(attempt))),
            ("THEIR_TMP", format!("/tmp/theirs-{attempt}")),
            ("THEIR_HOME", home),
            ("TERMINAL", text(&fs::read_link(format!("/proc/{agent}/fd/0")).context("its terminal")?)),
            ("DATABASE", format!("{}/.s.PGSQL.5432", sockets_of(&stack.database_url()?)?)),
            ("AGENT", agent.to_string()),
            ("SHIM", shim.to_string()),
            ("STORE", store.clone()),
            ("BLOB", blob.trim().to_owned()),
            ("SOCKETS", text(&sockets)),
            ("SETUID", text(&setuid)),
            ("NEEDLE", format!("{}.*{}", &HALVES[0][..8], &HALVES[1][..3])),
            ("HALF", format!("{}{}{own}", &HALVES[0][4..], HALVES[1])),
            ("VICTIM", attempt.clone()),
            ("DATA", text(&data)),
        ];
        Ok(Self {
            task,
            view: socket,
            agent,
            environment: environment.map(|(key, value)| (key.to_owned(), value)).into(),
        })
    }

    /// Makes an agent beside it try them all; returns the names of those that succeed.
    pub(crate) async fn attacked(&self, stack: &Stack, attacks: &[Attack]) -> Result<Vec<String>> {
        let repo = stack.repo()?;
        give_away(stack, repo.path())?;
        let script = script(attacks);
        let variables = self.environment.iter().map(|(key, value)| format!("{key}={value}"));
        let all = ["--no-tty", "--title", "hostile"].map(str::to_owned).into_iter();
        let all = all.chain(variables.flat_map(|variable| ["--env".to_owned(), variable]));
        let all: Vec<String> = all.chain(["--", "bash", "-c", &script].map(str::to_owned)).collect();
        let task = stack.detached(repo.path(), all).await?;
        stack.sculpt(["wait", &task]).run().await?;
        let log = String::from_utf8(stack.logs(&task).await?)?;
        let said: Vec<(&str, &str)> = log.lines().filter_map(|line| line.split_once(": ")).collect();
        let all: Vec<&str> = said.iter().map(|(name, _)| *name).collect();
        let wanted: Vec<&str> = attacks.iter().map(|attack| attack.name).collect();
        ensure!(all == wanted, "each was tried once: {log}");
        Ok(said.into_iter().filter(|(_, end)| *end == "succeeds").map(|(name, _)| name.to_owned()).collect())
    }

    /// Ends it, and fails unless it was there until now, untouched.
    pub(crate) async fn end(self, stack: &Stack) -> Result<()> {
        ensure!(stack.show(&self.task).await?["state"] == "running", "it was left alone");
        stack.sculpt(["stop", &self.task]).run().await?.done()?;
        stack.sculpt(["wait", &self.task]).run().await?.exits(4)?;
        Ok(())
    }
}

/// A script that tries one after the other and says what came of each.
fn script(attacks: &[Attack]) -> String {
    let head = r#"exec 2> /dev/null
connect() { perl -MIO::Socket::UNIX -e 'exit(IO::Socket::UNIX->new(Peer => $ARGV[0]) ? 0 : 1)' "$1"; }
export -f connect
export OWN_STORE="$(ls -d "$DATA"/stores/*.git | grep -v "$STORE" | head -n 1)"
[ -n "$OWN_STORE" ] || OWN_STORE="$(dirname "$(cat .git/objects/info/alternates)")"
mkdir tries; cd tries
try() { mkdir "$1"; if (cd "$1" && timeout 30 bash -c "$2") > /dev/null 2>&1; then echo "$1: succeeds"; else echo "$1: fails"; fi; }
"#;
    let tries =
        attacks.iter().map(|attack| format!("try {} '{}'\n", attack.name, attack.script.replace('\'', r"'\''")));
    head.to_owned() + &tries.collect::<String>()
}

/// Makes a repository that of whoever everything runs as.
pub(crate) fn give_away(stack: &Stack, repo: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = fs::metadata(stack.data())?;
    let to = format!("{}:{}", owner.uid(), owner.gid());
    ensure!(Command::new("chown").arg("-R").arg(to).arg(repo).status()?.success(), "give {} away", repo.display());
    Ok(())
}

fn directories(parent: &Path) -> Result<Vec<String>> {
    fs::read_dir(parent)?.map(|entry| Ok(entry?.path().to_string_lossy().into_owned())).collect()
}

/// Readable by its owner alone, as an administrator has it.
fn private(path: &Path) -> Result<std::path::PathBuf> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(path.to_owned())
}

/// A file of the owner of `path`, beside it.
fn written_beside(path: &Path, name: &str) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let (beside, owner) = (path.with_file_name(name), fs::metadata(path)?);
    fs::write(&beside, "sculpt_join_x\n")?;
    chown(&beside, Some(owner.uid()), Some(owner.gid()))?;
    Ok(beside)
}

/// Where the database behind this address has its socket.
fn sockets_of(database: &str) -> Result<&str> {
    database.strip_prefix("host=").and_then(|rest| rest.split(' ').next()).context("a database behind a socket")
}

/// The agent of a shim, behind the bubblewrap that waits for it.
fn agent(shim: u64) -> Result<u64> {
    let mut pid = shim;
    loop {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        pid = children.split_ascii_whitespace().next().context("a child")?.parse()?;
        if fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() != "bwrap" {
            return Ok(pid);
        }
    }
}
