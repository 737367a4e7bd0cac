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
use tokio::{sync::OwnedSemaphorePermit, task::spawn_blocking};

use super::{intake::Lost, stores::Store};

/// Bytes on disk, in the order in which they came. They go with it, and with the process.
#[derive(Debug)]
pub(super) struct Spill {
    directory: PathBuf,
    /// Whose files they are.
    store: Arc<Store>,
    /// Oldest first; none of them is empty.
    parts: VecDeque<Part>,
}

#[derive(Debug)]
struct Part {
    file: Arc<File>,
    _counted: OwnedSemaphorePermit,
    taken: u64,
    written: u64,
}

impl Spill {
    /// Nothing yet; files will stand in `directory`.
    pub(super) fn new(directory: &Path, store: Arc<Store>) -> Self {
        Self { directory: directory.to_owned(), store, parts: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many bytes wait there.
    #[cfg(test)]
    pub(super) fn length(&self) -> u64 {
        self.parts.iter().map(|part| part.written - part.taken).sum()
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }

    /// Appends `data`. A file takes `part` bytes before the next is begun: what was taken is given back to the disk in parts of
    /// this size.
    pub(super) async fn write(&mut self, data: Bytes, part: u64) -> Result<(), Lost> {
        let length = data.len() as u64;
        let last = self.parts.back_mut().filter(|last| last.written < part);
        let counted = match last {
            Some(_) => None,
            None => Some(self.store.file().ok_or(Lost::Full)?),
        };
        let (file, at) = last.as_ref().map(|last| (Arc::clone(&last.file), last.written)).unzip();
        let directory = self.directory.clone();
        let writing = spawn_blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(directory)?),
            };
            file.write_all_at(&data, at.unwrap_or(0)).map(|()| file)
        });
        let file = writing.await.map_err(io::Error::from)??;
        match (last, counted) {
            (Some(last), _) => last.written += length,
            (None, Some(counted)) => self.parts.push_back(Part { file, _counted: counted, taken: 0, written: length }),
            (None, None) => {}
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
    use crate::ssh::stores::Stores;

    #[tokio::test]
    async fn bytes_are_taken_as_they_came_and_leave_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(directory.path(), Stores::default().of("ada"));
        let (mut came, mut taken) = (Vec::new(), Vec::new());
        for round in 0..40_u8 {
            let data: Vec<u8> = (0..round % 7 + 1).map(|n| round ^ n).collect();
            came.extend_from_slice(&data);
            spill.write(data.into(), 10).await.unwrap();
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
