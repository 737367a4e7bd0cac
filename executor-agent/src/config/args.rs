//! The flags of `sculpt-executor run`.

use std::{net::SocketAddr, path::PathBuf};

/// Flags of `sculpt-executor run`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunArgs {
    /// Where attempts, workspaces and spools stand
    /// [default: /var/lib/sculpt/executor as root, else below the XDG data directory]
    #[arg(long, env = "SCULPT_EXECUTOR_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The controller's address for executors, such as https://controller.example:7434 [default: where it joined]
    #[arg(long, env = "SCULPT_EXECUTOR_CONTROLLER")]
    pub controller: Option<String>,
    /// Name shown to people; once it has joined, that under which it did counts alone, and `join --again --name` changes it
    #[arg(long, env = "SCULPT_EXECUTOR_NAME")]
    pub name: Option<String>,
    /// How many attempts run at once
    #[arg(long, env = "SCULPT_EXECUTOR_SLOTS")]
    pub slots: Option<u32>,
    /// Pool of tasks to serve; once it has joined, that of its token counts alone
    #[arg(long, env = "SCULPT_EXECUTOR_POOL")]
    pub pool: Option<String>,
    /// Label that tasks can require, key=value; may be repeated. Once it has joined, those of its token count alone
    #[arg(long = "label", value_name = "K=V", env = "SCULPT_EXECUTOR_LABELS", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Keep attempts from this executor and from each other: by accounts as root, else by bubblewrap. A fleet's executor
    /// does so where it can, and says so where it cannot; asked for, it does not start without
    #[arg(
        long,
        env = "SCULPT_EXECUTOR_SEPARATE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        overrides_with = "separate",
        value_name = "BOOL"
    )]
    pub separate: Option<bool>,
    /// How much of the disk may be used, such as 50GiB; from 80 % of it on no new work is taken
    /// [default: what is used already and what is free]
    #[arg(long, value_name = "SIZE", env = "SCULPT_EXECUTOR_DISK_BUDGET")]
    pub disk_budget: Option<String>,
    /// How long a finished workspace is kept while there is room, such as "24h" or "7days" [default: 24h]
    #[arg(long, value_name = "DURATION", env = "SCULPT_EXECUTOR_KEEP_WORKSPACES")]
    pub keep_workspaces: Option<String>,
    /// How many processes and threads an attempt may have; 0: any number [default: 4096]
    #[arg(long, value_name = "N", env = "SCULPT_EXECUTOR_PIDS_LIMIT")]
    pub pids_limit: Option<u64>,
    /// How much memory an attempt may use, such as 8GiB [default: as much as there is]
    #[arg(long, value_name = "SIZE", env = "SCULPT_EXECUTOR_MEMORY_LIMIT")]
    pub memory_limit: Option<String>,
    /// How many processors an attempt may use, such as 1.5 [default: all]
    #[arg(long, value_name = "N", env = "SCULPT_EXECUTOR_CPU_LIMIT")]
    pub cpu_limit: Option<f64>,
    /// Where people reach attempts by ssh without the controller, such as 0.0.0.0:7422 [default: nowhere]
    #[arg(long, value_name = "ADDRESS", env = "SCULPT_EXECUTOR_SSH_LISTEN")]
    pub ssh_listen: Option<String>,
    /// How people find that, such as build7.example:7422
    #[arg(long, value_name = "HOST:PORT", env = "SCULPT_EXECUTOR_SSH_ADVERTISE")]
    pub ssh_advertise: Option<String>,
    /// Where people on this host do so, unless the settings say where people do
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub ssh_here: Option<SocketAddr>,
    /// Settings file
    #[arg(long, env = "SCULPT_EXECUTOR_CONFIG")]
    pub config: Option<PathBuf>,
    /// End when standard input is closed
    #[arg(long)]
    pub lifeline: bool,
}
