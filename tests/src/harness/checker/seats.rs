//! I7: who sat down beside an attempt got up, once, and did nothing before or after.

use std::collections::BTreeMap;

use super::Facts;

/// Somebody as the journal has them.
struct Sitter<'a> {
    user: &'a str,
    place: (u64, u32),
    got_up: bool,
}

/// What is wrong with who came and went.
pub(super) fn wrong(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sitters: BTreeMap<&str, Sitter> = BTreeMap::new();
    for event in &facts.events {
        let (Some(kind), Some(seat)) = (event["kind"].as_str(), event["data"]["session"].as_str()) else { continue };
        let Some(deed) = kind.strip_prefix("pairing.") else { continue };
        let (user, attempt) = (event["actor"].as_str().unwrap_or_default(), event["attempt"].as_u64());
        let place =
            (event["task"].as_u64().unwrap_or_default(), attempt.and_then(|it| it.try_into().ok()).unwrap_or(0));
        let who = || format!("task {} attempt {}: {user} in seat {seat}", place.0, place.1);
        match (deed, sitters.get_mut(seat)) {
            ("attached", None) => drop(sitters.insert(seat, Sitter { user, place, got_up: false })),
            ("attached", Some(_)) => wrong.push(format!("{} sat down twice", who())),
            (_, None) => wrong.push(format!("{} {deed} and never sat down", who())),
            (_, Some(sitter)) if sitter.got_up => wrong.push(format!("{} {deed} after getting up", who())),
            (_, Some(sitter)) if (sitter.user, sitter.place) != (user, place) => {
                wrong.push(format!("{} {deed} where {} sat", who(), sitter.user));
            }
            ("detached", Some(sitter)) => sitter.got_up = true,
            _ => {}
        }
    }
    let left = sitters.into_iter().filter(|(_, sitter)| !sitter.got_up && is_told(facts, sitter.place));
    wrong.extend(left.map(|(seat, sitter)| {
        let (task, attempt) = sitter.place;
        format!("task {task} attempt {attempt}: {} in seat {seat} never got up", sitter.user)
    }));
    wrong
}

/// Whether its executor was there to tell everything: one that is gone for good tells of nobody that they got up.
fn is_told(facts: &Facts, (task, number): (u64, u32)) -> bool {
    let found = facts.attempts.iter().find(|attempt| (attempt.task, attempt.number) == (task, number));
    found.is_none_or(|attempt| !attempt.fenced && facts.executor_runs)
}
