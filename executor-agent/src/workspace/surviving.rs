//! A workspace that outlived its attempt, moved over to the next one as it is.

use std::{fs, path::Path};

use super::WorkspaceError;

/// Whether something is there to go on in. What is not a directory of its own is no workspace.
pub fn stands(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Moves `from` to `to`, which must be free, so that after a power loss it stands at one of the two.
pub fn relocate(from: &Path, to: &Path) -> Result<(), WorkspaceError> {
    fs::rename(from, to).map_err(WorkspaceError::io("move the workspace to", to))?;
    let parent = to.parent().unwrap_or(Path::new("."));
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(WorkspaceError::io("flush", parent))
}
