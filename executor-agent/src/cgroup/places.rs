//! Where on this host cgroups can be made: at the root of a hierarchy, or in a part of it that was given away.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What processes go to that would stand in the way of passing controllers down.
const ASIDE: &str = "sculpt-executor";
/// New ones may come while those before are moved.
const ROUNDS: usize = 8;
/// What limits attempts.
pub(super) const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Pids,
    Cpu,
}

/// A mounted hierarchy, and where this process is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    point: PathBuf,
    /// Below it; empty: at its root, or in no part of it that can be seen.
    own: PathBuf,
}

impl Hierarchy {
    /// Its root, and from there each cgroup down to this process's own. The first of them that lets us make another is the
    /// one to use: it has what the lower ones have, and what is made there outlives the unit that this process is in, whose
    /// cgroup would hold both processes and a controller, and be closed to its next start.
    pub(super) fn down(&self) -> impl Iterator<Item = PathBuf> {
        let mut all: Vec<&Path> = self.own.ancestors().collect();
        all.reverse();
        all.into_iter().map(|below| self.point.join(below))
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    pub(super) unified: Option<Hierarchy>,
    pub(super) v1: Vec<(Controller, Hierarchy)>,
}

/// Those of this process.
pub(super) fn hierarchies() -> io::Result<Hierarchies> {
    Ok(read(&fs::read_to_string("/proc/self/mountinfo")?, &fs::read_to_string("/proc/self/cgroup")?))
}

/// Those in the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn read(mounts: &str, own: &str) -> Hierarchies {
    let mut found = Hierarchies::default();
    for line in mounts.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let mut mount = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (mount.next(), mount.next()) else { continue };
        let hierarchy = |name: &str| Hierarchy { point: point.into(), own: below(Path::new(root), own, name) };
        let mut fields = filesystem.split(' ');
        match fields.next() {
            Some("cgroup2") => found.unified = found.unified.or_else(|| Some(hierarchy(""))),
            Some("cgroup") => {
                let options = fields.nth(1).unwrap_or_default();
                let controllers = options.split(',').filter_map(|option| match option {
                    "memory" => Some((Controller::Memory, hierarchy(option))),
                    "pids" => Some((Controller::Pids, hierarchy(option))),
                    "cpu" => Some((Controller::Cpu, hierarchy(option))),
                    _ => None,
                });
                found.v1.extend(controllers);
            }
            _ => {}
        }
    }
    found
}

/// Where the process with the cgroups `own` is in the hierarchy of `controller`, of which `root` is mounted.
fn below(root: &Path, own: &str, controller: &str) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|it| it == controller).then_some(path)
    });
    path.and_then(|path| Path::new(path).strip_prefix(root).ok()).map(Path::to_owned).unwrap_or_default()
}

/// In a container with a cgroup of its own all processes begin in that, and as long as one is there it passes no controller
/// down: they are moved into a leaf. Nowhere else: what is not a container is somebody's unit, and not ours to arrange.
pub fn step_aside() {
    let Ok(Hierarchies { unified: Some(unified), .. }) = hierarchies() else { return };
    // The root of the whole system has no type, and no such rule.
    let contained = unified.own.as_os_str().is_empty() && unified.point.join("cgroup.type").exists();
    let controllers = fs::read_to_string(unified.point.join("cgroup.controllers")).unwrap_or_default();
    if !contained || !controllers.split_whitespace().any(|name| CONTROLLERS.contains(&name)) {
        return;
    }
    if let Err(error) = vacate(&unified.point) {
        // What cannot be limited then is said where limits are.
        tracing::debug!(cgroup = %unified.point.display(), %error, "could not move its processes into a leaf");
    }
}

/// Moves all processes of `cgroup` into a leaf of it.
fn vacate(cgroup: &Path) -> io::Result<()> {
    let leaf = super::make(&cgroup.join(ASIDE)).ok_or(io::ErrorKind::PermissionDenied)?;
    for _ in 0..ROUNDS {
        let members = fs::read_to_string(cgroup.join("cgroup.procs"))?;
        if members.is_empty() {
            return Ok(());
        }
        for pid in members.lines() {
            match fs::write(leaf.join("cgroup.procs"), pid) {
                Err(error) if error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                    return Err(error);
                }
                _ => {}
            }
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn at(point: &str, own: &str) -> Hierarchy {
        Hierarchy { point: point.into(), own: own.into() }
    }

    #[test]
    fn hierarchies_of_hybrid_and_pure_hosts_are_found() {
        let hybrid = "30 29 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      31 29 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 29 0:28 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup rw\n";
        let own = "4:memory:/ci/7\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/user.slice\n";
        let v1 = vec![
            (Controller::Memory, at("/sys/fs/cgroup/memory", "ci/7")),
            (Controller::Cpu, at("/sys/fs/cgroup/cpu,cpuacct", "")),
        ];
        let unified = Some(at("/sys/fs/cgroup/unified", "user.slice"));
        assert_eq!(read(hybrid, own), Hierarchies { unified, v1 });
        let pure = "32 29 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup rw,nsdelegate\n";
        let unified = Some(at("/sys/fs/cgroup", ""));
        assert_eq!(read(pure, "0::/\n"), Hierarchies { unified, v1: Vec::new() });
        assert_eq!(read("22 1 0:20 / / rw - ext4 /dev/vda rw", own), Hierarchies::default());
    }

    #[test]
    fn a_process_is_found_below_what_is_mounted_of_its_hierarchy() {
        for (root, own, expected) in [
            ("/", "0::/a/b\n", "a/b"),
            ("/docker/1", "0::/docker/1\n", ""),
            ("/docker/1", "0::/docker/1/init\n", "init"),
            ("/docker/1", "0::/../other\n", ""),
            ("/", "4:memory:/a\n", ""),
            ("/", "", ""),
        ] {
            assert_eq!(below(Path::new(root), own, ""), Path::new(expected), "{root} {own}");
        }
        let down: Vec<PathBuf> = at("/cg", "user.slice/u.service").down().collect();
        assert_eq!(down, ["/cg", "/cg/user.slice", "/cg/user.slice/u.service"].map(PathBuf::from));
    }

    #[test]
    fn a_cgroup_is_left_for_a_leaf_of_it() {
        let Ok(Hierarchies { unified: Some(unified), .. }) = hierarchies() else { return };
        let cgroup = unified.point.join(format!("sculpt-test-{}", uuid::Uuid::new_v4()));
        if fs::create_dir(&cgroup).is_err() {
            return;
        }
        let mut child = Command::new("sleep").arg("4242").spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        let vacated = vacate(&cgroup);
        let members = |path: PathBuf| fs::read_to_string(path.join("cgroup.procs")).unwrap();
        let (left, moved) = (members(cgroup.clone()), members(cgroup.join(ASIDE)));
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir(cgroup.join(ASIDE)).unwrap();
        fs::remove_dir(&cgroup).unwrap();
        vacated.unwrap();
        assert_eq!((left, moved.trim()), (String::new(), child.id().to_string().as_str()));
    }
}
