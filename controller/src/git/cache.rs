//! One bare repository per project on this machine's disk, brought up to date from rows and blobs when it is used.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use sculpt_proto::id::ProjectId;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{GitError, Repositories, import::PackFiles, names};
use crate::{
    blobs::BlobError,
    store::packs::{self, Pack, Snapshot},
};

/// Written last: the revision that the directory holds.
const MARKER: &str = "sculpt-revision";

/// Packs that are fetched and indexed at once when a cache is made anew.
const PACKS_AT_ONCE: usize = 2;

/// Longest time for indexing one stored pack.
const INDEX_LIMIT: Duration = Duration::from_secs(3600);

/// No setting of the host or of a user reaches a cache: what libgit2 would read from theirs is said here.
const CONFIG: &str = "[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tattributesFile = /dev/null
\texcludesFile = /dev/null
[diff]
\tnoprefix = false
\tmnemonicPrefix = false
\tcontext = 3
[gc]
\tauto = 0
";

/// What this process knows of one cache.
#[derive(Debug, Default)]
pub(super) struct ProjectCache {
    /// Held by the one who brings it up to date. The revision that this process has put there: a directory from an
    /// earlier process is compared with the rows once, whatever it says.
    updating: Mutex<Option<i64>>,
    /// One clone per reader: packs are removed only while there is none.
    readers: Arc<()>,
}

/// A cache that is up to date, and stays whole while this is held.
#[derive(Debug)]
pub struct Reading {
    directory: PathBuf,
    _whole: Arc<()>,
}

impl Reading {
    /// The bare repository.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether nobody has deleted it meanwhile.
    pub(super) async fn is_there(&self) -> bool {
        read_marker(&self.directory).await.is_some()
    }
}

impl Repositories {
    /// The project's repository as of now.
    pub async fn open(&self, project: ProjectId) -> Result<Reading, GitError> {
        let cache = self.project(project);
        let directory = self.directory(project);
        let revision = packs::revision(&self.inner.store, project).await?.ok_or(GitError::NoProject(project))?;
        // Held only while it is read or while somebody brings the cache up to date, which is waited for.
        let mut known = cache.updating.lock().await;
        if *known != Some(revision) || read_marker(&directory).await != Some(revision) {
            *known = None;
            let _seat = self.writer().await;
            *known = Some(self.bring_up(project, &directory).await?);
        }
        // Under the lock: whoever removes packs next sees this reader.
        Ok(Reading { directory, _whole: Arc::clone(&cache.readers) })
    }

    /// Where the project's cache stands.
    pub(super) fn directory(&self, project: ProjectId) -> PathBuf {
        self.inner.settings.cache.join(format!("{project}.git"))
    }

    /// Moves a verified pack, whose row is committed, to where the cache would otherwise copy it from the blob store.
    pub(super) async fn adopt(&self, project: ProjectId, pack: &PackFiles) {
        let cache = self.project(project);
        let _updating = cache.updating.lock().await;
        let objects = self.directory(project).join("objects/pack");
        let moved = async {
            tokio::fs::rename(&pack.pack, pack_path(&objects, &pack.checksum, "pack")).await?;
            tokio::fs::rename(&pack.index, pack_path(&objects, &pack.checksum, "idx")).await
        };
        if let Err(error) = moved.await {
            tracing::debug!(%project, %error, "a new pack is copied from the blob store instead");
        }
    }

    /// Makes the directory what the rows say; the caller holds its lock. Every step can be cut off and done again.
    async fn bring_up(&self, project: ProjectId, directory: &Path) -> Result<i64, GitError> {
        let mut again = true;
        loop {
            let found = packs::snapshot(&self.inner.store, project).await?;
            let snapshot = found.ok_or(GitError::NoProject(project))?;
            match self.install(&snapshot, directory).await {
                // Replaced and buried between the two reads.
                Err(GitError::Blob(BlobError::Missing(_))) if again => again = false,
                Err(error) => return Err(error),
                Ok(()) => {
                    self.project(project).remove_unnamed(&snapshot, directory).await;
                    write_whole(directory, MARKER, snapshot.revision.to_string()).await?;
                    return Ok(snapshot.revision);
                }
            }
        }
    }

    async fn install(&self, snapshot: &Snapshot, directory: &Path) -> Result<(), GitError> {
        let objects = directory.join("objects/pack");
        for wanted in [&objects, &directory.join("refs/heads")] {
            tokio::fs::create_dir_all(wanted).await.map_err(GitError::files("make", wanted))?;
        }
        write_whole(directory, "config", CONFIG).await?;
        let present = present(&objects).await?;
        let missing: BTreeMap<&str, &Pack> = snapshot
            .packs
            .iter()
            .filter(|pack| present.get(&pack.checksum).and_then(Files::whole) != Some(pack.bytes))
            .map(|pack| (pack.checksum.as_str(), pack))
            .collect();
        let installs: Vec<_> =
            missing.into_values().map(|pack| self.install_pack(pack, directory, &objects).boxed()).collect();
        stream::iter(installs).buffer_unordered(PACKS_AT_ONCE).try_collect::<()>().await?;
        write_whole(directory, "packed-refs", packed_refs(snapshot)).await?;
        write_whole(directory, "HEAD", format!("ref: {}\n", head(snapshot))).await
    }

    async fn install_pack(&self, pack: &Pack, directory: &Path, objects: &Path) -> Result<(), GitError> {
        let name = format!("tmp_{}", Uuid::new_v4());
        let (copy, index) = (objects.join(format!("{name}.pack")), objects.join(format!("{name}.idx")));
        self.inner.blobs.get_file(&pack.blob.parse()?, &copy).await?;
        let call = self.inner.git.call("index-pack", directory).within(INDEX_LIMIT);
        let said = call.arg("--no-rev-index").arg("-o").arg(&index).arg(&copy).run().await?;
        if !String::from_utf8_lossy(&said).split_whitespace().any(|word| word == pack.checksum) {
            return Err(GitError::Damaged { blob: pack.blob.clone() });
        }
        // git looks for indices: the pack must be there first.
        for (from, to) in [(copy, "pack"), (index, "idx")] {
            let to = pack_path(objects, &pack.checksum, to);
            tokio::fs::rename(&from, &to).await.map_err(GitError::files("make", &to))?;
        }
        Ok(())
    }
}

impl ProjectCache {
    /// Removes packs that no row names, unless somebody reads: then the next one does.
    async fn remove_unnamed(&self, snapshot: &Snapshot, directory: &Path) {
        if Arc::strong_count(&self.readers) > 1 {
            return;
        }
        let objects = directory.join("objects/pack");
        let Ok(mut entries) = tokio::fs::read_dir(&objects).await else { return };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let name = entry.file_name();
            let stem =
                name.to_str().and_then(|name| name.strip_prefix("pack-")).and_then(|name| name.split('.').next());
            let named = stem.is_some_and(|stem| snapshot.packs.iter().any(|pack| pack.checksum == stem));
            if !named && let Err(error) = tokio::fs::remove_file(entry.path()).await {
                tracing::warn!(path = %entry.path().display(), %error, "a pack that is no longer needed was not removed");
            }
        }
    }
}

/// What stands in a cache of one pack.
#[derive(Debug, Default)]
struct Files {
    /// Its length.
    pack: Option<u64>,
    index: bool,
}

impl Files {
    /// Its length when it can be used.
    fn whole(&self) -> Option<u64> {
        self.pack.filter(|_| self.index)
    }
}

/// The packs in `objects` by their checksums.
async fn present(objects: &Path) -> Result<HashMap<String, Files>, GitError> {
    let mut found: HashMap<String, Files> = HashMap::new();
    let mut entries = tokio::fs::read_dir(objects).await.map_err(GitError::files("list", objects))?;
    while let Some(entry) = entries.next_entry().await.map_err(GitError::files("list", objects))? {
        let name = entry.file_name();
        let split = name.to_str().and_then(|name| name.strip_prefix("pack-")).and_then(|name| name.split_once('.'));
        let Some((checksum, kind)) = split else { continue };
        let files = found.entry(checksum.to_owned()).or_default();
        match kind {
            "pack" => files.pack = entry.metadata().await.ok().map(|metadata| metadata.len()),
            "idx" => files.index = true,
            _ => {}
        }
    }
    Ok(found)
}

fn pack_path(objects: &Path, checksum: &str, kind: &str) -> PathBuf {
    objects.join(format!("pack-{checksum}.{kind}"))
}

/// All refs in the one file that git reads fastest. Every target is a commit, so nothing is left to peel.
fn packed_refs(snapshot: &Snapshot) -> String {
    let mut sorted: Vec<_> = snapshot.refs.iter().filter(|entry| names::is_plain(&entry.name)).collect();
    sorted.sort();
    let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for entry in sorted {
        writeln!(text, "{} {}", entry.target, entry.name).ok();
    }
    text
}

/// The branch that a plain clone checks out: `main`, else `master`, else the one that moved last.
fn head(snapshot: &Snapshot) -> &str {
    let usual = ["refs/heads/main", "refs/heads/master"];
    let there = |name: &&str| snapshot.refs.iter().any(|entry| entry.name == *name);
    usual.into_iter().find(there).or(snapshot.newest_branch.as_deref()).unwrap_or("refs/heads/main")
}

async fn read_marker(directory: &Path) -> Option<i64> {
    tokio::fs::read_to_string(directory.join(MARKER)).await.ok()?.parse().ok()
}

/// Replaces a file in one step.
async fn write_whole(directory: &Path, name: &str, text: impl AsRef<[u8]>) -> Result<(), GitError> {
    let (new, path) = (directory.join(format!("{name}.new")), directory.join(name));
    tokio::fs::write(&new, text).await.map_err(GitError::files("write", &new))?;
    tokio::fs::rename(&new, &path).await.map_err(GitError::files("write", &path))
}
