//! Keeps both parts running until we are asked to end.

use std::{
    ffi::OsString,
    net::SocketAddr,
    time::{Duration, Instant},
};

use sculpt_proto::v1::{ListTasksRequest, TaskState};
use serde::Deserialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use url::Url;

use super::{
    ATTEMPTED, Places,
    child::{CONTROLLER, Part},
    context::{self, Written},
    enrol::enrol,
    ports::Ports,
};
use crate::{
    args::UpArgs,
    client::{Client, unusable},
    config::{Context, LOCAL, read_token},
    exit::Exit,
    failure::Failure,
    output::{counted, line, note, shell_quoted},
};

/// How long the parts may take to end before they are killed.
const GRACE: Duration = Duration::from_millis(4500);
/// Pauses before a part that died is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A start that takes longer than a moment says what is being done, one that takes very long where to look.
const MOMENT: Duration = Duration::from_millis(200);
const SLOW_START: Duration = Duration::from_secs(6);
/// A part that ran this long is not taken for one that cannot start.
const STEADY: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct ControllerReady {
    user_url: String,
    executor_url: String,
    #[serde(default)]
    postgres: String,
}

#[derive(Deserialize)]
struct ExecutorReady {
    name: String,
}

/// Both parts, and what it takes to start them again.
struct Installation<'a> {
    places: &'a Places,
    args: &'a UpArgs,
    ports: Ports,
    controller: Part,
    executor: Option<Part>,
    urls: ControllerReady,
}

/// SIGINT, SIGTERM and SIGHUP: each asks us to end.
struct Ending(Vec<Signal>);

impl Ending {
    fn listen() -> Result<Self, Failure> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let signals: Result<_, _> = kinds.into_iter().map(signal).collect();
        signals.map(Self).map_err(|error| Failure::new(Exit::Failed, "listen for signals", error.to_string()))
    }

    async fn asked(&mut self) {
        let waits = self.0.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures_util::future::select_all(waits).await;
    }
}

/// Starts both parts, says `ready`, and returns after Ctrl-C.
pub(super) async fn run(places: &Places, args: &UpArgs) -> Result<Exit, Failure> {
    let mut ending = Ending::listen()?;
    let mut ports = Ports::choose(&places.data, args.listen)?;
    let first = !places.controller().exists();
    let mut controller = start_controller(places, ports)?;
    let doing = if first { "making the database and starting the controller" } else { "starting the controller" };
    let urls: ControllerReady = tokio::select! {
        ready = patiently(places, doing, controller.ready()) => ready?,
        () = ending.asked() => return end(vec![controller], &mut ending).await,
    };
    ports.listen = address(&urls.user_url).unwrap_or(ports.listen);
    ports.executor_listen = address(&urls.executor_url).unwrap_or(ports.executor_listen);
    ports.remember(&places.data)?;
    let context = context::write(&super::url(ports.listen), places)?;

    let mut installation = Installation { places, args, ports, controller, executor: None, urls };
    let enrolled = match installation.context() {
        Ok(context) => enrol(places, context, &installation.urls.executor_url).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = enrolled {
        end(vec![installation.controller], &mut ending).await?;
        return Err(failure);
    }
    let mut executor = installation.start_executor()?;
    let ready: ExecutorReady = tokio::select! {
        ready = patiently(places, "starting the executor", executor.ready()) => match ready {
            Ok(ready) => ready,
            Err(failure) => {
                end(vec![installation.controller], &mut ending).await?;
                return Err(failure);
            }
        },
        status = installation.controller.ended() => {
            executor.kill();
            return Err(installation.controller.trouble(ATTEMPTED.to_owned(), &status));
        }
        () = ending.asked() => return end(vec![executor, installation.controller], &mut ending).await,
    };
    installation.executor = Some(executor);
    installation.say_ready(&ready, &context)?;
    installation.keep(&mut ending).await?;
    installation.leave(&mut ending).await
}

/// Says what takes longer than a moment, and where to look when it takes longer than it should.
async fn patiently<T>(places: &Places, doing: &str, starting: impl Future<Output = T>) -> T {
    let mut starting = std::pin::pin!(starting);
    if let Ok(done) = tokio::time::timeout(MOMENT, &mut starting).await {
        return done;
    }
    note(format!("{doing} …"));
    if let Ok(done) = tokio::time::timeout(SLOW_START, &mut starting).await {
        return done;
    }
    note(format!("still starting; the logs are in {}", places.logs().display()));
    starting.await
}

fn start_controller(places: &Places, ports: Ports) -> Result<Part, Failure> {
    let args: [OsString; 8] = [
        "serve".into(),
        "--data-dir".into(),
        places.controller().into(),
        "--listen".into(),
        ports.listen.to_string().into(),
        "--executor-listen".into(),
        ports.executor_listen.to_string().into(),
        "--lifeline".into(),
    ];
    Part::start(CONTROLLER, &args, &places.logs())
}

impl Installation<'_> {
    fn start_executor(&self) -> Result<Part, Failure> {
        let mut args: Vec<OsString> = vec![
            "run".into(),
            "--data-dir".into(),
            self.places.executor().into(),
            "--controller".into(),
            self.urls.executor_url.clone().into(),
            // Who is on this machine need not go through the controller, and stays while that is started again.
            "--ssh-here".into(),
            self.ports.ssh_listen.to_string().into(),
            "--lifeline".into(),
        ];
        let config = self.places.data.join("executor.toml");
        if config.exists() {
            args.extend(["--config".into(), config.into()]);
        }
        if let Some(slots) = self.args.slots {
            args.extend(["--slots".into(), slots.to_string().into()]);
        }
        if self.args.separate {
            args.push("--separate".into());
        }
        Part::start("executor", &args, &self.places.logs())
    }

    /// The controller, as who made it.
    fn context(&self) -> Result<Context, Failure> {
        let file = self.places.user_token();
        let token = read_token(&file).map_err(|error| unusable(&error))?;
        let url = Url::parse(&super::url(self.ports.listen))
            .map_err(|error| Failure::new(Exit::Failed, ATTEMPTED, error.to_string()))?;
        Context::new(LOCAL.to_owned(), url, token, file.display().to_string()).map_err(|error| unusable(&error))
    }

    fn say_ready(&self, executor: &ExecutorReady, context: &Written) -> Result<(), Failure> {
        let data = shell_quoted(&self.places.data.to_string_lossy());
        line(format!("ready {} data {data}", super::url(self.ports.listen)))?;
        let logs = shell_quoted(&self.places.logs().to_string_lossy());
        note(format!("Postgres {}, executor {}; logs in {logs}", self.urls.postgres, executor.name));
        let switch = if context.current {
            String::new()
        } else {
            format!("export SCULPT_CONTEXT={}; ", shell_quoted(&context.name))
        };
        note(format!("in another shell: {switch}sculpt run -- COMMAND; Ctrl-C here ends all but the agents"));
        Ok(())
    }

    /// Starts again what dies, until we are asked to end.
    async fn keep(&mut self, ending: &mut Ending) -> Result<(), Failure> {
        let mut pauses = [FIRST_PAUSE; 2];
        let mut since = [Instant::now(); 2];
        loop {
            let executor = self.executor.as_mut();
            let died = tokio::select! {
                status = self.controller.ended() => (0, status),
                status = async { match executor { Some(part) => part.ended().await, None => std::future::pending().await } } => (1, status),
                () = ending.asked() => return Ok(()),
            };
            let (which, status) = died;
            if since[which].elapsed() > STEADY {
                pauses[which] = FIRST_PAUSE;
            }
            let part = if which == 0 { &self.controller } else { self.executor.as_ref().unwrap_or(&self.controller) };
            let trouble = part.trouble(format!("keep the {} running", part.name), &status);
            trouble.lines().iter().for_each(note);
            note(format!("starting it again in {}; the agents go on", humantime::format_duration(pauses[which])));
            tokio::select! {
                () = tokio::time::sleep(pauses[which]) => {}
                () = ending.asked() => return Ok(()),
            }
            pauses[which] = (pauses[which] * 2).min(LONGEST_PAUSE);
            since[which] = Instant::now();
            let restarted = if which == 0 { self.restart_controller(ending).await } else { self.restart_executor() };
            match restarted {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(failure) => failure.lines().iter().for_each(note),
            }
        }
    }

    /// False when we were asked to end meanwhile.
    async fn restart_controller(&mut self, ending: &mut Ending) -> Result<bool, Failure> {
        self.controller = start_controller(self.places, self.ports)?;
        let ready: Result<ControllerReady, Failure> = tokio::select! {
            ready = self.controller.ready() => ready,
            () = ending.asked() => return Ok(false),
        };
        // One that ends at once is seen, said and started again by the loop.
        if let Ok(urls) = ready {
            self.urls = urls;
            note("the controller is back");
        }
        Ok(true)
    }

    fn restart_executor(&mut self) -> Result<bool, Failure> {
        self.executor = Some(self.start_executor()?);
        note("the executor is back; it takes its agents over");
        Ok(true)
    }

    /// Ends both parts and says what goes on.
    async fn leave(self, ending: &mut Ending) -> Result<Exit, Failure> {
        let running = tokio::time::timeout(Duration::from_millis(400), self.running()).await.ok().flatten();
        let token = self.places.user_token();
        let parts = self.executor.into_iter().chain([self.controller]).collect();
        let exit = end(parts, ending).await?;
        let again = super::start_command(&token);
        match running {
            Some(0) => note(format!("ended; no agent was running. `{again}` starts it again")),
            Some(count) => note(format!("ended; {} on without us. `{again}` takes them over again", go_on(count))),
            None => note(format!("ended; agents that were running go on. `{again}` takes them over again")),
        }
        Ok(exit)
    }

    /// How many tasks have an agent that runs now.
    async fn running(&self) -> Option<usize> {
        let client = Client::to(self.context().ok()?).await.ok()?;
        let live = [TaskState::Starting, TaskState::Running, TaskState::Waiting, TaskState::Idle];
        let states = live.into_iter().map(i32::from).collect();
        let request = ListTasksRequest { states, page_size: 1000, ..ListTasksRequest::default() };
        client.tasks().list_tasks(request).await.ok().map(|response| response.into_inner().tasks.len())
    }
}

fn go_on(count: usize) -> String {
    format!("{} {}", counted(count, "agent"), if count == 1 { "goes" } else { "go" })
}

/// Asks all parts to end, and kills those that have not within the grace, or at a second Ctrl-C.
async fn end(mut parts: Vec<Part>, ending: &mut Ending) -> Result<Exit, Failure> {
    parts.iter_mut().for_each(Part::ask_to_end);
    let all = async {
        for part in &mut parts {
            // An error here means that there is nothing to wait for.
            let _ = part.ended().await;
        }
    };
    let in_time = tokio::select! {
        () = all => true,
        () = tokio::time::sleep(GRACE) => false,
        () = ending.asked() => false,
    };
    if !in_time {
        for part in &mut parts {
            part.kill();
        }
        for part in &mut parts {
            let _ = part.ended().await;
        }
        note("a part did not end in time and was killed; nothing is lost by that");
    }
    Ok(Exit::Done)
}

fn address(url: &str) -> Option<SocketAddr> {
    url.trim_start_matches("https://").trim_end_matches('/').parse().ok()
}
