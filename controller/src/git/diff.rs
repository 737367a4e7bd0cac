//! What lies between two commits, computed from the cache without a checkout.

use bytes::{Bytes, BytesMut};
use git2::{Delta, DiffDelta, DiffFindOptions, DiffLineType, DiffOptions, Oid, Patch, Repository};
use sculpt_proto::id::ProjectId;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::{GitError, Reading, Repositories, error::sha1};

/// Parts that wait for a slow reader.
const PARTS: usize = 8;

/// Usual size of a piece of the patch, in bytes.
const PIECE: usize = 64 << 10;

/// Largest file that is compared line by line, in bytes; larger ones are shown as binary.
const LARGEST_TEXT: i64 = 32 << 20;

/// Most deleted or added files that are compared with each other to find renames.
const RENAME_LIMIT: usize = 1000;

/// How much is shown.
#[derive(Clone, Copy, Debug)]
pub struct DiffLimits {
    /// Files in the list.
    pub files: usize,
    /// Bytes of the patch.
    pub patch: usize,
}

impl Default for DiffLimits {
    fn default() -> Self {
        Self { files: 3_000, patch: 64 << 20 }
    }
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// Its contents or its mode changed.
    Modified,
    /// It has another name, and perhaps other contents.
    Renamed,
    /// It began as a copy.
    Copied,
    /// It was a file and is a link, and the like.
    TypeChanged,
}

/// One changed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Its path; the old one when it is gone.
    pub path: Vec<u8>,
    /// Where it was before.
    pub old_path: Vec<u8>,
    /// Lines.
    pub additions: u64,
    /// Lines.
    pub deletions: u64,
    /// Not compared line by line.
    pub binary: bool,
}

/// The whole in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The first so many files.
    pub changes: Vec<Change>,
    /// Files beyond those.
    pub omitted: u64,
    /// Lines in all files.
    pub additions: u64,
    /// Lines in all files.
    pub deletions: u64,
}

/// A piece of the answer: one summary, then the patch, then perhaps a remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiffPart {
    /// First.
    Summary(Diff),
    /// In git's format; applies with `git apply` where no binary file changed.
    Patch(Bytes),
    /// Last, instead of the rest of the patch: one sentence.
    Truncated(String),
}

type Parts = Sender<Result<DiffPart, GitError>>;

impl Repositories {
    /// Compares the trees of two commits. The work stops when the receiver goes.
    pub async fn diff(
        &self,
        project: ProjectId,
        base: &str,
        head: &str,
        limits: DiffLimits,
    ) -> Result<Receiver<Result<DiffPart, GitError>>, GitError> {
        sha1(base)?;
        sha1(head)?;
        let (base, head) = (Oid::from_str(base)?, Oid::from_str(head)?);
        let reading = self.open(project).await?;
        let seat = self.reader().await;
        let (sender, receiver) = mpsc::channel(PARTS);
        tokio::task::spawn_blocking(move || {
            let _seat = seat;
            if let Err(Stop::Failed(error)) = compare(&reading, base, head, limits, &sender) {
                sender.blocking_send(Err(error)).ok();
            }
        });
        Ok(receiver)
    }
}

/// Why a comparison ends early.
enum Stop {
    /// Nobody waits for it any more.
    Left,
    Failed(GitError),
}

impl From<git2::Error> for Stop {
    fn from(error: git2::Error) -> Self {
        Self::Failed(error.into())
    }
}

fn compare(reading: &Reading, base: Oid, head: Oid, limits: DiffLimits, parts: &Parts) -> Result<(), Stop> {
    let repository = Repository::open_bare(reading.directory())?;
    let tree = |commit| repository.find_commit(commit)?.tree();
    let mut options = DiffOptions::new();
    // Said here, because libgit2 would otherwise read them from somebody's configuration.
    options.old_prefix("a").new_prefix("b").context_lines(3).max_size(LARGEST_TEXT).id_abbrev(40);
    let mut diff = repository.diff_tree_to_tree(Some(&tree(base)?), Some(&tree(head)?), Some(&mut options))?;
    diff.find_similar(Some(DiffFindOptions::new().renames(true).rename_limit(RENAME_LIMIT)))?;
    send(parts, DiffPart::Summary(summarize(&diff, limits.files, parts)?))?;
    let mut writer = PatchWriter { parts, buffer: BytesMut::new(), left: limits.patch };
    for index in order(&diff) {
        let Some(mut patch) = Patch::from_diff(&diff, index)? else { continue };
        if !writer.add(&mut patch)? {
            writer.flush()?;
            let text = format!("The patch is larger than {} bytes; fetch the branch to see the rest.", limits.patch);
            return send(parts, DiffPart::Truncated(text));
        }
    }
    writer.flush()
}

/// The files by path. Where a file makes place for a link or the like, it goes before that comes, else the patch would not
/// apply; libgit2 has it the other way round.
fn order(diff: &git2::Diff<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..diff.deltas().len()).collect();
    let is = |index, status| diff.get_delta(index).is_some_and(|delta| delta.status() == status);
    let path = |index| diff.get_delta(index).and_then(|delta| delta.new_file().path_bytes().map(<[u8]>::to_vec));
    for index in 1..order.len() {
        if is(index - 1, Delta::Added) && is(index, Delta::Deleted) && path(index - 1) == path(index) {
            order.swap(index - 1, index);
        }
    }
    order
}

fn summarize(diff: &git2::Diff<'_>, files: usize, parts: &Parts) -> Result<Diff, Stop> {
    let mut summary = Diff::default();
    for index in order(diff) {
        if parts.is_closed() {
            return Err(Stop::Left);
        }
        let Some(patch) = Patch::from_diff(diff, index)? else { continue };
        let (_, additions, deletions) = patch.line_stats()?;
        let (additions, deletions) = (additions as u64, deletions as u64);
        summary.additions += additions;
        summary.deletions += deletions;
        let mut change = change(&patch.delta());
        (change.additions, change.deletions) = (additions, deletions);
        // A patch takes a file away and adds a link in its place; a person sees one change.
        if let Some(before) = summary.changes.last_mut().filter(|before| became_another_type(before, &change)) {
            before.kind = ChangeKind::TypeChanged;
            before.additions += additions;
            before.deletions += deletions;
            before.binary |= change.binary;
        } else if summary.changes.len() < files {
            summary.changes.push(change);
        } else {
            summary.omitted += 1;
        }
    }
    Ok(summary)
}

fn became_another_type(before: &Change, change: &Change) -> bool {
    before.path == change.path && (before.kind, change.kind) == (ChangeKind::Deleted, ChangeKind::Added)
}

fn change(delta: &DiffDelta<'_>) -> Change {
    let kind = match delta.status() {
        Delta::Added | Delta::Untracked => ChangeKind::Added,
        Delta::Deleted => ChangeKind::Deleted,
        Delta::Renamed => ChangeKind::Renamed,
        Delta::Copied => ChangeKind::Copied,
        Delta::Typechange => ChangeKind::TypeChanged,
        Delta::Modified | Delta::Unmodified | Delta::Ignored | Delta::Unreadable | Delta::Conflicted => {
            ChangeKind::Modified
        }
    };
    let old_path = delta.old_file().path_bytes().unwrap_or_default().to_vec();
    let path = delta.new_file().path_bytes().map_or_else(|| old_path.clone(), <[u8]>::to_vec);
    Change { kind, path, old_path, additions: 0, deletions: 0, binary: delta.flags().is_binary() }
}

/// Gathers lines into pieces and stops at the limit.
struct PatchWriter<'a> {
    parts: &'a Parts,
    buffer: BytesMut,
    /// Bytes that may still be sent.
    left: usize,
}

impl PatchWriter<'_> {
    /// Adds the patch of one file; `false`: it does not fit.
    fn add(&mut self, patch: &mut Patch<'_>) -> Result<bool, Stop> {
        let (mut full, mut stop) = (false, None);
        let printed = patch.print(&mut |_, _, line| {
            let sign: &[u8] = match line.origin_value() {
                DiffLineType::Context => b" ",
                DiffLineType::Addition => b"+",
                DiffLineType::Deletion => b"-",
                _ => b"",
            };
            full = self.left < sign.len() + line.content().len();
            if full {
                return false;
            }
            self.left -= sign.len() + line.content().len();
            self.buffer.extend_from_slice(sign);
            self.buffer.extend_from_slice(line.content());
            stop = if self.buffer.len() >= PIECE { self.flush().err() } else { None };
            stop.is_none()
        });
        match (full, stop) {
            (_, Some(stop)) => Err(stop),
            (true, None) => Ok(false),
            (false, None) => printed.map(|()| true).map_err(Stop::from),
        }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        while !self.buffer.is_empty() {
            let length = self.buffer.len().min(16 * PIECE);
            send(self.parts, DiffPart::Patch(self.buffer.split_to(length).freeze()))?;
        }
        Ok(())
    }
}

fn send(parts: &Parts, part: DiffPart) -> Result<(), Stop> {
    parts.blocking_send(Ok(part)).map_err(|_| Stop::Left)
}
