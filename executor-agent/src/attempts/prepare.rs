//! From a spec to a running agent.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::warn;

use super::{
    files,
    life::{Life, wished},
    limits,
};
use crate::{
    accounts::Account,
    adapters,
    blocking::Blocking,
    cgroup::Cgroup,
    config::Settings,
    connect::Backoff,
    disk::{self, write_durably},
    host,
    journal::JournalError,
    report::{Cause, Failure, Outcome, Step},
    session::Wish,
    shim::{self, Launch, Mode},
    spec::Spec,
    stage::Identity,
    text::ByteText,
    workspace::{self, StoreError, WorkspaceError},
};

/// From interrupt to kill.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// Room for the reason why a workspace is kept, which must be on disk before the attempt ends.
pub(super) const KEEP_ROOM: usize = 2048;

/// A terminal until a view says otherwise, in cells.
const TERMINAL: Mode = Mode::Terminal { columns: 200, rows: 50 };

/// Sockets of an attempt, below its directory of sockets.
pub(super) const CONTROL: &str = "control/shim";
pub(super) const VIEW: &str = "view/shim";
pub(super) const TMUX: &str = "view/tmux";

/// What an attempt has instead of what the executor's account has.
pub(super) struct Own {
    pub(super) home: PathBuf,
    /// Of its account; none: the executor's own account, in a sandbox.
    pub(super) name: Option<String>,
}

/// Why the agent could not be started.
pub(super) enum Stopped {
    Failed(Failure),
    Journal(JournalError),
}

impl From<JournalError> for Stopped {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}

pub(super) fn failed(cause: Cause, error: impl ToString) -> Stopped {
    Stopped::Failed(Failure::new(cause, error.to_string()))
}

impl Life<'_> {
    /// Makes the workspace and starts the agent, or ends the attempt.
    pub(super) async fn prepare(&mut self, last: Option<Step>) -> Result<(), JournalError> {
        if last.is_none() {
            self.record(Step::Accepted).await?;
        }
        if !matches!(last, Some(Step::Preparing)) {
            self.record(Step::Preparing).await?;
        }
        let work = Blocking::default();
        let launch = tokio::select! {
            biased;
            () = wished(self.wish.clone(), Wish::Stop) => {
                self.unmake(&work).await;
                return self.end_before_start(Outcome::Cancelled).await;
            }
            launch = Box::pin(self.make_ready(&work)) => launch,
        };
        let started = match launch {
            Ok(launch) => {
                sculpt_failpoints::pass("shim.before_start");
                let started = shim::start(&self.context.program, &self.handle.dir, &launch).await;
                sculpt_failpoints::pass("shim.started");
                started.map_err(|error| failed(Cause::Internal, error))
            }
            Err(stopped) => {
                if matches!(stopped, Stopped::Failed(_)) {
                    self.unmake(&work).await;
                }
                Err(stopped)
            }
        };
        match started {
            // How it stands is seen at the next look.
            Ok(_) => Ok(()),
            Err(Stopped::Journal(error)) => Err(error),
            Err(Stopped::Failed(failure)) => {
                self.bury_what_never_lived().await;
                self.end_before_start(Outcome::Failed(failure)).await
            }
        }
    }

    /// A shim that did not come up may have left processes.
    async fn bury_what_never_lived(&self) {
        let (dir, id) = (self.handle.dir.clone(), self.handle.id.0);
        if dir.join(shim::files::LAUNCH).exists() {
            let _nothing_there = tokio::task::spawn_blocking(move || shim::bury(&dir, id)).await;
        }
    }

    /// Waits until nothing of an unfinished preparation runs any more, and takes back what it has made. An earlier attempt's
    /// workspace is not its own.
    async fn unmake(&self, work: &Blocking) {
        work.give_up().await;
        let own = self.spec.workspace_of.is_none().then(|| self.context.layout.workspace(self.handle.id));
        let (id, home) = (self.handle.id, self.private_home());
        let unmade = tokio::task::spawn_blocking(move || {
            let _never_entered = Cgroup::find(id.0).remove();
            let _absent = sculpt_walk::remove(&home);
            own.map_or(Ok(()), |own| workspace::remove(&own))
        });
        if let Ok(Err(error)) = unmade.await {
            // It goes with the attempt.
            warn!(attempt = %id, %error, "could not remove a workspace that was not finished");
        }
        // Last: the next attempt that has it must find nothing here.
        self.context.accounts.release(id);
    }

    async fn make_ready(&self, work: &Blocking) -> Result<Launch, Stopped> {
        let keep = self.handle.dir.join(files::KEEP);
        disk::reserve(&keep, KEEP_ROOM).map_err(|error| {
            failed(Cause::Workspace, format!("could not reserve room in {}: {error}", self.handle.dir.display()))
        })?;
        let account = self.account(work).await?;
        let path = self.context.layout.workspace(self.handle.id);
        let cwd = match self.spec.workspace_of {
            Some(earlier) => Box::pin(self.go_on_in(earlier, account.as_ref(), work)).await?,
            None => self.fresh(&path, account.as_ref(), work).await?,
        };
        self.launch(&path, cwd, account, work).await
    }

    /// Makes a clone of its own, or an empty directory; returns where the agent starts.
    async fn fresh(&self, path: &Path, account: Option<&Account>, work: &Blocking) -> Result<PathBuf, Stopped> {
        let Some(repository) = &self.spec.repository else {
            let (root, account) = (path.to_owned(), account.cloned());
            let made = work.run(move |_| workspace::scratch(&root, account.as_ref())).await;
            made.map_err(WorkspaceError::from)
                .and_then(|made| made)
                .map_err(|error| failed(Cause::Workspace, error))?;
            return Ok(path.to_owned());
        };
        let store = self.store(repository).await?;
        let ready = workspace::check_out(path, &store, repository, &self.spec.requester, account, work);
        let ready = Box::pin(ready).await.map_err(|error| failed(Cause::Workspace, error))?;
        for note in ready.notes {
            self.note(note).await?;
        }
        Ok(ready.cwd)
    }

    async fn account(&self, work: &Blocking) -> Result<Option<Account>, Stopped> {
        if !self.context.separation.by_accounts() {
            return Ok(None);
        }
        let (accounts, id, dir) = (self.context.accounts.clone(), self.handle.id, self.handle.dir.clone());
        let leased = work.run(move |_| {
            let account = accounts.lease(id).map_err(|error| error.to_string())?;
            let json = serde_json::to_vec(&account).map_err(|error| error.to_string())?;
            write_durably(&dir.join(files::ACCOUNT), &json).map_err(|error| error.to_string())?;
            Ok::<Account, String>(account)
        });
        match leased.await {
            Ok(Ok(account)) => Ok(Some(account)),
            Ok(Err(error)) => Err(failed(Cause::Setup, error)),
            Err(error) => Err(failed(Cause::Internal, error)),
        }
    }

    /// The project's store with the base in it; waits as long as the controller is away.
    pub(super) async fn fetch_store(&self, repository: &crate::spec::Repository) -> Result<PathBuf, StoreError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            match self.context.stores.ensure(&self.context.layout, &self.context.dialer, repository).await {
                Err(error @ (StoreError::Away(_) | StoreError::Lost(_))) => {
                    tracing::warn!(attempt = %self.handle.id, %error, "the base commit cannot be fetched yet");
                    backoff.wait().await;
                }
                result => return result,
            }
        }
    }

    pub(super) async fn store(&self, repository: &crate::spec::Repository) -> Result<PathBuf, Stopped> {
        self.fetch_store(repository).await.map_err(|error| failed(Cause::Workspace, error))
    }

    async fn launch(
        &self,
        workspace: &Path,
        cwd: PathBuf,
        account: Option<Account>,
        work: &Blocking,
    ) -> Result<Launch, Stopped> {
        let settings = &self.context.settings;
        let prompt = adapters::prompt_file(workspace);
        let adapter = adapters::of(settings, &self.spec).map_err(|error| failed(Cause::Setup, error))?;
        let start = adapter.start(&prompt).map_err(|error| failed(Cause::Setup, error))?;
        if let Some(text) = &start.prompt_file {
            write_prompt(&prompt, text, account.as_ref()).map_err(|error| {
                failed(Cause::Workspace, format!("could not write the prompt to {}: {error}", prompt.display()))
            })?;
        }
        let sockets = self.context.layout.sockets(self.handle.id);
        let mode = if account.is_some() { 0o711 } else { 0o700 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(&sockets).map_err(|error| {
            failed(Cause::Internal, format!("could not make the directory {}: {error}", sockets.display()))
        })?;
        let own = self.own(account.as_ref(), work).await.map_err(|error| {
            failed(Cause::Workspace, format!("could not make the attempt's home directory: {error}"))
        })?;
        let sandbox = self.around_agent(own.as_ref()).map_err(|why| failed(Cause::Setup, why))?;
        let id = self.handle.id.0;
        let limits = limits::tighter(settings.limits, self.spec.confinement.limits);
        let cgroup = work.run(move |_| Cgroup::prepare(id, limits)).await;
        let cgroup = cgroup.map_err(|error| failed(Cause::Internal, error))?;
        let separated = account.is_some() || sandbox.is_some();
        if let Some(text) = limits::unmet(&self.spec.confinement.limits, &cgroup, separated) {
            self.note(text).await?;
        }
        Ok(Launch {
            attempt: id,
            argv: start.argv.into_iter().map(ByteText::from).collect(),
            env: environment(settings, &self.spec, &start.env, own.as_ref(), &cwd, &sockets.join(VIEW)),
            cwd: cwd.into(),
            identity: account.as_ref().map(identity),
            mode: if self.spec.tty { TERMINAL } else { Mode::Pipes },
            stdin: start.prompt_on_stdin.then(|| prompt.into()),
            timeout: self.spec.timeout,
            lease: self.lease().await,
            grace: GRACE,
            quiet: None,
            processes: limits::of_account(&limits, &cgroup, separated),
            goes_first: limits::goes_first(&limits, &cgroup),
            sandbox,
            cgroup,
            control_socket: sockets.join(CONTROL),
            view_socket: sockets.join(VIEW),
            boot_id: Some(self.context.boot.clone()),
        })
    }
}

pub(super) fn identity(account: &Account) -> Identity {
    Identity { uid: account.uid, gid: account.gid, groups: vec![account.gid] }
}

fn write_prompt(path: &Path, text: &str, account: Option<&Account>) -> std::io::Result<()> {
    use std::io::Write as _;
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())?;
    account.map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
}

/// Variables of the executor's environment that would lead an agent astray.
fn astray(key: &str) -> bool {
    const GIT: [&str; 7] = [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_PREFIX",
    ];
    const OTHER: [&str; 7] = ["DATABASE_URL", "TMUX", "TMUX_PANE", "OLDPWD", "COLUMNS", "LINES", "NOTIFY_SOCKET"];
    key.starts_with("SCULPT_") || GIT.contains(&key) || OTHER.contains(&key)
}

/// The agent's whole environment.
fn environment(
    settings: &Settings,
    spec: &Spec,
    adapter: &BTreeMap<String, String>,
    own: Option<&Own>,
    cwd: &Path,
    view_socket: &Path,
) -> BTreeMap<ByteText, ByteText> {
    let always = ["PATH", "LANG", "TZ"];
    let of_account = ["HOME", "USER", "LOGNAME", "SHELL"];
    let same_account = own.is_none_or(|own| own.name.is_none());
    let passed = |key: &OsString| {
        let Some(key) = key.to_str() else { return own.is_none() && settings.lifeline };
        let named = settings.pass_env.as_ref().is_some_and(|names| names.iter().any(|name| name == key));
        let whole = own.is_none() && (settings.lifeline || settings.pass_env.is_none());
        !astray(key) && (whole || named || always.contains(&key) || (same_account && of_account.contains(&key)))
    };
    let mut env: BTreeMap<ByteText, ByteText> =
        std::env::vars_os().filter(|(key, _)| passed(key)).map(|(key, value)| (key.into(), value.into())).collect();
    let has_shell = env.get(&ByteText::from("SHELL")).is_some_and(|shell| host::serves_people(shell.as_path()));
    let mut set = |key: &str, value: ByteText| env.insert(key.into(), value);
    if let Some(own) = own {
        set("HOME", own.home.clone().into());
        if let Some(name) = &own.name {
            set("USER", name.as_str().into());
            set("LOGNAME", name.as_str().into());
        }
    }
    // Where none is named, tmux takes that of the account, which may turn people away.
    if !has_shell {
        set("SHELL", host::shell().into());
    }
    set("PWD", cwd.into());
    // Nobody may be there to leave a pager; a task that wants one says so.
    set("PAGER", "cat".into());
    set("GIT_PAGER", "cat".into());
    for (key, value) in adapter.iter().chain(&spec.env) {
        set(key, value.as_str().into());
    }
    if spec.tty {
        set("TERM", "xterm-256color".into());
    }
    set("SCULPT_TASK", spec.task_number.to_string().into());
    set("SCULPT_ATTEMPT", spec.attempt.to_string().into());
    set(shim::SOCKET, shim::say_socket(view_socket).into());
    match &spec.repository {
        Some(repository) => set("SCULPT_PROJECT", repository.name.as_str().into()),
        None => set("SCULPT_PROJECT", "".into()),
    };
    if let Some(tool) = view_socket.parent() {
        let path = env.entry("PATH".into()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".into());
        put_last(path, tool);
    }
    env
}

/// Adds a directory to a PATH: what is installed goes before it. It is the account's, as people's shells are.
fn put_last(path: &mut ByteText, directory: &Path) {
    // An empty name is the directory in which somebody is.
    if !path.0.is_empty() && !path.0.ends_with(b":") {
        path.0.push(b':');
    }
    path.0.extend(directory.as_os_str().as_encoded_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_put_last_and_brings_no_other_with_it() {
        for (path, expected) in [("/usr/bin:/bin", "/usr/bin:/bin:/run/a"), ("", "/run/a"), ("/bin:", "/bin:/run/a")] {
            let mut path = ByteText::from(path);
            put_last(&mut path, Path::new("/run/a"));
            assert_eq!(path, ByteText::from(expected));
        }
    }
}
