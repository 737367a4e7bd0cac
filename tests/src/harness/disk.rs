//! A small disk that can be filled.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::statvfs;
use tempfile::TempDir;

/// A mounted tmpfs; unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    place: TempDir,
}

impl Disk {
    /// One of this many MiB; needs root.
    pub fn mount(mebibytes: u32) -> Result<Self> {
        let place = tempfile::Builder::new().prefix("sct-disk-").tempdir_in("/tmp")?;
        let size = format!("size={mebibytes}m,mode=755");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "sct-disk"]).arg(place.path()).status()?;
        ensure!(status.success(), "mount ended with {status}");
        Ok(Self { place })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Free space in bytes.
    pub fn free(&self) -> Result<u64> {
        let disk = statvfs(self.path()).context("look at the disk")?;
        Ok(disk.f_bavail * disk.f_frsize)
    }

    /// Fills it but for this many bytes.
    pub fn fill(&self, leave: u64) -> Result<()> {
        let mut filler = fs::File::options().create(true).append(true).open(self.filler())?;
        let piece = [0; 4096];
        while self.free()? > leave && filler.write_all(&piece).is_ok() {}
        Ok(())
    }

    /// Gives back what was filled.
    pub fn relieve(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("remove the filler")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
