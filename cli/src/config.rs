//! Contexts: which controller, and the token for it.

use std::{
    collections::BTreeMap,
    env, fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sculpt_tls::{Kind, Pin, Token, TokenError};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Name of the context that `sculpt up` writes.
pub const LOCAL: &str = "local";

/// The variable that replaces the token of the context.
pub(crate) const TOKEN: &str = "SCULPT_TOKEN";

/// Why there is no usable context.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing says where the controller is.
    #[error("no controller is known to {0}")]
    NoContext(PathBuf),
    /// `SCULPT_CONTEXT` or `current` names one that is not there.
    #[error("there is no context {name:?} in {file}")]
    UnknownContext {
        /// The name.
        name: String,
        /// The configuration.
        file: PathBuf,
    },
    /// The configuration cannot be read.
    #[error("{file} is not a configuration of sculpt: {source}")]
    Syntax {
        /// The configuration.
        file: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// A file cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token could be read by others.
    #[error("the token in {file} can be read by other users (mode {mode:o})")]
    Exposed {
        /// The token's file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What should hold the token is no file.
    #[error("{0} is not a file, so it holds no token")]
    NotAFile(PathBuf),
    /// There is a URL and nothing to show to it.
    #[error("there is no token for {0}")]
    NoToken(String),
    /// Not a URL of a controller.
    #[error("{text:?} is not the URL of a controller: {problem}")]
    Url {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Not a token, or not one of a person.
    #[error("the token from {origin}: {source}")]
    Token {
        /// Where it came from.
        origin: String,
        /// What is wrong with it.
        source: TokenError,
    },
    /// Neither HOME nor an account.
    #[error("there is no home directory to keep the configuration in")]
    NoHome,
}

/// The file `sculpt/config.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The context that is used when nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Entry>,
}

/// One controller as the file names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Like `https://127.0.0.1:7433`.
    pub url: String,
    /// File that holds the token.
    pub token_file: PathBuf,
}

/// A controller to call, and with what credential.
#[derive(Clone)]
pub struct Context {
    /// Name of the context; `environment` when only variables say it.
    pub name: String,
    /// Scheme, host and port.
    pub url: Url,
    /// The credential.
    pub token: String,
    /// The authority that the controller must prove; none: its certificate is a public one.
    pub pin: Option<Pin>,
    /// Where the token came from, for people.
    pub token_source: String,
}

/// The variables that replace parts of the context.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `SCULPT_URL`.
    pub url: Option<String>,
    /// `SCULPT_TOKEN`.
    pub token: Option<String>,
    /// `SCULPT_CONTEXT`.
    pub context: Option<String>,
}

impl Overrides {
    /// Those of this process; an empty variable counts as absent.
    pub fn from_environment() -> Self {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self { url: variable("SCULPT_URL"), token: variable(TOKEN), context: variable("SCULPT_CONTEXT") }
    }
}

impl Config {
    /// `$XDG_CONFIG_HOME/sculpt/config.toml`.
    pub fn path() -> Result<PathBuf, ConfigError> {
        Ok(xdg("XDG_CONFIG_HOME", ".config")?.join("sculpt/config.toml"))
    }

    /// The configuration; an absent file is an empty one.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        match fs::read_to_string(file) {
            Ok(text) => toml::from_str(&text)
                .map_err(|source| ConfigError::Syntax { file: file.to_owned(), source: Box::new(source) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::File { file: file.to_owned(), source }),
        }
    }

    /// Writes the file in one step, readable by its owner only.
    pub fn save(&self, file: &Path) -> Result<(), ConfigError> {
        let broken = |source| ConfigError::File { file: file.to_owned(), source };
        let folder = file.parent().ok_or(ConfigError::NoHome)?;
        fs::create_dir_all(folder).map_err(broken)?;
        let text = toml::to_string_pretty(self).map_err(|error| broken(io::Error::other(error)))?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(broken)?;
        temporary.write_all(text.as_bytes()).map_err(broken)?;
        temporary.as_file().sync_all().map_err(broken)?;
        temporary.persist(file).map_err(|error| broken(error.error))?;
        Ok(())
    }

    /// The context to use: `SCULPT_CONTEXT`, else the current one, else the only one; URL and token each replaced by
    /// their own variable.
    pub fn resolve(&self, file: &Path, overrides: &Overrides) -> Result<Context, ConfigError> {
        let name = self.chosen(overrides);
        let entry = match &name {
            Some(name) => match self.contexts.get(name) {
                Some(entry) => Some(entry),
                None if overrides.url.is_some() && overrides.token.is_some() => None,
                None => return Err(ConfigError::UnknownContext { name: name.clone(), file: file.to_owned() }),
            },
            None => None,
        };
        let text = match (&overrides.url, entry) {
            (Some(url), _) => url.clone(),
            (None, Some(entry)) => entry.url.clone(),
            (None, None) => return Err(ConfigError::NoContext(file.to_owned())),
        };
        let url = controller_url(&text)?;
        let (token, token_source) = match (&overrides.token, entry) {
            (Some(token), _) => (token.trim().to_owned(), TOKEN.to_owned()),
            (None, Some(entry)) => (read_token(&entry.token_file)?, entry.token_file.display().to_string()),
            (None, None) => return Err(ConfigError::NoToken(text)),
        };
        let name = name.filter(|_| entry.is_some()).unwrap_or_else(|| "environment".to_owned());
        Context::new(name, url, token, token_source)
    }

    /// Name of the context to use: the one that a variable names, else the current one, else the only one.
    pub(crate) fn chosen(&self, overrides: &Overrides) -> Option<String> {
        let only = || if self.contexts.len() == 1 { self.contexts.keys().next().cloned() } else { None };
        overrides.context.clone().or_else(|| self.current.clone()).or_else(only)
    }

    /// The contexts whose controller stands at this scheme, host and port.
    pub fn at(&self, url: &Url) -> impl Iterator<Item = (&String, &Entry)> {
        let origin = url.origin();
        self.contexts
            .iter()
            .filter(move |(_, entry)| controller_url(&entry.url).is_ok_and(|url| url.origin() == origin))
    }
}

impl Context {
    /// A controller at `url` and the `token` for it, which came from `token_source`.
    pub fn new(name: String, url: Url, token: String, token_source: String) -> Result<Self, ConfigError> {
        let parsed = Token::parse(&token, Kind::User);
        let pin = parsed.map_err(|source| ConfigError::Token { origin: token_source.clone(), source })?.pin;
        Ok(Self { name, url, token, pin, token_source })
    }

    /// The context of this process.
    pub fn load() -> Result<Self, ConfigError> {
        let file = Config::path()?;
        Config::load(&file)?.resolve(&file, &Overrides::from_environment())
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn address(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Whether the address is one of this machine's loopback.
    pub(crate) fn is_here(&self) -> bool {
        match self.url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        }
    }

    /// URL of a path on the controller, without a slash at the end.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.address())
    }
}

/// Where the tokens of people who signed in are kept.
pub(crate) fn tokens() -> Result<PathBuf, ConfigError> {
    Ok(xdg("XDG_CONFIG_HOME", ".config")?.join("sculpt/tokens"))
}

/// The token in a file that only its owner can read.
pub fn read_token(file: &Path) -> Result<String, ConfigError> {
    let broken = |source| ConfigError::File { file: file.to_owned(), source };
    let data = fs::metadata(file).map_err(broken)?;
    if !data.is_file() {
        return Err(ConfigError::NotAFile(file.to_owned()));
    }
    let mode = data.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { file: file.to_owned(), mode });
    }
    Ok(fs::read_to_string(file).map_err(broken)?.trim().to_owned())
}

/// Scheme, host and port of a controller; without a scheme it is https.
pub(crate) fn controller_url(text: &str) -> Result<Url, ConfigError> {
    let wrong = |problem: &str| ConfigError::Url { text: text.to_owned(), problem: problem.to_owned() };
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&whole).map_err(|error| wrong(&format!("{error}; it looks like https://127.0.0.1:7433")))?;
    if url.scheme() == "http" {
        let secure = whole.replacen("http", "https", 1);
        return Err(wrong(&format!("nothing is sent in the clear; write {secure}")));
    }
    if url.scheme() != "https" || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it looks like https://127.0.0.1:7433"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.path() != "/" {
        return Err(wrong("it has a host and a port, and nothing else"));
    }
    Ok(url)
}

/// A base directory of the XDG specification: an absolute variable, else below the home directory.
pub fn xdg(variable: &str, below_home: &str) -> Result<PathBuf, ConfigError> {
    if let Some(folder) = env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute()) {
        return Ok(folder);
    }
    at_home(below_home)
}

/// A path below the home directory that the environment names, else the account's.
pub(crate) fn at_home(path: &str) -> Result<PathBuf, ConfigError> {
    let home = etcetera::home_dir().map_err(|_| ConfigError::NoHome)?;
    if home.as_os_str().is_empty() { Err(ConfigError::NoHome) } else { Ok(home.join(path)) }
}
