use sculpt_proto::id::PairingId;

use super::*;
use crate::report::{Cause, Exit, Failure, Outcome};

fn steps() -> Vec<Step> {
    vec![
        Step::Accepted,
        Step::Preparing,
        Step::Note { text: "two\nlines and a ü".into() },
        Step::Running { pid: 7, tmux_socket: "/run/x".into() },
        Step::Finalizing { exit: Exit { code: Some(3), signal: None } },
        Step::Ended(Ended {
            outcome: Outcome::Failed(Failure::new(Cause::AgentExit, "exit 3")),
            exit: Exit { code: Some(3), signal: None },
            log_length: 12,
            head: Some("a".repeat(40)),
        }),
    ]
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = Journal::open(&path, "boot").unwrap();
    for (index, step) in steps().into_iter().enumerate() {
        assert_eq!(journal.append(step).unwrap(), index as u64 + 1);
    }
    let again = Journal::open(&path, "boot").unwrap();
    assert_eq!(again.range(1, 99).into_iter().map(|entry| entry.step).collect::<Vec<_>>(), steps());
    assert_eq!(again.ended().unwrap().log_length, 12);
    assert!(again.has_note("two\nlines and a ü"));
    assert_eq!(again.last(), 6);
}

#[test]
fn an_end_takes_no_more_of_people() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = Journal::open(&path, "boot").unwrap();
    let seat = SeatId::fresh();
    let attached = Seat::Attached { seat, pairing: PairingId::fresh(), user: "ada".into(), role: Role::Observer };
    journal.append(Step::Accepted).unwrap();
    assert_eq!(journal.append_seat(attached).unwrap(), Some(2));
    assert_eq!(journal.last_step().unwrap().step, Step::Accepted, "it moves nothing");
    journal.append(steps().pop().unwrap()).unwrap();
    let left = Seat::Detached { seat, why: String::new() };
    assert_eq!(journal.append_seat(left).unwrap(), None);
    let again = Journal::open(&path, "boot").unwrap();
    assert_eq!((again.last(), again.seats(), again.ended().is_some()), (4, vec![], true));
    let told = again.range(3, 3).pop().unwrap().step;
    assert_eq!(told, Step::Seat(Seat::Detached { seat, why: OVER.to_owned() }), "they had not left before");
}

#[test]
fn milestones_are_taken_once_and_none_after_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(&directory.path().join("journal"), "boot").unwrap();
    let said = |count: usize| (1..=count).map(|number| format!("step {number}")).collect::<Vec<_>>();
    assert_eq!(
        (journal.append_milestones(said(2)).unwrap(), journal.last_milestone()),
        (Some(2), Some("step 2".into()))
    );
    assert_eq!(journal.append_milestones(said(2)).unwrap(), None);
    journal.append(Step::Note { text: "between".into() }).unwrap();
    assert_eq!(journal.append_milestones(said(3)).unwrap(), Some(4));
    assert_eq!(journal.last_step(), None, "they move nothing");
    journal.append(steps().pop().unwrap()).unwrap();
    assert_eq!(journal.append_milestones(said(9)).unwrap(), None);
    assert_eq!(journal.last_milestone(), Some("step 3".into()));
}

#[test]
fn the_keyboard_is_handed_back_by_the_last_who_drove_and_by_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(&directory.path().join("journal"), "boot").unwrap();
    let [one, two, looks, shell] = [(); 4].map(|()| SeatId::fresh());
    let attached = |seat, role| Seat::Attached { seat, pairing: PairingId::fresh(), user: "ada".into(), role };
    let left = |seat| Seat::Detached { seat, why: String::new() };
    for (seat, hands_back) in [
        (attached(looks, Role::Observer), None),
        (attached(shell, Role::Shell), None),
        (left(looks), None),
        (attached(one, Role::Driver), None),
        (attached(two, Role::Driver), None),
        (left(one), None),
        (left(shell), None),
        (left(two), Some(two)),
    ] {
        journal.append_seat(seat.clone()).unwrap();
        let found: Vec<SeatId> = [one, two, looks, shell].into_iter().filter(|it| journal.hands_back(*it)).collect();
        assert_eq!(found.contains(&two), hands_back.is_some(), "{seat:?}");
        assert!(![looks, shell].iter().any(|seat| found.contains(seat)), "{seat:?}");
    }
}

#[test]
fn who_sat_there_when_it_was_opened_is_found_once_and_who_came_later_never() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = Journal::open(&path, "boot").unwrap();
    let [cut_off, comes] = [(); 2].map(|()| SeatId::fresh());
    let attached = |seat| Seat::Attached { seat, pairing: PairingId::fresh(), user: "ada".into(), role: Role::Driver };
    journal.append_seat(attached(cut_off)).unwrap();
    assert!(journal.take_found().is_empty());
    let again = Journal::open(&path, "boot").unwrap();
    again.append_seat(attached(comes)).unwrap();
    assert_eq!(again.take_found(), [cut_off]);
    assert!(again.take_found().is_empty());
    assert_eq!(again.seats(), [cut_off, comes]);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = Journal::open(&path, "boot").unwrap();
    journal.append(Step::Accepted).unwrap();
    let first = std::fs::read(&path).unwrap().len();
    journal.append(Step::Preparing).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in first..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let journal = Journal::open(&path, "boot").unwrap();
        assert_eq!(journal.last(), 1, "cut at {cut}");
        assert_eq!(journal.append(Step::Preparing).unwrap(), 2);
        assert_eq!(Journal::open(&path, "boot").unwrap().last(), 2);
    }
}

#[test]
fn damage_before_the_last_line_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let journal = Journal::open(&path, "boot").unwrap();
    journal.append(Step::Accepted).unwrap();
    journal.append(Step::Preparing).unwrap();
    let mut content = std::fs::read(&path).unwrap();
    content[12] ^= 1;
    std::fs::write(&path, &content).unwrap();
    assert!(matches!(Journal::open(&path, "boot"), Err(JournalError::Damaged { line: 1, .. })));
}

#[test]
fn an_age_is_never_negative_and_survives_a_reboot() {
    let old = Stamp { boot: "a".into(), boottime_ms: 5_000, wall_ms: 1_000_000 };
    let same = Stamp { boot: "a".into(), boottime_ms: 7_500, wall_ms: 0 };
    let other = Stamp { boot: "b".into(), boottime_ms: 10, wall_ms: 1_060_000 };
    assert_eq!(old.age(&same), Duration::from_millis(2_500));
    assert_eq!(old.age(&other), Duration::from_secs(60));
    assert_eq!(same.age(&old), Duration::ZERO);
}
