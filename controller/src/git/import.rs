//! The one way in: a pack is unpacked into a quarantine, checked, stored as a blob, and then named by rows.
//!
//! What is refused: a damaged pack, objects that are missing, and what git's own checks call an error, above all trees with
//! `.git`, `..` or a slash in a name, and hostile `.gitmodules`. What old and hand-made histories are full of and hurts
//! nobody is let in: see [`HARMLESS`].

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sculpt_proto::id::ProjectId;
use tempfile::TempDir;
use uuid::Uuid;

use super::{ChildError, GitError, Reading, ReceivedPack, Repositories, error::sha1, names};
use crate::{
    blobs::BlobKey,
    store::{
        Connection,
        packs::{self, Pack},
        refs,
    },
};

/// Findings of git's checks that are common in old histories, made by old or other programs, and lead nowhere.
const HARMLESS: [&str; 14] = [
    "zeroPaddedFilemode",
    "badFilemode",
    "badDate",
    "badDateOverflow",
    "badTimezone",
    "zeroPaddedDate",
    "badEmail",
    "badName",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "missingTaggerEntry",
    "badTagName",
];

/// Longest time for verifying one pack.
const VERIFY_LIMIT: Duration = Duration::from_secs(3600);

/// A commit that is complete, with the pack of what was missing, not stored yet.
#[derive(Debug)]
pub struct Verified {
    pack: Option<PackFiles>,
    /// Holds the files, and goes with them.
    _quarantine: Option<TempDir>,
}

/// A pack and its index in files.
#[derive(Debug)]
pub(super) struct PackFiles {
    pub(super) pack: PathBuf,
    pub(super) index: PathBuf,
    pub(super) checksum: String,
    pub(super) bytes: u64,
    pub(super) objects: u64,
}

impl Verified {
    /// How many objects came with it.
    pub fn objects(&self) -> u64 {
        self.pack.as_ref().map_or(0, |pack| pack.objects)
    }
}

impl Repositories {
    /// Checks that `commit` is complete once the objects of `pack` are added. Changes nothing.
    pub async fn verify(
        &self,
        project: ProjectId,
        commit: &str,
        pack: &mut ReceivedPack,
    ) -> Result<Verified, GitError> {
        sha1(commit)?;
        let reading = self.open(project).await?;
        match self.verify_with(&reading, commit, pack).await {
            // Somebody deleted the cache meanwhile: that is not the sender's fault.
            Err(GitError::BadPack { .. } | GitError::Incomplete { .. }) if !reading.is_there().await => {
                let reading = self.open(project).await?;
                self.verify_with(&reading, commit, pack).await
            }
            done => done,
        }
    }

    async fn verify_with(
        &self,
        reading: &Reading,
        commit: &str,
        pack: &mut ReceivedPack,
    ) -> Result<Verified, GitError> {
        let _seat = self.writer().await;
        if pack.is_empty() {
            self.check_complete(reading.directory(), commit).await?;
            return Ok(Verified { pack: None, _quarantine: None });
        }
        let quarantine = self.quarantine(reading)?;
        let checksum = self.unpack(quarantine.path(), pack).await?;
        self.check_complete(quarantine.path(), commit).await?;
        let files = PackFiles::of(&quarantine.path().join("objects/pack"), checksum)?;
        if files.objects == 0 {
            return Ok(Verified { pack: None, _quarantine: None });
        }
        Ok(Verified { pack: Some(files), _quarantine: Some(quarantine) })
    }

    /// Uploads the pack; its row is still to be written. `None`: there were no new objects.
    pub(super) async fn upload(&self, verified: &Verified) -> Result<Option<Pack>, GitError> {
        let Some(files) = &verified.pack else { return Ok(None) };
        self.upload_files(files).await.map(Some)
    }

    pub(super) async fn upload_files(&self, files: &PackFiles) -> Result<Pack, GitError> {
        let id = Uuid::now_v7();
        let key = BlobKey::pack(id);
        packs::promise(&self.inner.store, &key).await?;
        self.inner.blobs.put_file(&key, &files.pack).await?;
        let blob = key.to_string();
        Ok(Pack { id, blob, checksum: files.checksum.clone(), bytes: files.bytes, objects: files.objects })
    }

    /// Spares the cache a copy of what was just stored. After the commit.
    pub(super) async fn keep_local(&self, project: ProjectId, verified: &Verified) {
        if let Some(files) = &verified.pack {
            self.adopt(project, files).await;
        }
    }

    /// Takes `commit` and its history in, to be the base of tasks. Idempotent. Returns how many objects were new.
    pub async fn keep_base(&self, project: ProjectId, commit: &str, pack: &mut ReceivedPack) -> Result<u64, GitError> {
        let verified = self.verify(project, commit, pack).await?;
        let stored = self.upload(&verified).await?;
        let target = commit.to_owned();
        self.inner.store.write(move |conn| Box::pin(anchor(conn, project, stored, target))).await?;
        self.keep_local(project, &verified).await;
        Ok(verified.objects())
    }

    /// Those of `commits` that are here with all of their history.
    pub async fn has_commits(&self, project: ProjectId, commits: &[String]) -> Result<Vec<String>, GitError> {
        for commit in commits {
            sha1(commit)?;
        }
        let mut conn = self.inner.store.read().await?;
        let mut found = refs::targets_among(&mut conn, project, commits).await?;
        drop(conn);
        let open: Vec<&String> = commits.iter().filter(|commit| !found.contains(commit)).collect();
        if open.is_empty() && !found.is_empty() {
            return Ok(found);
        }
        let reading = self.open(project).await?;
        let present = self.present_commits(&reading, &open).await?;
        let unreached = self.unreached(&reading, &present).await?;
        found.extend(present.into_iter().filter(|commit| !unreached.contains(commit)));
        Ok(found)
    }

    /// Those of `commits` that are commits in the cache.
    async fn present_commits(&self, reading: &Reading, commits: &[&String]) -> Result<Vec<String>, GitError> {
        let input = commits.iter().map(|commit| format!("{commit}\n")).collect::<String>();
        let call =
            self.inner.git.call("cat-file", reading.directory()).arg("--batch-check=%(objectname) %(objecttype)");
        let said = call.run_with(input.into_bytes()).await?;
        let said = String::from_utf8_lossy(&said);
        Ok(said.lines().filter_map(|line| line.strip_suffix(" commit")).map(str::to_owned).collect())
    }

    /// Those of `commits` that no ref reaches; all, where that cannot be told because their history is not whole.
    async fn unreached(&self, reading: &Reading, commits: &[String]) -> Result<Vec<String>, GitError> {
        let input = commits.iter().map(|commit| format!("{commit}\n")).collect::<String>();
        let call = self.inner.git.call("rev-list", reading.directory()).within(Duration::from_secs(300));
        match call.args(["--stdin", "--not", "--all"]).run_with(input.into_bytes()).await {
            Ok(said) => Ok(String::from_utf8_lossy(&said).lines().map(str::to_owned).collect()),
            Err(ChildError::Failed { .. }) => Ok(commits.to_vec()),
            Err(error) => Err(error.into()),
        }
    }

    /// An empty repository that sees the cache's objects and refs as they are now.
    fn quarantine(&self, reading: &Reading) -> Result<TempDir, GitError> {
        let quarantine = self.scratch()?;
        let (path, cache) = (quarantine.path(), reading.directory());
        for directory in ["objects/pack", "objects/info", "refs"] {
            std::fs::create_dir_all(path.join(directory)).map_err(GitError::files("make", path))?;
        }
        let alternate = path.join("objects/info/alternates");
        std::fs::write(&alternate, quoted(&cache.join("objects"))).map_err(GitError::files("write", &alternate))?;
        for file in ["HEAD", "config"] {
            std::fs::copy(cache.join(file), path.join(file)).map_err(GitError::files("copy", &cache.join(file)))?;
        }
        // A file that is replaced, never changed: a second name for it is a copy of this moment.
        let refs = cache.join("packed-refs");
        std::fs::hard_link(&refs, path.join("packed-refs")).map_err(GitError::files("link", &refs))?;
        Ok(quarantine)
    }

    /// Completes a thin pack and checks each of its objects; returns the pack's checksum.
    async fn unpack(&self, quarantine: &Path, pack: &mut ReceivedPack) -> Result<String, GitError> {
        let file = pack.finish().await?;
        let input = std::fs::File::open(file).map_err(GitError::files("open", file))?;
        let levels = HARMLESS.map(|finding| format!("{finding}=ignore")).join(",");
        let call = self.inner.git.call("index-pack", quarantine).within(VERIFY_LIMIT).input_file(input);
        let call = call.args(["--stdin", "--fix-thin", "--no-rev-index"]).arg(format!("--strict={levels}"));
        let limit = format!("--max-input-size={}", self.inner.settings.max_pack);
        let said = match call.arg(limit).run().await {
            Ok(said) => said,
            Err(error) => return Err(blame(error, |reason| GitError::BadPack { reason })),
        };
        let said = String::from_utf8_lossy(&said);
        let checksum = said.lines().find_map(|line| line.strip_prefix("pack\t")).map(str::to_owned);
        checksum.ok_or_else(|| GitError::BadPack { reason: "git did not name the pack".to_owned() })
    }

    /// `commit` is a commit, and everything between it and what refs reach is there. What a submodule's entry names
    /// belongs to another repository and is not looked for.
    async fn check_complete(&self, repository: &Path, commit: &str) -> Result<(), GitError> {
        let incomplete = |error| blame(error, |reason| GitError::Incomplete { commit: commit.to_owned(), reason });
        let call = self.inner.git.call("cat-file", repository).args(["-t", commit]);
        if call.run().await.map_err(incomplete)? != b"commit\n" {
            return Err(GitError::NotACommit(commit.to_owned()));
        }
        let call = self.inner.git.call("rev-list", repository).within(VERIFY_LIMIT);
        call.args(["--objects", "--quiet", commit, "--not", "--all"]).run().await.map_err(incomplete)?;
        Ok(())
    }
}

/// Names the pack, and keeps `commit` by a ref of its own.
async fn anchor(conn: &mut Connection, project: ProjectId, pack: Option<Pack>, commit: String) -> Result<(), GitError> {
    refs::raise_revision(conn, project).await?.ok_or(GitError::NoProject(project))?;
    if let Some(pack) = &pack {
        packs::insert(conn, project, pack).await?;
    }
    let name = names::base(&commit);
    if refs::target(conn, project, &name).await?.is_none() {
        refs::move_ref(conn, project, &name, None, &commit).await?;
    }
    Ok(())
}

impl PackFiles {
    /// The pack called `checksum` in `directory`.
    pub(super) fn of(directory: &Path, checksum: String) -> Result<Self, GitError> {
        let pack = directory.join(format!("pack-{checksum}.pack"));
        let index = directory.join(format!("pack-{checksum}.idx"));
        let mut header = [0; 12];
        let read = std::fs::File::open(&pack).and_then(|mut file| {
            file.read_exact(&mut header)?;
            file.metadata()
        });
        let bytes = read.map_err(GitError::files("read", &pack))?.len();
        let objects = u64::from(u32::from_be_bytes([header[8], header[9], header[10], header[11]]));
        Ok(Self { pack, index, checksum, bytes, objects })
    }
}

/// A path for git's list of alternates.
fn quoted(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut line = vec![b'"'];
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => line.extend([b'\\', byte]),
            b'\n' => line.extend(b"\\n"),
            byte => line.push(byte),
        }
    }
    line.extend(b"\"\n");
    line
}

/// What git says when this machine is at fault and not what was sent.
const OURS: [&str; 8] = [
    "No space left",
    "Disk quota",
    "Out of memory",
    "Too many open files",
    "Read-only file system",
    "Input/output error",
    "unable to create",
    "cannot create",
];

/// `theirs` of what git said, unless git was killed or this machine could not do it: that can be tried again.
fn blame(error: ChildError, theirs: impl FnOnce(String) -> GitError) -> GitError {
    match error {
        ChildError::Failed { status, stderr, .. }
            if status.code().is_some() && !OURS.iter().any(|sign| stderr.contains(sign)) =>
        {
            theirs(reason(&stderr))
        }
        error => error.into(),
    }
}

/// What git said, without its prefixes and paths of ours.
fn reason(stderr: &str) -> String {
    let telling = |line: &&str| line.starts_with("fatal: ") || line.starts_with("error: ");
    let mut lines: Vec<&str> = stderr.lines().filter(telling).collect();
    if lines.is_empty() {
        lines = stderr.lines().rev().take(1).collect();
    }
    let clean = |line: &&str| line.trim_start_matches("fatal: ").trim_start_matches("error: ").to_owned();
    lines.iter().take(3).map(clean).collect::<Vec<_>>().join("; ")
}
