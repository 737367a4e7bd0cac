//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::commands::{AdminArgs, AuthorityArgs};

/// The controller of sculpt: holds tasks in Postgres and dispatches them to executors.
#[derive(Debug, Parser)]
#[command(name = "sculpt-controller", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT.
    Serve(Box<ServeArgs>),
    /// Look at the controller's own authority, and let another take over from it.
    Authority(AuthorityArgs),
    /// Become an admin again, as who has the controller's host.
    Admin(AdminArgs),
}

/// Settings as they are given; what is left out is looked for in the file.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Directory of everything that is kept [default: /var/lib/sculpt/controller as root, else below the XDG data directory]
    #[arg(long, env = "SCULPT_CONTROLLER_DATA_DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Address for people and tools [default: 127.0.0.1:7433]
    #[arg(long, env = "SCULPT_CONTROLLER_LISTEN")]
    pub(super) listen: Option<SocketAddr>,
    /// Address for executors, port 0 for any [default: 127.0.0.1:0]
    #[arg(long, env = "SCULPT_CONTROLLER_EXECUTOR_LISTEN")]
    pub(super) executor_listen: Option<SocketAddr>,
    /// Where executors dial, as join tokens tell it, such as https://sculpt.example:7434 [default: the first --name, or the
    /// address of --executor-listen, with its port]
    #[arg(long, value_name = "URL", env = "SCULPT_CONTROLLER_EXECUTOR_URL")]
    pub(super) executor_url: Option<String>,
    /// Name or address under which people and executors reach this controller; may be given several times. localhost is
    /// always among them
    #[arg(long = "name", value_name = "HOST", env = "SCULPT_CONTROLLER_NAMES", value_delimiter = ',')]
    pub(super) names: Vec<String>,
    /// Certificates that browsers believe for these names, in PEM form, the controller's own first; read again when the
    /// file changes
    #[arg(long, value_name = "FILE", env = "SCULPT_CONTROLLER_TLS_CERT", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert
    #[arg(long, value_name = "FILE", env = "SCULPT_CONTROLLER_TLS_KEY", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Directory of the controller's own authorities; all replicas need the same [default: authority in the data directory]
    #[arg(long, value_name = "DIR", env = "SCULPT_CONTROLLER_AUTHORITY_DIR")]
    pub(super) authority_dir: Option<PathBuf>,
    /// How long the certificates of executors are good; they renew them at two thirds of it [default: 24h]
    #[arg(long, value_name = "DURATION", env = "SCULPT_CONTROLLER_CERTIFICATE_LIFE", hide = true)]
    pub(super) certificate_life: Option<String>,
    /// Postgres 14 or newer to use instead of a private one; DATABASE_URL is honoured too
    #[arg(long, env = "SCULPT_CONTROLLER_DATABASE_URL", hide_env_values = true)]
    pub(super) database_url: Option<String>,
    /// The same database as the role that owns its tables, so that the role of --database-url owns nothing and can only add to
    /// the audit record; both are made beforehand, the tables and rights at every start
    #[arg(long, env = "SCULPT_CONTROLLER_MAINTENANCE_DATABASE_URL", hide_env_values = true)]
    pub(super) maintenance_database_url: Option<String>,
    /// Days that the journal of events is kept [default: 30]
    #[arg(long, env = "SCULPT_CONTROLLER_EVENT_DAYS")]
    pub(super) event_days: Option<u32>,
    /// How long the logs of tasks that have ended are kept, such as "90days"; "off" keeps them for ever [default: 90days]
    #[arg(long, value_name = "DURATION", env = "SCULPT_CONTROLLER_LOG_RETENTION")]
    pub(super) log_retention: Option<String>,
    /// How much of the data directory's disk may be used, such as 200GiB; from 80 % of it on no new work is placed, from
    /// 95 % on no log bytes and packs are taken [default: what is used already and what is free]
    #[arg(long, value_name = "SIZE", env = "SCULPT_CONTROLLER_DISK_BUDGET")]
    pub(super) disk_budget: Option<String>,
    /// The git program [default: git]
    #[arg(long, env = "SCULPT_CONTROLLER_GIT")]
    pub(super) git: Option<PathBuf>,
    /// Largest pack of git objects that is taken, in MiB [default: 4096]
    #[arg(long, env = "SCULPT_CONTROLLER_GIT_MAX_PACK_MIB")]
    pub(super) git_max_pack_mib: Option<u64>,
    /// Packs that are verified, unpacked or compacted at once; each uses a processor and disk [default: 2]
    #[arg(long, env = "SCULPT_CONTROLLER_GIT_WRITERS")]
    pub(super) git_writers: Option<usize>,
    /// Fetches and diffs that are served at once; more wait [default: 32]
    #[arg(long, env = "SCULPT_CONTROLLER_GIT_READERS")]
    pub(super) git_readers: Option<usize>,
    /// TOML file with any of these settings, written with underscores
    #[arg(long, env = "SCULPT_CONTROLLER_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// Shut down when stdin, a pipe held by the parent, reaches its end
    #[arg(long)]
    pub(super) lifeline: bool,
}
