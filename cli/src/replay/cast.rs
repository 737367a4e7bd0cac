//! PURE: a recording as an asciicast of version 2: a header, then one line for each event, all of them JSON. Players write it
//! to a terminal as it is, so that it holds what a terminal may be shown and nothing that asks it or makes it send.

use std::{collections::BTreeMap, time::Duration};

use sculpt_proto::v1::LogStream;
use serde::Serialize;
use serde_json::json;

use super::{screen, timeline::Timeline};
use crate::{follow::Piece, output::screen::Screen};

/// What the header says of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) title: String,
    /// When the agent began, in seconds since 1970.
    pub(crate) began: Option<i64>,
}

/// What was made of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Made {
    /// The first size.
    pub(crate) columns: u16,
    pub(crate) rows: u16,
    /// Lines after the header.
    pub(crate) events: u64,
    /// How long it plays.
    pub(crate) seconds: f64,
    /// How long that was when it was recorded.
    #[serde(skip)]
    pub(crate) recorded: Duration,
}

/// An asciicast in the making.
pub(crate) struct Cast {
    about: About,
    timeline: Timeline,
    /// When the last event was.
    at: Duration,
    /// For each stream by itself: one may be cut inside a character or a sequence.
    screens: BTreeMap<LogStream, Screen>,
    headed: bool,
    made: Made,
}

impl Cast {
    pub(crate) fn new(about: About, timeline: Timeline) -> Self {
        Self { about, timeline, at: Duration::ZERO, screens: BTreeMap::new(), headed: false, made: Made::default() }
    }

    /// The lines that `piece` makes.
    pub(crate) fn add(&mut self, piece: &Piece<'_>) -> String {
        let mut lines = String::new();
        self.at += self.timeline.wait(Duration::from_millis(piece.time_ms));
        let size = piece.size.map(screen::cells);
        if !self.headed {
            self.head(size.unwrap_or(screen::unknown(piece.stream)), &mut lines);
        } else if let Some((columns, rows)) = size {
            self.event("r", &format!("{columns}x{rows}"), &mut lines);
        }
        let screen = self.screens.entry(piece.stream).or_insert_with(Screen::terminal);
        let shown = screen.feed(&screen::printed(piece.stream, piece.bytes));
        if !shown.is_empty() {
            self.event("o", &String::from_utf8_lossy(&shown), &mut lines);
        }
        lines
    }

    /// The lines that are left when nothing follows, and what was made.
    pub(crate) fn end(mut self) -> (String, Made) {
        let mut lines = String::new();
        if !self.headed {
            self.head(screen::unknown(LogStream::Unspecified), &mut lines);
        }
        self.made.seconds = self.at.as_secs_f64();
        self.made.recorded = self.timeline.recorded();
        (lines, self.made)
    }

    fn head(&mut self, (columns, rows): (u16, u16), lines: &mut String) {
        self.headed = true;
        (self.made.columns, self.made.rows) = (columns, rows);
        let mut header = json!({
            "version": 2,
            "width": columns,
            "height": rows,
            "title": self.about.title,
            "env": { "TERM": "xterm-256color" },
        });
        if let Some(began) = self.about.began {
            header["timestamp"] = began.into();
        }
        lines.push_str(&header.to_string());
        lines.push('\n');
    }

    fn event(&mut self, code: &str, data: &str, lines: &mut String) {
        self.made.events += 1;
        let at = format!("{}.{:06}", self.at.as_secs(), self.at.subsec_micros());
        lines.push_str(&format!("[{at}, {}, {}]\n", json!(code), json!(data)));
    }
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::LogSize;
    use serde_json::Value;

    use super::*;
    use crate::replay::timeline::Pace;

    const PACE: Pace = Pace { speed: 1.0, from: Duration::ZERO, idle_limit: None };
    const TERMINAL: LogStream = LogStream::Terminal;

    fn about() -> About {
        About { title: "task 17: work".to_owned(), began: Some(1_700_000_000) }
    }

    type Recorded<'a> = (u64, LogStream, (u32, u32), &'a [u8]);

    /// The header and the events that are made of this; a size of nothing is none.
    fn made(pace: Pace, recorded: &[Recorded<'_>]) -> (Value, Vec<Value>, Made) {
        let mut cast = Cast::new(about(), Timeline::new(pace));
        let mut text = String::new();
        for (time_ms, stream, (columns, rows), bytes) in recorded {
            let size = (*columns > 0).then_some(LogSize { columns: *columns, rows: *rows });
            text.push_str(&cast.add(&Piece { offset: 0, stream: *stream, time_ms: *time_ms, size, bytes }));
        }
        let (rest, made) = cast.end();
        text.push_str(&rest);
        let mut lines = text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
        (lines.next().expect("a header"), lines.collect(), made)
    }

    #[test]
    fn a_recording_becomes_events() {
        let (header, events, made) = made(
            PACE,
            &[
                (0, TERMINAL, (200, 50), b"\x1b[31mred"),
                (1500, TERMINAL, (0, 0), b"\"quoted\"\\\r\n\x00"),
                (1500, TERMINAL, (80, 24), b"small"),
                (61_001, TERMINAL, (0, 0), b"end"),
            ],
        );
        let expected = json!({
            "version": 2, "width": 200, "height": 50, "timestamp": 1_700_000_000, "title": "task 17: work",
            "env": { "TERM": "xterm-256color" },
        });
        assert_eq!(header, expected);
        assert_eq!(
            events,
            [
                json!([0.0, "o", "\u{1b}[31mred"]),
                json!([1.5, "o", "\"quoted\"\\\r\n"]),
                json!([1.5, "r", "80x24"]),
                json!([1.5, "o", "small"]),
                json!([61.001, "o", "end"]),
            ]
        );
        let recorded = Duration::from_millis(61_001);
        assert_eq!(made, Made { columns: 200, rows: 50, events: 5, seconds: 61.001, recorded });
    }

    #[test]
    fn a_character_is_whole_on_whichever_stream_it_is_cut() {
        let (_, events, _) = made(
            PACE,
            &[
                (1, LogStream::Stdout, (0, 0), b"a\xe2\x9c"),
                (2, LogStream::Stderr, (0, 0), b"\xc3"),
                (3, LogStream::Stdout, (0, 0), b"\x93b\xff"),
                (4, LogStream::Stderr, (0, 0), b"\xa4\xf0"),
            ],
        );
        let texts: Vec<_> = events.iter().map(|event| event[2].as_str().unwrap_or_default()).collect();
        assert_eq!(texts, ["a", "✓b\u{fffd}", "ä"]);
        assert_eq!(events.last().map(|event| &event[0]), Some(&json!(0.004)));
    }

    /// Whatever plays it in a terminal obeys what stands in it.
    #[test]
    fn nothing_in_it_asks_a_terminal_or_changes_what_it_sends() {
        for asking in [
            "\x1b]52;c;aGk=\x07",
            "\x1b[6n",
            "\x1b[c",
            "\x1b[>q",
            "\x1b[21t",
            "\x1bP+q544e\x1b\\",
            "\x1b]11;?\x07",
            "\x1b[?1000h",
            "\x1b[?2004h",
            "\x05",
        ] {
            let bytes = format!("a{asking}\x1b[1mb").into_bytes();
            for cut in 0..=bytes.len() {
                let (first, second) = bytes.split_at(cut);
                let (_, events, _) = made(PACE, &[(0, TERMINAL, (0, 0), first), (1, TERMINAL, (0, 0), second)]);
                let text: String = events.iter().filter_map(|event| event[2].as_str()).collect();
                assert_eq!(text, "a\u{1b}[1mb", "{asking:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn lines_without_a_terminal_begin_at_the_left() {
        let (header, events, _) = made(PACE, &[(0, LogStream::Stdout, (0, 0), b"one\ntwo\n")]);
        assert_eq!((&header["width"], &header["height"]), (&json!(80), &json!(24)));
        assert_eq!(events, [json!([0.0, "o", "one\r\ntwo\r\n"])]);
        let (header, events, _) = made(PACE, &[(0, TERMINAL, (0, 0), b"one\ntwo\n")]);
        assert_eq!((&header["width"], &header["height"]), (&json!(200), &json!(50)));
        assert_eq!(events, [json!([0.0, "o", "one\ntwo\n"])]);
    }

    #[test]
    fn times_follow_the_pace_and_never_go_backwards() {
        let pace = Pace { speed: 2.0, from: Duration::from_secs(1), idle_limit: Some(Duration::from_secs(3)) };
        let recorded: Vec<Recorded<'_>> =
            [0, 500, 2000, 1000, 60_000, 60_001].map(|time| (time, TERMINAL, (0, 0), &b"x"[..])).to_vec();
        let (_, events, _) = made(pace, &recorded);
        let times: Vec<_> = events.iter().map(|event| event[0].as_f64().unwrap_or(f64::NAN)).collect();
        assert_eq!(times, [0.0, 0.0, 0.5, 0.5, 2.0, 2.0005]);
    }

    #[test]
    fn of_nothing_there_is_a_header() {
        let (header, events, made) = made(PACE, &[]);
        assert_eq!((&header["version"], events.len()), (&json!(2), 0));
        assert_eq!(made, Made { columns: 80, rows: 24, ..Made::default() });
    }
}
