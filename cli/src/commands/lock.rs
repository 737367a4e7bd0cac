//! `sculpt lock`, `sculpt unlock` and `sculpt locks`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use sculpt_proto::{
    to_duration,
    v1::{ListLocksRequest, LockEntry, LockRequest, LockTarget, UnlockRequest, lock_target::Target},
};
use uuid::Uuid;

use crate::{
    args::value,
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{
        Format, clean, counted,
        identity::{LockJson, locked},
        json, line, note,
        table::Grid,
        time::{age, relative},
    },
};

/// What can be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lockable {
    /// All that the user may
    User,
    /// Its sessions, and the renewal of its certificate
    Executor,
    /// What is done with the token
    Token,
}

#[derive(Args)]
pub(crate) struct LockArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Told to whom is locked out, and kept in the audit record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// How long [default: until it is unlocked]
    #[arg(long, value_name = "DUR", value_parser = value::span)]
    ttl: Option<Duration>,
}

#[derive(Args)]
pub(crate) struct TargetArgs {
    /// What to lock
    #[arg(value_enum)]
    kind: Lockable,
    /// Its name; of executors and tokens also the uuid or a unique prefix of it
    #[arg(value_parser = value::named)]
    name: String,
}

impl TargetArgs {
    fn target(&self) -> LockTarget {
        let name = self.name.clone();
        LockTarget {
            target: Some(match self.kind {
                Lockable::User => Target::User(name),
                Lockable::Executor => Target::Executor(name),
                Lockable::Token => Target::Token(name),
            }),
        }
    }

    fn words(&self) -> String {
        let kind = match self.kind {
            Lockable::User => "user",
            Lockable::Executor => "executor",
            Lockable::Token => "token",
        };
        format!("{kind} {}", self.name)
    }
}

pub(super) async fn lock(args: LockArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let what = args.target.words();
    let request = LockRequest {
        request_id: Uuid::new_v4().to_string(),
        target: Some(args.target.target()),
        reason: args.reason,
        ttl: args.ttl.map(to_duration),
    };
    let attempted = format!("lock {what}");
    let answer = client.change(&attempted, async || client.identity().lock(request.clone()).await).await?;
    match (format, &answer.lock) {
        (Format::Json, Some(lock)) => json(&LockJson::from(lock))?,
        _ => line(format!("locked {}; it is cut off within 10 s", clean(&what)))?,
    }
    Ok(Exit::Done)
}

pub(super) async fn unlock(target: TargetArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let what = target.words();
    let request = UnlockRequest { request_id: Uuid::new_v4().to_string(), target: Some(target.target()) };
    let attempted = format!("unlock {what}");
    let answer = client.change(&attempted, async || client.identity().unlock(request.clone()).await).await?;
    match format {
        Format::Json => json(&answer.locks.iter().map(LockJson::from).collect::<Vec<_>>())?,
        Format::Text if answer.locks.is_empty() => note(format!("{} was not locked", clean(&what))),
        Format::Text => line(format!("lifted {} of {}", counted(answer.locks.len(), "lock"), clean(&what)))?,
    }
    Ok(Exit::Done)
}

pub(super) async fn ls(format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let locks = client.read("list locks", client.identity().list_locks(ListLocksRequest {})).await?.locks;
    match format {
        Format::Json => json(&locks.iter().map(LockJson::from).collect::<Vec<_>>())?,
        Format::Text if locks.is_empty() => note("nothing is locked"),
        Format::Text => line(table(&locks))?,
    }
    Ok(Exit::Done)
}

fn table(locks: &[LockEntry]) -> String {
    let mut grid = Grid::new(&["KIND", "LOCKED", "BY", "REASON*", "LIFTED-", "AGE"]);
    for lock in locks {
        let (kind, target) = locked(lock);
        grid.row([
            kind.to_owned(),
            target,
            lock.by.clone(),
            lock.reason.clone(),
            relative(lock.expires_at.as_ref()).unwrap_or_default(),
            age(lock.created_at.as_ref()),
        ]);
    }
    grid.render()
}
