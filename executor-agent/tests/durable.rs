//! What is on the disk before anybody is told, as the kernel sees it: no power is cut here, so the flushes are looked at.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{host::Host, life::wait_for};

/// An strace that has come to the executor, and follows whatever that starts.
struct Watch {
    strace: Child,
    file: PathBuf,
}

impl Watch {
    async fn over(host: &Host) -> Self {
        let file = host.root.path().join("flushes");
        let executor = host.executor.as_ref().unwrap().id();
        let strace = Command::new("strace")
            .args(["-f", "-y", "-e", "trace=fsync,fdatasync,sendto,rename,renameat,renameat2", "-o"])
            .arg(&file)
            .args(["-p", &executor.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("start strace: `make setup` installs it");
        let tasks = PathBuf::from(format!("/proc/{executor}/task"));
        wait_for("strace to see every thread", || {
            fs::read_dir(&tasks).unwrap().flatten().all(|task| is_traced(&task.path()))
        })
        .await;
        Self { strace, file }
    }

    /// How many files whose path holds `name` were flushed, counting each time.
    fn flushes(&self, name: &str) -> usize {
        let seen = fs::read_to_string(&self.file).unwrap_or_default();
        // What another thread interrupts is told in two lines; the first has the path.
        seen.lines().filter(|line| line.contains("sync(") && line.contains(name)).count()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _gone = self.strace.kill();
        let _gone = self.strace.wait();
    }
}

fn is_traced(task: &Path) -> bool {
    // A thread that has ended needs no look.
    fs::read_to_string(task.join("status")).map_or(true, |status| !status.contains("TracerPid:\t0\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_was_flushed_first() {
    let mut host = Host::new().await;
    host.start().await;
    let watch = Watch::over(&host).await;
    let go = host.root.path().join("go");
    let spec = host.shell(&format!("echo a line; until [ -e {} ]; do sleep 0.05; done", go.display()));
    host.controller.offer(&spec);
    wait_for("the line to reach the disk while its agent lives", || watch.flushes(".spool") > 0).await;
    fs::write(go, "").unwrap();
    host.controller.wait_ended(&spec.attempt_id).await;
    let reports = host.controller.memory().steps(&spec.attempt_id).len();
    assert!(reports >= 5, "{reports} reports");
    let journal = watch.flushes("/journal");
    assert!(journal >= reports, "{reports} reports were told, {journal} times the journal was flushed");
    assert!(watch.flushes("/spec.part") > 0, "the spec was accepted and may be gone after a power cut");
    // Once while its room is reserved, once with what it says.
    assert!(watch.flushes("/exit.json") > 1, "the end was told and may be gone after a power cut");
    drop(watch);
    host.stop();
}
