//! Removes what nobody needs any more: by age, and earlier when the disk budget needs room. What is not published is never
//! removed; the plan says what goes and why, for the sweep and for whoever asks.

mod inventory;
pub mod plan;
mod published;
mod remove;

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use sculpt_proto::id::AttemptId;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{info, warn};

pub use plan::{Decision, Occasion, Subject};

use crate::{
    attempts::{Attempts, Context, Handle, files},
    shim::{self, Client, Launch, Liveness},
};

/// How often it looks without being woken.
const PERIOD: Duration = Duration::from_secs(30);

/// How soon it looks again when a shim was still there: most go within moments of the end.
const SOON: Duration = Duration::from_millis(500);

/// Questions that wait.
const QUESTIONS: usize = 8;

/// A person's question what can go, or the request that it goes.
#[derive(Debug)]
pub struct Question {
    /// What the person gives up.
    pub occasion: Occasion,
    /// Nothing is removed.
    pub dry_run: bool,
    /// Where the answer goes.
    pub answer: oneshot::Sender<io::Result<Vec<Line>>>,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What was decided.
    pub decision: Decision,
    /// Task and attempt number, when they are known.
    pub whose: Option<(u64, u32)>,
    /// Why it could not be removed.
    pub error: Option<String>,
}

/// Where questions are put.
#[derive(Clone, Debug)]
pub struct Door(mpsc::Sender<Question>);

/// Where they are answered.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

/// Both ends.
pub fn door() -> (Door, Questions) {
    let (door, questions) = mpsc::channel(QUESTIONS);
    (Door(door), Questions(questions))
}

impl Door {
    /// Puts a question; with too many waiting the answer is that nobody answers.
    pub fn ask(&self, occasion: Occasion, dry_run: bool) -> oneshot::Receiver<io::Result<Vec<Line>>> {
        let (answer, answered) = oneshot::channel();
        let _full = self.0.try_send(Question { occasion, dry_run, answer });
        answered
    }
}

/// Looks after every release, when room is needed, and every half minute, until cancelled.
pub async fn run(context: Arc<Context>, attempts: Attempts, mut questions: Questions) {
    let mut collector = Collector { context: Arc::clone(&context), attempts, tidied: BTreeSet::new() };
    remove::empty_trash(&context.layout);
    let mut swept: Option<(Instant, BTreeSet<AttemptId>)> = None;
    loop {
        let present = collector.tidy().await;
        let pause = if present.is_empty() { PERIOD } else { SOON };
        // Shims that have not gone are looked at often; the disk is when there is something new.
        if swept.as_ref().is_none_or(|(at, then)| at.elapsed() >= PERIOD || *then != present) {
            if let Err(error) = collector.collect(present.clone(), Occasion::Sweep, false).await {
                warn!(%error, "could not look for what can be removed");
            }
            swept = Some((Instant::now(), present));
        }
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = context.released.notified() => swept = None,
            () = tokio::time::sleep(pause) => {}
            Some(question) = questions.0.recv() => {
                let present = collector.tidy().await;
                let lines = collector.collect(present, question.occasion, question.dry_run).await;
                // Whoever asked may have gone.
                let _unheard = question.answer.send(lines);
            }
        }
    }
}

struct Collector {
    context: Arc<Context>,
    attempts: Attempts,
    /// Released attempts whose sockets and cgroup are gone.
    tidied: BTreeSet<AttemptId>,
}

impl Collector {
    /// Removes sockets and cgroups of released attempts whose shim has gone; returns those that something of has not.
    async fn tidy(&mut self) -> BTreeSet<AttemptId> {
        let all = self.attempts.all();
        let released = |handle: &&Arc<Handle>| handle.ended() && handle.released();
        let over: Vec<&Arc<Handle>> = all.iter().filter(released).collect();
        self.tidied.retain(|id| over.iter().any(|handle| handle.id == *id));
        let mut present = BTreeSet::new();
        for handle in over {
            if self.tidied.contains(&handle.id) {
                continue;
            }
            // Somebody may still be attached, and stand in the workspace.
            let liveness = shim::probe(&handle.dir).await;
            if matches!(liveness, Liveness::Present(_))
                && let Ok(launch) = Launch::read(&handle.dir)
            {
                // Its socket may have been gone when it was told before.
                let _gone = Client::new(&launch.control_socket).release().await;
            }
            if !matches!(liveness, Liveness::Absent(_)) {
                present.insert(handle.id);
                continue;
            }
            match remove::sockets(&self.context.layout, handle).await {
                Ok(true) => {
                    self.tidied.insert(handle.id);
                }
                // A shim that has let its lock go may still be on its way out.
                Ok(false) => {
                    present.insert(handle.id);
                }
                Err(error) => warn!(attempt = %handle.id, %error, "could not tidy up after a released attempt"),
            }
        }
        present
    }

    async fn collect(&self, present: BTreeSet<AttemptId>, occasion: Occasion, dry_run: bool) -> io::Result<Vec<Line>> {
        let inventory = inventory::take(&self.context, &self.attempts, present, occasion != Occasion::Sweep).await?;
        let space = self.context.room.standing().space;
        let plan = plan::plan(&inventory, self.context.settings.keep_workspaces, space, occasion);
        let mut lines = Vec::new();
        for decision in plan {
            let whose = match &decision.subject {
                Subject::Workspace(id) | Subject::Record(id) | Subject::Pack(id) => inventory
                    .attempts
                    .iter()
                    .find(|attempt| attempt.id == *id)
                    .map(|attempt| (attempt.task_number, attempt.number)),
                Subject::Loose(_) => None,
            };
            let error = if decision.removes() && !dry_run { self.remove(&decision).await.err() } else { None };
            lines.push(Line { decision, whose, error: error.map(|error| error.to_string()) });
        }
        if !dry_run && lines.iter().any(|line| line.decision.removes()) {
            self.context.room.recount();
        }
        Ok(lines)
    }

    async fn remove(&self, decision: &Decision) -> io::Result<()> {
        let result = match &decision.subject {
            Subject::Workspace(id) => self.remove_of(*id, self.context.layout.workspace(*id)).await,
            Subject::Record(id) => match self.remove_of(*id, self.context.layout.attempt(*id)).await {
                Ok(()) => {
                    self.attempts.forget(*id).await;
                    Ok(())
                }
                failed => failed,
            },
            Subject::Pack(id) => {
                let directory = self.context.layout.attempt(*id);
                let removed = self.remove_of(*id, directory.join(files::PACK)).await;
                self.context.room.sizes().forget(&directory);
                removed
            }
            Subject::Loose(path) => remove::tree(&self.context, path.clone()).await,
        };
        let (subject, why) = (&decision.subject, decision.verdict.to_string());
        match &result {
            Ok(()) => info!(?subject, bytes = decision.bytes, why, "removed what nobody needs"),
            Err(error) => warn!(?subject, %error, "could not remove what nobody needs"),
        }
        result
    }

    /// What was decided may have been overtaken: the controller may want the attempt again.
    async fn remove_of(&self, id: AttemptId, path: std::path::PathBuf) -> io::Result<()> {
        let session = self.context.session_number();
        if !self.attempts.get(id).is_some_and(|handle| handle.ended() && handle.confirmed(session)) {
            return Err(io::Error::other("the controller wants it again"));
        }
        remove::tree(&self.context, path).await
    }
}
