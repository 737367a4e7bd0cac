//! An ordinary user's executor, with and without cgroups that root has given it.

use std::{
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use sculpt_executor::shim::Launch;
use sculpt_proto::executor::v1::{AttemptSpec, Confinement, Phase, ended::Outcome};

use crate::{
    go_on::run,
    host::Host,
    hostile::BOMB,
    life::{cause, wait_for},
};

const NOBODY: u32 = 65_534;

/// Goes to where `$CGROUPS` says, and gives up root.
const ORDINARY: [&str; 3] = [
    "sh",
    "-c",
    "for cgroup in $CGROUPS; do echo $$ > $cgroup/cgroup.procs; done
    exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$0\" \"$@\"",
];

/// Takes 1 GiB, or says why not.
const GLUTTON: &str = r#"exec perl -e 'my @all; push @all, "x" x (16 << 20) for 1..64; print "enough\n"'"#;

/// A cgroup in each hierarchy that is the ordinary user's, with one in it to begin in.
struct Delegated(Vec<PathBuf>);

impl Delegated {
    fn make() -> io::Result<Self> {
        let hierarchies = ["memory", "pids", "cpu", "unified", ""].map(|name| Path::new("/sys/fs/cgroup").join(name));
        let mut made = Self(Vec::new());
        for hierarchy in hierarchies.iter().filter(|hierarchy| hierarchy.join("cgroup.procs").exists()) {
            for controller in ["+memory", "+pids", "+cpu"] {
                let _of_v2 = fs::write(hierarchy.join("cgroup.subtree_control"), controller);
            }
            let cgroup = hierarchy.join(format!("sculpt-test-{}", uuid::Uuid::new_v4()));
            fs::create_dir_all(cgroup.join("begin"))?;
            made.0.push(cgroup.clone());
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "begin", "begin/cgroup.procs"] {
                let path = cgroup.join(file);
                if path.exists() {
                    chown(path, Some(NOBODY), Some(NOBODY))?;
                }
            }
        }
        Ok(made)
    }

    fn begins(&self) -> String {
        let all: Vec<String> = self.0.iter().map(|cgroup| cgroup.join("begin").display().to_string()).collect();
        all.join(" ")
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for cgroup in &self.0 {
            remove(cgroup);
        }
    }
}

/// Files of a cgroup go with it.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _left = fs::remove_dir(cgroup);
}

/// Of an ordinary user, which only root can become.
pub(crate) async fn ordinary(settings: &str, arguments: &[&str], cgroups: &str) -> Option<Host> {
    if !sculpt_executor::host::is_root() {
        return None;
    }
    let mut host = Host::with(settings, arguments).await;
    host.via.extend(ORDINARY);
    host.environment.push(("CGROUPS", cgroups.into()));
    chown(host.root.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    Some(host)
}

fn launch(host: &Host, spec: &AttemptSpec) -> Launch {
    Launch::read(&host.data().join("attempts").join(&spec.attempt_id)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_in_cgroups_that_were_given_to_an_ordinary_user() {
    let settings = "memory_limit = '256MiB'\npids_limit = 100\ncpu_limit = 0.5";
    let Ok(delegated) = Delegated::make() else { return };
    let Some(mut host) = ordinary(settings, &[], &delegated.begins()).await else { return };
    host.start().await;
    let notes = host.controller.memory().hellos.last().unwrap().notes.clone();
    assert!(notes.is_empty(), "{notes:?}");
    let counters = host.controller.memory().hellos.last().unwrap().counters.clone().unwrap();
    let all = [&counters.memory, &counters.processes, &counters.cpu];
    assert!(all.iter().all(|by| by.starts_with("delegated cgroup v")) && counters.lacking.is_empty(), "{counters:?}");

    let (ended, _) = run(&host, &host.shell(GLUTTON)).await;
    assert_eq!(cause(&ended).0, "oom");

    let bomb = host.shell(BOMB);
    host.controller.offer(&bomb);
    host.controller.wait("the agent", |memory| memory.pid(&bomb.attempt_id)).await;
    let cgroup = launch(&host, &bomb).cgroup;
    let all: Vec<&PathBuf> = cgroup.unified.iter().chain(&cgroup.limits).collect();
    assert!(all.iter().all(|own| delegated.0.iter().any(|given| own.starts_with(given))), "{all:?}");
    let cpu = |own: &&PathBuf| {
        ["cpu.cfs_quota_us", "cpu.max"].iter().find_map(|file| fs::read_to_string(own.join("agent").join(file)).ok())
    };
    assert!(all.iter().find_map(cpu).unwrap().starts_with("50000"));
    wait_for("it to be refused a process", || cgroup.out_of_processes()).await;
    host.controller.want(&bomb.attempt_id, Phase::Stop);
    assert_eq!(host.controller.wait_ended(&bomb.attempt_id).await.outcome(), Outcome::Cancelled);
    let notes = host.controller.memory().notes(&bomb.attempt_id);
    assert!(notes.iter().any(|note| note.contains("more than the 100 processes")), "{notes:?}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_cannot_be_limited_as_its_pool_wants_runs_and_says_so() {
    let settings = "memory_limit = '8GiB'\ncpu_limit = 0.5\npids_limit = 0";
    let Some(mut host) = ordinary(settings, &[], "").await else { return };
    host.start().await;
    let notes = host.controller.memory().hellos.last().unwrap().notes.clone();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].starts_with("this executor does not limit memory and processor time of attempts"), "{notes:?}");
    let counters = host.controller.memory().hellos.last().unwrap().counters.clone().unwrap();
    assert_eq!([&counters.memory, &counters.processes, &counters.cpu], [""; 3], "nothing counts");
    assert!(counters.lacking.contains("Delegate=yes"), "{counters:?}");
    let mut spec = host.shell("cat /proc/self/oom_score_adj");
    spec.confinement = Some(Confinement { memory: 4 << 30, cpu: 500, ..Confinement::default() });
    let (ended, log) = run(&host, &spec).await;
    assert_eq!((ended.outcome(), log.as_str()), (Outcome::Completed, "1000\n"), "it is what the kernel ends first");
    let notes = host.controller.memory().notes(&spec.attempt_id);
    assert!(notes.iter().any(|note| note.starts_with("its pool limits memory and processor time")), "{notes:?}");
    host.stop();
}
