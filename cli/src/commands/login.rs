//! `sculpt login` and `sculpt whoami`.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use sculpt_proto::v1::{WhoAmIRequest, WhoAmIResponse};
use sculpt_tls::private;
use serde::Serialize;

use crate::{
    client::{Client, unusable},
    config::{Config, Context, Entry, controller_url, xdg},
    exit::Exit,
    failure::Failure,
    output::{
        Format, clean,
        identity::{RoleJson, UserJson, roles},
        json, line, note,
        time::local,
    },
};

const ATTEMPTED: &str = "sign in";

#[derive(Args)]
pub(crate) struct LoginArgs {
    /// The controller, such as https://controller.example:7433
    url: String,
    /// Name of the context [default: the controller's host]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// File that holds the token, or - for standard input [default: asked for, or read from a pipe]
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
}

#[derive(Debug, Serialize)]
struct WhoJson {
    context: String,
    url: String,
    cluster_id: String,
    #[serde(flatten)]
    user: Option<UserJson>,
    /// What the token leaves of the user's roles.
    effective: Vec<RoleJson>,
    token_uuid: Option<String>,
    token_expires_at: Option<String>,
}

pub(super) async fn login(args: LoginArgs) -> Result<Exit, Failure> {
    let bad = |error: crate::config::ConfigError| unusable(&error);
    let url = controller_url(&args.url).map_err(bad)?;
    let name = args.context.unwrap_or_else(|| url.host_str().unwrap_or("controller").to_owned());
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        let why = format!("{name:?} cannot be the name of a context");
        return Err(Failure::new(Exit::BadInput, ATTEMPTED, why).next("give another one with --context"));
    }
    let (token, source) = token(args.token_file.as_deref())?;
    let context = Context::new(name.clone(), url, token, source).map_err(bad)?;
    // Nothing is written before the controller has proved itself and taken the token.
    let client = Client::to(context).await?;
    let who = ask(&client).await?;
    let token_file = xdg("XDG_CONFIG_HOME", ".config").map_err(bad)?.join(format!("sculpt/tokens/{name}"));
    keep(&token_file, &client.context.token)?;
    let file = Config::path().map_err(bad)?;
    let mut config = Config::load(&file).map_err(bad)?;
    let url = client.context.url.as_str().trim_end_matches('/').to_owned();
    config.contexts.insert(name.clone(), Entry { url, token_file });
    config.current = Some(name.clone());
    config.save(&file).map_err(bad)?;
    line(format!("signed in as {} ({}); context {} is used from now on", user(&who), left(&who), clean(&name)))?;
    Ok(Exit::Done)
}

pub(super) async fn whoami(format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let who = ask(&client).await?;
    let token = who.token.as_ref();
    match format {
        Format::Json => json(&WhoJson {
            context: client.context.name.clone(),
            url: client.context.url.as_str().trim_end_matches('/').to_owned(),
            cluster_id: who.cluster_id.clone(),
            user: who.user.as_ref().map(UserJson::from),
            effective: who.roles.iter().map(RoleJson::from).collect(),
            token_uuid: token.map(|token| token.uuid.clone()),
            token_expires_at: token.and_then(|token| crate::output::time::rfc3339(token.expires_at.as_ref())),
        })?,
        Format::Text => {
            line(format!("{} at {} ({})", user(&who), client.context.url, client.context.name))?;
            line(format!("  roles    {}", left(&who)))?;
            let until = token.and_then(|token| local(token.expires_at.as_ref()));
            line(format!(
                "  token    {}",
                until.map_or("does not expire".to_owned(), |until| format!("until {until}"))
            ))?;
        }
    }
    Ok(Exit::Done)
}

async fn ask(client: &Client) -> Result<WhoAmIResponse, Failure> {
    client.read("ask the controller who we are", client.identity().who_am_i(WhoAmIRequest {})).await
}

fn user(who: &WhoAmIResponse) -> String {
    clean(who.user.as_ref().map_or("nobody", |user| user.name.as_str()))
}

fn left(who: &WhoAmIResponse) -> String {
    if who.roles.is_empty() { "no role yet: an admin grants them".to_owned() } else { clean(&roles(&who.roles)) }
}

/// The token, and where it came from.
fn token(file: Option<&std::path::Path>) -> Result<(String, String), Failure> {
    let failed = |source: &str, error: io::Error| {
        Failure::new(Exit::BadInput, ATTEMPTED, format!("the token cannot be read from {source}: {error}"))
    };
    let text = match file {
        Some(path) if path.as_os_str() != "-" => {
            let source = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| failed(&source, error))?;
            return Ok((text.trim().to_owned(), source));
        }
        None if io::stdin().is_terminal() => prompted().map_err(|error| failed("the terminal", error))?,
        Some(_) | None => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|error| failed("standard input", error))?;
            text
        }
    };
    Ok((text.trim().to_owned(), "standard input".to_owned()))
}

/// Reads a line from the terminal, which does not show it.
fn prompted() -> io::Result<String> {
    note("paste the token (it is not shown), then press Enter:");
    let stdin = io::stdin();
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
    read.map(|_| line)
}

fn keep(file: &std::path::Path, token: &str) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Exit::Failed, "keep the token", why);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(format!("{}: {error}", folder.display())))?;
    }
    private::write(file, &format!("{token}\n")).map_err(|error| failed(error.to_string()))
}
