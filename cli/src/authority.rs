//! The authorities that tokens name by their pins. Once met they are kept, for git too, which knows no pins.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sculpt_tls::{Meeting, Pin, Server, Trust};

use crate::config::{ConfigError, Context, xdg};

/// How long authorities are not asked for again.
pub(crate) const FRESH: Duration = Duration::from_secs(3_600);

/// Whom to believe that it is the controller of `context`.
pub(crate) fn server(context: &Context) -> Result<Server, ConfigError> {
    let Some(pin) = context.pin else { return Ok(Server::Public) };
    let file = file(&pin)?;
    match fs::read(&file) {
        // What cannot be read as authorities is met and written anew.
        Ok(pem) => Ok(Trust::from_pem(&pem).map_or_else(|_| Server::Pinned(Meeting::new(pin)), Server::Known)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Server::Pinned(Meeting::new(pin))),
        Err(source) => Err(ConfigError::File { file, source }),
    }
}

/// Keeps the authority that was met over a connection to `server`.
pub(crate) fn keep(context: &Context, server: &Server) -> Result<(), ConfigError> {
    let (Some(pin), Server::Pinned(meeting)) = (context.pin, server) else { return Ok(()) };
    let Some(trust) = meeting.authority() else { return Ok(()) };
    let file = file(&pin)?;
    // The others that are trusted are yet to be asked for.
    write(&file, &trust.to_pem())
        .and_then(|()| fs::File::open(&file)?.set_modified(SystemTime::UNIX_EPOCH))
        .map_err(|source| ConfigError::File { file, source })
}

/// Whether it is time to ask the controller of `context` for its authorities: a next one must be known before the present
/// one ends.
pub(crate) fn is_due(context: &Context) -> bool {
    let Some(pin) = context.pin else { return false };
    let age = |file: PathBuf| fs::metadata(file).and_then(|data| data.modified()).ok()?.elapsed().ok();
    // A clock that was set back makes it due, and so does a file that cannot be looked at.
    file(&pin).ok().and_then(age).is_none_or(|age| age >= FRESH)
}

/// Keeps the authorities in `pem`, which the controller of `context` named over a connection that it had proved itself on, and
/// whether it has a certificate of the `public` beside.
pub(crate) fn learn(context: &Context, pem: &str, public: bool) -> Result<(), ConfigError> {
    let Some(pin) = context.pin.filter(|_| !pem.is_empty()) else { return Ok(()) };
    let file = file(&pin)?;
    let broken = |source| ConfigError::File { file: file.clone(), source };
    let trust = Trust::from_pem(pem.as_bytes()).map_err(|error| broken(io::Error::other(error)))?;
    write(&file, &trust.to_pem()).map_err(broken)?;
    let mark = mark(&file);
    let marked = match public {
        true => fs::write(&mark, ""),
        false => fs::remove_file(&mark).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        }),
    };
    marked.map_err(|source| ConfigError::File { file: mark, source })
}

/// The authorities that git is to believe for the controller of `context`; none: whom the system believes. Git goes by the
/// name in the URL, and a controller that has a public certificate shows that one to who does.
pub(crate) fn for_git(context: &Context) -> Option<PathBuf> {
    let file = file(&context.pin?).ok()?;
    (!mark(&file).exists()).then_some(file)
}

fn mark(file: &Path) -> PathBuf {
    file.with_extension("public")
}

/// Where the authorities behind `pin` stand once they were met.
pub(crate) fn file(pin: &Pin) -> Result<PathBuf, ConfigError> {
    let name = pin.to_string();
    let name = name.trim_start_matches("sha256:");
    Ok(xdg("XDG_CONFIG_HOME", ".config")?.join(format!("sculpt/authorities/{name}.pem")))
}

fn write(file: &Path, pem: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(pem.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}
