//! Times: RFC 3339 for programs, spans for people.

use std::time::Duration;

use chrono::{DateTime, Local, SecondsFormat, TimeDelta, Utc};
use prost_types::Timestamp;

/// The point in time that the wire names; `None` when it is absent or out of range.
pub(crate) fn instant(stamp: Option<&Timestamp>) -> Option<DateTime<Utc>> {
    let stamp = stamp?;
    DateTime::from_timestamp(stamp.seconds, u32::try_from(stamp.nanos).ok()?)
}

/// RFC 3339 in UTC with microseconds.
pub(crate) fn rfc3339(stamp: Option<&Timestamp>) -> Option<String> {
    instant(stamp).map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// `2026-03-01 14:05:09` on the user's clock.
pub(crate) fn clock(stamp: Option<&Timestamp>) -> String {
    instant(stamp).map_or_else(|| "-".to_owned(), written)
}

fn written(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string()
}

/// The same, with how long ago that was or how soon it is.
pub(crate) fn local(stamp: Option<&Timestamp>) -> Option<String> {
    let at = instant(stamp)?;
    Some(format!("{} ({})", written(at), distance(at - Utc::now())))
}

/// `in 3d 2h` or `3m ago`: how far a time of the wire is.
pub(crate) fn relative(stamp: Option<&Timestamp>) -> Option<String> {
    Some(distance(instant(stamp)? - Utc::now()))
}

/// The same of what is so far ahead. A clock that is a moment behind makes nothing come that has been.
pub(crate) fn distance(ahead: TimeDelta) -> String {
    let seconds = ahead.num_seconds();
    let span = brief(Duration::from_secs(seconds.unsigned_abs()));
    if seconds > 0 { format!("in {span}") } else { format!("{span} ago") }
}

/// `03-01 14:05:09.123` on the user's clock.
pub(crate) fn local_clock(stamp: Option<&Timestamp>) -> String {
    let clock = |at: DateTime<Utc>| at.with_timezone(&Local).format("%m-%d %H:%M:%S%.3f").to_string();
    instant(stamp).map_or_else(|| "-".to_owned(), clock)
}

/// `3m`: how long ago a time of the wire was.
pub(crate) fn age(stamp: Option<&Timestamp>) -> String {
    instant(stamp).map_or_else(|| "-".to_owned(), |at| brief(since(at)))
}

/// Whole seconds since then; a clock that is behind gives none.
fn since(at: DateTime<Utc>) -> Duration {
    Duration::from_secs((Utc::now() - at).to_std().unwrap_or_default().as_secs())
}

/// The span between two times of the wire.
pub(crate) fn between(from: Option<&Timestamp>, to: Option<&Timestamp>) -> Option<String> {
    Some(brief((instant(to)? - instant(from)?).to_std().ok()?))
}

/// A span in its one or two largest units: `850ms`, `12s`, `3m 20s`, `2h 5m`, `4d 1h`.
pub(crate) fn brief(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, unit: &str, small: u64, sub: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{sub}"),
    };
    match seconds {
        0 if span.as_millis() > 0 => format!("{}ms", span.as_millis()),
        0..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// `1.5 MiB` and the like.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let cases = [
            (0, "0s"),
            (59_000, "59s"),
            (60_000, "1m"),
            (200_000, "3m 20s"),
            (7_500_000, "2h 5m"),
            (349_200_000, "4d 1h"),
        ];
        for (ms, text) in cases {
            assert_eq!(brief(Duration::from_millis(ms)), text);
        }
        assert_eq!(brief(Duration::from_millis(850)), "850ms");
    }

    #[test]
    fn what_comes_is_told_from_what_was() {
        let cases = [(100_000, "in 1d 3h"), (60, "in 1m"), (0, "0s ago"), (-61, "1m 1s ago")];
        for (seconds, text) in cases {
            assert_eq!(distance(TimeDelta::seconds(seconds)), text);
        }
        assert_eq!(distance(TimeDelta::milliseconds(999)), "0s ago");
    }

    #[test]
    fn times_of_the_wire_become_rfc_3339() {
        let stamp = Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 };
        assert_eq!(rfc3339(Some(&stamp)).as_deref(), Some("2023-11-14T22:13:20.123456Z"));
        assert_eq!(rfc3339(None), None);
    }
}
