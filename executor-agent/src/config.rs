//! Settings: flags, then `SCULPT_EXECUTOR_*`, then the TOML file, then defaults.

mod args;
mod direct;
mod overruled;
mod values;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

pub use self::{args::RunArgs, direct::Direct};
use self::{
    overruled::overruled,
    values::{KEEP_WORKSPACES, cpu_limit, disk_budget, memory_limit, pids_limit, span},
};
use crate::{app::Identity, cgroup::Limits};

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("could not read the settings in {path}: {source}; name another file with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("the settings in {path} are not valid: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A setting without a default is absent.
    #[error("the setting {0} is missing; give it as a flag, in the environment, or in the settings file")]
    Missing(&'static str),
    /// A setting has a value that makes no sense.
    #[error("the setting {name} is wrong: {problem}")]
    Wrong {
        /// The setting.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// How an agent of the settings file is given its prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptBy {
    /// `{prompt}` within an argument.
    #[default]
    Argument,
    /// On standard input.
    Stdin,
    /// In a file; `{prompt_file}` within an argument is its path.
    File,
}

/// Whether attempts are kept from this executor and from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Separate {
    /// They run as the executor's own account.
    #[default]
    Never,
    /// Where this host allows it; it is told where not.
    WhereItCan,
    /// Or the executor does not start.
    Always,
}

/// An agent of the settings file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentTemplate {
    /// Program and arguments.
    pub command: Vec<String>,
    /// How the prompt is handed over.
    #[serde(default)]
    pub prompt: PromptBy,
    /// Added to the agent's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// The settings file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data_dir: Option<PathBuf>,
    controller: Option<String>,
    name: Option<String>,
    slots: Option<u32>,
    pool: Option<String>,
    labels: BTreeMap<String, String>,
    separate: Option<bool>,
    default_agent: Option<String>,
    pass_env: Option<Vec<String>>,
    disk_budget: Option<String>,
    keep_workspaces: Option<String>,
    pids_limit: Option<u64>,
    memory_limit: Option<String>,
    cpu_limit: Option<f64>,
    sandbox_tools: Vec<PathBuf>,
    ssh: direct::Said,
    agents: BTreeMap<String, AgentTemplate>,
}

/// Everything that can be set, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where attempts, workspaces and spools stand.
    pub data_dir: PathBuf,
    /// URL of the controller's listener for executors; none: where it joined.
    pub controller: Option<String>,
    /// Shown to people.
    pub name: String,
    /// How many attempts run at once.
    pub slots: u32,
    /// Pool of tasks to serve.
    pub pool: String,
    /// What tasks can require.
    pub labels: BTreeMap<String, String>,
    /// Whether attempts are kept from this executor and from each other.
    pub separate: Separate,
    /// What agents in a sandbox can read besides the system's own directories.
    pub sandbox_tools: Vec<PathBuf>,
    /// Agent of a prompt that names none.
    pub default_agent: Option<String>,
    /// Variables that agents get; none: the whole environment of this process.
    pub pass_env: Option<Vec<String>>,
    /// How much of the disk may be used, in bytes; none: what is used already and what is free.
    pub disk_budget: Option<u64>,
    /// How long a finished workspace is kept while there is room.
    pub keep_workspaces: Duration,
    /// What an attempt may use.
    pub limits: Limits,
    /// Where people come without the controller; none: nowhere.
    pub ssh: Option<Direct>,
    /// Agents by name.
    pub agents: BTreeMap<String, AgentTemplate>,
    /// End when standard input is closed.
    pub lifeline: bool,
    /// What was set and has no effect, as something else counts; with what to do instead.
    pub overruled: Vec<String>,
}

impl Settings {
    /// Reads the settings file and lays the flags over it.
    pub fn load(args: RunArgs) -> Result<Self, ConfigError> {
        let file = match args.config.clone().or_else(default_file) {
            Some(path) => read(&path)?,
            None => File::default(),
        };
        Self::combine(args, file)
    }

    fn combine(args: RunArgs, file: File) -> Result<Self, ConfigError> {
        let mut labels = file.labels;
        for label in &args.labels {
            let (key, value) = label.split_once('=').ok_or_else(|| wrong("label", format!("{label:?} is not K=V")))?;
            labels.insert(key.to_owned(), value.to_owned());
        }
        let labels = sculpt_proto::labels(labels, "labels").map_err(|error| wrong("labels", error.problem))?;
        let data_dir = args.data_dir.or(file.data_dir).or_else(default_data_dir);
        let data_dir = data_dir.ok_or(ConfigError::Missing("data_dir"))?;
        // What cannot be read is said by who needs it.
        let joined = Identity::read(&data_dir).ok().flatten();
        let (named, pooled) = (args.name.or(file.name), args.pool.or(file.pool));
        let overruled = joined.as_ref().map(|joined| overruled(joined, named.as_deref(), pooled.as_deref(), &labels));
        let (name, pool, given) = joined.map_or((None, None, None), |joined| (joined.name, joined.pool, joined.labels));
        let settings = Self {
            controller: args.controller.or(file.controller),
            name: name.or(named).unwrap_or_else(crate::host::hostname),
            data_dir,
            slots: args.slots.or(file.slots).unwrap_or_else(default_slots),
            pool: pool.or(pooled).unwrap_or_else(|| "default".to_owned()),
            labels: given.unwrap_or(labels),
            separate: match args.separate.or(file.separate) {
                Some(true) => Separate::Always,
                // Started for the sake of one user, it works with that user's own tools.
                None if args.lifeline => Separate::Never,
                None => Separate::WhereItCan,
                Some(false) => Separate::Never,
            },
            sandbox_tools: file.sandbox_tools,
            default_agent: file.default_agent,
            pass_env: file.pass_env,
            disk_budget: args.disk_budget.or(file.disk_budget).as_deref().map(disk_budget).transpose()?,
            keep_workspaces: args
                .keep_workspaces
                .or(file.keep_workspaces)
                .as_deref()
                .map_or(Ok(KEEP_WORKSPACES), span)?,
            limits: Limits {
                pids: pids_limit(args.pids_limit.or(file.pids_limit))?,
                memory: args.memory_limit.or(file.memory_limit).as_deref().map(memory_limit).transpose()?,
                cpu_millis: args.cpu_limit.or(file.cpu_limit).map(cpu_limit).transpose()?,
            },
            ssh: direct::Said {
                listen: args.ssh_listen.or(file.ssh.listen),
                advertise: args.ssh_advertise.or(file.ssh.advertise),
            }
            .check(args.ssh_here)?,
            agents: file.agents,
            lifeline: args.lifeline,
            overruled: overruled.unwrap_or_default(),
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.slots == 0 || self.slots > 10_000 {
            return Err(wrong("slots", format!("{} is not between 1 and 10000", self.slots)));
        }
        if let Some(name) = self.default_agent.as_ref().filter(|name| !self.agents.contains_key(*name)) {
            let known: Vec<&str> = self.agents.keys().map(String::as_str).collect();
            return Err(wrong("default_agent", format!("{name:?} is not among the agents ({})", known.join(", "))));
        }
        for (name, agent) in &self.agents {
            let field = |problem: &str| wrong(format!("agents.{name}"), problem);
            let holds = |mark: &str| agent.command.iter().any(|argument| argument.contains(mark));
            if agent.command.first().is_none_or(String::is_empty) {
                return Err(field("command names no program"));
            }
            match agent.prompt {
                PromptBy::Argument if !holds("{prompt}") => {
                    return Err(field(
                        "no argument holds {prompt}; with prompt = \"stdin\" or \"file\" it goes another way",
                    ));
                }
                PromptBy::File if !holds("{prompt_file}") => return Err(field("no argument holds {prompt_file}")),
                PromptBy::Argument | PromptBy::Stdin | PromptBy::File => {}
            }
        }
        if let Some(path) = self.sandbox_tools.iter().find(|path| !path.is_absolute()) {
            return Err(wrong("sandbox_tools", format!("{path:?} is not an absolute path")));
        }
        Ok(())
    }
}

fn wrong(name: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Wrong { name: name.into(), problem: problem.into() }
}

fn default_slots() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1))
}

/// Where an executor stands unless told otherwise; none for who has no home.
pub fn default_data_dir() -> Option<PathBuf> {
    if crate::host::is_root() {
        return Some("/var/lib/sculpt/executor".into());
    }
    let xdg = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    xdg.or_else(home).map(|base| base.join("sculpt/executor"))
}

fn default_file() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let user = config.or_else(home).map(|path| path.join("sculpt/executor.toml"));
    [user, Some(PathBuf::from("/etc/sculpt/executor.toml"))].into_iter().flatten().find(|path| path.exists())
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::{values::PIDS_LIMIT, *};

    fn args() -> RunArgs {
        RunArgs { data_dir: Some("/d".into()), ..RunArgs::default() }
    }

    fn settings(toml: &str, args: RunArgs) -> Result<Settings, ConfigError> {
        Settings::combine(args, toml::from_str(toml).unwrap())
    }

    #[test]
    fn flags_win_over_the_file() {
        let toml = "slots = 4\npool = 'a'\nlabels = { arch = 'amd64', os = 'x' }";
        let args = RunArgs { slots: Some(2), labels: vec!["os=y".into()], ..args() };
        let settings = settings(toml, args).unwrap();
        assert_eq!((settings.slots, settings.pool.as_str()), (2, "a"));
        assert_eq!(settings.labels["arch"], "amd64");
        assert_eq!(settings.labels["os"], "y");
    }

    /// A controller whose database was set back believes what is said here.
    #[test]
    fn what_its_token_gave_it_counts_whatever_the_settings_are() {
        let data = tempfile::tempdir().unwrap();
        let identity = Identity {
            executor_id: sculpt_proto::id::ExecutorId::fresh(),
            cluster_id: None,
            controller: None,
            name: Some("till".into()),
            pool: Some("build".into()),
            labels: Some([("arch".to_owned(), "arm64".to_owned())].into()),
        };
        std::fs::write(data.path().join("executor.json"), serde_json::to_vec(&identity).unwrap()).unwrap();
        let args = RunArgs {
            data_dir: Some(data.path().to_owned()),
            name: Some("desk".into()),
            pool: Some("release".into()),
            ..args()
        };
        let settings = settings("labels = { arch = 'amd64', os = 'x' }", args).unwrap();
        assert_eq!((settings.name.as_str(), settings.pool.as_str()), ("till", "build"));
        assert_eq!(settings.labels, [("arch".to_owned(), "arm64".to_owned())].into());
        let said = settings.overruled.join("\n");
        for words in [
            "say name desk, but this executor has joined with name till",
            "say pool release, but this executor has joined with pool build",
            "say labels arch=amd64 os=x, but this executor has joined with labels arch=arm64",
        ] {
            assert!(said.contains(words) && settings.overruled.len() == 3, "{words:?} is not in {said}");
        }
    }

    #[test]
    fn space_is_given_in_words() {
        let toml = "disk_budget = '50GiB'\nkeep_workspaces = '7days'";
        let given = settings(toml, args()).unwrap();
        assert_eq!((given.disk_budget, given.keep_workspaces), (Some(50 << 30), Duration::from_secs(7 * 86_400)));
        let flags = RunArgs { disk_budget: Some("1.5 GiB".into()), keep_workspaces: Some("0s".into()), ..args() };
        let given = settings(toml, flags).unwrap();
        assert_eq!((given.disk_budget, given.keep_workspaces), (Some(3 << 29), Duration::ZERO));
        let usual = settings("", args()).unwrap();
        assert_eq!((usual.disk_budget, usual.keep_workspaces), (None, KEEP_WORKSPACES));
    }

    #[test]
    fn processes_are_limited_unless_told_otherwise() {
        let limits = |toml| settings(toml, args()).unwrap().limits;
        assert_eq!(limits(""), Limits { pids: Some(PIDS_LIMIT), ..Limits::default() });
        let given = Limits { pids: Some(100), memory: Some(8 << 30), cpu_millis: Some(1_500) };
        assert_eq!(limits("pids_limit = 100\nmemory_limit = '8GiB'\ncpu_limit = 1.5"), given);
        assert_eq!(limits("pids_limit = 0"), Limits::default());
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (toml, name) in [
            ("slots = 0", "slots"),
            ("default_agent = 'x'", "default_agent"),
            ("[agents.a]\ncommand = []", "agents.a"),
            ("[agents.a]\ncommand = ['a']", "agents.a"),
            ("[agents.a]\ncommand = ['a', '{prompt}']\nprompt = 'file'", "agents.a"),
            ("labels = { 'a b' = 'c' }", "labels"),
            ("disk_budget = '0'", "disk_budget"),
            ("disk_budget = 'much'", "disk_budget"),
            ("keep_workspaces = 'long'", "keep_workspaces"),
            ("pids_limit = 2", "pids_limit"),
            ("memory_limit = '1kB'", "memory_limit"),
            ("cpu_limit = 0.0", "cpu_limit"),
            ("sandbox_tools = ['tools']", "sandbox_tools"),
        ] {
            let error = settings(toml, args()).unwrap_err();
            assert!(error.to_string().contains(name), "{toml}: {error}");
        }
    }

    #[test]
    fn a_fleets_executor_separates_and_a_users_own_does_when_asked() {
        let separate =
            |toml, lifeline, flag| settings(toml, RunArgs { lifeline, separate: flag, ..args() }).unwrap().separate;
        assert_eq!(separate("", false, None), Separate::WhereItCan);
        assert_eq!(separate("", true, None), Separate::Never);
        assert_eq!(separate("", true, Some(true)), Separate::Always);
        assert_eq!(separate("separate = true", false, None), Separate::Always);
        assert_eq!(separate("separate = false", false, None), Separate::Never);
        assert_eq!(separate("separate = false", false, Some(true)), Separate::Always);
    }
}
