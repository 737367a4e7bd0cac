//! Random harm, in short; `make soak` does it for hours.

use std::time::Duration;

use anyhow::{Result, ensure};
use sculpt_tests::harness::{
    Dice,
    checker::{AttemptFacts, Facts, JournalEntry, TaskFacts},
    nemesis::{Campaign, Deeds, Faults, Harm, PARTS, Part, Plan, unexpected},
};

#[tokio::test]
async fn a_short_campaign_of_random_harm_violates_nothing() -> Result<()> {
    let (duration, stop) = (Duration::from_secs(25), Duration::from_secs(2));
    let campaign = Campaign { seed: 3, kills: 2, stop, duration, people: 5 };
    let report = campaign.run(|line| eprintln!("{line}")).await?;
    eprintln!("{report}");
    ensure!(report.violations.is_empty(), "{report}");
    ensure!(report.faults.all() >= 10 && report.tasks >= 5, "hardly anything happened: {report}");
    ensure!(PARTS.into_iter().all(|part| report.faults.kills(part) > 0), "somebody was spared: {report}");
    Ok(())
}

#[test]
fn the_same_seed_does_the_same_harm() {
    let harms = |seed: u64| {
        let mut dice = Dice::new(seed);
        std::iter::repeat_with(|| Harm::random(&mut dice, Duration::from_secs(2))).take(300).collect::<Vec<_>>()
    };
    assert_eq!(harms(7), harms(7));
    assert_ne!(harms(7), harms(8));
    let kinds: std::collections::BTreeSet<_> = harms(7).iter().map(Harm::kind).collect();
    assert!(kinds.len() >= 20, "{kinds:?}");
}

#[test]
fn who_was_killed_least_is_next() {
    let mut faults = Faults::default();
    assert_eq!(faults.behind(0), None, "nothing is due yet");
    for part in PARTS.into_iter().filter(|part| *part != Part::Shim) {
        faults.add(Harm::Kill(part, Duration::from_secs(1)));
    }
    assert_eq!(faults.behind(1), Some(Part::Shim));
    faults.add(Harm::Pause(Part::Shim, Duration::ZERO));
    assert_eq!(faults.behind(1), Some(Part::Shim), "to stand still is not to die");
    faults.add(Harm::Kill(Part::Shim, Duration::ZERO));
    assert_eq!((faults.behind(1), faults.behind(2)), (None, Some(Part::Executor)));
    assert_eq!((faults.kills(Part::Shim), faults.stops(Part::Shim), faults.all()), (1, 1, 8));
}

/// A task that prints two lines and exits 3, and what was done to it.
fn one(attempt: AttemptFacts) -> (Facts, Deeds) {
    let task = TaskFacts { number: 1, title: "plan 1".into(), ..TaskFacts::default() };
    let attempt = AttemptFacts { id: "a".into(), task: 1, number: 1, state: "ended".into(), ..attempt };
    let plan = Plan { lines: 2, pace: 1, exit: 3, commits: false, tty: false };
    let deeds = Deeds { plans: [("plan 1".to_owned(), plan)].into(), ..Deeds::default() };
    (Facts { tasks: vec![task], attempts: vec![attempt], ..Facts::default() }, deeds)
}

fn failed(cause: &str, code: Option<i32>, signal: Option<i32>) -> AttemptFacts {
    AttemptFacts {
        outcome: Some("failed".into()),
        cause: Some(cause.into()),
        exit_code: code,
        exit_signal: signal,
        log: b"line 1\nline 2\n".to_vec(),
        ..AttemptFacts::default()
    }
}

#[test]
fn an_attempt_may_end_only_as_planned_or_as_it_was_harmed() {
    let own = || failed("agent_exit", Some(3), None);
    let killed = || failed("agent_exit", None, Some(9));
    let lost = || failed("internal", None, None);
    let cancelled = || AttemptFacts { outcome: Some("cancelled".into()), ..AttemptFacts::default() };
    type Deed = fn(&mut Deeds);
    let nothing: Deed = |_| {};
    let shim: Deed = |deeds| {
        deeds.shims.insert("a".into());
    };
    let agent: Deed = |deeds| {
        deeds.agents.insert("a".into());
    };
    let stop: Deed = |deeds| {
        deeds.stopped.insert("plan 1".into());
    };
    for (case, attempt, deed, fits) in [
        ("its own end", own(), nothing, true),
        ("another code", failed("agent_exit", Some(4), None), nothing, false),
        ("a missing line", AttemptFacts { log: b"line 1\n".to_vec(), ..own() }, nothing, false),
        ("killed by nobody", killed(), nothing, false),
        ("lost by nobody", lost(), nothing, false),
        ("cancelled by nobody", cancelled(), nothing, false),
        ("killed", killed(), agent, true),
        ("killed too late", own(), agent, true),
        ("killed, but called lost", lost(), agent, false),
        ("without its shim", lost(), shim, true),
        ("its own end, which nobody can know", own(), shim, false),
        ("stopped", cancelled(), stop, true),
        ("stopped too late", own(), stop, true),
        ("stopped, but called lost", lost(), stop, false),
    ] {
        let (facts, mut deeds) = one(attempt);
        deed(&mut deeds);
        assert_eq!(unexpected(&facts, &deeds).is_empty(), fits, "{case}: {:?}", unexpected(&facts, &deeds));
    }
    let (mut facts, deeds) = one(own());
    facts.attempts.push(AttemptFacts { number: 2, ..facts.attempts[0].clone() });
    assert_eq!(unexpected(&facts, &deeds).len(), 1, "a second attempt that nobody has asked for");
    facts.attempts[1] =
        AttemptFacts { fenced: true, outcome: Some("fenced".into()), log: Vec::new(), ..facts.attempts[1].clone() };
    assert_eq!(unexpected(&facts, &deeds).len(), 2, "fenced, and nobody has withdrawn it");
    let withdrawn =
        JournalEntry { kind: "attempt.withdrawn".into(), task: 1, attempt: Some(2), ..JournalEntry::default() };
    facts.journal.push(withdrawn);
    assert!(unexpected(&facts, &deeds).is_empty(), "an offer that was withdrawn never began");
    facts.attempts.clear();
    assert_eq!(unexpected(&facts, &deeds).len(), 1, "it never ran");
}
