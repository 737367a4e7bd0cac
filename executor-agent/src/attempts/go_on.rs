//! A retry in the workspace that an earlier attempt has left on this executor.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sculpt_proto::id::AttemptId;

use super::{
    Handle, aside, files,
    life::Life,
    prepare::{Stopped, failed, identity},
};
use crate::{
    accounts::{Account, Accounts},
    blocking::Blocking,
    connect::Backoff,
    disk,
    harvest::{self, Container},
    report::Cause,
    session::Wish,
    tree,
    workspace::{self, ownership, surviving},
};

/// What people can do when the workspace does not serve.
const ADVICE: &str = "`sculpt retry TASK` starts in a fresh clone";

/// Why a workspace is kept until this attempt has gathered what is in it.
const NOT_GATHERED: &str = "what was never committed there is not gathered yet";

impl Life<'_> {
    /// Moves the workspace of the attempt `of` here and makes it ready; returns where the agent starts.
    pub(super) async fn go_on_in(
        &self,
        of: AttemptId,
        account: Option<&Account>,
        work: &Blocking,
    ) -> Result<PathBuf, Stopped> {
        let earlier = self.earlier(of).await;
        let path = self.context.layout.workspace(self.handle.id);
        let name =
            earlier.first().and_then(|handle| handle.spec()).map_or_else(|| of.to_string(), |it| it.number.to_string());
        let unusable = |why: String| {
            failed(Cause::Workspace, format!("the workspace of attempt {name} cannot be used: {why}; {ADVICE}"))
        };
        let place = |handle: &Arc<Handle>| self.context.layout.workspace(handle.id);
        // A try before a restart may have moved it.
        if !surviving::stands(&path) {
            // An attempt that ended before it had moved its workspace has left it where it was.
            let Some(left) = earlier.iter().find(|handle| surviving::stands(&place(handle))) else {
                let host = &self.context.settings.name;
                let text = format!("the workspace of attempt {name} is gone from {host}; {ADVICE}");
                return Err(failed(Cause::Workspace, text));
            };
            self.keep_what_was_kept(left).map_err(|error| unusable(error.to_string()))?;
            if let Err(error) = surviving::relocate(&place(left), &path) {
                if !surviving::stands(&path) {
                    let _absent = fs::remove_file(self.handle.dir.join(files::KEEP));
                }
                return Err(failed(Cause::Workspace, error));
            }
        }
        for handle in earlier.iter().filter(|handle| !surviving::stands(&place(handle))) {
            // What it marked is here now, under a mark of its own.
            let _absent = fs::remove_file(handle.dir.join(files::KEEP));
        }
        fit(&earlier, &path, &self.context.accounts, account, work).await.map_err(unusable)?;
        let Some(repository) = &self.spec.repository else { return Ok(path) };
        self.store(repository).await?;
        let container = Container {
            program: self.context.program.clone(),
            identity: account.map(identity),
            sandbox: self.around_git(repository),
            cgroups: Vec::new(),
            attempt: self.handle.id.to_string(),
        };
        let resumed = harvest::resume(&container, &path, &repository.base, &repository.branch).await;
        let mut notes = resumed.map_err(|error| unusable(error.to_string()))?;
        let cwd = workspace::starting_point(&path, &repository.subdirectory, &mut notes);
        for note in notes {
            self.note(note).await?;
        }
        Ok(cwd)
    }

    /// The attempt `of`, and those whose workspace it went on in itself, newest first; once they are over, since one that
    /// was lost may still be ending.
    async fn earlier(&self, of: AttemptId) -> Vec<Arc<Handle>> {
        let mut found: Vec<Arc<Handle>> = Vec::new();
        let mut next = Some(of);
        while let Some(id) = next {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
            // Another one stands in its place when it was put aside meanwhile.
            while id != self.handle.id && self.attempts.get(id).is_some_and(|handle| !handle.over()) {
                backoff.wait().await;
            }
            let Some(handle) = self.attempts.get(id).or_else(|| self.forgotten(id)) else { break };
            let of_another_task = handle.spec().is_some_and(|spec| spec.task != self.spec.task);
            let seen = id == self.handle.id || found.iter().any(|known| known.id == id);
            if seen || of_another_task {
                break;
            }
            next = handle.spec().and_then(|spec| spec.workspace_of);
            found.push(handle);
        }
        found
    }

    /// An attempt that was put aside and given up since: its workspace stays until a person removes it.
    fn forgotten(&self, id: AttemptId) -> Option<Arc<Handle>> {
        let layout = &self.context.layout;
        let stands = surviving::stands(&layout.workspace(id));
        let dir = aside::last_of(&layout.quarantine(), id).unwrap_or_else(|| layout.attempt(id));
        stands.then(|| Arc::new(Handle::new(id, dir, Wish::Run)))
    }

    /// What must not be thrown away there must not be thrown away here, also when this attempt ends before it has gathered
    /// anything.
    fn keep_what_was_kept(&self, left: &Handle) -> io::Result<()> {
        let why = match fs::read(left.dir.join(files::KEEP)) {
            Ok(why) => why,
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            // Without a repository nothing is ever gathered, so nothing would take the mark away.
            Err(_) if self.spec.repository.is_none() => return Ok(()),
            Err(_) => NOT_GATHERED.as_bytes().to_vec(),
        };
        // Not into the reserved room, which is for what goes wrong later.
        disk::write_durably(&self.handle.dir.join(files::KEEP), &why)
    }
}

/// Gives the workspace, which belongs to the account of one of these attempts, to that of the one to come. The error is the
/// reason for people.
async fn fit(
    earlier: &[Arc<Handle>],
    path: &Path,
    accounts: &Accounts,
    account: Option<&Account>,
    work: &Blocking,
) -> Result<(), String> {
    let mut owners = BTreeSet::new();
    for handle in earlier {
        let known = handle.account().map_err(|error| format!("its account cannot be read: {error}"))?;
        owners.extend(known.map(|account| account.uid));
    }
    let account = match account {
        None if owners.is_empty() => return Ok(()),
        None => return Err("it belongs to an account of its own, and attempts have none here any more".to_owned()),
        Some(_) if owners.is_empty() => return Err("it was made without an account of its own".to_owned()),
        Some(account) => account.clone(),
    };
    let (path, accounts) = (path.to_owned(), accounts.clone());
    let given = work.run(move |given_up| {
        // What is left of an attempt may stand in its workspace, and put there what is not its own.
        let busy = tree::busy_accounts();
        if let Some(uid) = owners.iter().find(|uid| busy.contains(uid) && !accounts.leased(**uid)) {
            return Err(format!("processes of its account (uid {uid}) still run"));
        }
        ownership::hand_over(&path, &owners, &account, given_up).map_err(|error| error.to_string())
    });
    given.await.map_err(|error| error.to_string())?
}
