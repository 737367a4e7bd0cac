//! Liveness: the borders, to the nanosecond.

use chrono::{DateTime, TimeDelta, Utc};
use sculpt_core::liveness::{DEFAULT_LOST_AFTER, Liveness, REPLACEMENT_MARGIN, UNREACHABLE_AFTER, replaceable_at};

use crate::states::start;

const TICK: TimeDelta = TimeDelta::nanoseconds(1);

#[test]
fn borders() {
    let minute = TimeDelta::minutes(1);
    let rows = [
        // lost_after        silence                          what it is
        (DEFAULT_LOST_AFTER, TimeDelta::MIN + minute, "connected"),
        (DEFAULT_LOST_AFTER, -TimeDelta::hours(1), "connected"),
        (DEFAULT_LOST_AFTER, TimeDelta::zero(), "connected"),
        (DEFAULT_LOST_AFTER, UNREACHABLE_AFTER - TICK, "connected"),
        (DEFAULT_LOST_AFTER, UNREACHABLE_AFTER, "unreachable"),
        (DEFAULT_LOST_AFTER, DEFAULT_LOST_AFTER - TICK, "unreachable"),
        (DEFAULT_LOST_AFTER, DEFAULT_LOST_AFTER, "lost"),
        (DEFAULT_LOST_AFTER, TimeDelta::days(10_000), "lost"),
        // Nothing is lost before it is silent.
        (TimeDelta::seconds(5), UNREACHABLE_AFTER - TICK, "connected"),
        (TimeDelta::seconds(5), UNREACHABLE_AFTER, "lost"),
        (UNREACHABLE_AFTER, UNREACHABLE_AFTER, "lost"),
        (TimeDelta::zero(), UNREACHABLE_AFTER - TICK, "connected"),
        (-minute, UNREACHABLE_AFTER, "lost"),
        (TimeDelta::MAX, TimeDelta::days(10_000), "unreachable"),
    ];
    for (lost_after, silence, expected) in rows {
        let Some(now) = start().checked_add_signed(silence) else { continue };
        let liveness = Liveness::of(start(), lost_after, now);
        assert_eq!(liveness.as_str(), expected, "silent for {silence} of {lost_after}");
        assert_eq!(liveness.since(), (expected != "connected").then(start));
    }
}

#[test]
fn longer_silence_is_never_better() {
    let rank = |liveness: Liveness| match liveness {
        Liveness::Connected => 0,
        Liveness::Unreachable { .. } => 1,
        Liveness::Lost { .. } => 2,
    };
    for lost_after in [0, 20, 30, 45, 900].map(TimeDelta::seconds) {
        let at = |seconds| rank(Liveness::of(start(), lost_after, start() + TimeDelta::seconds(seconds)));
        assert!((0..1_000).all(|seconds| at(seconds) <= at(seconds + 1)), "{lost_after}");
    }
}

#[test]
fn a_replacement_waits_longer_than_the_shim() {
    assert_eq!(replaceable_at(start(), DEFAULT_LOST_AFTER), start() + DEFAULT_LOST_AFTER + REPLACEMENT_MARGIN);
    // Shorter than silence counts for nothing: such an attempt is shown as lost no earlier either.
    assert_eq!(replaceable_at(start(), TimeDelta::zero()), start() + UNREACHABLE_AFTER + REPLACEMENT_MARGIN);
    assert_eq!(replaceable_at(start(), -TimeDelta::hours(5)), start() + UNREACHABLE_AFTER + REPLACEMENT_MARGIN);
    for endless in [TimeDelta::MAX, TimeDelta::days(200_000_000)] {
        assert_eq!(replaceable_at(start(), endless), DateTime::<Utc>::MAX_UTC);
    }
}
