//! What a spool on disk holds, read by its documented form alone: the checker shares no code with what it checks.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

const SEGMENT_HEADER: usize = 24;
const FRAME_HEADER: usize = 32;

/// The bytes of all streams in the order of their offsets, up to the first frame that is not whole; none without a spool.
pub(super) fn read(directory: &Path) -> Result<Option<Vec<u8>>> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(None) };
    let mut segments: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
    segments.sort();
    let mut log = Vec::new();
    for path in &segments {
        let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        ensure!(content.starts_with(b"sculptsp"), "{} is no spool", path.display());
        append(&mut log, content.get(SEGMENT_HEADER..).unwrap_or_default())
            .with_context(|| format!("read {}", path.display()))?;
    }
    Ok((!segments.is_empty()).then_some(log))
}

fn append(log: &mut Vec<u8>, mut frames: &[u8]) -> Result<()> {
    while let Some((header, rest)) = frames.split_at_checked(FRAME_HEADER) {
        let length = u32::from_le_bytes(header[8..12].try_into()?) as usize;
        // Room that was held back, or the frame that is being written.
        if header[4] == 0 || rest.len() < length {
            return Ok(());
        }
        let offset = u64::from_le_bytes(header[16..24].try_into()?);
        ensure!(offset == log.len() as u64, "a frame of offset {offset} stands where {} is next", log.len());
        log.extend_from_slice(&rest[..length]);
        frames = &rest[length..];
    }
    Ok(())
}
