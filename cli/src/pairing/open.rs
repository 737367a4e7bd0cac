//! Getting at an access: the one that is there, or another one.

use std::{fs, io, path::Path, time::Duration};

use sculpt_pairing::Right;
use sculpt_proto::{
    FieldError,
    id::{AttemptId, TaskId},
    v1::{Attempt, OpenPairingRequest, OpenPairingResponse, Task},
};
use ssh_key::{Algorithm, LineEnding, PrivateKey};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Purpose,
    access::{Access, KEY, KNOWN_HOSTS, certificate_name, credential, is_of_use, now, read, record_name},
    config,
    folder::{Folder, Folders},
    grant,
    route::{Route, Via, choose},
    us::Us,
};
use crate::{
    client::{Client, unusable},
    exit::Exit,
    failure::Failure,
    output::clean,
};

/// How long another process may take with a task's directory, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// What an access is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) purpose: Purpose,
    /// Without which there is no use in it.
    pub(crate) right: Option<Right>,
    pub(crate) via: Via,
}

/// An access to this attempt of the task.
pub(crate) async fn open(
    client: &Client,
    (task, attempt): (&Task, &Attempt),
    wish: Wish,
    attempted: &str,
) -> Result<Access, Failure> {
    let wrong = |error: FieldError| Failure::new(Exit::Failed, attempted, format!("the controller's answer: {error}"));
    let id: TaskId = grant::uuid(&task.uuid, "task.uuid").map_err(wrong)?;
    let attempt: AttemptId = grant::uuid(&attempt.uuid, "attempt.uuid").map_err(wrong)?;
    let folders = Folders::of(&client.context).map_err(|error| unusable(&error))?;
    let us = Us::here(&client.context);
    let credential = credential(&client.context);
    let seek = |folder: &Path| {
        read(folder, wish.purpose).filter(|found| found.serves(attempt, (wish.right, wish.via), &credential, now()))
    };
    // Most find all of it as they need it, and wait for nobody.
    if let Some(found) = seek(&folders.folder(id)) {
        let access = turned(found, wish.via, attempted).await?;
        if fs::read_to_string(access.config()).ok() == Some(text(&access, &us, attempted)?) {
            return given(access, wish.right, task, attempted);
        }
    }
    let broken = |error: io::Error| {
        let why = format!("write what ssh needs below {}: {error}", folders.path().display());
        Failure::new(Exit::Failed, attempted, why)
    };
    let folder = take(&folders, id).await.map_err(broken)?;
    let found = match seek(folder.path()) {
        Some(found) => found,
        None => {
            let (key, opened) = (key(&folder).map_err(broken)?, now());
            let answer = ask(client, (task, key), wish, attempted).await?;
            let (grant, certificate) = grant::checked(answer).map_err(wrong)?;
            let access = Access {
                number: task.number,
                task: id,
                // The one that is looked at where nobody names another.
                route: grant.address.clone().map_or(Route::Tunnel, Route::Direct),
                grant,
                opened,
                credential: credential.clone(),
                folder: folder.path().to_owned(),
                purpose: wish.purpose,
                via: Via::Any,
            };
            keep(&folder, &access, &certificate).map_err(broken)?;
            access
        }
    };
    let access = turned(found.clone(), wish.via, attempted).await?;
    folder.write(&access.config_name(), text(&access, &us, attempted)?).map_err(broken)?;
    if access.via == Via::Any && access != found {
        record(&folder, &access).map_err(broken)?;
    }
    // Those that stay are met by whoever comes next.
    let _stays = folders.sweep(|folder| is_of_use(folder, &access, now()));
    given(access, wish.right, task, attempted)
}

/// The access by the way to go.
async fn turned(found: Access, via: Via, attempted: &str) -> Result<Access, Failure> {
    let route = choose(found.grant.address.as_ref(), via, Some(&found.route)).await;
    if via == Via::Direct && route == Route::Tunnel {
        let why = "its executor has no port of its own that people could reach";
        let failure = Failure::new(Exit::Conflict, attempted, why);
        return Err(failure.next("without --via it is reached through the controller"));
    }
    Ok(Access { route, via, ..found })
}

/// Turns whoever comes next by this access to the tunnel, if the direct way did not lead in. Where that cannot be written
/// down, the next one finds out by itself.
pub(super) async fn detour(client: &Client, access: &Access) {
    if access.via != Via::Any || access.route == Route::Tunnel {
        return;
    }
    let Ok(folders) = Folders::of(&client.context) else { return };
    let Ok(folder) = take(&folders, access.task).await else { return };
    if let Some(found) = read(folder.path(), access.purpose).filter(|found| found.grant.pairing == access.grant.pairing)
    {
        let _untold = record(&folder, &Access { route: Route::Tunnel, ..found });
    }
}

/// What ssh is told of it.
fn text(access: &Access, us: &Us, attempted: &str) -> Result<String, Failure> {
    config::text(access, us).map_err(|problem| {
        Failure::new(Exit::BadInput, attempted, problem.to_string()).next("set XDG_STATE_HOME to a plain path")
    })
}

/// Keeps what was granted.
fn keep(folder: &Folder, access: &Access, certificate: &str) -> io::Result<()> {
    let known_hosts = access.grant.known_hosts.iter().map(|line| format!("{line}\n")).collect::<String>();
    folder.write(&certificate_name(access.purpose), format!("{certificate}\n"))?;
    folder.write(KNOWN_HOSTS, known_hosts)?;
    // Last: it says that the others are there.
    record(folder, access)
}

fn record(folder: &Folder, access: &Access) -> io::Result<()> {
    folder.write(&record_name(access.purpose), serde_json::to_vec(access)?)
}

/// The access, if the person may do what they came for.
fn given(access: Access, right: Option<Right>, task: &Task, attempted: &str) -> Result<Access, Failure> {
    match right.filter(|right| !access.gives(Some(*right))) {
        None => Ok(access),
        Some(right) => Err(lacks(right, task, attempted)),
    }
}

/// Asks the controller for the first of what the wish is about that it grants.
async fn ask(
    client: &Client,
    (task, public_key): (&Task, String),
    wish: Wish,
    attempted: &str,
) -> Result<OpenPairingResponse, Failure> {
    let mut request = OpenPairingRequest { task: task.uuid.clone(), public_key, ..OpenPairingRequest::default() };
    let mut profiles = wish.purpose.profiles(wish.right).iter().peekable();
    loop {
        request.set_profile(profiles.next().copied().unwrap_or_default());
        request.request_id = Uuid::new_v4().to_string();
        let answer = client.change(attempted, async || client.pairings().open_pairing(request.clone()).await).await;
        match answer {
            Err(failure) if failure.exit == Exit::NotAllowed && profiles.peek().is_some() => {}
            answer => return answer,
        }
    }
}

/// Nothing would be gained by asking the executor, which refuses it later and in fewer words.
fn lacks(right: Right, task: &Task, attempted: &str) -> Failure {
    let (doing, role) = match right {
        Right::Observe => ("look on", "viewer"),
        Right::Drive => ("type at its terminal", "driver"),
        Right::Shell => ("work in its workspace", "shell"),
        Right::Forward => ("reach what its programs listen on", "forwarder"),
    };
    let place = if task.project.is_empty() { String::new() } else { format!(" in project {}", task.project) };
    let why = clean(&format!("you may not {doing}: that takes the role {role}{place}"));
    let failure = Failure::new(Exit::NotAllowed, attempted, why)
        .next("ask an admin for it; `sculpt whoami` shows what you, and this token, may");
    match right {
        Right::Drive => failure.next("`sculpt pair --read-only` looks on without it"),
        Right::Observe | Right::Shell | Right::Forward => failure,
    }
}

/// The task's directory, once no other process has it. One that was stopped keeps it for as long as it likes.
async fn take(folders: &Folders, task: TaskId) -> io::Result<Folder> {
    let until = Instant::now() + PATIENCE;
    loop {
        match folders.take(task)? {
            Some(folder) => return Ok(folder),
            None if Instant::now() >= until => {
                let why =
                    format!("another sculpt has been at it for {} s, and may have been stopped", PATIENCE.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            None => sleep(LOOK).await,
        }
    }
}

/// The task's key for certificates, which is made where there is none; its public half.
pub(super) fn key(folder: &Folder) -> io::Result<String> {
    let there = fs::read_to_string(folder.path().join(KEY)).ok().and_then(|text| PrivateKey::from_openssh(text).ok());
    let key = match there {
        Some(key) => key,
        None => {
            let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(io::Error::other)?;
            folder.write(KEY, key.to_openssh(LineEnding::LF).map_err(io::Error::other)?.as_bytes())?;
            key
        }
    };
    key.public_key().to_openssh().map_err(io::Error::other)
}
