//! `sculpt login` and `sculpt whoami`.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use sculpt_proto::v1::{WhoAmIRequest, WhoAmIResponse};
use sculpt_tls::{TokenError, private};
use serde::Serialize;
use tonic::Code;
use url::Url;

use crate::{
    client::{Client, unusable},
    config::{Config, ConfigError, Context, Entry, controller_url, tokens},
    exit::Exit,
    failure::Failure,
    output::{
        Format, clean,
        identity::{RoleJson, UserJson, roles, short},
        json, line, note,
        time::{local, rfc3339},
    },
};

const ATTEMPTED: &str = "sign in";
/// Where a token comes from.
const ANOTHER: &str = "`sculpt token create` makes one, where you are signed in; else ask an admin of the controller";
/// More than any token, in bytes.
const LONGEST: u64 = 64 << 10;

#[derive(Args)]
pub(crate) struct LoginArgs {
    /// The controller, such as https://controller.example:7433
    url: String,
    /// Name of the context [default: the controller's host]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// File that holds the token, or - for standard input [default: asked for, or read from a pipe]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
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

pub(super) async fn login(args: LoginArgs, format: Format) -> Result<Exit, Failure> {
    let bad = |error: ConfigError| unusable(&error);
    let url = controller_url(&args.url).map_err(bad)?;
    let file = Config::path().map_err(bad)?;
    let mut config = Config::load(&file).map_err(bad)?;
    let name = match args.context {
        Some(name) => checked(name)?,
        None => name_for(&config, &url, &tokens().map_err(bad)?),
    };
    let (token, source) = token(args.token_file.as_deref(), &url)?;
    let context = Context::new(name.clone(), url, token, source).map_err(|error| unfit(&error))?;
    // Nothing is written before the controller has proved itself and taken the token.
    let (client, server) = Client::dial(context).await?;
    let mut refusal = None;
    let asked = async {
        let answer = client.identity().who_am_i(WhoAmIRequest {}).await;
        answer.inspect_err(|status| refusal = Some((status.code(), status.message().to_owned())))
    };
    let who = client.read(ATTEMPTED, asked).await;
    let who = who.map_err(|failure| match refusal {
        // A listener of executors serves nothing of this, and says where people call.
        Some((Code::Unimplemented, why)) => Failure::new(Exit::BadInput, ATTEMPTED, why),
        // What other commands advise is about the token that is kept, which is not this one.
        Some((Code::Unauthenticated, why)) => {
            let failure = Failure::new(Exit::NotAllowed, ATTEMPTED, why);
            if failure.mentions("ask an admin") { failure } else { failure.next(ANOTHER) }
        }
        Some(_) | None => failure,
    })?;
    client.met(&server);
    client.trust_from_now_on(&who);
    let token_file = tokens().map_err(bad)?.join(&name);
    keep(&token_file, &client.context.token)?;
    config.contexts.insert(name.clone(), Entry { url: client.context.address().to_owned(), token_file });
    config.current = Some(name.clone());
    config.save(&file).map_err(bad)?;
    show(&client, &who, format)?;
    if format == Format::Text {
        note("signed in; this context is used from now on");
    }
    Ok(Exit::Done)
}

pub(super) async fn whoami(format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let who = client.read("ask the controller who we are", client.identity().who_am_i(WhoAmIRequest {})).await?;
    client.trust_from_now_on(&who);
    show(&client, &who, format)?;
    Ok(Exit::Done)
}

fn show(client: &Client, who: &WhoAmIResponse, format: Format) -> Result<(), Failure> {
    let token = who.token.as_ref();
    if format == Format::Json {
        return json(&WhoJson {
            context: client.context.name.clone(),
            url: client.context.address().to_owned(),
            cluster_id: who.cluster_id.clone(),
            user: who.user.as_ref().map(UserJson::from),
            effective: who.roles.iter().map(RoleJson::from).collect(),
            token_uuid: token.map(|token| token.uuid.clone()),
            token_expires_at: token.and_then(|token| rfc3339(token.expires_at.as_ref())),
        });
    }
    let name = who.user.as_ref().map_or("nobody", |user| user.name.as_str());
    line(format!("{} at {}", clean(name), client.context.address()))?;
    line(format!("  roles    {}", left(who)))?;
    let until = token.and_then(|token| local(token.expires_at.as_ref()));
    let until = until.map_or("does not expire".to_owned(), |until| format!("good until {until}"));
    let id = token.map(|token| short(&token.uuid)).unwrap_or_default();
    line(format!("  token    {} {until}", clean(id)))?;
    line(format!("  context  {}", clean(&client.context.name)))
}

fn left(who: &WhoAmIResponse) -> String {
    if who.roles.is_empty() { "no role yet: an admin grants them".to_owned() } else { clean(&roles(&who.roles)) }
}

/// A token that signs nobody in.
fn unfit(error: &ConfigError) -> Failure {
    let ConfigError::Token { source, .. } = error else { return unusable(error) };
    let failure = Failure::new(Exit::NotAllowed, ATTEMPTED, error.to_string());
    match source {
        TokenError::Kind { .. } => failure
            .next("a join token makes a machine an executor: `sculpt-executor join URL --token-file -`, there")
            .next(ANOTHER),
        TokenError::Damaged => failure.next("copy it again, from its first letter to its last").next(ANOTHER),
        TokenError::Foreign => failure.next(ANOTHER),
    }
}

fn checked(name: String) -> Result<String, Failure> {
    if name.is_empty() || name.starts_with('.') || name.contains(|c: char| c == '/' || c.is_control()) {
        let why = format!("{name:?} cannot be the name of a context");
        return Err(Failure::new(Exit::BadInput, ATTEMPTED, why).next("give another one with --context"));
    }
    Ok(name)
}

/// The name of the context for the controller at `url`: the one that signing in there made, else the host, else host and port.
fn name_for(config: &Config, url: &Url, tokens: &Path) -> String {
    let ours = |entry: &Entry| entry.token_file.starts_with(tokens);
    let known = config.at(url).find(|(_, entry)| ours(entry));
    if let Some((name, _)) = known {
        return name.clone();
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let with_port = format!("{host}-{}", url.port_or_known_default().unwrap_or_default());
    let numbered = (2..).map(|number: u32| format!("{with_port}-{number}"));
    let mut names = [host, with_port.clone()].into_iter().chain(numbered);
    names.find(|name| !config.contexts.contains_key(name)).unwrap_or(with_port)
}

/// The token, and where it came from.
fn token(file: Option<&Path>, url: &Url) -> Result<(String, String), Failure> {
    let failed = |source: &str, error: io::Error| {
        Failure::new(Exit::BadInput, ATTEMPTED, format!("the token cannot be read from {source}: {error}"))
            .next("name a file of yours with --token-file, or leave that out and paste the token")
    };
    let (text, source) = match file {
        Some(path) if path.as_os_str() != "-" => {
            let source = path.display().to_string();
            (std::fs::read_to_string(path).map_err(|error| failed(&source, error))?, source)
        }
        None if io::stdin().is_terminal() => {
            (prompted(url).map_err(|error| failed("the terminal", error))?, "the terminal".to_owned())
        }
        Some(_) | None => {
            let mut text = String::new();
            let read = io::stdin().take(LONGEST).read_to_string(&mut text);
            read.map_err(|error| failed("standard input", error))?;
            (text, "standard input".to_owned())
        }
    };
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::new(Exit::BadInput, ATTEMPTED, format!("{source} holds no token")).next(ANOTHER));
    }
    Ok((token.to_owned(), source))
}

/// Reads a line from the terminal, which does not show it.
fn prompted(url: &Url) -> io::Result<String> {
    note(format!("paste the token for {} (it is not shown), then press Enter:", url.host_str().unwrap_or_default()));
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

fn keep(file: &Path, token: &str) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::new(Exit::Failed, "keep the token", why).next("see that you may write there, or set XDG_CONFIG_HOME")
    };
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| failed(format!("{}: {error}", folder.display())))?;
    }
    private::write(file, &format!("{token}\n")).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_controller_has_a_context_of_its_own() {
        let tokens = Path::new("/home/ada/.config/sculpt/tokens");
        let entry = |url: &str, token_file: PathBuf| Entry { url: url.to_owned(), token_file };
        let contexts = [
            ("one.example".to_owned(), entry("https://one.example:7433", tokens.join("one.example"))),
            ("work".to_owned(), entry("https://two.example", tokens.join("work"))),
            ("local".to_owned(), entry("https://127.0.0.1:7433", "/data/controller/tokens/user".into())),
        ];
        let config = Config { current: None, contexts: contexts.into() };
        for (url, name) in [
            ("https://one.example:7433", "one.example"),
            ("https://one.example:7434", "one.example-7434"),
            ("https://one.example", "one.example-443"),
            ("https://two.example:443", "work"),
            ("https://three.example", "three.example"),
            ("https://127.0.0.1:7433", "127.0.0.1"),
            ("https://[::1]:7433", "::1"),
        ] {
            assert_eq!(name_for(&config, &Url::parse(url).expect("a URL"), tokens), name, "{url}");
        }
    }
}
