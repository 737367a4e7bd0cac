//! `sculpt logout`.

use clap::Args;
use sculpt_proto::v1::{RevokeTokenRequest, WhoAmIRequest};
use sculpt_tls::private;
use uuid::Uuid;

use crate::{
    client::{Client, unusable},
    config::{Config, ConfigError, Context, Entry, Overrides, TOKEN, tokens},
    exit::Exit,
    failure::Failure,
    output::{clean, line, note},
    up::data_of,
};

const ATTEMPTED: &str = "sign out";

#[derive(Args)]
pub(crate) struct LogoutArgs {
    /// Name of the context [default: the one that is used; none with SCULPT_TOKEN, whose token is then meant]
    context: Option<String>,
    /// Also end the token at the controller: it is good nowhere any more
    #[arg(long)]
    revoke: bool,
}

pub(super) async fn run(args: LogoutArgs) -> Result<Exit, Failure> {
    let bad = |error: ConfigError| unusable(&error);
    let file = Config::path().map_err(bad)?;
    let mut config = Config::load(&file).map_err(bad)?;
    let environment = Overrides::from_environment();
    if args.context.is_none() && environment.token.is_some() {
        return given_by_variable(config.resolve(&file, &environment).map_err(bad)?, args.revoke).await;
    }
    let overrides = Overrides { context: args.context.or(environment.context), ..Overrides::default() };
    let name = config.chosen(&overrides).ok_or_else(|| unusable(&ConfigError::NoContext(file.clone())))?;
    let Some(entry) = config.contexts.get(&name).cloned() else {
        let why = format!("there is no context {name:?} in {}", file.display());
        let known: Vec<&str> = config.contexts.keys().map(String::as_str).collect();
        let next = match known.as_slice() {
            [] => "nobody is signed in here".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        return Err(Failure::new(Exit::NotFound, ATTEMPTED, why).next(next));
    };
    if let Some(data) = data_of(&entry.token_file) {
        let why = format!("context {name} is that of `sculpt up` in {}", data.display());
        return Err(Failure::new(Exit::Conflict, ATTEMPTED, why).next("it goes when its data directory is removed"));
    }
    if args.revoke {
        revoke(&Client::to(config.resolve(&file, &overrides).map_err(bad)?).await?).await?;
    }
    config.contexts.remove(&name);
    if config.current.as_ref() == Some(&name) {
        config.current = None;
    }
    config.save(&file).map_err(bad)?;
    forget(&entry)?;
    line(format!("signed out of {} ({})", entry.url, clean(&name)))?;
    if !args.revoke {
        note("the token is still good for who has a copy of it; `sculpt logout --revoke` ends it as well");
    }
    Ok(Exit::Done)
}

/// Signs out of what a variable lets in, as whom all other commands act: nothing is kept of it, so it can only be revoked.
/// The contexts belong to others.
async fn given_by_variable(context: Context, revoked: bool) -> Result<Exit, Failure> {
    if !revoked {
        let why = format!("the token that is used is that of {TOKEN}, which no context keeps");
        return Err(Failure::new(Exit::Conflict, ATTEMPTED, why).next(format!(
            "`unset {TOKEN}` forgets it, `sculpt logout --revoke` ends it, and `sculpt logout CONTEXT` signs out of a context"
        )));
    }
    let client = Client::to(context).await?;
    revoke(&client).await?;
    line(format!("revoked the token of {TOKEN} at {}; no context was changed", client.context.address()))?;
    note(format!("`unset {TOKEN}` uses the token of the configuration"));
    Ok(Exit::Done)
}

/// Removes the token; what was kept elsewhere is not ours to remove.
fn forget(entry: &Entry) -> Result<(), Failure> {
    if tokens().is_ok_and(|folder| entry.token_file.starts_with(folder)) {
        private::remove(&entry.token_file)
            .map_err(|error| Failure::new(Exit::Failed, "remove the token", error.to_string()))?;
    }
    Ok(())
}

/// Ends the token that is used.
async fn revoke(client: &Client) -> Result<(), Failure> {
    const ATTEMPTED: &str = "revoke the token";
    let who = client.read(ATTEMPTED, client.identity().who_am_i(WhoAmIRequest {})).await?;
    let token = who.token.map(|token| token.uuid).unwrap_or_default();
    let request = RevokeTokenRequest { request_id: Uuid::new_v4().to_string(), token };
    client.change(ATTEMPTED, async || client.identity().revoke_token(request.clone()).await).await?;
    Ok(())
}
