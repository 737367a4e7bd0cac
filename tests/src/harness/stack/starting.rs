//! The processes of a stack: how each is started, what it dials, and who has it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::process::Command;

use super::{Ports, Stack};
use crate::harness::{Service, processes};

impl Stack {
    /// Starts `sculpt up` and waits until it is ready.
    pub async fn start_up(&mut self) -> Result<()> {
        let mut command = self.command("sculpt");
        command.arg("up").arg("--data-dir").arg(&self.ground.data).args(["--listen", "127.0.0.1:0"]);
        if self.ground.separate {
            command.arg("--separate");
        }
        let (up, _) = Service::start("sculpt up", command, self.log("up"), |line| line.starts_with("ready")).await?;
        self.up = Some(up);
        Ok(())
    }

    /// The running `sculpt up`.
    pub fn upper(&mut self) -> Result<Service> {
        self.looks_at_processes()?;
        self.up.take().context("sculpt up is not running")
    }

    /// Starts the controller, on the ports it had before.
    pub async fn start_controller(&mut self) -> Result<()> {
        let any = || (self.user_listen.clone(), self.executor_listen.clone());
        let (user, executor) =
            self.ports.as_ref().map_or_else(any, |ports| (ports.user.clone(), ports.executor.clone()));
        let mut command = self.through(&self.controller_via, self.command("sculpt-controller"));
        command.arg("serve").arg("--data-dir").arg(self.ground.data.join("controller"));
        command.args(["--listen", &user, "--executor-listen", &executor]);
        command.args(self.host.iter().flat_map(|host| ["--name", host]));
        let (controller, line) = Service::start("controller", command, self.log("controller"), is_ready).await?;
        self.controller = Some(controller);
        let ready: Value = serde_json::from_str(&line).context("read the controller's ready line")?;
        let address = |field: &str| {
            let url = ready[field].as_str().with_context(|| format!("{field} in {line}"))?;
            Ok::<_, anyhow::Error>(url.trim_start_matches("https://").trim_end_matches('/').to_owned())
        };
        self.ports = Some(Ports { user: address("user_url")?, executor: address("executor_url")? });
        Ok(())
    }

    /// Starts the executor and waits until the controller has welcomed it.
    pub async fn start_executor(&mut self) -> Result<()> {
        let command = self.next_executor().await?;
        let (executor, _) = Service::start("executor", command, self.log("executor"), is_ready).await?;
        self.executor = Some(executor);
        Ok(())
    }

    /// Starts the executor and does not wait: there may be no controller.
    pub async fn begin_executor(&mut self) -> Result<()> {
        let command = self.next_executor().await?;
        self.executor = Some(Service::begin("executor", command, self.log("executor"))?);
        Ok(())
    }

    async fn next_executor(&self) -> Result<Command> {
        self.join(&self.executor_data(), "worker").await?;
        let url = self.executor_dials.clone().map_or_else(|| self.executor_url(), Ok)?;
        let command = self.executor_command(&url, &self.executor_data(), "worker")?;
        Ok(self.through(&self.executor_via, command))
    }

    /// One more executor, beside the one that [`Stack::start_executor`] starts; whoever gets it ends it.
    pub async fn another_executor(&self, data: &Path, name: &str) -> Result<Service> {
        self.join(data, name).await?;
        let command = self.executor_command(&self.executor_url()?, data, name)?;
        let (executor, _) = Service::start("another executor", command, self.log(name), is_ready).await?;
        Ok(executor)
    }

    /// An executor about to be started, with the settings of this stack.
    pub fn executor_command(&self, url: &str, data: &Path, name: &str) -> Result<Command> {
        let program = self.executor_program.as_ref().map_or(Path::new("sculpt-executor"), PathBuf::as_path);
        let mut command = self.command(program.to_str().context("a path of the tests is text")?);
        command
            .arg("run")
            .arg("--data-dir")
            .arg(data)
            .args(["--controller", url])
            .args(["--name", name])
            .arg(format!("--separate={}", self.ground.separate))
            .arg("--config")
            .arg(self.ground.data.join("executor.toml"));
        Ok(command)
    }

    /// `command`, started by the program and arguments `via`, such as `nsenter --net=…`, which must end in exec.
    fn through(&self, via: &[String], command: Command) -> Command {
        let Some((first, rest)) = via.split_first() else { return command };
        let mut outer = self.command(first);
        outer.args(rest).arg(command.as_std().get_program()).args(command.as_std().get_args());
        outer
    }

    /// Address on which the controller listens for executors.
    pub fn executor_address(&self) -> Result<String> {
        Ok(self.ports.as_ref().context("the controller was never started")?.executor.clone())
    }

    /// The same as a URL.
    pub fn executor_url(&self) -> Result<String> {
        Ok(format!("https://{}", self.executor_address()?))
    }

    /// Address on which the controller listens for people.
    pub fn user_address(&self) -> Result<String> {
        Ok(self.ports.as_ref().context("the controller was never started")?.user.clone())
    }

    /// Address of the API when no `sculpt up` tells the person's shell.
    pub(in crate::harness) fn address(&self) -> Option<&str> {
        if self.up.is_some() {
            return None;
        }
        self.users_dial.as_deref().or_else(|| self.ports.as_ref().map(|ports| ports.user.as_str()))
    }

    /// From now on the person's shell dials `address`, for example a fault proxy's.
    pub fn users_dial(&mut self, address: Option<String>) {
        self.users_dial = address;
    }

    /// From the next start on the executor dials `url`, for example a fault proxy's.
    pub fn executor_dials(&mut self, url: String) {
        self.executor_dials = Some(url);
    }

    /// From its first start on the controller listens at the address or name `host`, and proves to be it.
    pub fn controller_is_at(&mut self, host: &str) {
        let any = format!("{host}:0");
        self.host = Some(host.to_owned());
        (self.user_listen, self.executor_listen) = (any.clone(), any);
    }

    /// From its first start on the controller listens for executors on `address`.
    pub fn executors_arrive_at(&mut self, address: &str) {
        address.clone_into(&mut self.executor_listen);
    }

    /// From the next start on the executor is the program at `path`.
    pub fn executor_is(&mut self, path: PathBuf) {
        self.executor_program = Some(path);
    }

    /// From the next start on the executor is started by this program, which must end in exec.
    pub fn executor_via<A: Into<String>>(&mut self, via: impl IntoIterator<Item = A>) {
        self.executor_via = via.into_iter().map(Into::into).collect();
    }

    /// The same for the controller.
    pub fn controller_via<A: Into<String>>(&mut self, via: impl IntoIterator<Item = A>) {
        self.controller_via = via.into_iter().map(Into::into).collect();
    }

    /// The running controller; whoever takes it ends it.
    pub fn controller(&mut self) -> Result<Service> {
        self.controller.take().context("the controller is not running")
    }

    /// Gives back what [`Stack::controller`] took.
    pub fn controller_is(&mut self, controller: Service) {
        self.controller = Some(controller);
    }

    /// The running executor; whoever takes it ends it.
    pub fn executor(&mut self) -> Result<Service> {
        self.looks_at_processes()?;
        self.executor.take().context("the executor is not running")
    }

    /// What the processes of this stack are known by.
    pub fn traces(&self) -> processes::Traces {
        processes::Traces::new(self.ground.root.path(), &self.ground.data)
    }

    /// The living processes of this stack whose name or arguments hold `text`.
    pub fn processes(&self, text: &str) -> Vec<processes::Found> {
        let all = self.traces().processes();
        all.into_iter().filter(|found| found.name.contains(text) || found.command.contains(text)).collect()
    }
}

fn is_ready(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|line| line["ready"] == true)
}
