//! An executor: the real sessions over simulated attempts, as `app` of the executor wires them.

mod life;
pub mod machine;
mod recordings;
mod roster;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use sculpt_executor::{
    attempts::{Basis, Context},
    config::Settings,
    connect::Dialer,
    layout::Layout,
    logs::Logs,
    session::Control,
};

use self::{machine::Machine, roster::Attempts};
use crate::{network, world::World};

/// Whatever is dialled, the simulated network decides who answers.
const CONTROLLER: &str = "http://127.0.0.1:7434";

/// Runs until it is crashed; `directory` is where the real parts that are not simulated believe to stand.
pub async fn run(machine: Machine, world: World, directory: Arc<Path>) -> turmoil::Result {
    let _host = network::Host::begin();
    // Seeds run side by side, each on a thread of its own.
    let directory = directory.join(format!("{:?}-{}", std::thread::current().id(), machine.name));
    let layout = Layout::open(&directory, false)?;
    let settings = settings(&machine, &directory);
    let dialer = Dialer::over(network::simulated(), CONTROLLER)?;
    let (executor, boot, program) = (machine.id, machine.name.clone(), directory.join("none"));
    let separation = sculpt_executor::sandbox::Separation::Accounts { bwrap: Err("there is none".to_owned()) };
    let counting = sculpt_executor::cgroup::Counting::default();
    let shares_memory = false;
    let basis = Basis { settings, layout, executor, boot, program, dialer, separation, shares_memory, counting };
    let (context, ends) = Context::new(basis);
    let context = Arc::new(context);
    let attempts = Attempts::adopt(Arc::clone(&context), machine.clone(), world.clone());
    let (control, _ready) =
        Control::new(Arc::clone(&context), attempts.clone(), ends.news, ends.link, ends.lease, machine.cluster());
    tokio::spawn(Logs::new(context, attempts).run());
    world.tell(format_args!("{}: up", machine.name));
    let ended = machine.clock.rules(control.by_clock(network::boottime).run()).await;
    world.wrong(format_args!("{} must not go on: {ended:?}", machine.name));
    Ok(())
}

fn settings(machine: &Machine, directory: &Path) -> Settings {
    Settings {
        data_dir: directory.to_owned(),
        controller: Some(CONTROLLER.to_owned()),
        name: machine.name.clone(),
        slots: machine.slots,
        pool: "default".to_owned(),
        labels: BTreeMap::new(),
        separate: sculpt_executor::config::Separate::Never,
        sandbox_tools: Vec::new(),
        default_agent: None,
        pass_env: None,
        disk_budget: None,
        keep_workspaces: Duration::MAX,
        limits: sculpt_executor::cgroup::Limits::default(),
        agents: BTreeMap::new(),
        lifeline: false,
        ssh: None,
        overruled: Vec::new(),
    }
}

/// Where the real parts that are not simulated believe to stand; good for all seeds of a process.
#[derive(Debug)]
pub struct Ground(tempfile::TempDir);

impl Ground {
    /// With what an executor needs of real files.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("make a directory for the simulated executors")?;
        Ok(Self(directory))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Sockets stand elsewhere, because of the length of their names.
        for entry in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
            if entry.path().is_dir()
                && let Ok(layout) = Layout::open(&entry.path(), false)
            {
                layout.tidy();
            }
        }
    }
}
