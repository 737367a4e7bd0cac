//! `sculpt executor token` and `sculpt executor rm`.

use std::time::Duration;

use clap::Args;
use sculpt_proto::{
    to_duration,
    v1::{CreateJoinTokenRequest, JoinToken, ListJoinTokensRequest, RemoveExecutorRequest, RevokeJoinTokenRequest},
};
use uuid::Uuid;

use crate::{
    args::value,
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{
        Format, clean,
        executors::ExecutorJson,
        identity::{JoinTokenJson, short},
        json, line, note, shell_quoted,
        table::Grid,
        time::{local, relative},
    },
};

#[derive(Args)]
pub(crate) struct TokenArgs {
    /// Pool of the executors that join with it
    #[arg(long, value_name = "POOL", default_value = "default", value_parser = value::named)]
    pool: String,
    /// Label of these executors, which tasks can require; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = value::pair)]
    labels: Vec<(String, String)>,
    /// How long it is good
    #[arg(long, value_name = "DUR", default_value = "15m", value_parser = value::span)]
    ttl: Duration,
    /// How many machines may join with it
    #[arg(long, value_name = "N", default_value = "1", value_parser = value::whole::<u32>(1, 10_000))]
    uses: u32,
    /// Print the token and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// List the tokens that are still good instead
    #[arg(long, conflicts_with_all = ["pool", "labels", "ttl", "uses"])]
    ls: bool,
    /// Revoke this one instead, by its uuid or a unique prefix of it
    #[arg(long, value_name = "TOKEN", value_parser = value::named, conflicts_with_all = ["pool", "labels", "ttl", "uses", "ls"])]
    revoke: Option<String>,
}

#[derive(Args)]
pub(crate) struct RmArgs {
    /// Name, uuid, or unique prefix of the uuid
    #[arg(value_parser = value::named)]
    executor: String,
    /// Also while it holds attempts, which are given up
    #[arg(long)]
    force: bool,
}

pub(super) async fn token(args: TokenArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    match &args.revoke {
        Some(token) => revoke(&client, token, format).await,
        None if args.ls => ls(&client, format).await,
        None => create(&client, args, format).await,
    }
}

async fn create(client: &Client, args: TokenArgs, format: Format) -> Result<Exit, Failure> {
    let request = CreateJoinTokenRequest {
        request_id: Uuid::new_v4().to_string(),
        pool: args.pool,
        labels: args.labels.into_iter().collect(),
        ttl: Some(to_duration(args.ttl)),
        uses: args.uses,
    };
    // Not tried again by itself: the secret of the first answer would be lost, and the token with it.
    let answer = client.read("make a token for executors", client.executors().create_join_token(request)).await?;
    let (url, secret) = (answer.executor_url, answer.secret);
    match (format, &answer.token) {
        (Format::Json, Some(token)) => {
            json(&JoinTokenJson::from(token).revealed(secret, url))?;
        }
        (_, token) => {
            line(&secret)?;
            if args.quiet {
                return Ok(Exit::Done);
            }
            let until = token.as_ref().and_then(|token| local(token.expires_at.as_ref())).unwrap_or_default();
            let machines = if args.uses == 1 { "one machine".to_owned() } else { format!("{} machines", args.uses) };
            note(format!("shown this once, good until {until} for {machines}; there:"));
            note(format!("  sculpt-executor join {} --token-file -", shell_quoted(&url)));
        }
    }
    Ok(Exit::Done)
}

async fn ls(client: &Client, format: Format) -> Result<Exit, Failure> {
    let request = ListJoinTokensRequest {};
    let tokens = client.read("list tokens for executors", client.executors().list_join_tokens(request)).await?.tokens;
    match format {
        Format::Json => json(&tokens.iter().map(JoinTokenJson::from).collect::<Vec<_>>())?,
        Format::Text if tokens.is_empty() => note("no tokens for executors are good now"),
        Format::Text => line(table(&tokens))?,
    }
    Ok(Exit::Done)
}

fn table(tokens: &[JoinToken]) -> String {
    let mut grid = Grid::new(&["TOKEN", "POOL", "USED", "LABELS*", "BY-", "EXPIRES"]);
    for token in tokens {
        let mut labels: Vec<String> = token.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        labels.sort();
        grid.row([
            short(&token.uuid).to_owned(),
            token.pool.clone(),
            format!("{}/{}", token.used, token.uses),
            labels.join(","),
            token.created_by.clone(),
            relative(token.expires_at.as_ref()).unwrap_or_default(),
        ]);
    }
    grid.render()
}

async fn revoke(client: &Client, token: &str, format: Format) -> Result<Exit, Failure> {
    let request = RevokeJoinTokenRequest { request_id: Uuid::new_v4().to_string(), token: token.to_owned() };
    let attempted = format!("revoke token {token}");
    let answer =
        client.change(&attempted, async || client.executors().revoke_join_token(request.clone()).await).await?;
    match (format, &answer.token) {
        (Format::Json, Some(revoked)) => json(&JoinTokenJson::from(revoked))?,
        _ => line(format!("revoked token {}; executors that joined with it stay", clean(token)))?,
    }
    Ok(Exit::Done)
}

pub(super) async fn rm(args: RmArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let RmArgs { executor, force } = args;
    let request = RemoveExecutorRequest { request_id: Uuid::new_v4().to_string(), executor: executor.clone(), force };
    let attempted = format!("remove executor {executor}");
    let answer = client.change(&attempted, async || client.executors().remove_executor(request.clone()).await).await?;
    match (format, &answer.executor) {
        (Format::Json, Some(removed)) => json(&ExecutorJson::from(removed))?,
        _ => line(format!("removed executor {}; it is cut off within 10 s", clean(&executor)))?,
    }
    Ok(Exit::Done)
}
