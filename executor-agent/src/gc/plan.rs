//! PURE: what goes and what is kept, and why. The sweep, a person's request and its dry run all do what this says.

use std::{cmp::Reverse, fmt, path::PathBuf, time::Duration};

use sculpt_proto::id::AttemptId;
use sculpt_space::Space;

/// How long the record of a released attempt is kept: a failover may make the controller lose the end of the log it held.
pub const RETENTION: Duration = Duration::from_secs(24 * 3_600);

/// How long it is kept even when room is needed, and then only when the controller is known to hold all of the log.
const LEAST: Duration = Duration::from_secs(3_600);

/// How long what was put aside as damaged is kept for a person to look at.
pub const ASIDE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Room is made from here on, in percent of the budget: before the executor has to close.
const MAKE_ROOM: u64 = 78;

/// Until so much is left in use: below where a closed executor opens.
const ENOUGH: u64 = 70;

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not ended.
    AtWork,
    /// The controller does not hold everything of it yet.
    Owed,
    /// The controller released it so long ago.
    Released(Duration),
    /// It was released, and the controller has not said so in this session.
    Unconfirmed {
        /// There is a session.
        connected: bool,
    },
}

/// Why nothing of an attempt may go, however old it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A person is in its terminal, or its shim has not gone yet.
    Attached,
    /// Its workspace was marked, with this reason.
    Marked(String),
    /// Its workspace has commits that the controller does not have.
    Unpublished,
    /// A new attempt goes on in its workspace.
    Wanted,
}

/// An attempt as it stands on disk. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Its task's number.
    pub task_number: u64,
    /// Its number within its task.
    pub number: u32,
    /// How far it is.
    pub standing: Standing,
    /// What protects it.
    pub hold: Option<Hold>,
    /// The controller is known to hold all of its log.
    pub log_complete: bool,
    /// Its workspace, if it has one.
    pub workspace: Option<u64>,
    /// Its journal and its recording, and what it has published.
    pub record: u64,
    /// What it has published, of that.
    pub pack: Option<u64>,
}

/// Something that belongs to no attempt that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loose {
    /// Where it stands.
    pub path: PathBuf,
    /// What it takes, in bytes.
    pub bytes: u64,
    /// What it is.
    pub origin: Origin,
}

/// What belongs to no attempt that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody knows.
    Stray,
    /// It was put aside as damaged so long ago.
    Aside(Duration),
    /// The private home of an attempt that is over: nothing in it is anybody's.
    Home,
}

/// All that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Attempts.
    pub attempts: Vec<Attempt>,
    /// The rest.
    pub loose: Vec<Loose>,
}

/// On whose behalf it is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The executor's own.
    Sweep,
    /// A person's.
    Asked,
    /// A person's who gives up what is kept for its age alone.
    AskedForAll,
}

/// What a decision is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The working copy of an attempt.
    Workspace(AttemptId),
    /// The journal and the recording of an attempt, and whatever else is left of it.
    Record(AttemptId),
    /// What an attempt has published, alone.
    Pack(AttemptId),
    /// What belongs to no attempt that can be read.
    Loose(PathBuf),
}

/// Why something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its time is over.
    Age,
    /// Room is needed, and it is the oldest.
    Room,
    /// A person gave it up.
    Asked,
    /// It served an attempt that is over.
    Over,
}

/// Why something is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is in use.
    AtWork,
    /// The controller does not hold everything of it yet.
    Owed,
    /// The controller has not said in this session that it holds everything of it.
    Unconfirmed {
        /// There is a session.
        connected: bool,
    },
    /// It must never go by itself.
    Held(Hold),
    /// Its time is not over.
    Young(Duration),
    /// It stays as long as the workspace.
    WithWorkspace,
    /// Nobody knows what it is.
    Stray,
    /// Its time is over, and it goes when room is needed or a person asks.
    Aside,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Remove(Gone),
    /// It stays.
    Keep(Kept),
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// About what.
    pub subject: Subject,
    /// What that takes, in bytes.
    pub bytes: u64,
    /// What becomes of it.
    pub verdict: Verdict,
}

impl Decision {
    /// Whether it goes.
    pub fn removes(&self) -> bool {
        matches!(self.verdict, Verdict::Remove(_))
    }
}

/// Decides about everything in `inventory`: first by age, then, oldest first, until there is room. A record outlives its
/// workspace, and so does what was published, which a database may lose.
pub fn plan(inventory: &Inventory, keep_workspaces: Duration, space: Space, occasion: Occasion) -> Vec<Decision> {
    let mut attempts: Vec<&Attempt> = inventory.attempts.iter().collect();
    attempts.sort_by_key(|attempt| match attempt.standing {
        Standing::Released(age) => Reverse(age),
        Standing::AtWork | Standing::Owed | Standing::Unconfirmed { .. } => Reverse(Duration::ZERO),
    });
    let mut room = Room::needed(space);
    let mut decisions: Vec<Decision> = attempts
        .iter()
        .filter_map(|attempt| {
            let verdict = by_age(attempt, keep_workspaces, occasion);
            attempt.workspace.map(|bytes| room.decide(Subject::Workspace(attempt.id), bytes, verdict))
        })
        .collect();
    // What goes by its age first, so that no more than needed goes for the sake of room.
    let pressed = space.percent() >= MAKE_ROOM;
    let aged = |attempt: &&Attempt| record_by_age(attempt, &decisions, occasion, pressed);
    let records: Vec<Verdict> = attempts.iter().map(aged).collect();
    let records = attempts.iter().zip(records);
    let mut records: Vec<Decision> =
        records.map(|(attempt, verdict)| room.decide(Subject::Record(attempt.id), attempt.record, verdict)).collect();
    let mut loose: Vec<Decision> = inventory
        .loose
        .iter()
        .map(|loose| room.decide(Subject::Loose(loose.path.clone()), loose.bytes, loose_by_age(loose, occasion)))
        .collect();
    for decision in &mut decisions {
        if matches!(decision.verdict, Verdict::Keep(Kept::Young(_))) {
            room.take(decision);
        }
    }
    let mut packs = Vec::new();
    for (attempt, record) in attempts.iter().zip(&mut records) {
        if let Some(bytes) = pack_alone(attempt, &decisions).filter(|_| !record.removes() && room.0 > 0) {
            packs.push(room.decide(Subject::Pack(attempt.id), bytes, Verdict::Remove(Gone::Room)));
            record.bytes = record.bytes.saturating_sub(bytes);
        }
    }
    for (attempt, decision) in attempts.iter().zip(&mut records) {
        if may_go_early(attempt) && !stays(attempt.id, &decisions) && !decision.removes() {
            room.take(decision);
        }
    }
    for decision in &mut loose {
        if decision.verdict == Verdict::Keep(Kept::Aside) {
            room.take(decision);
        }
    }
    decisions.extend(packs);
    decisions.extend(records);
    decisions.extend(loose);
    decisions
}

/// Bytes that still have to go.
struct Room(u64);

impl Room {
    fn needed(space: Space) -> Self {
        Self(if space.percent() >= MAKE_ROOM { space.excess(ENOUGH) } else { 0 })
    }

    fn decide(&mut self, subject: Subject, bytes: u64, verdict: Verdict) -> Decision {
        let decision = Decision { subject, bytes, verdict };
        if decision.removes() {
            self.0 = self.0.saturating_sub(bytes);
        }
        decision
    }

    fn take(&mut self, decision: &mut Decision) {
        if self.0 > 0 {
            decision.verdict = Verdict::Remove(Gone::Room);
            self.0 = self.0.saturating_sub(decision.bytes);
        }
    }
}

fn by_age(attempt: &Attempt, keep: Duration, occasion: Occasion) -> Verdict {
    let age = match protected(attempt) {
        Ok(age) => age,
        Err(kept) => return Verdict::Keep(kept),
    };
    match occasion {
        _ if age >= keep => Verdict::Remove(Gone::Age),
        Occasion::AskedForAll => Verdict::Remove(Gone::Asked),
        Occasion::Sweep | Occasion::Asked => Verdict::Keep(Kept::Young(keep - age)),
    }
}

/// `pressed`: room is needed, and then a person may give up what is kept in case the controller loses what it holds.
fn record_by_age(attempt: &Attempt, workspaces: &[Decision], occasion: Occasion, pressed: bool) -> Verdict {
    let age = match protected(attempt) {
        Ok(age) => age,
        Err(kept) => return Verdict::Keep(kept),
    };
    if stays(attempt.id, workspaces) {
        return Verdict::Keep(Kept::WithWorkspace);
    }
    match occasion {
        _ if age >= RETENTION => Verdict::Remove(Gone::Age),
        Occasion::AskedForAll if may_go_early(attempt) || (pressed && attempt.log_complete) => {
            Verdict::Remove(Gone::Asked)
        }
        Occasion::Sweep | Occasion::Asked | Occasion::AskedForAll => Verdict::Keep(Kept::Young(RETENTION - age)),
    }
}

fn loose_by_age(loose: &Loose, occasion: Occasion) -> Verdict {
    match (loose.origin, occasion) {
        (Origin::Home, _) => Verdict::Remove(Gone::Over),
        (Origin::Stray, _) => Verdict::Keep(Kept::Stray),
        (Origin::Aside(age), _) if age < ASIDE => Verdict::Keep(Kept::Young(ASIDE - age)),
        (Origin::Aside(_), Occasion::Sweep) => Verdict::Keep(Kept::Aside),
        (Origin::Aside(_), Occasion::Asked | Occasion::AskedForAll) => Verdict::Remove(Gone::Age),
    }
}

/// How long ago it was released, or why nothing of it may go.
fn protected(attempt: &Attempt) -> Result<Duration, Kept> {
    match (attempt.standing, &attempt.hold) {
        (Standing::AtWork, _) => Err(Kept::AtWork),
        (Standing::Owed | Standing::Unconfirmed { .. } | Standing::Released(_), Some(hold)) => {
            Err(Kept::Held(hold.clone()))
        }
        (Standing::Owed, None) => Err(Kept::Owed),
        (Standing::Unconfirmed { connected }, None) => Err(Kept::Unconfirmed { connected }),
        (Standing::Released(age), None) => Ok(age),
    }
}

/// A pack that may go before its record: it outlives the workspace, so that one of the two is left as long as there is room.
fn pack_alone(attempt: &Attempt, workspaces: &[Decision]) -> Option<u64> {
    attempt.pack.filter(|_| protected(attempt).is_ok() && !stays(attempt.id, workspaces))
}

fn may_go_early(attempt: &Attempt) -> bool {
    attempt.log_complete && protected(attempt).is_ok_and(|age| age >= LEAST)
}

fn stays(id: AttemptId, workspaces: &[Decision]) -> bool {
    workspaces.iter().any(|decision| decision.subject == Subject::Workspace(id) && !decision.removes())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(gone) => gone.fmt(f),
            Self::Keep(kept) => kept.fmt(f),
        }
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Age => "it was kept for its time",
            Self::Room => "the disk budget needs room, and it is among the oldest",
            Self::Asked => "a person gave it up",
            Self::Over => "the attempt that it served is over",
        })
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtWork => f.write_str("its attempt has not ended"),
            Self::Owed => f.write_str("the controller does not hold everything of its attempt yet"),
            Self::Unconfirmed { connected: true } => {
                f.write_str("the controller does not say that it knows its attempt; see `sculpt executor adopt`")
            }
            Self::Unconfirmed { connected: false } => {
                f.write_str("the controller is away, and has to say again that it holds everything of its attempt")
            }
            Self::Held(Hold::Attached) => f.write_str("somebody is in its terminal"),
            Self::Held(Hold::Marked(why)) => write!(f, "marked to be kept: {why}"),
            Self::Held(Hold::Unpublished) => f.write_str("it has commits that the controller does not have"),
            Self::Held(Hold::Wanted) => f.write_str("another attempt goes on in it"),
            Self::Young(left) => {
                // Nobody wants to read milliseconds.
                let left = Duration::from_secs(left.as_secs().div_ceil(60) * 60);
                write!(f, "kept for {} more, as long as there is room", humantime::format_duration(left))
            }
            Self::WithWorkspace => f.write_str("kept as long as its workspace"),
            Self::Stray => f.write_str("it belongs to no attempt that can be read; look into it and remove it by hand"),
            Self::Aside => f.write_str("damaged and put aside; goes when room is needed, or with `sculpt executor gc`"),
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
