//! A recording on standard output, in its own time.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use sculpt_proto::v1::{LogChunk, LogStream};
use tokio::{
    io::{AsyncWriteExt as _, Stdout},
    time::{Instant, sleep_until},
};

use super::{
    Recording, Timeline,
    keyboard::{Key, Keyboard, Settings},
    screen::{self, printed},
    timeline::Schedule,
};
use crate::{
    exit::Exit,
    failure::Failure,
    follow::{Piece, pieces},
    leave::Leave,
    output::{note, screen::Screen, table::window},
};

/// How somebody saw a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// To its end, which is at this recorded time.
    Whole(Duration),
    /// They had enough.
    Left,
    /// A signal cut it off.
    Interrupted,
}

/// Plays `recording`: exact bytes where standard output is no terminal. On a terminal with a keyboard, Space pauses and
/// goes on, and q or Ctrl-C ends it.
pub(crate) async fn play(recording: &mut Recording, timeline: Timeline) -> Result<Seen, Failure> {
    let Some(first) = recording.next().await? else { return Ok(Seen::Whole(Duration::ZERO)) };
    let keyed = io::stdin().is_terminal() && io::stdout().is_terminal();
    let small = too_small(first_size(&first), window());
    if let Some(small) = &small {
        note(if keyed { format!("{small}\nenlarge it, then press Space to begin; q ends") } else { small.clone() });
    }
    let mut leave = Leave::heard("play the recording")?;
    let settings = io::stdout().is_terminal().then(|| Settings::change(keyed)).transpose();
    let settings =
        settings.map_err(|error| Failure::new(Exit::Failed, "set this terminal up for a replay", error.to_string()))?;
    let mut stage =
        Stage { out: tokio::io::stdout(), screen: settings.as_ref().map(|_| Screen::terminal()), painted: false };
    let mut player = Player {
        timeline,
        keyboard: Keyboard::open(keyed),
        schedule: Schedule::begin(Instant::now(), keyed && small.is_some()),
    };
    let seen = tokio::select! {
        seen = player.run(recording, first, &mut stage) => seen,
        () = leave.wish() => Ok(Seen::Interrupted),
    };
    let closed = stage.close().await;
    drop(settings);
    let seen = seen?;
    closed.map(|()| seen)
}

/// The size that a recording begins with.
fn first_size(chunk: &LogChunk) -> Option<(u16, u16)> {
    let pieces = pieces(chunk);
    let terminal = pieces.first().filter(|piece| piece.stream == LogStream::Terminal)?;
    Some(terminal.size.map_or(screen::unknown(terminal.stream), screen::cells))
}

/// What to say of a terminal on which lines will break.
fn too_small(recorded: Option<(u16, u16)>, here: Option<(u16, u16)>) -> Option<String> {
    let ((columns, rows), (width, height)) = (recorded?, here?);
    (width < columns || height < rows).then(|| {
        format!(
            "this terminal has {width} columns and {height} rows; what was recorded on {columns} and {rows} looks broken here"
        )
    })
}

struct Player {
    timeline: Timeline,
    keyboard: Keyboard,
    schedule: Schedule,
}

impl Player {
    async fn run(&mut self, recording: &mut Recording, first: LogChunk, stage: &mut Stage) -> Result<Seen, Failure> {
        let mut chunk = first;
        loop {
            for piece in pieces(&chunk) {
                self.schedule.after(self.timeline.wait(Duration::from_millis(piece.time_ms)));
                if self.wait().await.is_none() {
                    return Ok(Seen::Left);
                }
                stage.show(&piece).await.map_err(Failure::output)?;
            }
            let next = tokio::select! {
                biased;
                () = self.ended() => return Ok(Seen::Left),
                next = recording.next() => next?,
            };
            match next {
                Some(next) => chunk = next,
                None => return Ok(Seen::Whole(self.timeline.recorded())),
            }
            self.schedule.not_before(Instant::now());
        }
    }

    /// Waits until the next is due; none when somebody ends it before.
    async fn wait(&mut self) -> Option<()> {
        loop {
            let due = self.schedule.due();
            let comes = async {
                match due {
                    // The timer would take a millisecond, which many frames at once would add up.
                    Some(due) if due <= Instant::now() => {}
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                key = self.keyboard.next() => match key {
                    Key::End => return None,
                    Key::Pause => self.schedule.toggle(Instant::now()),
                },
                () = comes => return Some(()),
            }
        }
    }

    /// Returns when somebody ends it.
    async fn ended(&mut self) {
        while self.keyboard.next().await == Key::Pause {
            self.schedule.toggle(Instant::now());
        }
    }
}

/// What the recording is played on.
struct Stage {
    out: Stdout,
    /// What a terminal may see; none: standard output is none.
    screen: Option<Screen>,
    /// A screen was shown, and not lines alone.
    painted: bool,
}

impl Stage {
    async fn show(&mut self, piece: &Piece<'_>) -> io::Result<()> {
        let Some(screen) = &mut self.screen else { return put(&mut self.out, piece.bytes).await };
        let mut shown = Vec::new();
        if piece.stream == LogStream::Terminal && !std::mem::replace(&mut self.painted, true) {
            // It begins on an empty screen, as it did; what stands here is scrolled away and not wiped out.
            let rows = window().map_or(0, |(_, rows)| usize::from(rows));
            shown.extend_from_slice(b"\x1b[999;1H");
            shown.resize(shown.len() + rows, b'\n');
            shown.extend_from_slice(b"\x1b[H");
        }
        shown.extend(screen.feed(&printed(piece.stream, piece.bytes)));
        put(&mut self.out, &shown).await
    }

    /// Gives the terminal back as a shell expects it, with the prompt below what was shown.
    async fn close(mut self) -> Result<(), Failure> {
        let mut last = self.screen.as_mut().map(Screen::restore).unwrap_or_default();
        if self.painted {
            last.extend_from_slice(b"\x1b[999;1H\r\n");
        }
        put(&mut self.out, &last).await.map_err(Failure::output)
    }
}

async fn put(out: &mut Stdout, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes).await?;
    out.flush().await
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::{LogFrame, LogSize};

    use super::*;

    #[test]
    fn a_terminal_is_too_small_for_what_does_not_fit() {
        for (recorded, here, small) in [
            (Some((80, 24)), Some((80, 24)), false),
            (Some((80, 24)), Some((200, 50)), false),
            (Some((81, 24)), Some((80, 24)), true),
            (Some((80, 25)), Some((80, 24)), true),
            (Some((200, 50)), None, false),
            (None, Some((20, 5)), false),
        ] {
            assert_eq!(too_small(recorded, here).is_some(), small, "{recorded:?} on {here:?}");
        }
    }

    #[test]
    fn only_a_terminal_has_a_first_size() {
        let chunk = |stream: LogStream, size| LogChunk {
            offset: 0,
            data: b"x".to_vec().into(),
            frames: vec![LogFrame { length: 1, stream: stream.into(), time_ms: 0, size }],
        };
        let size = LogSize { columns: 120, rows: 40 };
        for (stream, size, expected) in [
            (LogStream::Terminal, Some(size), Some((120, 40))),
            (LogStream::Terminal, None, Some((200, 50))),
            (LogStream::Stdout, None, None),
        ] {
            assert_eq!(first_size(&chunk(stream, size)), expected);
        }
    }
}
