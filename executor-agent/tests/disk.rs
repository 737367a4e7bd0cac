//! Small file systems that can be filled.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A file system of its own, as root only; gone with this value.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn mount(place: &Path, bytes: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(place).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(place.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a failed test may have left a process in it, which others see to.
        assert!(Command::new("umount").arg("-l").arg(&self.0).status().unwrap().success());
    }
}
