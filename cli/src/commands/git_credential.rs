//! `sculpt git-credential`: git's credential helper, for our own controllers only.

use std::{collections::HashMap, io::Read as _};

use url::Url;

use crate::{
    client::unusable,
    config::{Config, Context, Overrides, read_token},
    exit::Exit,
    failure::Failure,
    output::line,
};

pub(super) fn run(operation: &str) -> Result<Exit, Failure> {
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
