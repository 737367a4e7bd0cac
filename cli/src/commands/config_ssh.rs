//! `sculpt config-ssh`: lets plain ssh, and all that goes by it, reach tasks.

mod block;

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::{User, geteuid};

use self::block::Torn;
use super::{ssh::workspace, task_named};
use crate::{
    args::ConfigSshArgs,
    client::{Client, unusable},
    config::{ConfigError, Context, TOKEN, at_home},
    exit::Exit,
    failure::Failure,
    output::{line, note},
    pairing::{Folders, Purpose, Us, Via, Wish},
};

/// What a task's host begins with.
const PREFIX: &str = "sculpt.";

pub(super) async fn run(args: ConfigSshArgs) -> Result<Exit, Failure> {
    if let Some(host) = &args.host {
        return certify(host).await;
    }
    let attempted = "let ssh reach tasks";
    let file = match &args.file {
        Some(file) => {
            std::path::absolute(file).map_err(|error| Failure::new(Exit::BadInput, attempted, error.to_string()))?
        }
        None => standard().map_err(|error| unusable(&error))?,
    };
    // What a link leads to is changed, and the link stays.
    let file = file.canonicalize().unwrap_or(file);
    fit(&file, args.file.is_some()).map_err(|why| {
        let failure = Failure::new(Exit::Conflict, attempted, format!("{} {why}", file.display()));
        failure.next("--file names another one")
    })?;
    let broken = |error: io::Error| {
        let exit = if error.kind() == io::ErrorKind::PermissionDenied { Exit::NotAllowed } else { Exit::Failed };
        Failure::new(exit, attempted, format!("{}: {error}", file.display())).next("--file names another one")
    };
    let before = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        before => before.map_err(broken)?,
    };
    let torn = |Torn { line }| {
        let why =
            format!("in line {line} of {} our lines begin and do not end, or end and do not begin", file.display());
        Failure::new(Exit::Conflict, attempted, why).next("take them out by hand, and try again")
    };
    let ours =
        if args.remove { None } else { Some(ours(&Context::load().map_err(|error| unusable(&error))?, attempted)?) };
    let after = block::put(&before, ours.as_deref()).map_err(torn)?;
    if args.dry_run {
        line(String::from_utf8_lossy(&after).trim_end_matches('\n'))?;
        note(format!("nothing was written; {} would be as above", file.display()));
        return Ok(Exit::Done);
    }
    let name = file.display();
    if before == after {
        line(if args.remove {
            format!("{name} holds no lines of sculpt")
        } else {
            format!("{name} is as it should be")
        })?;
    } else {
        write(&file, &after).map_err(broken)?;
        line(if args.remove {
            format!("{name}: our lines are gone")
        } else {
            format!("{name}: `ssh sculpt.17` reaches task 17")
        })?;
    }
    if let Some(unread) = unread(&file).filter(|_| !args.remove && args.file.is_none()) {
        note(unread);
    }
    if !args.remove && std::env::var_os(TOKEN).is_some() {
        note(format!(
            "{TOKEN} is set here, and is not kept: ssh needs it too, or a context with a token (`sculpt login`)"
        ));
    }
    Ok(Exit::Done)
}

/// Fetches the certificate for a host before ssh looks for it. ssh shows what is said, and does not know the host then.
async fn certify(host: &str) -> Result<Exit, Failure> {
    let attempted = format!("reach {host}");
    let name = host.strip_prefix(PREFIX).filter(|name| is_canonical(name));
    let name = name.ok_or_else(|| {
        Failure::new(
            Exit::BadInput,
            &attempted,
            "a task's host is `sculpt.` and its number or its whole uuid, in small letters",
        )
    })?;
    let client = Client::connect().await?;
    let task = task_named(&client, name, &attempted).await?;
    let wish = Wish { purpose: Purpose::Workspace, right: None, via: Via::Any };
    workspace(&client, &task, wish, &attempted).await?;
    Ok(Exit::Done)
}

/// Whether it is the one spelling under which ssh finds the host.
fn is_canonical(name: &str) -> bool {
    let number = name.parse().is_ok_and(|number: u64| number.to_string() == name);
    number || name.parse().is_ok_and(|uuid: uuid::Uuid| uuid.to_string() == name.to_ascii_lowercase())
}

/// Why a file is not written to, if it is not; `named` by the person, who may have meant another one.
fn fit(file: &Path, named: bool) -> Result<(), &'static str> {
    match fs::metadata(file) {
        Ok(data) if !data.is_file() => Err("is no file"),
        // It is put in its place as a new one, which no mode of it forbids.
        Ok(data) if data.permissions().readonly() => Err("may not be written"),
        Ok(_) => Ok(()),
        Err(_) if file.is_symlink() => Err("is a link that leads nowhere"),
        Err(_) if named && file.parent().is_none_or(|folder| !folder.is_dir()) => Err("is in no directory"),
        Err(_) => Ok(()),
    }
}

/// Our lines for a context.
fn ours(context: &Context, attempted: &str) -> Result<String, Failure> {
    let folders = Folders::of(context).map_err(|error| unusable(&error))?;
    block::ours(&Us::here(context), &folders).map_err(|why| {
        Failure::new(Exit::BadInput, attempted, why.to_string()).next("keep sculpt, and its state, under a plain path")
    })
}

/// Whether plain ssh reaches tasks of this context: not at all, as it should, or by lines of another time.
pub(super) enum Reach {
    Not,
    Yes(PathBuf),
    Otherwise(PathBuf),
}

/// How it is with the file that ssh reads.
pub(super) fn reach(context: &Context) -> Reach {
    let Ok(file) = standard() else { return Reach::Not };
    let Ok(text) = fs::read(&file) else { return Reach::Not };
    let ours = ours(context, "look").ok();
    match (block::put(&text, None), block::put(&text, ours.as_deref())) {
        (Ok(without), _) if without == text => Reach::Not,
        (_, Ok(with)) if with == text => Reach::Yes(file),
        _ => Reach::Otherwise(file),
    }
}

/// A person's configuration of ssh.
fn standard() -> Result<PathBuf, ConfigError> {
    at_home(".ssh/config")
}

/// What there is to say of a file that ssh does not read by itself: it goes by the database of accounts, whatever HOME says.
fn unread(file: &Path) -> Option<String> {
    let home = User::from_uid(geteuid()).ok()??.dir;
    let read = home.join(".ssh/config");
    let is_read = read.canonicalize().is_ok_and(|read| read == file);
    (!is_read).then(|| format!("ssh reads {} here; `ssh -F {}` reads this one", read.display(), file.display()))
}

/// Writes it in one step, as readable as it was.
fn write(file: &Path, text: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(text)?;
    let mode = fs::metadata(file).map_or(0o600, |data| data.permissions().mode() & 0o777);
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}
