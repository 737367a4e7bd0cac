//! `sculpt git-credential`: git's credential helper, for our own controllers only.

use std::{collections::HashMap, io::Read as _};

use url::Url;

use crate::{
    authority,
    client::{Client, unusable},
    config::{Config, Context, Overrides, read_token},
    exit::Exit,
    failure::Failure,
    git::remote,
    output::{line, note},
};

/// Does what git asks, or what a person does who wants git to ask.
pub(super) async fn run(operation: &str) -> Result<Exit, Failure> {
    if operation == "setup" { setup().await } else { answer(operation) }
}

/// Makes the controller known to the git of this user, for plain clones of its repositories.
async fn setup() -> Result<Exit, Failure> {
    const ATTEMPTED: &str = "make the controller known to git";
    let client = Client::connect().await?;
    let address = client.context.address();
    let here = std::env::current_dir().map_err(|error| Failure::new(Exit::Failed, ATTEMPTED, error.to_string()))?;
    remote::introduce(&here, "--global", &client.context).await.map_err(|error| error.failure(ATTEMPTED))?;
    line(format!("git asks sculpt for the token of {address}, and of no other"))?;
    note(format!(
        "`git clone {address}/git/UUID.git` works now; `sculpt project ls -o json` shows each project's git_path"
    ));
    if authority::for_git(&client.context).is_some() && std::env::var_os(remote::CA_VARIABLE).is_some() {
        let variable = remote::CA_VARIABLE;
        note(format!(
            "but {variable} is set here, and lets git believe others than this controller: `unset {variable}`"
        ));
    }
    Ok(Exit::Done)
}

fn answer(operation: &str) -> Result<Exit, Failure> {
    let mut question = Vec::new();
    std::io::stdin()
        .read_to_end(&mut question)
        .map_err(|error| Failure::new(Exit::Failed, "read git's question", error.to_string()))?;
    // The token is in its file already: nothing is stored, nothing is erased.
    if operation != "get" {
        return Ok(Exit::Done);
    }
    let Some(asked) = asked(&String::from_utf8_lossy(&question)) else { return Ok(Exit::Done) };
    if let Some(token) = token_for(&asked)? {
        line(format!("username=sculpt\npassword={token}"))?;
    }
    Ok(Exit::Done)
}

/// Where git wants to go.
fn asked(question: &str) -> Option<Url> {
    let fields: HashMap<&str, &str> = question.lines().filter_map(|line| line.split_once('=')).collect();
    let (protocol, host) = (fields.get("protocol")?, fields.get("host")?);
    Url::parse(&format!("{protocol}://{host}")).ok()
}

/// The token of the controller at exactly this scheme, host and port.
fn token_for(asked: &Url) -> Result<Option<String>, Failure> {
    let file = Config::path().map_err(|error| unusable(&error))?;
    let config = Config::load(&file).map_err(|error| unusable(&error))?;
    let ours = |context: &Context| context.url.origin() == asked.origin();
    match config.resolve(&file, &Overrides::from_environment()) {
        Ok(context) if ours(&context) => return Ok(Some(context.token)),
        _ => {}
    }
    match config.at(asked).next() {
        Some((_, entry)) => read_token(&entry.token_file).map(Some).map_err(|error| unusable(&error)),
        None => Ok(None),
    }
}
