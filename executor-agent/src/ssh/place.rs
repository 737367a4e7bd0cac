//! Where a person is taken: an attempt that runs on this host.

use std::{
    io,
    path::{Path, PathBuf},
};

use sculpt_proto::id::AttemptId;

use crate::{
    attempts,
    cgroup::Leaf,
    layout::Layout,
    shim::{self, Launch, Mode},
    stage::Stage,
    text::ByteText,
    tmux::View,
    tree::{self, Mark},
};

/// The attempts of this host.
#[derive(Clone, Debug)]
pub struct Attempts {
    layout: Layout,
    /// The executor's own binary.
    program: PathBuf,
}

/// One that lives.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which one.
    pub attempt: AttemptId,
    /// How it was launched.
    pub launch: Launch,
    directory: PathBuf,
    tmux: PathBuf,
    program: PathBuf,
}

/// Why nobody can be taken to an attempt.
#[derive(Debug, thiserror::Error)]
pub enum NoPlace {
    /// It is not here.
    #[error("attempt {0} is not on this host, or has not begun yet")]
    Absent(AttemptId),
    /// Its agent has ended.
    #[error("attempt {0} has ended; `sculpt logs` and `sculpt replay` show what it did")]
    Ended(AttemptId),
    /// What stands of it cannot be read.
    #[error("attempt {attempt} cannot be looked at: {source}")]
    Unreadable {
        /// Which one.
        attempt: AttemptId,
        /// Why not.
        source: io::Error,
    },
}

impl Attempts {
    /// Those below `layout`.
    pub fn new(layout: Layout, program: PathBuf) -> Self {
        Self { layout, program }
    }

    /// One of them, if it lives. Reads a few small files.
    pub fn find(&self, attempt: AttemptId) -> Result<Place, NoPlace> {
        let directory = self.layout.attempt(attempt);
        let launch = match Launch::read(&directory) {
            Ok(launch) => launch,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NoPlace::Absent(attempt)),
            Err(source) => return Err(NoPlace::Unreadable { attempt, source }),
        };
        let tmux = attempts::tmux_socket(&self.layout, attempt);
        let place = Place { attempt, launch, directory, tmux, program: self.program.clone() };
        if place.lives() { Ok(place) } else { Err(NoPlace::Ended(attempt)) }
    }
}

impl Place {
    /// Whether its agent runs. What cannot be said now is no end.
    pub fn lives(&self) -> bool {
        !self.directory.join(shim::files::EXIT).exists() && shim::is_locked(&self.directory).unwrap_or(true)
    }

    /// Where everything of it stands that is the executor's alone.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where its agent finds programs.
    pub(super) fn path(&self) -> Option<&ByteText> {
        self.launch.env.get(&ByteText::from("PATH"))
    }

    /// Whether it has a terminal.
    pub fn has_terminal(&self) -> bool {
        matches!(self.launch.mode, Mode::Terminal { .. })
    }

    /// Its terminal.
    pub fn view(&self) -> View {
        View::of(&self.directory, &self.launch, self.tmux.clone(), self.program.clone())
    }

    /// The directory of the sockets by which its terminal is reached, none of which is what an attempt listens on for others.
    pub fn kept(&self) -> &Path {
        self.tmux.parent().unwrap_or(&self.tmux)
    }

    /// Its own processes, and those that run for people beside it. Goes through all of the host's where no cgroup holds them.
    pub fn processes(&self) -> Vec<u32> {
        let cgroup = &self.launch.cgroup;
        if cgroup.unified.is_some() {
            return [Leaf::Agent, Leaf::View].iter().flat_map(|leaf| cgroup.members(*leaf)).collect();
        }
        let carriers =
            [Mark::Agent, Mark::Guest].into_iter().flat_map(|mark| tree::carriers(mark, self.launch.attempt));
        // Anybody can write these marks into an environment of their own.
        let account = self.launch.identity.as_ref().map(|identity| identity.uid);
        let own = carriers.filter(|process| account.is_none_or(|uid| process.is_of_account(uid)));
        own.map(|process| process.pid).collect()
    }

    /// The executor's own binary.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `argv` in its workspace, as its account or in its sandbox, with its limits.
    pub fn stage(&self, argv: Vec<ByteText>, env: impl IntoIterator<Item = (ByteText, ByteText)>) -> Stage {
        let view = self.view();
        Stage {
            argv,
            env: Some(env.into_iter().collect()),
            cwd: Some(view.cwd),
            identity: view.identity,
            cgroups: self.launch.cgroup.procs_files(Leaf::View),
            processes: self.launch.processes,
            session: true,
            dies_with_parent: true,
            inside: view.inside,
            ..Stage::default()
        }
    }
}
