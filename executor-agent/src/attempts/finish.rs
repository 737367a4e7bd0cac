//! After the agent's end: gather, publish, report, clean up.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use sculpt_space::Level;
use tracing::warn;

use super::{
    LogEnd, again, files,
    life::{Life, wished},
    limits,
    plan::{self, End},
    prepare::{KEEP_ROOM, identity},
};
use crate::{
    adapters,
    cgroup::Leaf,
    disk,
    harvest::{self, Commit, Container, Harvest, HarvestError},
    journal::JournalError,
    report::{Cause, Ended, Failure, Outcome, Step},
    session::Wish,
    shim::{self, Client, Launch},
    spec::{Repository, Work},
    workspace::{git::GitError, ownership},
};

/// How often a failed gathering is tried again.
const TRIES: u32 = 3;

/// What the system, and git in some places, say of a full disk.
const FULL: [&str; 2] = ["No space left on device", "Out of diskspace"];

/// How often it is looked whether a full disk has room again.
const ROOM: Duration = Duration::from_secs(2);

/// What is handed over.
enum Handed {
    Nothing,
    Head(String),
    Failed(Failure),
}

impl Life<'_> {
    /// Ends the attempt, with everything that it made handed over.
    pub(super) async fn finish(&mut self, last: Option<Step>, end: End) -> Result<(), JournalError> {
        // People's shells end before anything is gathered.
        self.context.people.ends.send_modify(|ends| *ends += 1);
        // Apart: a view that hangs keeps no end back.
        self.attempts.tracker.spawn(Arc::clone(self.handle).tell_of_the_end(Arc::clone(self.context)));
        self.handle.write_last_keys(self.context).await;
        // What was said while the executor was away.
        if let Err(error) = self.handle.take_milestones(self.context).await {
            // What an attempt says of itself keeps no end back, for which a full disk still has room.
            warn!(attempt = %self.handle.id, %error, "milestones that were said last were not written down");
        }
        let log_length = self.log_length(&end).await?;
        self.handle.grew(self.context, LogEnd { length: log_length, finished: true });
        let exit = plan::exit(&end);
        let started = !matches!(&end, End::Recorded(record) if matches!(record.outcome, shim::Outcome::NotStarted(_)));
        let mut running = matches!(last, Some(Step::Running { .. }));
        if started && !running && !matches!(last, Some(Step::Finalizing { .. })) {
            // It ended while the executor was away, or faster than anybody could look.
            if last.is_none() {
                self.record(Step::Accepted).await?;
            }
            if !matches!(last, Some(Step::Preparing)) {
                self.record(Step::Preparing).await?;
            }
            self.record(Step::Running { pid: 0, tmux_socket: String::new() }).await?;
            running = true;
        }
        if running {
            self.record(Step::Finalizing { exit }).await?;
        }
        if matches!(&end, End::Recorded(record) if record.left_over) {
            self.note("processes of the agent are left that could not be ended").await?;
        }
        let limits = limits::tighter(self.context.settings.limits, self.spec.confinement.limits);
        if let (Some(limit), true) = (limits.pids, self.was_refused_processes()) {
            self.note(format!("it wanted more than the {limit} processes that it may have (pids_limit)")).await?;
        }
        let handed = tokio::select! {
            biased;
            () = wished(self.wish.clone(), Wish::Fence) => Handed::Nothing,
            handed = Box::pin(self.hand_over(started && end != End::Removed)) => handed?,
        };
        let mut outcome = plan::judge(&end, self.wished(), &self.agent(), self.spec.timeout);
        let head = match handed {
            Handed::Nothing => None,
            Handed::Head(head) => Some(head),
            Handed::Failed(failure) => {
                match &outcome {
                    // Work that cannot be handed over matters more than how the agent ended, which stands in `exit`.
                    Outcome::Completed | Outcome::Cancelled | Outcome::Failed(_) => outcome = Outcome::Failed(failure),
                    Outcome::Fenced => {}
                }
                None
            }
        };
        self.record(Step::Ended(Ended { outcome, exit, log_length, head })).await
    }

    fn was_refused_processes(&self) -> bool {
        Launch::read(&self.handle.dir).is_ok_and(|launch| launch.cgroup.out_of_processes())
    }

    fn agent(&self) -> String {
        match (&self.spec.work, &self.spec.agent) {
            (Work::Command(argv), _) => argv.first().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default(),
            (Work::Prompt(_), Some(agent)) => agent.clone(),
            (Work::Prompt(_), None) => self.context.settings.default_agent.clone().unwrap_or_default(),
        }
    }

    async fn hand_over(&self, started: bool) -> Result<Handed, JournalError> {
        let Some(repository) = self.spec.repository.as_ref().filter(|_| started) else { return Ok(Handed::Nothing) };
        let harvest = match self.gather(repository).await? {
            Ok(harvest) => harvest,
            Err(why) => {
                self.keep(&why)?;
                let text = format!("what the agent made could not be gathered, and stays in the workspace: {why}");
                return Ok(Handed::Failed(Failure::new(Cause::Publish, text)));
            }
        };
        for note in &harvest.notes {
            self.note(note.clone()).await?;
        }
        match &harvest.keep {
            Some(why) => self.keep(why)?,
            // Its damaged recording is what it is kept for.
            None if self.handle.log_break().is_some() => {}
            // What an earlier attempt had left in this workspace is gathered with the rest.
            None => {
                let _absent = fs::remove_file(self.handle.dir.join(files::KEEP));
            }
        }
        let Some(found) = harvest.found else { return Ok(Handed::Nothing) };
        sculpt_failpoints::pass("pack.kept");
        match self.publish(&found).await? {
            Ok(head) => {
                sculpt_failpoints::pass("pack.published");
                again::keep(&self.handle.dir, &found.pack);
                let _kept = fs::remove_dir_all(self.handle.dir.join(files::QUARANTINE));
                Ok(Handed::Head(head))
            }
            Err(why) => {
                self.keep(&why)?;
                let text =
                    format!("the controller did not take what the agent made, which stays in the workspace: {why}");
                Ok(Handed::Failed(Failure::new(Cause::Publish, text)))
            }
        }
    }

    async fn gather(&self, repository: &Repository) -> Result<Result<Harvest, String>, JournalError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let store = match self.fetch_store(repository).await {
                Ok(store) => store,
                Err(error) => return Ok(Err(error.to_string())),
            };
            let error = match harvest::harvest(&self.plan(repository, store)).await {
                Ok(harvest) => return Ok(Ok(harvest)),
                Err(error) => error,
            };
            warn!(attempt = %self.handle.id, %error, tries, "could not gather what the agent made");
            if self.lacks_room(&error) {
                self.note("gathering what was made has to wait: the executor's disk is full").await?;
                tries = 0;
                tokio::time::sleep(ROOM).await;
                continue;
            }
            // What hung once hangs again, and meanwhile the attempt holds its slot.
            if tries == TRIES || matches!(error, HarvestError::Git(GitError::Slow { .. })) {
                return Ok(Err(error.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Only with the figures of the disk beside them: an agent may have a say in git's words.
    fn lacks_room(&self, error: &HarvestError) -> bool {
        let full = self.context.room.standing().level != Level::Open;
        let text = error.to_string();
        full && FULL.iter().any(|words| text.contains(words))
    }

    fn plan(&self, repository: &Repository, store: PathBuf) -> harvest::Plan {
        let workspace = self.context.layout.workspace(self.handle.id);
        // What cannot be read is met before it comes to this.
        let account = self.handle.account().ok().flatten();
        if let Some(account) = &account {
            // A try before a restart may have closed it.
            let _same = ownership::reopen(&workspace, account);
        }
        let leaves =
            Launch::read(&self.handle.dir).map(|launch| launch.cgroup.procs_files(Leaf::Agent)).unwrap_or_default();
        let message = format!(
            "Keep the uncommitted changes of task {}\n\nThey were in the working copy when {} ended; sculpt committed them.\n\nTask: {}\n",
            self.spec.task_number,
            self.agent(),
            self.spec.title,
        );
        harvest::Plan {
            workspace,
            base: repository.base.clone(),
            store,
            quarantine: self.handle.dir.join(files::QUARANTINE),
            commit: self.spec.commit_changes.then(|| Commit { requester: self.spec.requester.clone(), message }),
            container: Container {
                program: self.context.program.clone(),
                identity: account.as_ref().map(identity),
                sandbox: self.around_git(repository),
                cgroups: leaves.into_iter().filter(|leaf| leaf.exists()).collect(),
                attempt: self.handle.id.to_string(),
            },
        }
    }

    /// Without this on disk the attempt does not end: what is not published would be removed once it is released.
    pub(super) fn keep(&self, why: &str) -> Result<(), JournalError> {
        let path = self.handle.dir.join(files::KEEP);
        let why = &why.as_bytes()[..why.len().min(KEEP_ROOM)];
        disk::fill_reserved(&path, why).map_err(|source| JournalError::Io {
            attempt: "note that the workspace is kept beside",
            path,
            source,
        })
    }

    /// Lets go of everything that only a living agent needs. May be repeated.
    pub(super) async fn rest(&self) {
        if let Some(ended) = self.handle.journal().and_then(crate::journal::Journal::ended) {
            self.handle.grew(self.context, LogEnd { length: ended.log_length, finished: true });
        }
        if let Ok(launch) = Launch::read(&self.handle.dir) {
            // A shim that has gone needs no word.
            let _gone = Client::new(&launch.control_socket).release().await;
        }
        let workspace = self.context.layout.workspace(self.handle.id);
        let _absent = fs::remove_file(adapters::prompt_file(&workspace));
        disk::unreserve(&self.handle.dir.join(files::KEEP));
        let home = self.private_home();
        // One that cannot be removed now is the executor's, and in nobody's way.
        let _absent = tokio::task::spawn_blocking(move || sculpt_walk::remove(&home)).await;
        if !matches!(self.handle.account(), Ok(None)) {
            // The next attempt under this account must not read it.
            let _absent = ownership::close(&workspace);
            self.context.accounts.release(self.handle.id);
        }
    }
}
