//! Several machines: a controller with an address, executors that nobody can reach, people at machines of their own. What is
//! typed here is what the README says under "On several machines".

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::{Cli, Counting, DEADLINE, Network, Repo, Service, Stack, Via, eventually, within};

/// How long a lock, or a removal, may take to cut off whom it is about.
const CUT: Duration = Duration::from_secs(10);

/// A machine of the network, and who types there, in a HOME of their own.
struct Machine {
    via: Via,
    home: PathBuf,
}

impl Machine {
    fn new(stack: &Stack, via: Via, name: &str) -> Result<Self> {
        let home = stack.root().join(name);
        fs::create_dir_all(&home)?;
        Ok(Self { via, home })
    }

    /// The words of a command line, with the program where it is installed.
    fn words(&self, stack: &Stack, line: &str) -> Vec<String> {
        let mut words = line.split(' ').map(str::to_owned);
        let program = words.next().map(|name| stack.program(&name).to_string_lossy().into_owned());
        self.via[1..].iter().cloned().chain(program).chain(words).collect()
    }

    /// What is typed here.
    fn types(&self, stack: &Stack, line: &str) -> Cli {
        stack.shell(&self.via[0], self.words(stack, line)).env("HOME", &self.home).dir(&self.home)
    }

    /// A search path on which git first notes its arguments and environment in `log`.
    fn watched_git(&self, log: &Path) -> Result<String> {
        let path = env::var("PATH").context("read the search path")?;
        let (bin, log) = (self.home.join("bin"), log.display());
        let script = format!(
            "#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >> '{log}' 2> /dev/null\nPATH='{path}' exec git \"$@\"\n"
        );
        fs::create_dir(&bin)?;
        fs::write(bin.join("git"), script)?;
        fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755))?;
        Ok(format!("{}:{path}", bin.display()))
    }

    /// A program that goes on.
    async fn keeps_running(&self, stack: &Stack, name: &'static str, line: &str) -> Result<Service> {
        let mut command = stack.command(&self.via[0]);
        command.args(self.words(stack, line)).env("HOME", &self.home).current_dir(&self.home);
        command.env("PATH", self.watched_git(&git_log(stack, name))?);
        let log = stack.root().join(format!("{name}.log"));
        Service::start(name, command, log, |line| line.contains(r#""ready":true"#)).await.map(|(service, _)| service)
    }
}

/// Where is written what everybody sees of the git that executor `name` runs. It is searched for secrets like all logs.
fn git_log(stack: &Stack, name: &str) -> PathBuf {
    stack.root().join(format!("{name}-git.log"))
}

/// A controller, executors behind routers, and ada, who made them and is signed in.
struct Fleet {
    stack: Stack,
    network: Network,
    ada: Machine,
    executors: Vec<(Machine, Service)>,
}

const EXECUTORS: [&str; 2] = ["build-1", "build-2"];

impl Fleet {
    /// With an executor of each name, alone in a pool of that name. None, with a loud word, where no network can be laid.
    async fn start(names: &[&'static str]) -> Result<Option<Self>> {
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
            let service = machine.keeps_running(&stack, name, &run).await?;
            executors.push((machine, service));
        }
        Ok(Some(Self { stack, network, ada, executors }))
    }

    /// Types as ada, and fails unless that works.
    async fn ada(&self, line: &str) -> Result<String> {
        Ok(self.ada.types(&self.stack, line).run().await?.done()?.text())
    }

    async fn finish(self) -> Result<()> {
        self.stack.looks_at_processes()?;
        for (_, service) in self.executors {
            service.end(Signal::TERM, DEADLINE).await?;
        }
        self.stack.finish().await
    }
}

/// Runs a program on the controller's machine and fails unless that one fails.
fn is_refused(network: &Network, command: &[&str]) -> Result<()> {
    let [program, argument] = network.controller();
    let output = Command::new(program).arg(argument).args(command).output()?;
    ensure!(!output.status.success(), "{command:?} works: {}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// A task that counts, on this executor alone.
async fn counting(stack: &Stack, executor: &str) -> Result<Counting> {
    stack.counting(&["--pool", executor]).await
}

/// A task on `executor` that changes something, seen on its branch by who asked for it.
async fn changes(fleet: &Fleet, repo: &Repo, executor: &str) -> Result<()> {
    let typed = |line: String| fleet.ada.types(&fleet.stack, &line).dir(repo.path()).run();
    let run = format!("sculpt run -q -d --commit --pool {executor} -- cp README.md made.txt");
    let task = typed(run).await?.done()?.text();
    typed(format!("sculpt wait {task}")).await?.done()?;
    typed(format!("sculpt fetch {task}")).await?.done()?;
    let shown = fleet.stack.show(&task).await?;
    ensure!(shown["executor"] == executor, "{shown:#}");
    let branch = shown["branch"].as_str().with_context(|| format!("a branch in {shown:#}"))?;
    ensure!(repo.git(["show", &format!("{branch}:made.txt")])? == "A project.");
    Ok(())
}

/// Over routers that let nobody in, a commit goes out to each executor and what it made comes back.
#[tokio::test]
async fn a_task_runs_on_each_of_two_executors_that_nobody_can_reach() -> Result<()> {
    let Some(fleet) = Fleet::start(&EXECUTORS).await? else { return Ok(()) };
    is_refused(&fleet.network, &["ip", "route", "get", "192.168.1.2"])?;
    let repo = fleet.stack.repo()?;
    for executor in EXECUTORS {
        changes(&fleet, &repo, executor).await.with_context(|| format!("a task on {executor}"))?;
        let seen = fs::read(git_log(&fleet.stack, executor))?;
        ensure!(String::from_utf8_lossy(&seen).contains("GIT_SSL_KEY="), "no git of {executor} proved who it is");
    }
    fleet.finish().await
}

/// A lock cuts the executor off, its agent goes on, and unlocked it is back without anybody's help. One that is removed does
/// not come back.
#[tokio::test]
async fn a_locked_executor_is_gone_within_10_s_and_so_is_a_removed_one_for_good() -> Result<()> {
    let Some(mut fleet) = Fleet::start(&EXECUTORS).await? else { return Ok(()) };
    let running = counting(&fleet.stack, "build-1").await?;
    fleet.ada("sculpt lock executor build-1 --reason stolen").await?;
    let log = fleet.stack.root().join("build-1.log");
    let told = || Ok(fs::read_to_string(&log)?.contains("locked (stolen)").then_some(()));
    within(CUT, "build-1 to be cut off", eventually("it to be told", told)).await?;
    let shown = fleet.ada("sculpt executor show build-1").await?;
    ensure!(shown.contains("locked (stolen)"), "nobody is told why it is gone: {shown}");
    let found = fleet.stack.until(&running.task, "cut off", |task| task.unreachable).await?;
    ensure!(found.state() == TaskState::Running, "nothing is stopped by a lock: {found:?}");
    running.counter.prints(50).await?;
    running.lives_on()?;
    fleet.ada("sculpt unlock executor build-1").await?;
    running.arrives(&fleet.stack).await?;
    running.ends_well(&fleet.stack).await?;

    fleet.ada("sculpt executor rm build-2").await?;
    let (machine, service) = fleet.executors.pop().context("two executors")?;
    let ended = within(CUT, "build-2 to be cut off", service.gone()).await?;
    ensure!(!ended.success(), "an executor that was removed ends as if all were well");
    let listed = fleet.ada("sculpt executor ls -o json").await?;
    ensure!(!listed.contains("build-2"), "{listed}");
    let log = fs::read_to_string(fleet.stack.root().join("build-2.log"))?;
    ensure!(log.contains("removed"), "{log}");
    drop(machine);
    fleet.finish().await
}

/// Who has a role in one project sees that project and nothing else, from a machine of their own.
#[tokio::test]
async fn a_second_user_sees_the_project_of_their_role_alone() -> Result<()> {
    let Some(mut fleet) = Fleet::start(&[]).await? else { return Ok(()) };
    let (theirs, other) = (fleet.stack.empty_repo("theirs")?, fleet.stack.empty_repo("other")?);
    let mut tasks = Vec::new();
    // Two that begin with the same commit would be one project.
    for (repo, readme) in [(&theirs, "Theirs.\n"), (&other, "Another one.\n")] {
        repo.commit("README.md", readme)?;
        let line = "sculpt run -q -d -- true";
        let task = fleet.ada.types(&fleet.stack, line).dir(repo.path()).run().await?.done()?.text();
        // Nobody is there to run it.
        fleet.ada(&format!("sculpt stop {task}")).await?;
        tasks.push(task);
    }
    let bob = Machine::new(&fleet.stack, fleet.network.beside()?, "bob")?;
    fleet.ada("sculpt admin user add bob --role viewer@theirs").await?;
    let token = fleet.ada("sculpt token create --user bob --ttl 1h").await?;
    let login = format!("sculpt login {}", fleet.stack.url()?);
    fleet.stack.token_made(&token)?;
    bob.types(&fleet.stack, &login).stdin(token).run().await?.done()?;

    let listed = bob.types(&fleet.stack, "sculpt ls -o json").run().await?.done()?.json()?;
    let numbers: Vec<String> =
        listed.as_array().context("a list")?.iter().map(|task| task["number"].to_string()).collect();
    ensure!(numbers == [tasks[0].clone()], "{listed:#}");
    let projects = bob.types(&fleet.stack, "sculpt project ls -o json").run().await?.done()?.json()?;
    ensure!(projects.as_array().is_some_and(|all| all.len() == 1 && all[0]["name"] == "theirs"), "{projects:#}");
    bob.types(&fleet.stack, &format!("sculpt show {}", tasks[0])).run().await?.done()?;
    bob.types(&fleet.stack, &format!("sculpt show {}", tasks[1])).run().await?.exits(6)?;
    bob.types(&fleet.stack, &format!("sculpt logs {}", tasks[1])).run().await?.exits(6)?;
    // To look is not to touch.
    bob.types(&fleet.stack, &format!("sculpt retry {}", tasks[0])).run().await?.exits(77)?;
    bob.types(&fleet.stack, "sculpt executor token").run().await?.exits(77)?;
    bob.types(&fleet.stack, "sculpt lock executor build-1").run().await?.exits(77)?;
    fleet.finish().await
}
