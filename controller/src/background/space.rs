//! How full the disk of the controller's data directory is, with its blobs and the built-in Postgres on it. What follows is
//! drawn elsewhere: no new work from 80 %, no bytes that can wait from 95 %, so that Postgres never meets a full disk. What
//! makes room goes on: states and ends are small, and a log that is sealed is smaller than its rows.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sculpt_space::{Disk, Gauge, in_background, on_disk};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::room::{Room, Standing};

/// How often the file system is asked, which costs nothing.
const PERIOD: Duration = Duration::from_secs(1);

/// Watches the disk of `directory` until `stop`. `budget`: what may be used of it, in bytes.
pub async fn run(directory: PathBuf, budget: Option<u64>, room: Room, stop: CancellationToken) {
    let start = Instant::now();
    let mut gauge = Gauge::new(budget);
    let mut counting: Option<oneshot::Receiver<u64>> = None;
    let mut began = Duration::ZERO;
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let counted = async {
            match &mut counting {
                Some(counting) => counting.await.ok(),
                None => std::future::pending().await,
            }
        };
        let counted = tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => None,
            counted = counted => { counting = None; counted }
        };
        let disk = match Disk::at(&directory) {
            Ok(disk) => disk,
            Err(error) => {
                tracing::warn!(%error, "cannot tell how full the disk is");
                continue;
            }
        };
        let now = start.elapsed();
        let (space, level) = match counted {
            Some(used) => gauge.measured(used, disk, began, now.saturating_sub(began)),
            None => gauge.estimate(disk),
        };
        room.set(Standing { space, level, free: disk.free });
        if counting.is_none() && gauge.is_due(now) {
            began = now;
            counting = count(&directory);
        }
    }
}

fn count(directory: &Path) -> Option<oneshot::Receiver<u64>> {
    let (told, counted) = oneshot::channel();
    let directory = directory.to_owned();
    let work = move || {
        // Nobody waits when the controller is ending.
        let _ending = told.send(on_disk(&directory));
    };
    let started = in_background(work);
    started.inspect_err(|error| tracing::warn!(%error, "cannot count what is on the disk")).ok().map(|()| counted)
}
