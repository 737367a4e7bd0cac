//! Of who sits beside an agent.

use sculpt_tests::harness::checker::{Facts, Invariant, judge};
use serde_json::{Value, json};

use super::{clean, finds};

/// What ada has done beside the first attempt of the clean world.
fn deed(kind: &str, seat: &str) -> Value {
    let kind = format!("pairing.{kind}");
    json!({ "cursor": kind, "kind": kind, "task": 1, "attempt": 1, "actor": "ada", "data": { "session": seat } })
}

#[test]
fn i7_finds_who_never_got_up() {
    let tells = |deeds: &'static [&'static str]| {
        move |facts: &mut Facts| facts.events.extend(deeds.iter().map(|kind| deed(kind, "s1")))
    };
    finds(Invariant::Seats, tells(&["attached"]));
    finds(Invariant::Seats, tells(&["detached"]));
    finds(Invariant::Seats, tells(&["typed"]));
    finds(Invariant::Seats, tells(&["attached", "detached", "typed"]));
    finds(Invariant::Seats, tells(&["attached", "detached", "detached"]));
    finds(Invariant::Seats, tells(&["attached", "attached", "detached"]));
    finds(Invariant::Seats, |facts| {
        facts.events.extend([deed("attached", "s1"), deed("attached", "s2"), deed("detached", "s1")]);
    });
    finds(Invariant::Seats, |facts| {
        tells(&["attached", "detached"])(facts);
        facts.events[2]["actor"] = json!("bob");
    });
    let fits = |plant: &dyn Fn(&mut Facts)| {
        let mut facts = clean();
        plant(&mut facts);
        assert_eq!(judge(&facts), []);
    };
    fits(&tells(&["attached", "typed", "typed", "detached"]));
    // Nobody is there any more who could tell.
    fits(&|facts| {
        tells(&["attached"])(facts);
        facts.executor_runs = false;
    });
    fits(&|facts| {
        tells(&["attached"])(facts);
        facts.attempts[0].fenced = true;
    });
}
