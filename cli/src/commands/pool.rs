//! `sculpt pool`.

use clap::{Args, Subcommand, ValueEnum};
use sculpt_proto::v1::{ListPoolsRequest, Pool, RemovePoolRequest, SetPoolRequest};
use sculpt_space::ByteSize;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    args::value,
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{Format, clean, json, line, note, table::Grid, time::size},
};

#[derive(Subcommand)]
pub(crate) enum PoolVerb {
    /// List pools: whose tasks they take, what their agents may use, which executors they have
    Ls,
    /// Say whose tasks a pool takes and what its agents may use; what is left out is not limited
    #[command(after_help = "Examples:\n  sculpt pool set build --project website --user ada --memory 4GiB --cpu 2\n  \
        sculpt pool set offline --network none")]
    Set(SetArgs),
    /// Forget what was set of a pool; refused while executors are in it or may still join
    Rm {
        /// Its name
        #[arg(value_parser = value::named)]
        pool: String,
    },
}

/// What agents reach over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Network {
    /// What their machine reaches
    Host,
    /// Nothing
    None,
}

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Its name
    #[arg(value_parser = value::named)]
    pool: String,
    /// Project whose tasks run here; may be repeated
    #[arg(long = "project", value_name = "PROJECT", value_parser = value::named)]
    projects: Vec<String>,
    /// User whose tasks run here; may be repeated
    #[arg(long = "user", value_name = "NAME", value_parser = value::named)]
    users: Vec<String>,
    /// What separated agents reach over the network
    #[arg(long, value_enum, default_value = "host")]
    network: Network,
    /// Memory of an attempt, such as 4GiB
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// Processes and threads of an attempt
    #[arg(long, value_name = "N", value_parser = value::whole::<u32>(1, 1_000_000))]
    processes: Option<u32>,
    /// Processors of an attempt, such as 1.5
    #[arg(long, value_name = "N", value_parser = thousandths)]
    cpu: Option<u32>,
}

#[derive(Debug, Serialize)]
struct PoolJson {
    name: String,
    projects: Vec<String>,
    users: Vec<String>,
    network: String,
    memory: Option<u64>,
    processes: Option<u32>,
    cpu: Option<f64>,
    executors: Vec<String>,
    /// Those of them on which attempts run without one of its limits.
    unlimited: Vec<String>,
    /// Tasks that wait for it.
    waiting: u64,
}

impl From<&Pool> for PoolJson {
    fn from(pool: &Pool) -> Self {
        Self {
            name: pool.name.clone(),
            projects: pool.projects.clone(),
            users: pool.users.clone(),
            network: pool.network.clone(),
            memory: Some(pool.memory).filter(|bytes| *bytes > 0),
            processes: Some(pool.processes).filter(|count| *count > 0),
            cpu: Some(f64::from(pool.cpu) / 1000.0).filter(|count| *count > 0.0),
            executors: pool.executors.clone(),
            unlimited: pool.unlimited.clone(),
            waiting: pool.waiting,
        }
    }
}

fn memory(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(ByteSize(bytes)) if bytes > 0 => Ok(bytes),
        Ok(_) | Err(_) => Err("write it like 4GiB".to_owned()),
    }
}

fn thousandths(text: &str) -> Result<u32, String> {
    let count: f64 = text.parse().map_err(|_| "write it like 2 or 1.5")?;
    if !(0.01..=4096.0).contains(&count) {
        return Err("it must be between 0.01 and 4096".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the range above")]
    Ok((count * 1000.0).round() as u32)
}

pub(super) async fn run(verb: PoolVerb, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    match verb {
        PoolVerb::Ls => ls(&client, format).await,
        PoolVerb::Set(args) => set(&client, args, format).await,
        PoolVerb::Rm { pool } => rm(&client, pool, format).await,
    }
}

async fn ls(client: &Client, format: Format) -> Result<Exit, Failure> {
    let pools = client.read("list pools", client.executors().list_pools(ListPoolsRequest {})).await?.pools;
    match format {
        Format::Json => json(&pools.iter().map(PoolJson::from).collect::<Vec<_>>())?,
        Format::Text if pools.is_empty() => note("no pool has rules: every pool takes everybody's tasks"),
        Format::Text => {
            let names = [
                "POOL",
                "PROJECTS*",
                "USERS*",
                "NETWORK",
                "EXECUTORS*",
                "WAITING",
                "MEMORY-",
                "PROCESSES-",
                "CPU-",
                "UNLIMITED-",
            ];
            let mut grid = Grid::new(&names);
            for pool in &pools {
                let limit = |limited: bool, text: String| if limited { text } else { String::new() };
                grid.row([
                    pool.name.clone(),
                    everything_if_none(&pool.projects),
                    everything_if_none(&pool.users),
                    pool.network.clone(),
                    pool.executors.join(", "),
                    pool.waiting.to_string(),
                    limit(pool.memory > 0, size(pool.memory)),
                    limit(pool.processes > 0, pool.processes.to_string()),
                    limit(pool.cpu > 0, (f64::from(pool.cpu) / 1000.0).to_string()),
                    pool.unlimited.join(", "),
                ]);
            }
            line(grid.render())?;
        }
    }
    Ok(Exit::Done)
}

fn everything_if_none(names: &[String]) -> String {
    if names.is_empty() { "all".to_owned() } else { names.join(", ") }
}

async fn set(client: &Client, args: SetArgs, format: Format) -> Result<Exit, Failure> {
    let network = match args.network {
        Network::Host => "host",
        Network::None => "none",
    };
    let pool = Pool {
        name: args.pool.clone(),
        projects: args.projects,
        users: args.users,
        network: network.to_owned(),
        memory: args.memory.unwrap_or_default(),
        processes: args.processes.unwrap_or_default(),
        cpu: args.cpu.unwrap_or_default(),
        ..Pool::default()
    };
    let request = SetPoolRequest { request_id: Uuid::new_v4().to_string(), pool: Some(pool) };
    let attempted = format!("set the rules of pool {}", args.pool);
    let answer = client.change(&attempted, async || client.executors().set_pool(request.clone()).await).await?;
    match (format, &answer.pool) {
        (Format::Json, Some(pool)) => json(&PoolJson::from(pool))?,
        (Format::Text, Some(pool)) => {
            line(format!("set the rules of pool {}: {}", clean(&args.pool), clean(&rules(pool))))?;
        }
        (_, None) => line(format!("set the rules of pool {}", clean(&args.pool)))?,
    }
    Ok(Exit::Done)
}

/// All that holds of a pool: what a call leaves out is not kept from before.
fn rules(pool: &Pool) -> String {
    let mut rules = vec![
        format!("projects {}", everything_if_none(&pool.projects)),
        format!("users {}", everything_if_none(&pool.users)),
        format!("network {}", pool.network),
    ];
    let limits = [
        (pool.memory > 0, format!("memory {}", size(pool.memory))),
        (pool.processes > 0, format!("processes {}", pool.processes)),
        (pool.cpu > 0, format!("cpu {}", f64::from(pool.cpu) / 1000.0)),
    ];
    rules.extend(limits.into_iter().filter(|(limited, _)| *limited).map(|(_, limit)| limit));
    rules.join("; ")
}

async fn rm(client: &Client, pool: String, format: Format) -> Result<Exit, Failure> {
    let request = RemovePoolRequest { request_id: Uuid::new_v4().to_string(), pool: pool.clone() };
    let attempted = format!("remove pool {pool}");
    let answer = client.change(&attempted, async || client.executors().remove_pool(request.clone()).await).await?;
    match (format, &answer.pool) {
        (Format::Json, Some(pool)) => json(&PoolJson::from(pool))?,
        _ => line(format!("removed pool {}", clean(&pool)))?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_of_a_pool_is_told_whole() {
        let open = Pool { network: "host".into(), memory: 1 << 30, ..Pool::default() };
        let closed = Pool {
            projects: vec!["web".into()],
            users: vec!["ada".into(), "ben".into()],
            network: "none".into(),
            processes: 64,
            cpu: 1500,
            ..Pool::default()
        };
        assert_eq!(rules(&open), format!("projects all; users all; network host; memory {}", size(1 << 30)));
        assert_eq!(rules(&closed), "projects web; users ada, ben; network none; processes 64; cpu 1.5");
    }

    #[test]
    fn processors_are_counted_in_thousandths() {
        assert_eq!((thousandths("1.5"), thousandths("2")), (Ok(1500), Ok(2000)));
        for wrong in ["", "x", "0", "-1", "NaN", "inf", "9999"] {
            assert!(thousandths(wrong).is_err(), "{wrong}");
        }
    }
}
