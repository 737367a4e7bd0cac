//! A controller with an address, executors behind routers, and ada at a machine of her own.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use sculpt_tests::harness::{DEADLINE, Network, Service, Stack};

use crate::machine::Machine;

/// Where is written what everybody sees of the git that executor `name` runs. It is searched for secrets like all logs.
pub(super) fn git_log(stack: &Stack, name: &str) -> PathBuf {
    stack.root().join(format!("{name}-git.log"))
}

/// A controller, executors behind routers, and ada, who made them and is signed in.
pub(crate) struct Fleet {
    pub(crate) stack: Stack,
    pub(crate) network: Network,
    pub(crate) ada: Machine,
    pub(crate) executors: Vec<(Machine, Service)>,
}

pub(super) const EXECUTORS: [&str; 2] = ["build-1", "build-2"];

impl Fleet {
    /// With an executor of each name, alone in a pool of that name. None, with a loud word, where no network can be laid.
    pub(crate) async fn start(names: &[&'static str]) -> Result<Option<Self>> {
        let Some(mut network) = Network::lay()? else { return Ok(None) };
        let mut stack = Stack::options().separate().empty().await?;
        stack.controller_is_at(network.address());
        stack.controller_via(network.controller());
        stack.start_controller().await?;

        let ada = Machine::new(&stack, network.beside()?, "ada")?;
        // The first admin's token is handed over from the controller's machine.
        let login = ada.types(&stack, &format!("sculpt login {}", stack.url()?)).stdin(stack.token()?);
        login.run().await?.done()?;
        let mut executors = Vec::new();
        for &name in names {
            let machine = Machine::new(&stack, network.behind_a_router()?, name)?;
            let make = format!("sculpt executor token --pool {name} --label host={name} --ttl 15m");
            let token = ada.types(&stack, &make).run().await?.done()?.text();
            stack.token_made(&token)?;
            stack.executor_made(&machine.home.join("data"));
            let join =
                format!("sculpt-executor join {} --token-file - --data-dir data --name {name}", stack.executor_url()?);
            machine.types(&stack, &join).stdin(token.clone()).run().await?.done()?;
            // It was good for one machine.
            let again = join.replace("--data-dir data", "--data-dir other");
            machine.types(&stack, &again).stdin(token).run().await?.exits(77)?.says("used")?;
            let run = format!("sculpt-executor run --data-dir data --name {name} --pool {name}");
            let service = keeps_running(&stack, &machine, name, &run).await?;
            executors.push((machine, service));
        }
        Ok(Some(Self { stack, network, ada, executors }))
    }

    /// Types as ada, and fails unless that works.
    pub(crate) async fn ada(&self, line: &str) -> Result<String> {
        Ok(self.ada.types(&self.stack, line).run().await?.done()?.text())
    }

    pub(crate) async fn finish(self) -> Result<()> {
        self.stack.looks_at_processes()?;
        for (_, service) in self.executors {
            service.end(Signal::TERM, DEADLINE).await?;
        }
        self.stack.finish().await
    }
}

/// A program that goes on.
async fn keeps_running(stack: &Stack, machine: &Machine, name: &'static str, line: &str) -> Result<Service> {
    let mut command = machine.command(stack, &line.split(' ').collect::<Vec<_>>());
    command.env("PATH", watched_git(machine, &git_log(stack, name))?);
    let log = stack.root().join(format!("{name}.log"));
    Service::start(name, command, log, |line| line.contains(r#""ready":true"#)).await.map(|(service, _)| service)
}

/// A search path on which git first notes its arguments and environment in `log`.
fn watched_git(machine: &Machine, log: &Path) -> Result<String> {
    let path = env::var("PATH").context("read the search path")?;
    let (bin, log) = (machine.home.join("bin"), log.display());
    let script = format!(
        "#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >> '{log}' 2> /dev/null\nPATH='{path}' exec git \"$@\"\n"
    );
    fs::create_dir(&bin)?;
    fs::write(bin.join("git"), script)?;
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755))?;
    Ok(format!("{}:{path}", bin.display()))
}
