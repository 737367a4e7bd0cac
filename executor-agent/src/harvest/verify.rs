//! Takes the pack out of a hostile working copy and verifies it against history that is known to be good.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use super::{HarvestError, LONG, Plan, QUICK, contained};
use crate::workspace::git::{self, GitError};

/// Brings everything that `head` reaches beyond the base into the quarantine, verified; returns the pack and its length.
pub(super) async fn receive(
    plan: &Plan,
    git: &contained::Repository<'_>,
    head: &str,
) -> Result<(PathBuf, u64), HarvestError> {
    let quarantine = &plan.quarantine;
    let io = |attempt: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| HarvestError::Io { attempt, path, source }
    };
    match fs::remove_dir_all(quarantine) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("empty", quarantine)(error)),
        _ => {}
    }
    fs::create_dir_all(quarantine).map_err(io("make the directory", quarantine))?;
    let mut init = git::trusted(quarantine);
    let format = if head.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    init.args(["init", "--bare", "--quiet", "--template=", format]);
    git::run("make the quarantine", init, None, QUICK).await?;

    let packs = quarantine.join("objects/pack");
    fs::create_dir_all(&packs).map_err(io("make the directory", &packs))?;
    let pack = packs.join("pack-attempt.pack");
    let file = File::create(&pack).map_err(io("make", &pack))?;
    let input = format!("{head}\n^{}\n", plan.base);
    let arguments = ["pack-objects", "--revs", "--stdout", "--delta-base-offset", "--quiet"];
    git.stream("pack the new commits", &arguments, input.as_bytes(), file).await?;

    let info = quarantine.join("objects/info");
    fs::create_dir_all(&info).map_err(io("make the directory", &info))?;
    let alternates = info.join("alternates");
    let mut line = plan.store.join("objects").into_os_string().into_encoded_bytes();
    line.push(b'\n');
    fs::write(&alternates, line).map_err(io("write", &alternates))?;

    let mut index = git::trusted(quarantine);
    index.args(["index-pack", "--strict"]).arg(&pack);
    invalid(git::run("verify the pack", index, None, LONG).await)?;
    let mut walk = git::trusted(quarantine);
    walk.args(["rev-list", "--objects", "--quiet", head, &format!("^{}", plan.base)]);
    invalid(git::run("find every object of the new commits", walk, None, LONG).await)?;
    let length = fs::metadata(&pack).map_err(io("look at", &pack))?.len();
    Ok((pack, length))
}

fn invalid<T>(result: Result<T, GitError>) -> Result<T, HarvestError> {
    result.map_err(|error| match error {
        error @ GitError::Failed { .. } => HarvestError::Invalid(error),
        other => HarvestError::Git(other),
    })
}
