//! `sculpt audit`.

use clap::{Args, Subcommand};
use sculpt_proto::v1::{AuditEntry, ReadAuditRequest, VerifyAuditRequest};
use serde::Serialize;

use crate::{
    args::value,
    client::{Backoff, Client, Outage},
    exit::Exit,
    failure::{Failure, is_transient},
    output::{Format, audit, clean, identity::AuditJson, json, json_line, line, table, tasks::filled},
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    verb: Option<AuditVerb>,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(Subcommand)]
enum AuditVerb {
    /// Compute every hash of the record anew, and say whether it still holds
    Verify {
        /// A hash that `verify` told earlier and that was kept elsewhere: it must still be in the record, so that a removed
        /// end is found, too
        #[arg(long, value_name = "HASH", value_parser = value::named)]
        head: Option<String>,
    },
}

#[derive(Args)]
struct ReadArgs {
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Begin with this entry
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    from: u64,
    /// Only this action, such as task.create; may be repeated
    #[arg(long = "action", value_name = "ACTION", value_parser = value::named)]
    actions: Vec<String>,
    /// Only what this user did, or executor:NAME
    #[arg(long, value_name = "WHO", value_parser = value::named)]
    actor: Option<String>,
    /// Only what concerns this project
    #[arg(long, value_name = "PROJECT", value_parser = value::named)]
    project: Option<String>,
}

#[derive(Serialize)]
struct VerifiedJson {
    entries: u64,
    hash: String,
    intact: bool,
    broken_at: Option<u64>,
    problem: Option<String>,
}

pub(super) async fn run(args: AuditArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    match args.verb {
        Some(AuditVerb::Verify { head }) => verify(&client, head.unwrap_or_default(), format).await,
        None => tokio::select! {
            outcome = read(&client, args.read, format) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Detached),
        },
    }
}

async fn read(client: &Client, args: ReadArgs, format: Format) -> Result<Exit, Failure> {
    const ATTEMPTED: &str = "read the audit record";
    let mut next = args.from;
    let (mut backoff, mut outage) = (Backoff::new(), Outage::default());
    loop {
        let request = ReadAuditRequest {
            from_sequence: next,
            follow: args.follow,
            actions: args.actions.clone(),
            actor: args.actor.clone().unwrap_or_default(),
            project: args.project.clone().unwrap_or_default(),
        };
        let broken = match client.audit().read_audit(request).await {
            Ok(response) => {
                outage.ended(false);
                let mut stream = response.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(part)) => {
                            for entry in &part.entries {
                                show(entry, format)?;
                                next = entry.sequence + 1;
                            }
                            backoff.reset();
                        }
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                }
            }
            Err(status) => Some(status),
        };
        match broken {
            None if !args.follow => return Ok(Exit::Done),
            Some(status) if !is_transient(&status) => return Err(client.refused(ATTEMPTED, &status)),
            None | Some(_) => {}
        }
        outage.began(false);
        backoff.pause().await;
    }
}

fn show(entry: &AuditEntry, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => json_line(&AuditJson::from(entry)),
        Format::Text => line(audit::lines(entry, table::window().map(|(columns, _)| columns))),
    }
}

async fn verify(client: &Client, head: String, format: Format) -> Result<Exit, Failure> {
    const ATTEMPTED: &str = "verify the audit record";
    // It takes as long as there is of it; a controller that is gone is noticed by the connection.
    let found = client.audit().verify_audit(VerifyAuditRequest { head }).await;
    let found = found.map_err(|status| client.refused(ATTEMPTED, &status))?.into_inner();
    let intact = found.broken_at == 0;
    match format {
        Format::Json => json(&VerifiedJson {
            entries: found.entries,
            hash: found.hash.clone(),
            intact,
            broken_at: (!intact).then_some(found.broken_at),
            problem: filled(&found.problem),
        })?,
        Format::Text if intact => {
            line(format!("intact: {} entries, the last with hash {}", found.entries, found.hash))?;
        }
        Format::Text => line(format!("BROKEN at entry {}: {}", found.broken_at, clean(&found.problem)))?,
    }
    Ok(if intact { Exit::Done } else { Exit::Failed })
}
