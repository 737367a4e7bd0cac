//! An asciicast where it was wished for: in a file that is there whole or not at all, or on standard output.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, BufWriter};

use super::{Cast, Made, Recording};
use crate::{exit::Exit, failure::Failure, follow::pieces};

/// A file that nobody sees before it is whole.
pub(crate) struct NewFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl NewFile {
    /// Makes room for a file that is not there yet.
    pub(crate) fn begin(path: &Path) -> Result<Self, Failure> {
        if path.symlink_metadata().is_ok() {
            return Err(taken(path));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As any program's files: the user's mask takes away what it takes away.
        let made = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
        let temporary = made.map_err(|error| {
            Failure::new(Exit::BadInput, attempted(path), error.to_string())
                .next("name a file in a directory that is there and that you may write to")
        })?;
        Ok(Self { path: path.to_owned(), temporary })
    }

    /// What it will be called.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn keep(self) -> Result<(), Failure> {
        let path = self.path;
        self.temporary.persist_noclobber(&path).map(drop).map_err(|refused| match refused.error.kind() {
            io::ErrorKind::AlreadyExists => taken(&path),
            _ => Failure::new(Exit::Failed, attempted(&path), refused.error.to_string()),
        })
    }
}

fn attempted(path: &Path) -> String {
    format!("write the recording to {}", path.display())
}

fn taken(path: &Path) -> Failure {
    Failure::new(Exit::Conflict, attempted(path), "it is there already")
        .next("name another file, or remove it first: nothing is written over")
}

/// Writes the whole of `recording` to `file`.
pub(crate) async fn write(recording: &mut Recording, cast: Cast, file: NewFile) -> Result<Made, Failure> {
    let path = file.path.clone();
    let failed = |error: io::Error| Failure::new(Exit::Failed, attempted(&path), error.to_string());
    let out = file.temporary.as_file().try_clone().map_err(failed)?;
    let made = convert(recording, cast, tokio::fs::File::from_std(out), failed).await?;
    file.keep()?;
    Ok(made)
}

/// Writes the whole of `recording` to standard output.
pub(crate) async fn print(recording: &mut Recording, cast: Cast) -> Result<Made, Failure> {
    convert(recording, cast, tokio::io::stdout(), Failure::output).await
}

async fn convert(
    recording: &mut Recording,
    mut cast: Cast,
    out: impl AsyncWrite + Unpin,
    failed: impl Fn(io::Error) -> Failure,
) -> Result<Made, Failure> {
    let mut out = BufWriter::new(out);
    while let Some(chunk) = recording.next().await? {
        for piece in pieces(&chunk) {
            out.write_all(cast.add(&piece).as_bytes()).await.map_err(&failed)?;
        }
    }
    let (rest, made) = cast.end();
    out.write_all(rest.as_bytes()).await.map_err(&failed)?;
    out.flush().await.map_err(&failed)?;
    Ok(made)
}
