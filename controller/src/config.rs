//! Settings: command line over environment over file.

mod args;
mod file;
mod place;
mod values;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crate::{
    background::guests,
    git::GitSettings,
    grpc::pairings,
    pki::{IssueError, Names},
};

pub use self::{
    args::{Cli, Command, ServeArgs},
    place::{Place, PlaceArgs},
};
use self::{
    file::File,
    values::{executor_url, life, positive, retention, size},
};

/// Port of people and tools.
pub const PORT: u16 = 7433;

/// Days that the journal is kept, unless told otherwise.
pub const EVENT_DAYS: u32 = 30;

/// How long logs of tasks that have ended are kept, unless told otherwise.
pub const LOG_RETENTION: Duration = Duration::from_secs(90 * 24 * 3600);

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseSetting {
    /// A private cluster in the data directory.
    BuiltIn,
    /// Somebody's server.
    Url {
        /// As who serves.
        service: String,
        /// As who owns the tables; `None`: the same.
        owner: Option<String>,
    },
}

/// Who the controller says that it is.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Under which it is reached.
    pub names: Names,
    /// Certificates and key that others have made for it.
    pub public: Option<PublicFiles>,
    /// Its own authorities.
    pub authority: PathBuf,
}

/// A public certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicFiles {
    /// In PEM form, the controller's own first.
    pub certificates: PathBuf,
    /// Of the first.
    pub key: PathBuf,
}

/// Settings, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of everything that is kept; absolute.
    pub data_dir: PathBuf,
    /// Address for people and tools.
    pub listen: SocketAddr,
    /// Address for executors.
    pub executor_listen: SocketAddr,
    /// Where executors dial; none: where they are listened for.
    pub executor_url: Option<String>,
    /// Whose certificates the listeners show.
    pub tls: TlsSettings,
    /// How long the certificates of executors are good.
    pub certificate_life: Duration,
    /// The database.
    pub database: DatabaseSetting,
    /// Days that the journal is kept.
    pub event_days: u32,
    /// How long the logs of tasks that have ended are kept; none: for ever.
    pub log_retention: Option<Duration>,
    /// How much of the disk may be used, in bytes; none: what is used already and what is free.
    pub disk_budget: Option<u64>,
    /// The git program, where it works and what it may use.
    pub git: GitSettings,
    /// Whether the end of stdin is the end of the program.
    pub lifeline: bool,
    /// How soon executors hear whom to let in where no signal tells of it.
    pub guests_poll: Duration,
    /// How soon a tunnel ends whose pairing was taken back where no signal tells of it.
    pub tunnels_look: Duration,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings in {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not right.
    #[error("the settings in {} are not right: {source}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// Nowhere to keep anything.
    #[error("there is no place for data: neither HOME nor XDG_DATA_HOME is set. Give --data-dir")]
    NoDataDir,
    /// A relative path in an impossible place.
    #[error("cannot make {} absolute: {source}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two listeners on one port.
    #[error("people and executors are both to call at {0}; give --listen and --executor-listen a port of its own each")]
    OnePort(SocketAddr),
    /// Nothing could be done with it.
    #[error("{setting} is 0; give at least 1, or leave it out")]
    Zero {
        /// Which setting.
        setting: &'static str,
    },
    /// Not a size or a duration.
    #[error("{setting} is {text:?}; {hint}")]
    Text {
        /// Which setting.
        setting: &'static str,
        /// What was given.
        text: String,
        /// How it is written.
        hint: &'static str,
    },
    /// Not a name.
    #[error("names: {0}")]
    Names(#[from] IssueError),
    /// One of two that belong together.
    #[error("tls_cert and tls_key belong together; give both or neither")]
    TlsPair,
    /// The service has no URL.
    #[error("maintenance_database_url is given without database_url; give both, or neither for a Postgres of its own")]
    Maintenance,
    /// The journal must be kept for a while.
    #[error("event_days is 0; the journal must be kept for a day at least, because watchers resume from it")]
    EventDays,
}

impl ServeArgs {
    /// The settings of these arguments, the environment and the file.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let given = |url: &String| !url.is_empty();
        let service = self.database_url.or_else(|| variable("DATABASE_URL")).or(file.database_url).filter(given);
        let owner = self.maintenance_database_url.or(file.maintenance_database_url).filter(given);
        let database = match (service, owner) {
            (Some(service), owner) => DatabaseSetting::Url { service, owner },
            (None, None) => DatabaseSetting::BuiltIn,
            (None, Some(_)) => return Err(ConfigError::Maintenance),
        };
        let data_dir = data_dir(self.data_dir.or(file.data_dir))?;
        let event_days = self.event_days.or(file.event_days).unwrap_or(EVENT_DAYS);
        if event_days == 0 {
            return Err(ConfigError::EventDays);
        }
        let usual = GitSettings::below(&data_dir);
        let max_pack = self.git_max_pack_mib.or(file.git_max_pack_mib).map(|mib| mib.saturating_mul(1 << 20));
        let git = GitSettings {
            program: self.git.or(file.git).unwrap_or(usual.program),
            max_pack: positive("git_max_pack_mib", max_pack.unwrap_or(usual.max_pack))?,
            writers: positive("git_writers", self.git_writers.or(file.git_writers).unwrap_or(usual.writers))?,
            readers: positive("git_readers", self.git_readers.or(file.git_readers).unwrap_or(usual.readers))?,
            ..usual
        };
        let names = if self.names.is_empty() { file.names } else { self.names };
        let public = match (self.tls_cert.or(file.tls_cert), self.tls_key.or(file.tls_key)) {
            (None, None) => None,
            (Some(certificates), Some(key)) => Some(PublicFiles { certificates, key }),
            _ => return Err(ConfigError::TlsPair),
        };
        let authority = self.authority_dir.or(file.authority_dir).unwrap_or_else(|| data_dir.join("authority"));
        let tls = TlsSettings { names: Names::new(names.iter().map(String::as_str))?, public, authority };
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listen = self.listen.or(file.listen).unwrap_or(local(PORT));
        let executor_listen = self.executor_listen.or(file.executor_listen).unwrap_or(local(0));
        if listen == executor_listen && listen.port() != 0 {
            return Err(ConfigError::OnePort(listen));
        }
        Ok(Config {
            data_dir,
            listen,
            executor_listen,
            executor_url: self.executor_url.or(file.executor_url).map(executor_url).transpose()?,
            tls,
            certificate_life: life(self.certificate_life.or(file.certificate_life).as_deref())?,
            database,
            event_days,
            log_retention: retention(self.log_retention.or(file.log_retention).as_deref())?,
            disk_budget: self.disk_budget.or(file.disk_budget).as_deref().map(size).transpose()?,
            git,
            lifeline: self.lifeline,
            guests_poll: guests::POLL,
            tunnels_look: pairings::LOOK,
        })
    }
}

/// The data directory that was named, else the usual one; absolute.
pub(crate) fn data_dir(named: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    let data_dir = named.or_else(default_data_dir).ok_or(ConfigError::NoDataDir)?;
    std::path::absolute(&data_dir).map_err(|source| ConfigError::Path { path: data_dir, source })
}

fn default_data_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/sculpt/controller".into());
    }
    let xdg = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let below_home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    xdg.or_else(below_home).map(|base| base.join("sculpt/controller"))
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::Parser as _;

    use super::*;

    fn resolve(arguments: &[&str]) -> Result<Config, ConfigError> {
        let all = ["sculpt-controller", "serve"].iter().chain(arguments);
        match Cli::try_parse_from(all).expect("arguments are right").command {
            Command::Serve(serve) => serve.resolve(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_outranks_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("controller.toml");
        let text = "data_dir = \"/d\"\nlisten = \"127.0.0.1:1\"\nevent_days = 7\ndatabase_url = \"postgres://x\"\n";
        fs::write(&path, text).expect("write");
        let file = path.display().to_string();
        let config = resolve(&["--config", &file, "--listen", "127.0.0.1:2"]).expect("settings");
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.data_dir, Path::new("/d"));
        assert_eq!(config.event_days, 7);
        assert_eq!(config.executor_listen, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    }

    #[test]
    fn people_and_executors_call_at_ports_of_their_own() {
        let given = |one, other| resolve(&["--data-dir", "/d", "--listen", one, "--executor-listen", other]);
        for (one, other) in [("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.1:1", "127.0.0.2:1"), ("[::1]:1", "[::1]:2")] {
            given(one, other).expect("settings");
        }
        let error = given("127.0.0.1:1", "127.0.0.1:1").expect_err("there is one port").to_string();
        assert!(error.contains("--listen") && error.contains("--executor-listen"), "{error}");
    }

    #[test]
    fn who_owns_the_tables_is_said_beside_who_serves() {
        let given = |more: &[&str]| resolve(&[&["--data-dir", "/d"], more].concat()).map(|config| config.database);
        let (service, owner) = ("postgres://service@h/db", "postgres://owner@h/db");
        let both = given(&["--database-url", service, "--maintenance-database-url", owner]).expect("settings");
        assert_eq!(both, DatabaseSetting::Url { service: service.into(), owner: Some(owner.into()) });
        let one = given(&["--database-url", service]).expect("settings");
        assert_eq!(one, DatabaseSetting::Url { service: service.into(), owner: None });
        assert_eq!(given(&["--database-url", ""]).expect("settings"), DatabaseSetting::BuiltIn);
        assert!(matches!(given(&["--maintenance-database-url", owner]), Err(ConfigError::Maintenance)));
    }

    #[test]
    fn a_file_with_a_wrong_word_is_refused_with_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("controller.toml");
        fs::write(&path, "lisen = \"127.0.0.1:1\"\n").expect("write");
        let error = resolve(&["--config", &path.display().to_string()]).expect_err("it is refused").to_string();
        assert!(error.contains("lisen") && error.contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn git_is_given_its_limits() {
        let usual = resolve(&["--data-dir", "/d"]).expect("settings").git;
        assert_eq!((usual.program.as_path(), usual.max_pack, usual.writers), (Path::new("git"), 4096 << 20, 2));
        assert_eq!((usual.readers, usual.cache.as_path()), (32, Path::new("/d/cache/git")));
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("controller.toml");
        fs::write(&path, "git_max_pack_mib = 7\ngit_writers = 3\n").expect("write");
        let given = ["--data-dir", "/d", "--config", &path.display().to_string(), "--git-writers", "5"];
        let git = resolve(&given).expect("settings").git;
        assert_eq!((git.max_pack, git.writers, git.readers), (7 << 20, 5, 32));
        for zero in ["--git-max-pack-mib", "--git-writers", "--git-readers"] {
            assert!(matches!(resolve(&["--data-dir", "/d", zero, "0"]), Err(ConfigError::Zero { .. })), "{zero}");
        }
    }

    #[test]
    fn space_and_retention_are_given_in_words() {
        let given = |arguments: &[&str]| resolve(&[&["--data-dir", "/d"], arguments].concat());
        let usual = given(&[]).expect("settings");
        assert_eq!((usual.log_retention, usual.disk_budget), (Some(LOG_RETENTION), None));
        let config = given(&["--log-retention", "off", "--disk-budget", "2 GiB"]).expect("settings");
        assert_eq!((config.log_retention, config.disk_budget), (None, Some(2 << 30)));
        for (flag, wrong) in
            [("--log-retention", "0s"), ("--log-retention", "soon"), ("--disk-budget", "0"), ("--disk-budget", "big")]
        {
            assert!(matches!(given(&[flag, wrong]), Err(ConfigError::Text { .. })), "{flag} {wrong}");
        }
    }

    #[test]
    fn the_journal_is_kept_for_a_day_at_least() {
        assert!(matches!(resolve(&["--data-dir", "/d", "--event-days", "0"]), Err(ConfigError::EventDays)));
    }
}
