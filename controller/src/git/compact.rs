//! Many small packs become few, so that a fetch stays fast after thousands of tasks.
//!
//! Packs are rolled up in a geometric series: each that stays holds at least twice as many objects as all smaller ones
//! together, so the large old ones are seldom written again. Every object of a pack that is replaced is in the new one,
//! reachable or not: nothing can be lost by it, whatever is published meanwhile.

use std::{fmt::Write as _, time::Duration};

use sculpt_proto::id::ProjectId;
use uuid::Uuid;

use super::{GitError, Repositories, import::PackFiles};
use crate::store::{
    Connection,
    packs::{self, Pack},
    refs,
};

/// Longest time for writing one pack.
const PACK_LIMIT: Duration = Duration::from_secs(3600);

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Packs that went into the new one.
    pub packs: usize,
    /// Objects in the new one.
    pub objects: u64,
}

impl Repositories {
    /// Rolls up the project's smaller packs; `None`: they are few already.
    pub async fn compact(&self, project: ProjectId) -> Result<Option<Compacted>, GitError> {
        let reading = self.open(project).await?;
        let found = packs::snapshot(&self.inner.store, project).await?;
        let mut all = found.ok_or(GitError::NoProject(project))?.packs;
        // What was added since the cache was opened is left for the next time.
        all.retain(|pack| reading.directory().join(format!("objects/pack/pack-{}.idx", pack.checksum)).exists());
        all.sort_by_key(|pack| pack.objects);
        let count = rolled_up(&all.iter().map(|pack| pack.objects).collect::<Vec<_>>());
        let small = &all[..count];
        if small.len() < 2 {
            return Ok(None);
        }
        let seat = self.writer().await;
        let scratch = self.scratch()?;
        let call = self.inner.git.call("pack-objects", reading.directory()).within(PACK_LIMIT);
        let call = call.args(["--stdin-packs", "--delta-base-offset", "--quiet"]).arg(scratch.path().join("pack"));
        let said = call.run_with(names_of(small).into_bytes()).await?;
        let checksum = String::from_utf8_lossy(&said).trim().to_owned();
        let files = PackFiles::of(scratch.path(), checksum)?;
        // Whoever brings the cache up to date holds its lock and waits for a seat; `adopt` waits for the lock.
        drop(seat);
        let new = self.upload_files(&files).await?;
        let compacted = Compacted { packs: small.len(), objects: new.objects };
        self.replace(project, small.iter().map(|pack| pack.id).collect(), new).await?;
        self.adopt(project, &files).await;
        Ok(Some(compacted))
    }

    /// Swaps the rows. Packs that were added meanwhile are not touched.
    async fn replace(&self, project: ProjectId, old: Vec<Uuid>, new: Pack) -> Result<(), GitError> {
        self.inner.store.write(move |conn| Box::pin(swap(conn, project, old, new))).await
    }
}

async fn swap(conn: &mut Connection, project: ProjectId, old: Vec<Uuid>, new: Pack) -> Result<(), GitError> {
    refs::raise_revision(conn, project).await?.ok_or(GitError::NoProject(project))?;
    Ok(packs::replace(conn, project, &old, &new).await?)
}

/// The names of the packs' files, one a line.
fn names_of(packs: &[Pack]) -> String {
    packs.iter().fold(String::new(), |mut names, pack| {
        writeln!(names, "pack-{}.pack", pack.checksum).ok();
        names
    })
}

/// How many of the smallest packs become one. `sizes` ascend.
fn rolled_up(sizes: &[u64]) -> usize {
    let crowded = (1..sizes.len()).rev().find(|&at| sizes[at] < 2 * sizes[at - 1]);
    let Some(mut count) = crowded.map(|at| at + 1) else { return 0 };
    let mut total: u64 = sizes[..count].iter().sum();
    while count < sizes.len() && sizes[count] < 2 * total {
        total += sizes[count];
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::rolled_up;

    #[test]
    fn a_geometric_series_is_left_alone() {
        for sizes in [&[][..], &[5], &[1, 2, 4, 8], &[3, 10, 100_000]] {
            assert_eq!(rolled_up(sizes), 0, "{sizes:?}");
        }
    }

    #[test]
    fn small_packs_go_together_and_a_large_one_stays() {
        assert_eq!(rolled_up(&[3, 3, 3, 3, 1_000_000]), 4);
        assert_eq!(rolled_up(&[3, 3, 10]), 3);
        assert_eq!(rolled_up(&[1, 2, 4, 5, 100]), 4);
        assert_eq!(rolled_up(&[7, 7]), 2);
    }

    proptest::proptest! {
        #[test]
        fn what_is_left_is_a_geometric_series(mut sizes in proptest::collection::vec(1_u64..10_000, 0..60)) {
            sizes.sort_unstable();
            let count = rolled_up(&sizes);
            let mut left = sizes[count..].to_vec();
            if count > 0 {
                left.insert(0, sizes[..count].iter().sum());
            }
            proptest::prop_assert!(left.windows(2).all(|pair| pair[1] >= 2 * pair[0]), "{left:?}");
        }
    }
}
