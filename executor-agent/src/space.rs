//! How much of its disk budget the executor uses, and whether it takes new work.
//!
//! The file system is asked every few seconds, which costs nothing. What is ours on it is counted seldom, on a thread that
//! gives way to everything else; what belongs to attempts that are over is counted once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sculpt_space::{Disk, Gauge, Level, Space, in_background, on_disk};
use tokio::sync::{Notify, oneshot, watch};
use tracing::{info, warn};

use crate::{
    attempts::{Attempts, Context},
    host,
};

/// How often the file system is asked.
const PERIOD: Duration = Duration::from_secs(2);

/// How full it is, and what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The figures; zero while nothing is known.
    pub space: Space,
    /// What follows.
    pub level: Level,
}

impl Standing {
    /// Why no new work is taken; none when it is.
    pub fn closed(&self) -> Option<String> {
        (self.level != Level::Open).then(|| {
            format!("its disk is nearly full: {}; it takes new tasks again when less than 75 % are used", self.space)
        })
    }
}

/// What everybody may know of the executor's disk.
#[derive(Debug, Default)]
pub struct Room {
    standing: watch::Sender<Standing>,
    sizes: Sizes,
    stale: Notify,
}

impl Room {
    /// How full it is.
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// The same, for who asks often.
    pub fn watched(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// What is known of sizes.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// Something of size has gone: what is counted counts no more.
    pub fn recount(&self) {
        self.stale.notify_one();
    }
}

/// Sizes of what does not change any more, counted once.
#[derive(Debug, Default)]
pub struct Sizes(Mutex<BTreeMap<PathBuf, u64>>);

impl Sizes {
    /// What `path` takes, in bytes; `settled`: nobody writes there any more. Blocks.
    pub fn of(&self, path: &Path, settled: bool) -> u64 {
        if let Some(known) = self.lock().get(path).filter(|_| settled) {
            return *known;
        }
        let bytes = on_disk(path);
        if settled {
            self.lock().insert(path.to_owned(), bytes);
        }
        bytes
    }

    /// `path` has gone, or is written to again.
    pub fn forget(&self, path: &Path) {
        self.lock().remove(path);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the file system says at once, before anything is said of the executor: on a full disk it takes no work from the
/// first moment. What is ours on it is counted later.
pub fn begin(context: &Context) {
    match Disk::at(context.layout.data()) {
        Ok(disk) => {
            let (space, level) = Gauge::new(context.settings.disk_budget).estimate(disk);
            announce(context, Standing { space, level });
        }
        Err(error) => warn!(%error, "cannot tell how full the disk is"),
    }
}

/// Keeps the standing until cancelled.
pub async fn run(context: Arc<Context>, attempts: Attempts) {
    let mut gauge = Gauge::new(context.settings.disk_budget);
    let mut counting: Option<oneshot::Receiver<u64>> = None;
    let mut began = Duration::ZERO;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stale = false;
    loop {
        let counted = async {
            match &mut counting {
                Some(counting) => counting.await.ok(),
                None => std::future::pending().await,
            }
        };
        let counted = tokio::select! {
            () = context.cancel.cancelled() => return,
            () = context.room.stale.notified() => { stale = true; None }
            _ = ticks.tick() => None,
            counted = counted => { counting = None; counted }
        };
        let disk = match Disk::at(context.layout.data()) {
            Ok(disk) => disk,
            Err(error) => {
                warn!(%error, "cannot tell how full the disk is");
                continue;
            }
        };
        let now = host::boottime();
        let (space, level) = match counted {
            Some(used) => gauge.measured(used, disk, began, now.saturating_sub(began)),
            None => gauge.estimate(disk),
        };
        announce(&context, Standing { space, level });
        if counting.is_none() && (stale || gauge.is_due(now)) {
            stale = false;
            began = now;
            counting = count(&context, &attempts);
        }
    }
}

fn announce(context: &Context, standing: Standing) {
    let before = context.room.standing.send_replace(standing);
    if before.level != standing.level {
        match standing.closed() {
            Some(why) => warn!(why, "no new work is taken"),
            None => info!(space = %standing.space, "new work is taken again"),
        }
        // Whoever makes room looks at once.
        context.released.notify_one();
    }
}

fn count(context: &Arc<Context>, attempts: &Attempts) -> Option<oneshot::Receiver<u64>> {
    let (told, counted) = oneshot::channel();
    let (context, attempts) = (Arc::clone(context), attempts.clone());
    let work = move || {
        // Nobody waits when the executor is ending.
        let _ending = told.send(total(&context, &attempts));
    };
    match in_background(work) {
        Ok(()) => Some(counted),
        Err(error) => {
            warn!(%error, "cannot count what is on the disk");
            None
        }
    }
}

/// Everything below the data directory, in bytes.
fn total(context: &Context, attempts: &Attempts) -> u64 {
    let layout = &context.layout;
    let (workspaces, records) = (layout.workspaces(), layout.attempts());
    let below = |directory: &Path| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let sizes = entries.map(|entry| {
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let settled = id.and_then(|id| attempts.get(id)).is_some_and(|handle| handle.ended() && handle.released());
            context.room.sizes.of(&entry.path(), settled)
        });
        sizes.sum::<u64>()
    };
    let others = std::fs::read_dir(layout.data()).into_iter().flatten().flatten();
    let others = others.map(|entry| entry.path()).filter(|path| *path != workspaces && *path != records);
    below(&workspaces) + below(&records) + others.map(|path| on_disk(&path)).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_with_figures_why_it_is_closed() {
        let open = Standing { space: Space { used: 1 << 30, budget: 10 << 30 }, level: Level::Open };
        assert_eq!(open.closed(), None);
        let closed = Standing { space: Space { used: 8 << 30, budget: 10 << 30 }, level: Level::Closed };
        let why = closed.closed().unwrap();
        assert!(why.contains("8.0 GiB of 10.0 GiB (80 %)") && why.contains("75 %"), "{why}");
    }

    #[test]
    fn what_is_settled_is_counted_once() {
        let directory = tempfile::tempdir().unwrap();
        let sizes = Sizes::default();
        let before = sizes.of(directory.path(), true);
        std::fs::write(directory.path().join("x"), vec![1; 100_000]).unwrap();
        assert_eq!(sizes.of(directory.path(), true), before);
        assert!(sizes.of(directory.path(), false) > before);
        sizes.forget(directory.path());
        assert!(sizes.of(directory.path(), true) > before);
    }
}
