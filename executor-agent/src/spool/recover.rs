//! Finds the end of a spool whose writer is gone.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    Error,
    format::{self, FRAME_HEADER},
    reader::Segment,
};

/// Added to the name of a segment that was damaged, for its copy as it was found.
const QUARANTINED: &str = "damaged";

/// What a spool holds after its writer has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Offset after the last byte that can be read in order.
    pub end: u64,
    /// Bytes of the file that held no whole frame and were cut off.
    pub torn_bytes: u64,
    /// Segments in which sound frames followed a damaged place, as they were found. A torn tail is not among them:
    /// this is damage to what had been written whole.
    pub quarantined: Vec<PathBuf>,
}

/// Cuts a torn tail off and says where the spool ends. Only when no shim writes it any more. A directory that does
/// not exist is an empty spool.
pub fn recover(directory: &Path) -> Result<Recovered, Error> {
    let fail = |attempt, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Error::Io { attempt, path, source }
    };
    let mut segments = format::segments(directory).map_err(fail("list the directory", directory))?;
    let mut recovered = Recovered::default();
    while let Some((start, path)) = segments.pop() {
        let length = fs::metadata(&path).map_err(fail("look at", &path))?.len();
        let mut segment = Segment::open(path.clone(), start)?;
        let headed = match segment.headed() {
            Err(Error::Damaged { .. }) => false,
            headed => headed?,
        };
        if headed {
            pass_whole_frames(&mut segment)?;
        }
        let (position, end) = segment.place();
        if length > position && sound_frames_follow(&path, position, end, headed).map_err(fail("read", &path))? {
            quarantine(&path).map_err(fail("set aside a copy of", &path))?;
        }
        if !headed && start > 0 {
            recovered.torn_bytes += length;
            fs::remove_file(&path).map_err(fail("remove", &path))?;
            sync_directory(directory).map_err(fail("flush", directory))?;
            continue;
        }
        if !headed {
            recovered.torn_bytes += length;
            fs::write(&path, format::segment_header(0)).map_err(fail("repair", &path))?;
        } else if length > position {
            recovered.torn_bytes += length - position;
            let file = File::options().write(true).open(&path).map_err(fail("open", &path))?;
            file.set_len(position).map_err(fail("cut", &path))?;
            file.sync_all().map_err(fail("flush", &path))?;
        }
        recovered.end = end;
        break;
    }
    recovered.quarantined = quarantined(directory).map_err(fail("list the directory", directory))?;
    Ok(recovered)
}

/// Goes to the end of what can be trusted.
fn pass_whole_frames(segment: &mut Segment) -> Result<(), Error> {
    loop {
        match segment.frame() {
            Ok(Some(header)) => segment.pass(&header),
            Ok(None) | Err(Error::Damaged { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a whole frame of this spool stands behind `position`, where that of `offset` should be: then something was
/// damaged, and not torn.
fn sound_frames_follow(path: &Path, position: u64, offset: u64, headed: bool) -> io::Result<bool> {
    let file = File::open(path)?;
    let mut rest = vec![0; usize::try_from(file.metadata()?.len() - position).unwrap_or(0)];
    file.read_exact_at(&mut rest, position)?;
    let first = if headed { 1 } else { 0 };
    Ok((first..rest.len().saturating_sub(FRAME_HEADER - 1)).any(|at| {
        let Some(ahead) = format::claimed_offset(&rest[at..]).and_then(|claimed| claimed.checked_sub(offset)) else {
            return false;
        };
        // Between there and here stand whole frames, so the bytes that are not data are their headers. An agent that
        // prints a spool does not hit upon this.
        let headers = (at as u64).checked_sub(ahead);
        headers.is_some_and(|bytes| bytes % FRAME_HEADER as u64 == 0 && (bytes > 0 || at == 0))
            && format::is_whole_frame(&rest[at..])
    }))
}

/// Keeps a copy of a segment as it was found. A copy that is there was made before a cut, and so holds more.
fn quarantine(path: &Path) -> io::Result<()> {
    let kept = beside(path, QUARANTINED);
    if kept.exists() {
        return Ok(());
    }
    let temporary = beside(path, "new");
    fs::copy(path, &temporary)?;
    File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, &kept)?;
    kept.parent().map_or(Ok(()), sync_directory)
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn quarantined(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let mut kept: Vec<PathBuf> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|it| it == QUARANTINED)).collect();
    kept.sort_unstable();
    Ok(kept)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
