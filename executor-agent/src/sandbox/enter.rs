//! The steps of a stage into a sandbox: a new one, or one that lives.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::{SigSet, Signal};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
    process::{Pid, PidfdFlags, pidfd_open},
    thread::{ThreadNameSpaceType, move_into_thread_name_spaces},
};
use serde::{Deserialize, Serialize};

use super::Sandbox;
use crate::{
    stage::{Error, Stage, failed, give_up},
    tree,
};

/// Why nobody enters a sandbox that is being made, or being taken down.
const INCOMPLETE: &str = "it is not complete yet, or its program has ended";

/// A living sandbox, as the one who joins it needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// What bubblewrap noted about it, where no agent can write.
    pub note: PathBuf,
    /// The executor's own binary, which is inside at the same place.
    pub program: PathBuf,
}

/// bubblewrap's note, as far as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Note {
    child_pid: i32,
    pid_namespace: u64,
    /// Absent: the host's.
    net_namespace: Option<u64>,
}

impl Inside {
    /// Whether the process is in it.
    pub fn holds(&self, pid: u32) -> bool {
        let note = Note::read(&self.note).ok().flatten();
        note.is_some_and(|note| note.has(pid))
    }

    /// Whether it is still being made. One that has ended, or cannot be read, is not.
    pub fn is_coming(&self) -> bool {
        match Note::read(&self.note) {
            Ok(Some(note)) => u32::try_from(note.child_pid).is_ok_and(|pid| note.has(pid)) && !note.stands(),
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

impl Note {
    /// What stands at `path`; nothing while that is not whole: bubblewrap writes it piece by piece.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let json = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        match serde_json::from_slice(&json) {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.is_eof() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the process is in the sandbox.
    fn has(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|link| link == self.link())
    }

    /// Whether everything around its first process is there, as it is once that has a child: before, it still sees the host.
    fn stands(&self) -> bool {
        u32::try_from(self.child_pid).is_ok_and(tree::has_descendants)
    }

    /// What a process in the sandbox has in `/proc/<pid>/ns/pid`.
    fn link(&self) -> PathBuf {
        format!("pid:[{}]", self.pid_namespace).into()
    }
}

/// What the last step takes along from outside.
#[derive(Debug, Default)]
pub(crate) struct Envelope {
    /// Where bubblewrap notes what it has made.
    pub(crate) note: Option<File>,
    /// Where it is written why the program could not be run.
    pub(crate) words: Option<File>,
}

/// Becomes bubblewrap with `inner` in it; returns only when that fails.
pub(crate) fn wrap(sandbox: &Sandbox, inner: &Stage, attempt: Option<&std::ffi::OsStr>, envelope: &Envelope) -> Error {
    match prepare(sandbox, inner, envelope) {
        Ok((mut command, _handed)) => {
            if let Some(attempt) = attempt {
                // By which it is found, should everything else be lost.
                command.env("SCULPT_ATTEMPT", attempt);
            }
            failed(format!("run {} (the package bubblewrap)", sandbox.bwrap.display()), command.exec())
        }
        Err(error) => error,
    }
}

fn prepare(sandbox: &Sandbox, inner: &Stage, envelope: &Envelope) -> Result<(Command, OwnedFd), Error> {
    let handed = hand_over(inner)?;
    let mut command = Command::new(&sandbox.bwrap);
    // Nothing of the agent's environment rules a program that is still outside.
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
    command.args(sandbox.arguments());
    if let Some(note) = &envelope.note {
        inherit(note)?;
        command.arg("--info-fd").arg(note.as_raw_fd().to_string());
    }
    command.arg("--").arg(&sandbox.program).args(["stage", "--inside"]).arg(handed.as_raw_fd().to_string());
    if let Some(words) = &envelope.words {
        inherit(words)?;
        command.arg("--words").arg(words.as_raw_fd().to_string());
    }
    // What asks the agent to end must not end the one who waits for it, and with it everything at once.
    let asking = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP]);
    asking.thread_block().map_err(|error| failed("hold signals back", error.into()))?;
    Ok((command, handed))
}

/// Runs `inner` in a living sandbox and returns its exit code.
pub(crate) fn join(inside: &Inside, inner: &Stage) -> Result<u8, Error> {
    let attempt = || format!("enter the sandbox that {} names", inside.note.display());
    let wrong = |why: &str| failed(attempt(), io::Error::other(why.to_owned()));
    let note = Note::read(&inside.note).map_err(|error| failed(attempt(), error))?;
    let note = note.ok_or_else(|| wrong(INCOMPLETE))?;
    let pid = Pid::from_raw(note.child_pid).ok_or_else(|| wrong("it names no process"))?;
    let pinned = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed(attempt(), error.into()))?;
    // Pinned, so that the process which is compared is the one that is followed.
    let link = fs::read_link(format!("/proc/{}/ns/pid", note.child_pid)).map_err(|error| failed(attempt(), error))?;
    if link != note.link() {
        return Err(wrong("it has ended"));
    }
    if !note.stands() {
        return Err(wrong(INCOMPLETE));
    }
    let handed = hand_over(inner)?;
    // All at once: with the user namespace alone, the others would be out of reach.
    let mut all = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    if note.net_namespace.is_some() {
        all |= ThreadNameSpaceType::NETWORK;
    }
    move_into_thread_name_spaces(pinned.as_fd(), all).map_err(|error| failed(attempt(), error.into()))?;
    // Whatever an agent has put in the program's place gets no more than that agent has.
    give_up()?;
    // A process namespace is entered by children only.
    let mut command = Command::new(&inside.program);
    command.args(["stage", "--inside"]).arg(handed.as_raw_fd().to_string()).env_clear().current_dir("/");
    let status = command.status().map_err(|error| failed(attempt(), error))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1))
}

/// The stage that was handed over from outside, and where its failure is written.
pub(crate) fn inner(handed: i32, words: Option<i32>) -> Result<(Stage, Option<File>), Error> {
    let path = |number: i32| format!("/proc/self/fd/{number}");
    let read = || -> io::Result<(Stage, Option<File>)> {
        let stage = serde_json::from_slice(&fs::read(path(handed))?)?;
        // Opened anew, so that it closes by itself when the program begins.
        let words = words.map(|number| File::options().write(true).open(path(number))).transpose()?;
        Ok((stage, words))
    };
    let read = read().map_err(|error| failed("read what is to be run", error));
    for number in [Some(handed), words].into_iter().flatten() {
        let _ = nix::unistd::close(number);
    }
    SigSet::empty().thread_set_mask().map_err(|error| failed("let signals through", error.into()))?;
    read
}

/// In memory that no name leads to, as arguments are seen by others.
fn hand_over(inner: &Stage) -> Result<OwnedFd, Error> {
    let make = || -> io::Result<OwnedFd> {
        let memory = memfd_create("stage", MemfdFlags::CLOEXEC)?;
        let mut file = File::from(memory);
        file.write_all(&serde_json::to_vec(inner)?)?;
        Ok(file.into())
    };
    let memory = make().map_err(|error| failed("hand over what is to be run", error))?;
    inherit(&memory)?;
    Ok(memory)
}

fn inherit(descriptor: impl AsFd) -> Result<(), Error> {
    fcntl_setfd(descriptor, FdFlags::empty()).map_err(|error| failed("hand a file over", error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let inside = Inside { note: directory.path().join("sandbox.json"), program: "/bin/true".into() };
        assert!(inside.is_coming(), "bubblewrap has not begun");
        let own = fs::read_link("/proc/self/ns/pid").unwrap().to_string_lossy().into_owned();
        let namespace = own.trim_start_matches("pid:[").trim_end_matches(']');
        let whole = format!("{{\n    \"child-pid\": {},\n    \"pid-namespace\": {namespace}\n}}\n", std::process::id());
        for length in 0..whole.len() - 2 {
            fs::write(&inside.note, &whole[..length]).unwrap();
            assert!(inside.is_coming() && !inside.holds(std::process::id()), "{}", &whole[..length]);
            let refused = join(&inside, &Stage::default()).unwrap_err();
            assert!(refused.to_string().ends_with(INCOMPLETE), "{refused}");
        }
        fs::write(&inside.note, &whole).unwrap();
        assert!(inside.holds(std::process::id()));
        for (text, what) in [("{]", "broken"), (r#"{"child-pid": 1, "pid-namespace": 1}"#, "over")] {
            fs::write(&inside.note, text).unwrap();
            assert!(!inside.is_coming(), "{what}");
        }
    }
}
