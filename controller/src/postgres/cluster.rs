//! The data directory: made once, never of a version that the programs cannot read.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use super::{Binaries, PostgresError, SUPERUSER, Settings, account::Account, file};

/// The programs for the data in `directory`: of its version, or the newest when there is none yet.
pub(super) async fn binaries_for(directory: &Path) -> Result<Binaries, PostgresError> {
    let Some(data) = version(directory)? else { return Ok(Binaries::newest().await?) };
    match Binaries::of(data).await {
        Some(binaries) => Ok(binaries),
        None => {
            let found = Binaries::newest().await?.major();
            Err(PostgresError::Version { path: directory.to_owned(), data, found })
        }
    }
}

/// Makes the cluster unless it is there. What a kill in the middle left is made anew: the directory gets its name last.
pub(super) async fn prepare(
    directory: &Path,
    account: &Account,
    binaries: &Binaries,
    settings: Settings,
) -> Result<(), PostgresError> {
    account.check().await?;
    if version(directory)?.is_some() {
        return Ok(());
    }
    let fresh = directory.with_extension("new");
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file("clear", &fresh)(error)),
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&fresh).map_err(file("make", &fresh))?;
    account.give(&fresh)?;
    let mut initdb = account.command(&binaries.program("initdb"));
    initdb.arg("-D").arg(resolved(&fresh)?).arg("-U").arg(SUPERUSER);
    // Whoever enters the socket's directory, which is closed to all but the account, is trusted.
    initdb.args(["--encoding=UTF8", "--locale=C", "--auth=trust", "--no-instructions"]);
    initdb.kill_on_drop(true);
    if !settings.durable {
        initdb.arg("--no-sync");
    }
    let told =
        initdb.stdout(Stdio::null()).stderr(Stdio::piped()).output().await.map_err(file("run", Path::new("initdb")))?;
    if !told.status.success() {
        let text = String::from_utf8_lossy(&told.stderr).trim().to_owned();
        return Err(PostgresError::Program { program: "initdb", text });
    }
    fs::rename(&fresh, directory).map_err(file("name", directory))?;
    let parent = directory.parent().unwrap_or(directory);
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(file("flush", parent))
}

/// The path without links, as the server will know it.
pub(super) fn resolved(directory: &Path) -> Result<PathBuf, PostgresError> {
    directory.canonicalize().map_err(file("find", directory))
}

/// The major version of the data, `None` where there is none yet.
fn version(directory: &Path) -> Result<Option<u32>, PostgresError> {
    let stranger = || PostgresError::NotACluster { path: directory.to_owned() };
    match fs::read_to_string(directory.join("PG_VERSION")) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| stranger()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_dir(directory) {
            Ok(mut entries) => entries.next().map_or(Ok(None), |_| Err(stranger())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("read", directory)(error)),
        },
        Err(error) => Err(file("read", &directory.join("PG_VERSION"))(error)),
    }
}
