//! The shim's main thread: starts the agent, waits for its end, brings it about when it is wanted, and records it.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{WaitOptions, WaitStatus, wait};
use signal_hook::{consts::signal, iterator::Signals};

use super::{
    Error,
    agent::{self, Connection},
    baton, control,
    door::Door,
    ending::{Ending, Tree},
    files,
    home::Home,
    keyboard::Keyboard,
    kin::Kin,
    launch::Launch,
    lease,
    listen::{listen, listen_for_account},
    milestones,
    pump::{Drain, Pump},
    record::{EndedBy, ExitRecord, Outcome},
    screen::Screen,
    shared::{Event, Shared},
    views,
    wire::Phase,
};
use crate::{disk, host, spool, stage, tree::ProcessId};

/// The clock that sleeps with the machine is compared with the one that does not this often.
const CLOCKS: Duration = Duration::from_secs(10);
/// Space that an exit record needs.
const RECORD: usize = 4096;

/// A shim at work.
pub(super) struct Supervisor {
    home: Arc<Home>,
    launch: Launch,
    shared: Arc<Shared>,
    events: mpsc::Receiver<Event>,
    drain: Arc<Drain>,
    keyboard: Option<Arc<Keyboard>>,
    tree: Tree,
    /// None where a cgroup holds the agent's processes together.
    kin: Option<Kin>,
    started: Duration,
    ending: Option<Ending>,
    output_ended: bool,
}

pub(super) fn failed(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let attempt = attempt.into();
    move |source| Error { attempt, source }
}

impl Supervisor {
    /// Starts the agent and everything around it.
    pub(super) fn start(attempt_dir: &Path, launch: Launch) -> Result<Self, Error> {
        let (sender, events) = mpsc::channel();
        let home = Arc::new(Home::open(attempt_dir).map_err(failed("hold the attempt's directory"))?);
        watch_signals(sender.clone()).map_err(failed("watch signals"))?;
        let shared = Arc::new(Shared::new(&launch, agent::identity(std::process::id()), sender));
        disk::reserve(&attempt_dir.join(files::EXIT), RECORD).map_err(failed("reserve space for the exit record"))?;
        let control = {
            let (socket, others_pass) = (launch.control_socket.clone(), launch.identity.is_some());
            Door::open(socket.clone(), Arc::clone(&home), Arc::clone(&shared), move || listen(&socket, others_pass))?
        };
        let connection = Connection::open(&launch).map_err(failed("make a terminal or pipes"))?;
        let (keyboard, master, view_door) = match &connection {
            Connection::Terminal { master, size, .. } => {
                let (socket, wanted) = (launch.view_socket.clone(), launch.clone());
                let views = Door::open(socket.clone(), Arc::clone(&home), Arc::clone(&shared), move || {
                    listen_for_account(&wanted, &socket, "view")
                })?;
                let screen = Screen::start(Arc::clone(master), *size).map_err(failed("start a thread"))?;
                let quiet = launch.quiet.unwrap_or(baton::QUIET);
                let keyboard = Keyboard::start(screen, Arc::clone(&shared), attempt_dir, quiet)
                    .map_err(failed("make room for messages"))?;
                (Some(keyboard), Some(Arc::clone(master)), Some(views))
            }
            Connection::Pipes { .. } => (None, None, None),
        };
        let say = {
            let (socket, launch) = (milestones::say_socket(&launch.view_socket), launch.clone());
            Door::open(socket.clone(), Arc::clone(&home), Arc::clone(&shared), move || {
                listen_for_account(&launch, &socket, "say").inspect(|_| milestones::offer_tool(&socket))
            })?
        };
        let drain = Drain::new().map_err(failed("make an event counter"))?;
        let writer = {
            let (shared, drain) = (Arc::clone(&shared), Arc::clone(&drain));
            let on_blocked = move |error: Option<&io::Error>| {
                shared.update(|state| state.blocked = error.map(|error| format!("the log cannot be written: {error}")));
                // What the agent has printed before its end has a place.
                if drain.has_begun() { spool::Reserve::Spend } else { spool::Reserve::Keep }
            };
            spool::Writer::create(&attempt_dir.join(files::SPOOL), spool::Options::default(), Box::new(on_blocked))
                .map_err(|error| failed("begin the recording")(io::Error::other(error)))?
        };
        let started = host::boottime();
        let main = connection.spawn(&launch, attempt_dir).map_err(failed("start the agent"))?;
        let identity = agent::identity(main);
        shared.update(|state| state.agent = Some(identity));
        let kin = if launch.cgroup.can_kill() { None } else { Kin::begin(attempt_dir, identity).ok() };
        let (sources, slave) = connection.into_sources();
        let enclosed = launch.sandbox.is_some();
        let tree = Tree { attempt: launch.attempt, main, enclosed, cgroup: launch.cgroup.clone(), master };
        let supervisor = Self {
            home,
            launch,
            shared,
            events,
            drain,
            keyboard,
            tree,
            kin,
            started,
            ending: None,
            output_ended: false,
        };
        let pump = Pump {
            writer,
            sources,
            slave,
            screen: supervisor.keyboard.as_ref().map(|keyboard| Arc::clone(keyboard.screen())),
            shared: Arc::clone(&supervisor.shared),
            drain: Arc::clone(&supervisor.drain),
            started,
        };
        pump.start().map_err(failed("start a thread"))?;
        supervisor.serve(control, view_door, say).map_err(failed("start a thread"))?;
        Ok(supervisor)
    }

    fn serve(&self, control: Door, view: Option<Door>, say: Door) -> io::Result<()> {
        control::serve(control, Arc::clone(&self.shared), self.keyboard.clone())?;
        let uid = self.launch.identity.as_ref().map(|identity| identity.uid);
        milestones::serve(say, Arc::clone(&self.shared), self.home.path(), uid)?;
        if let (Some(view), Some(keyboard)) = (view, &self.keyboard) {
            views::serve(view, Arc::clone(&self.shared), Arc::clone(keyboard), uid)?;
        }
        Ok(())
    }

    /// Sees the agent to its end, and lingers until nobody needs the shim any more.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let status = self.wait_for_main();
        let ended = host::boottime();
        self.shared.update(|state| state.phase = Phase::Ending);
        let left_over = !self.tree.end(Ending::rest(self.ending.as_ref()));
        self.drain.begin();
        self.wait_for_output();
        let record = ExitRecord {
            attempt: self.launch.attempt,
            outcome: self.outcome(status),
            ended_by: self.ending.map_or(EndedBy::Itself, |ending| ending.by),
            out_of_memory: self.launch.cgroup.out_of_memory(),
            left_over,
            log_length: self.shared.state().log_end,
            started: self.started,
            ended,
            boot_id: host::boot_id().unwrap_or_default(),
        };
        let recorded = self.record(&record);
        if recorded.is_ok() {
            self.shared.update(|state| state.phase = Phase::Ended(record));
        }
        if let Some(keyboard) = &self.keyboard {
            keyboard.screen().end();
        }
        if recorded.is_ok() {
            self.linger();
        }
        self.shared.update(|state| state.released = true);
        let say = milestones::say_socket(&self.launch.view_socket);
        let tool = say.with_file_name(milestones::TOOL);
        for socket in [&self.launch.control_socket, &self.launch.view_socket, &say, &tool] {
            // There may be none.
            let _ = fs::remove_file(socket);
        }
        recorded
    }

    fn wait_for_main(&mut self) -> WaitStatus {
        loop {
            if let Some(status) = reap(self.tree.main) {
                return status;
            }
            let event = match self.pause() {
                Some(pause) => self.events.recv_timeout(pause).ok(),
                None => self.events.recv().ok(),
            };
            if let Some(event) = event {
                self.react(event);
            }
            if let Some(kin) = &mut self.kin {
                kin.look();
            }
            if let Some((at, by)) = self.limit().filter(|_| self.ending.is_none())
                && host::boottime() >= at
            {
                self.end(by, self.launch.grace);
            }
            if let Some(ending) = &mut self.ending {
                ending.go_on(&self.tree);
            }
        }
    }

    /// How long there is nothing to do.
    fn pause(&self) -> Option<Duration> {
        let until_next_step = match &self.ending {
            Some(ending) => Some(ending.at.saturating_duration_since(Instant::now())),
            None => self.limit().map(|(at, _)| at.saturating_sub(host::boottime()).min(CLOCKS)),
        };
        until_next_step.into_iter().chain(self.kin.as_ref().map(Kin::pause)).min()
    }

    /// When the agent's time is up unless something happens, and who ends it then.
    fn limit(&self) -> Option<(Duration, EndedBy)> {
        let timeout = self.launch.timeout.map(|timeout| self.started.saturating_add(timeout));
        lease::limit(timeout, self.shared.state().lease)
    }

    fn react(&mut self, event: Event) {
        match event {
            Event::Stop(grace) => self.end(EndedBy::Stop, grace),
            Event::Terminate => {
                let by = if host::going_down() { EndedBy::Host } else { EndedBy::Signal };
                self.end(by, self.launch.grace);
            }
            // What cannot be recorded must not go on as if it were.
            Event::Removed => self.end(EndedBy::Removed, self.launch.grace),
            Event::Hold(held, reply) => {
                let answer = if self.ending.is_some() {
                    Err("the agent is being ended".to_owned())
                } else {
                    self.tree.hold(held);
                    self.shared.update(|state| state.phase = if held { Phase::Held } else { Phase::Running });
                    if let Some(keyboard) = &self.keyboard {
                        keyboard.pause(held);
                    }
                    Ok(())
                };
                // Whoever asked may have gone.
                let _ = reply.send(answer);
            }
            // An agent may close its outputs long before its end.
            Event::OutputEnded => self.output_ended = true,
            // They only wake: what they are about is looked at anyway.
            Event::Child | Event::Look => {}
        }
    }

    fn end(&mut self, by: EndedBy, grace: Duration) {
        match &mut self.ending {
            Some(ending) => ending.hasten(grace),
            none => {
                *none = Some(Ending::begin(by, grace, &self.tree));
                self.shared.update(|state| state.phase = Phase::Ending);
            }
        }
    }

    fn wait_for_output(&mut self) {
        // The sender lives in `shared`, so the channel does not close.
        while !self.output_ended {
            let Ok(event) = self.events.recv() else { return };
            match event {
                Event::OutputEnded => self.output_ended = true,
                Event::Child => reap_others(),
                Event::Hold(_, reply) => drop(reply.send(Err("the agent has ended".to_owned()))),
                Event::Terminate | Event::Stop(_) | Event::Look | Event::Removed => {}
            }
        }
    }

    fn outcome(&self, status: WaitStatus) -> Outcome {
        if let Some(signal) = status.terminating_signal() {
            return Outcome::Signal(signal);
        }
        let code = status.exit_status().unwrap_or(-1);
        let note = fs::read_to_string(self.home.path().join(files::STAGE)).unwrap_or_default();
        if code == i32::from(stage::FAILED) && !note.is_empty() {
            return Outcome::NotStarted(note);
        }
        Outcome::Code(code)
    }

    /// Writes the end down; a disk that refuses is tried again, as nobody else knows what happened. Without a directory
    /// there is no place to write to.
    fn record(&self, record: &ExitRecord) -> Result<(), Error> {
        let json = serde_json::to_vec(record).map_err(|error| failed("write the exit record")(error.into()))?;
        sculpt_failpoints::pass("exit.before_write");
        while let Err(error) = disk::fill_reserved(&self.home.path().join(files::EXIT), &json) {
            if self.home.is_gone() {
                return Err(failed("write the exit record: the attempt's directory is gone")(error));
            }
            self.shared.update(|state| state.blocked = Some(format!("the exit record cannot be written: {error}")));
            thread::sleep(CLOCKS / 10);
        }
        sculpt_failpoints::pass("exit.written");
        self.shared.update(|state| state.blocked = None);
        Ok(())
    }

    fn linger(&self) {
        loop {
            reap_others();
            let (released, views) = {
                let state = self.shared.state();
                (state.released, state.views)
            };
            if released && views == 0 {
                return;
            }
            match self.events.recv() {
                // Everything is recorded, and the host goes down.
                Ok(Event::Terminate) | Err(_) => return,
                Ok(Event::Hold(_, reply)) => drop(reply.send(Err("the agent has ended".to_owned()))),
                Ok(_) => {}
            }
        }
    }
}

/// Reaps whoever has ended; the status of `main` if it was among them.
fn reap(main: u32) -> Option<WaitStatus> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get().unsigned_abs() == main {
            return Some(status);
        }
    }
    None
}

fn reap_others() {
    reap(0);
}

/// Makes a signal an event. Signals that a terminal or a logout sends are caught and mean nothing.
fn watch_signals(events: mpsc::Sender<Event>) -> io::Result<()> {
    use signal::{SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
    let mut signals = Signals::new([SIGCHLD, SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTSTP])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGCHLD => Event::Child,
                SIGTERM => Event::Terminate,
                _ => continue,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// The lock's content, for people and for those who have to end a shim that hangs.
pub(super) fn own_identity() -> ProcessId {
    agent::identity(std::process::id())
}
