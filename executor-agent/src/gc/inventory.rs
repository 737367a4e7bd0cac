//! What is on the disk, as the plan needs it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sculpt_proto::id::AttemptId;
use sculpt_space::in_background;
use tokio::sync::oneshot;

use super::{
    plan::{Attempt, Hold, Inventory, Loose, Origin, Standing},
    published,
};
use crate::{
    attempts::{Attempts, Context, Handle, Released, files},
    journal::Stamp,
    report::{Outcome, Step},
};

/// Everything that is there. `present`: attempts whose shim has not gone. `live`: count also what is still written to, for
/// people; the plan needs the sizes of what can go alone.
pub(super) async fn take(
    context: &Arc<Context>,
    attempts: &Attempts,
    present: BTreeSet<AttemptId>,
    live: bool,
) -> io::Result<Inventory> {
    let (told, taken) = oneshot::channel();
    let (context, attempts) = (Arc::clone(context), attempts.clone());
    in_background(move || {
        // Nobody waits when the executor is ending.
        let _ending = told.send(look(&context, &attempts, &present, live));
    })?;
    taken.await.map_err(io::Error::other)
}

fn look(context: &Context, attempts: &Attempts, present: &BTreeSet<AttemptId>, live: bool) -> Inventory {
    let all = attempts.all();
    let wanted: BTreeSet<AttemptId> = all.iter().filter(|handle| !handle.ended()).filter_map(continues).collect();
    let known: BTreeSet<AttemptId> = all.iter().map(|handle| handle.id).collect();
    let now = Stamp::now(&context.boot);
    let size = |path: &Path, settled: bool| if settled || live { context.room.sizes().of(path, settled) } else { 0 };
    let found = |handle: &Arc<Handle>| attempt(context, handle, present, &wanted, &now, &size);
    let mut loose = strays(context, &context.layout.workspaces(), &known);
    loose.extend(aside(context));
    loose.extend(homes(context, &all));
    Inventory { attempts: all.iter().map(found).collect(), loose }
}

/// The attempt whose workspace this one goes on in.
fn continues(handle: &Arc<Handle>) -> Option<AttemptId> {
    handle.spec()?.workspace_of
}

fn attempt(
    context: &Context,
    handle: &Arc<Handle>,
    present: &BTreeSet<AttemptId>,
    wanted: &BTreeSet<AttemptId>,
    now: &Stamp,
    size: &impl Fn(&Path, bool) -> u64,
) -> Attempt {
    let released = Released::read(&handle.dir).filter(|_| handle.ended());
    let session = context.session_number();
    let standing = match &released {
        // What an earlier session said may be the word of another database.
        Some(_) if !handle.confirmed(session) => Standing::Unconfirmed { connected: session.is_some() },
        Some(released) => Standing::Released(released.at.age(now)),
        None if handle.ended() => Standing::Owed,
        None => Standing::AtWork,
    };
    let workspace = context.layout.workspace(handle.id);
    let settled = released.is_some() && !present.contains(&handle.id);
    let hold = if wanted.contains(&handle.id) {
        Some(Hold::Wanted)
    } else if present.contains(&handle.id) {
        Some(Hold::Attached)
    } else {
        let fenced = released.as_ref().is_some_and(|released| released.fenced);
        marked(&handle.dir).or_else(|| holds_work(handle, &workspace, fenced).then_some(Hold::Unpublished))
    };
    Attempt {
        id: handle.id,
        task_number: handle.spec().map_or(0, |spec| spec.task_number),
        number: handle.spec().map_or(0, |spec| spec.number),
        standing,
        hold,
        log_complete: released.is_some_and(|released| released.log_complete),
        workspace: workspace.exists().then(|| size(&workspace, settled)),
        record: size(&handle.dir, settled),
        pack: fs::metadata(handle.dir.join(files::PACK)).ok().map(|found| found.len()),
    }
}

fn marked(dir: &Path) -> Option<Hold> {
    let why = fs::read(dir.join(files::KEEP)).ok()?;
    Some(Hold::Marked(String::from_utf8_lossy(&why).trim().chars().take(200).collect()))
}

/// A fenced attempt is not gathered: whatever it committed stands in its workspace alone. All others were gathered, and are
/// marked when that failed. `fenced`: the controller has not listened to how it ended, and may not have what it published.
fn holds_work(handle: &Handle, workspace: &Path, fenced: bool) -> bool {
    let Some(journal) = handle.journal() else { return false };
    let fenced = fenced || journal.ended().is_some_and(|ended| ended.outcome == Outcome::Fenced);
    let ran = || journal.range(1, u64::MAX).iter().any(|entry| matches!(entry.step, Step::Running { .. }));
    let Some(repository) = handle.spec().and_then(|spec| spec.repository.as_ref()) else { return false };
    let work = || workspace.exists() && !published::holds_only(workspace, &repository.base);
    fenced && ran() && (work() || handle.dir.join(files::PACK).exists())
}

/// Workspaces of attempts that are not known.
fn strays(context: &Context, workspaces: &Path, known: &BTreeSet<AttemptId>) -> Vec<Loose> {
    let unknown = |path: &PathBuf| {
        // What stands beside a workspace has its name, and an ending.
        let id = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        id.is_none_or(|id| !known.contains(&id))
    };
    let paths = entries(workspaces).filter(unknown);
    paths.map(|path| Loose { bytes: context.room.sizes().of(&path, true), path, origin: Origin::Stray }).collect()
}

/// What was put aside as damaged.
fn aside(context: &Context) -> Vec<Loose> {
    let origin = |path: &Path| {
        let at = fs::symlink_metadata(path).and_then(|found| found.modified());
        // A clock that was set back makes it younger, never older.
        at.map_or(Origin::Stray, |at| Origin::Aside(SystemTime::now().duration_since(at).unwrap_or(Duration::ZERO)))
    };
    let paths = entries(&context.layout.quarantine());
    paths.map(|path| Loose { bytes: context.room.sizes().of(&path, true), origin: origin(&path), path }).collect()
}

/// Private homes of attempts that are over: whoever ended while it let go of what only a living agent needs left one, and so
/// did one that was put aside. Accounts have theirs in the same place, under their names.
fn homes(context: &Context, all: &[Arc<Handle>]) -> Vec<Loose> {
    let over = |path: &PathBuf| {
        let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<AttemptId>().ok());
        id.is_some_and(|id| match all.iter().find(|handle| handle.id == id) {
            Some(handle) => handle.over(),
            // One that came meanwhile has its directory, and all seem to lack theirs on a volume that is not mounted.
            None => context.layout.lacks(id).unwrap_or(false),
        })
    };
    let paths = entries(&context.layout.homes()).filter(over);
    paths.map(|path| Loose { bytes: context.room.sizes().of(&path, true), path, origin: Origin::Home }).collect()
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}
