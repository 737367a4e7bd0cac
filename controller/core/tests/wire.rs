//! Texts that others rely on: what databases, journals and scripts hold may not change its name.

use sculpt_core::{
    attempt::AttemptState,
    liveness::Liveness,
    outcome::{Cause, Exit, Failure, Outcome},
    review::Review,
    shown::Shown,
    task::{Event, Intent, OnLost, Task},
    turn::{Ask, Turn},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    review::Kind,
    states::{State, What, build, commit, failure, fence, late, start},
};

const GOLDEN: &str = include_str!("tables/wire.txt");
const GROUND: &str = include_str!("../../migrations/0001_ground.sql");

fn line<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) -> String {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), *value, "{text} does not come back");
    format!("{name}: {text}")
}

fn spoken() -> Vec<String> {
    let mut lines = Vec::new();
    for what in What::ALL {
        let event: Event = what.event(fence(1));
        lines.push(line(&format!("event {}", event.kind()), &event));
    }
    for state in State::ALL {
        lines.push(line(&format!("task {}", state.text()), &build(state.text()).run));
    }
    let reviews: Vec<Review> = Kind::ALL.iter().map(|kind| kind.review()).collect();
    lines.extend(reviews.iter().map(|review| line(&format!("review {}", review.as_str()), review)));
    let policy = build("queued").policy;
    lines.push(line("policy", &policy));
    lines.extend([Intent::Run, Intent::Hold, Intent::Cancel].iter().map(|value| line("intent", value)));
    lines.extend([OnLost::Wait, OnLost::Retry, OnLost::Fail].iter().map(|value| line("on_lost", value)));
    lines.extend([Exit::Code(0), Exit::Code(-1), Exit::Signal(9)].iter().map(|value| line("exit", value)));
    lines.extend(Cause::NAMED.iter().map(|(cause, _)| line("cause", cause)));
    lines.push(line("cause", &Cause::Other("solar_flare".into())));
    lines.push(line("whole task", &build("idle.h1.hold.needed.unreachable")));
    lines.push(line("whole task", &build("queued#2.there")));
    lines
}

#[test]
fn serialised_values_are_frozen() {
    let golden: Vec<&str> = GOLDEN.lines().collect();
    let spoken = spoken();
    for (i, line) in spoken.iter().enumerate() {
        assert_eq!(golden.get(i).copied(), Some(line.as_str()), "line {} of tables/wire.txt", i + 1);
    }
    assert_eq!(golden.len(), spoken.len(), "lines that are no longer said");
}

#[test]
fn what_was_written_before_can_still_be_read() {
    for line in GOLDEN.lines() {
        let (name, text) = line.split_once(": ").unwrap();
        match name.split(' ').next().unwrap() {
            "event" => drop(serde_json::from_str::<Event>(text).unwrap()),
            "whole" => drop(serde_json::from_str::<Task>(text).unwrap()),
            _ => {}
        }
    }
}

#[test]
fn an_unknown_cause_is_carried_as_it_is() {
    let cause = Cause::from("solar_flare".to_owned());
    assert_eq!(cause.as_str(), "solar_flare");
    for (cause, name) in Cause::NAMED {
        assert_eq!(Cause::from(name.to_owned()), cause);
        assert_eq!(cause.as_str(), name);
    }
}

/// Every cause but the unknown one has a name of its own; the match fails to compile when one is added.
#[test]
fn every_cause_is_named() {
    for (cause, name) in Cause::NAMED {
        let expected = match cause {
            Cause::AgentExit => "agent_exit",
            Cause::Setup => "setup",
            Cause::Workspace => "workspace",
            Cause::Publish => "publish",
            Cause::Timeout => "timeout",
            Cause::Oom => "oom",
            Cause::Interrupted => "interrupted",
            Cause::ProviderRateLimit => "provider_rate_limit",
            Cause::ProviderQuota => "provider_quota",
            Cause::ProviderAuth => "provider_auth",
            Cause::ContextOverflow => "context_overflow",
            Cause::Budget => "budget",
            Cause::ExecutorLost => "executor_lost",
            Cause::Internal => "internal",
            Cause::Other(_) => panic!("{name} has a name"),
        };
        assert_eq!(name, expected);
    }
}

/// The values of a type of the database, in order.
fn database(name: &str) -> Vec<&'static str> {
    let (_, rest) = GROUND.split_once(&format!("CREATE TYPE {name} AS ENUM (")).unwrap();
    rest.split_once(')').unwrap().0.split(',').map(|value| value.trim().trim_matches('\'')).collect()
}

fn distinct<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    names.into_iter().fold(Vec::new(), |mut seen, name| {
        if !seen.contains(&name) {
            seen.push(name);
        }
        seen
    })
}

fn same(name: &str, core: &[&str]) {
    let (mut database, mut core) = (database(name), core.to_vec());
    database.sort_unstable();
    core.sort_unstable();
    assert_eq!(database, core, "{name}");
}

#[test]
fn the_database_knows_the_same_names() {
    let attempts: Vec<AttemptState> = State::ALL.iter().filter_map(|state| state.attempt()).collect();
    same("attempt_state", &distinct(attempts.iter().map(AttemptState::as_str)));
    let turns: Vec<Turn> = State::ALL.iter().filter_map(|state| state.turn()).collect();
    same("turn_state", &distinct(turns.iter().map(Turn::as_str)));
    let reviews: Vec<Review> = Kind::ALL.iter().map(|kind| kind.review()).collect();
    same("review_state", &distinct(reviews.iter().map(Review::as_str)));
    same("task_intent", &[Intent::Run, Intent::Hold, Intent::Cancel].map(Intent::as_str));
    same("on_lost", &[OnLost::Wait, OnLost::Retry, OnLost::Fail].map(OnLost::as_str));
    let (since, until) = (start(), None);
    same(
        "liveness",
        &[Liveness::Connected, Liveness::Unreachable { since }, Liveness::Lost { since }].map(Liveness::as_str),
    );
    let failed = Outcome::Failed(failure());
    same("outcome", &[&Outcome::Completed, &failed, &Outcome::Cancelled, &Outcome::Fenced].map(Outcome::as_str));
    let asks = [Ask::Question, Ask::Permission].map(|ask| serde_json::to_value(ask).unwrap());
    same("ask_kind", &asks.iter().map(|ask| ask.as_str().unwrap()).collect::<Vec<_>>());
    let head = commit("h1");
    let shown = [
        Shown::Queued,
        Shown::Starting,
        Shown::Running,
        Shown::Waiting { question: String::new() },
        Shown::Idle,
        Shown::Paused,
        Shown::Limited { until },
        Shown::NeedsReview { head },
        Shown::Accepted,
        Shown::Merged,
        Shown::Rejected,
        Shown::Completed,
        Shown::Failed(Failure { cause: Cause::Internal, message: String::new() }),
        Shown::Lost,
        Shown::Cancelled,
    ];
    same("shown_state", &shown.each_ref().map(Shown::as_str));
}

#[test]
fn times_keep_their_fractions() {
    let limited = Turn::Limited { until: Some(late() + chrono::TimeDelta::microseconds(1)) };
    assert_eq!(line("turn", &limited), r#"turn: {"turn":"limited","until":"2023-11-14T22:29:20.000001Z"}"#);
}
