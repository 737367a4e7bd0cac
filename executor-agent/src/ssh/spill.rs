//! What peers have sent and nobody takes, beyond what is held in memory: in files without a name.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tokio::task::spawn_blocking;

/// Bytes on disk, in the order in which they came. They go with it, and with the process.
#[derive(Debug)]
pub(super) struct Spill {
    directory: PathBuf,
    /// How much a file takes before the next is begun: what was taken is given back to the disk in parts of this size.
    part: u64,
    /// Oldest first; none of them is empty.
    parts: VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    file: Arc<File>,
    taken: u64,
    written: u64,
}

impl Spill {
    /// Nothing yet; files will stand in `directory`.
    pub(super) fn new(directory: &Path, part: u64) -> Self {
        Self { directory: directory.to_owned(), part, parts: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many bytes wait there.
    pub(super) fn length(&self) -> u64 {
        self.parts.iter().map(|part| part.written - part.taken).sum()
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }

    /// Appends `data`.
    pub(super) async fn write(&mut self, data: Bytes) -> io::Result<()> {
        let length = data.len() as u64;
        let last = self.parts.back_mut().filter(|last| last.written < self.part);
        let (file, at) = last.as_ref().map(|last| (Arc::clone(&last.file), last.written)).unzip();
        let directory = self.directory.clone();
        let writing = spawn_blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(directory)?),
            };
            file.write_all_at(&data, at.unwrap_or(0)).map(|()| file)
        });
        let file = writing.await??;
        match last {
            Some(last) => last.written += length,
            None => self.parts.push_back(Part { file, taken: 0, written: length }),
        }
        Ok(())
    }

    /// Takes at most `most` of the oldest bytes, of which there are some. Who gives up waiting has taken nothing.
    pub(super) async fn take(&mut self, most: usize) -> io::Result<Bytes> {
        let Some(first) = self.parts.front_mut() else { return Ok(Bytes::new()) };
        let (file, at) = (Arc::clone(&first.file), first.taken);
        let length = usize::try_from(first.written - at).unwrap_or(most).min(most);
        let reading = spawn_blocking(move || {
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, at).map(|()| piece)
        });
        let piece = reading.await??;
        first.taken += piece.len() as u64;
        if first.taken == first.written {
            self.parts.pop_front();
        }
        Ok(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_taken_as_they_came_and_leave_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(directory.path(), 10);
        let (mut came, mut taken) = (Vec::new(), Vec::new());
        for round in 0..40_u8 {
            let data: Vec<u8> = (0..round % 7 + 1).map(|n| round ^ n).collect();
            came.extend_from_slice(&data);
            spill.write(data.into()).await.unwrap();
            if round % 3 == 0 {
                taken.extend_from_slice(&spill.take(5).await.unwrap());
            }
            assert_eq!(spill.length(), (came.len() - taken.len()) as u64);
            assert!(spill.parts.len() > 1 || spill.length() < 20);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "none of them has a name");
        while !spill.is_empty() {
            taken.extend_from_slice(&spill.take(5).await.unwrap());
        }
        assert_eq!(taken, came);
        assert_eq!(spill.length(), 0);
    }
}
