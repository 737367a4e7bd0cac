//! Disks that are full, broken or slow.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    fs::statvfs,
    process::{Pid, Signal, kill_process},
};
use tempfile::{NamedTempFile, TempDir};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

use super::{DEADLINE, Stack, eventually, processes::Found, within};

/// A small disk that can be filled: a mounted tmpfs, unmounted when dropped.
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

    /// One with the data directory of `part` (`executor`, `controller`) on it, and a stack that has been started up there;
    /// none without the right to mount.
    pub async fn under(part: &str, mebibytes: u32) -> Result<Option<(Self, Stack)>> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return Ok(None);
        }
        let disk = Self::mount(mebibytes)?;
        let mut stack = Stack::options().empty().await?;
        symlink(disk.path(), stack.data().join(part))?;
        stack.start_up().await?;
        Ok(Some((disk, stack)))
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

/// The disk as one process sees it, while its system calls are tampered with by `strace`. Mended when dropped.
#[derive(Debug)]
pub struct BadDisk {
    strace: Child,
    record: NamedTempFile,
}

impl BadDisk {
    /// From now on these calls of `process`, if they are about the file `path`, fail with `error`; none, with a loud word,
    /// where that cannot be done.
    pub async fn failing(process: &Found, calls: &str, path: Option<&Path>, error: &str) -> Result<Option<Self>> {
        let path = path.map(|path| path.to_string_lossy().into_owned());
        let about: Vec<&str> = path.as_deref().map_or_else(Vec::new, |path| vec!["-P", path]);
        Self::tamper(process, &about, &format!("inject={calls}:error={error}")).await
    }

    /// From now on each of these calls of `process` takes this much longer.
    pub async fn slow(process: &Found, calls: &str, delay: Duration) -> Result<Option<Self>> {
        Self::tamper(process, &[], &format!("inject={calls}:delay_exit={}", delay.as_micros())).await
    }

    async fn tamper(process: &Found, about: &[&str], expression: &str) -> Result<Option<Self>> {
        let mut command = tokio::process::Command::new("strace");
        let record = NamedTempFile::new().context("make a file for strace")?;
        command.args(about).args(["-f", "-e", expression, "-p", &process.pid.to_string(), "-o"]).arg(record.path());
        let spawned = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let mut strace = match spawned {
            Ok(strace) => strace,
            Err(error) => {
                eprintln!("SKIPPED: no strace ({error}); run scripts/setup");
                return Ok(None);
            }
        };
        let mut said = BufReader::new(strace.stderr.take().context("stderr is piped")?).lines();
        within(DEADLINE, "strace to be attached", async {
            while let Some(line) = said.next_line().await? {
                if line.contains("attached") {
                    return Ok(());
                }
                ensure!(!line.contains("not permitted"), "strace cannot be used: {line}");
            }
            bail!("strace ended before it was attached")
        })
        .await?;
        // Read on, so that it never blocks on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        Ok(Some(Self { strace, record }))
    }

    /// Waits until so many calls have failed or been slow.
    pub async fn strikes(&self, times: usize) -> Result<()> {
        eventually("the bad disk to be met", || {
            let record = fs::read_to_string(self.record.path())?;
            Ok((record.matches("INJECTED").count() + record.matches("DELAYED").count() >= times).then_some(()))
        })
        .await
    }

    /// Ends the fault, and waits until it has.
    pub async fn mends(mut self) -> Result<()> {
        let pid = self.strace.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("strace has ended")?;
        kill_process(pid, Signal::INT).context("detach strace")?;
        within(DEADLINE, "strace to be detached", async { Ok(self.strace.wait().await?) }).await.map(drop)
    }
}
