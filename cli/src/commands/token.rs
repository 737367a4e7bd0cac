//! `sculpt token`.

use std::time::Duration;

use clap::Subcommand;
use sculpt_proto::{
    to_duration,
    v1::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest},
};
use uuid::Uuid;

use crate::{
    args::value::{self, Binding},
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{
        Format, clean,
        identity::{TokenJson, roles, short},
        json, line, note,
        table::Grid,
        time::{age, local, relative},
    },
};

#[derive(Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token; it is shown this once
    #[command(after_help = "Example, for a program that may only look at one project for a month:\n  \
        sculpt token create --name dashboard --scope viewer@website --ttl 30d\n\n\
        In a script, for a colleague:\n  \
        sculpt token create -q --user ada --ttl 7d > token\n  \
        ssh there sculpt login https://controller.example:7433 < token")]
    Create {
        /// What it is for
        #[arg(long, value_parser = value::named)]
        name: Option<String>,
        /// Limit it to a role, everywhere or @PROJECT; may be repeated [default: all that its owner may]
        #[arg(long = "scope", value_name = "ROLE[@PROJECT]", value_parser = value::binding)]
        scope: Vec<Binding>,
        /// How long it is good, such as 12h or 30d [default: until it is revoked]
        #[arg(long, value_name = "DUR", value_parser = value::span)]
        ttl: Option<Duration>,
        /// For another user, as an admin
        #[arg(long, value_name = "NAME", value_parser = value::named)]
        user: Option<String>,
        /// Print the token and nothing else
        #[arg(short, long)]
        quiet: bool,
    },
    /// List the tokens that are good: what each may, and when it was used last
    Ls {
        /// Of another user, as an admin
        #[arg(long, value_name = "NAME", value_parser = value::named, conflicts_with = "all")]
        user: Option<String>,
        /// Of everybody, as an admin
        #[arg(long)]
        all: bool,
    },
    /// Revoke tokens
    Rm {
        /// Uuids, or unique prefixes of them
        #[arg(required = true, value_name = "TOKEN", value_parser = value::named)]
        tokens: Vec<String>,
    },
}

pub(super) async fn run(verb: TokenVerb, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    match verb {
        TokenVerb::Create { name, scope, ttl, user, quiet } => {
            let request = CreateTokenRequest {
                request_id: Uuid::new_v4().to_string(),
                user: user.unwrap_or_default(),
                name: name.unwrap_or_default(),
                scope: scope.into_iter().map(Into::into).collect(),
                ttl: ttl.map(to_duration),
            };
            create(&client, request, quiet, format).await
        }
        TokenVerb::Ls { user, all } => {
            let whose = if all { Some("*".to_owned()) } else { user };
            ls(&client, whose.unwrap_or_default(), format).await
        }
        TokenVerb::Rm { tokens } => {
            let revoke = |token: String| {
                let client = &client;
                async move {
                    let request = RevokeTokenRequest { request_id: Uuid::new_v4().to_string(), token: token.clone() };
                    let attempted = format!("revoke token {token}");
                    let answer = client
                        .change(&attempted, async || client.identity().revoke_token(request.clone()).await)
                        .await?;
                    match (format, &answer.token) {
                        (Format::Json, Some(revoked)) => json(&TokenJson::from(revoked)),
                        _ => line(format!("revoked token {}", clean(&token))),
                    }
                }
            };
            super::each(&tokens, revoke).await
        }
    }
}

async fn create(client: &Client, request: CreateTokenRequest, quiet: bool, format: Format) -> Result<Exit, Failure> {
    // Not tried again by itself: the secret of the first answer would be lost, and the token with it.
    let answer = client.read("make a token", client.identity().create_token(request)).await?;
    match (format, &answer.token) {
        (Format::Json, Some(token)) => json(&TokenJson::from(token).revealed(answer.secret))?,
        (_, token) => {
            line(&answer.secret)?;
            if !quiet {
                let until = token.as_ref().and_then(|token| local(token.expires_at.as_ref()));
                let until = until.map_or("until it is revoked".to_owned(), |until| format!("until {until}"));
                let address = client.context.address();
                note(format!("shown this once, good {until}; its owner signs in with `sculpt login {address}`"));
            }
        }
    }
    Ok(Exit::Done)
}

async fn ls(client: &Client, user: String, format: Format) -> Result<Exit, Failure> {
    let request = ListTokensRequest { user, revoked_too: false };
    let tokens = client.read("list tokens", client.identity().list_tokens(request)).await?.tokens;
    match format {
        Format::Json => json(&tokens.iter().map(TokenJson::from).collect::<Vec<_>>())?,
        Format::Text if tokens.is_empty() => note("no tokens"),
        Format::Text => {
            let mut grid = Grid::new(&["TOKEN", "USER", "NAME*", "SCOPE*", "EXPIRES-", "USED", "FROM-"]);
            for token in &tokens {
                grid.row([
                    short(&token.uuid).to_owned(),
                    token.user.clone(),
                    token.name.clone(),
                    roles(&token.scope),
                    relative(token.expires_at.as_ref()).unwrap_or_default(),
                    age(token.last_used_at.as_ref()),
                    token.last_used_from.clone(),
                ]);
            }
            line(grid.render())?;
        }
    }
    Ok(Exit::Done)
}
