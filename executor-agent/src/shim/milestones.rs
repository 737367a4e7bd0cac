//! How far the task has come, as whoever is within the attempt says. It is taken on a socket that the agent reaches, too, and
//! kept in a file until the executor tells of it: so all of it is bounded, and a claim.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::{
        fs::{OpenOptionsExt as _, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use super::{door::Door, files, shared::Shared};
use crate::{host, text::plain_line};

/// Names the socket to those within.
pub const SOCKET: &str = "SCULPT_SAY";
/// What the program is called that stands beside the socket, for who is within.
pub const TOOL: &str = "sculpt";
/// Longest one, in characters.
const LONGEST: usize = 500;
/// What is read of one at most; who sends more is cut off.
const READ: u64 = 64 << 10;
/// How many are taken within a minute, and in all.
const PER_MINUTE: usize = 20;
const AT_MOST: u64 = 1_000;
const MINUTE: Duration = Duration::from_secs(60);
/// How long somebody may take to say one.
const PATIENCE: Duration = Duration::from_secs(5);
/// The answer to one that was taken.
const TAKEN: &str = "taken";

/// Where the socket stands: beside that for views, which those within reach as well.
pub fn say_socket(view_socket: &Path) -> PathBuf {
    view_socket.with_file_name("say")
}

/// Takes what is said at `door` for the rest of the shim's life; `uid` is the agent's account. One at a time: who says
/// nothing holds up only others within.
pub(super) fn serve(mut door: Door, shared: Arc<Shared>, attempt_dir: &Path, uid: Option<u32>) -> io::Result<()> {
    let path = attempt_dir.join(files::MILESTONES);
    let mut kept = Kept { file: File::options().create(true).append(true).mode(0o600).open(path)?, count: 0 };
    let mut pace = Pace::default();
    thread::Builder::new().name("milestones".into()).spawn(move || {
        loop {
            let stream = door.accept();
            if super::door::is_of(&stream, uid) {
                // Who breaks off has nobody to tell.
                let _ = hear(&stream, &mut kept, &mut pace, &shared);
            }
        }
    })?;
    Ok(())
}

fn hear(mut stream: &UnixStream, kept: &mut Kept, pace: &mut Pace, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut said = Vec::new();
    stream.take(READ).read_to_end(&mut said)?;
    let answer = match checked(&said).and_then(|text| pace.take(kept.count, host::boottime()).map(|()| text)) {
        Ok(text) => match kept.add(&text) {
            Ok(()) => {
                shared.update(|state| state.milestones = kept.count);
                TAKEN.to_owned()
            }
            Err(error) => format!("it cannot be written down: {error}"),
        },
        Err(why) => why,
    };
    stream.write_all(answer.as_bytes())
}

/// PURE: what was said, as one plain line.
fn checked(said: &[u8]) -> Result<String, String> {
    let text = plain_line(&String::from_utf8_lossy(said));
    match text.chars().count() {
        0 => Err("there is nothing in it; say in a line how far the task has come".into()),
        1..=LONGEST => Ok(text),
        _ => Err(format!("it has more than {LONGEST} characters; say it shorter")),
    }
}

/// When the last ones were taken.
#[derive(Debug, Default)]
struct Pace(VecDeque<Duration>);

impl Pace {
    /// Takes one more after `count` at `now`, or says why not.
    fn take(&mut self, count: u64, now: Duration) -> Result<(), String> {
        if count >= AT_MOST {
            return Err(format!("this attempt has said {AT_MOST} milestones, and no more are taken"));
        }
        while self.0.front().is_some_and(|first| now.saturating_sub(*first) >= MINUTE) {
            self.0.pop_front();
        }
        if self.0.len() >= PER_MINUTE {
            return Err(format!("{PER_MINUTE} were said within a minute; wait a while"));
        }
        self.0.push_back(now);
        Ok(())
    }
}

struct Kept {
    file: File,
    count: u64,
}

impl Kept {
    fn add(&mut self, text: &str) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let written = self.file.write_all(format!("{text}\n").as_bytes()).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.count += 1,
            // A part of it must not join with the next one.
            Err(_) => drop(self.file.set_len(length)),
        }
        written
    }
}

/// Lets who is within find the program that speaks to the socket, as what its directory is in their PATH for.
pub(super) fn offer_tool(socket: &Path) {
    if let Ok(program) = std::env::current_exe() {
        // Without it there are no milestones from within; one that is there leads to the same, or is the agent's own doing.
        let _there = symlink(program, socket.with_file_name(TOOL));
    }
}

/// What was said within the attempt, oldest first.
pub fn milestones(attempt_dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_to_string(attempt_dir.join(files::MILESTONES)) {
        // A line that is not whole was taken by nobody.
        Ok(text) => {
            Ok(text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Entry of `sculpt milestone TEXT` within an attempt.
pub fn say(text: &str) -> io::Result<()> {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{SOCKET} is not set: this is no task's workspace"),
        ));
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer == TAKEN { Ok(()) } else { Err(io::Error::other(answer)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_milestone_is_one_plain_line_of_a_bounded_length() {
        for (said, taken) in [
            (&b"the tests pass\n"[..], Ok("the tests pass")),
            (b" \x1b]0;x\x07a\tb\0 ", Ok("]0;xab")),
            ("\u{202e}evil\u{2066}".as_bytes(), Ok("evil")),
            (b"\xff", Ok("\u{fffd}")),
            (b"", Err("nothing")),
            (b"\r\n\x1b", Err("nothing")),
        ] {
            match (checked(said), taken) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
                (found, _) => panic!("{found:?} of {}", said.escape_ascii()),
            }
        }
        assert!(checked("ä".repeat(500).as_bytes()).is_ok());
        assert!(checked("ä".repeat(501).as_bytes()).is_err_and(|why| why.contains("more than 500")));
    }

    #[test]
    fn so_many_are_taken_in_a_minute_and_in_all() {
        let mut pace = Pace::default();
        let at = Duration::from_secs;
        for second in 0..20 {
            assert_eq!(pace.take(second, at(second)), Ok(()));
        }
        assert!(pace.take(20, at(59)).is_err_and(|why| why.contains("within a minute")));
        assert_eq!(pace.take(20, at(60)), Ok(()));
        assert!(pace.take(21, at(60)).is_err());
        assert_eq!(pace.take(AT_MOST - 1, at(200)), Ok(()));
        assert!(pace.take(AT_MOST, at(300)).is_err_and(|why| why.contains("no more")));
    }
}
