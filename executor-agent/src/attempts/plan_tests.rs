use super::*;
use crate::report::Ended;

fn record(outcome: shim::Outcome, ended_by: EndedBy) -> Box<ExitRecord> {
    Box::new(ExitRecord {
        attempt: uuid::Uuid::nil(),
        outcome,
        ended_by,
        out_of_memory: false,
        left_over: false,
        log_length: 0,
        started: Duration::ZERO,
        ended: Duration::ZERO,
        boot_id: String::new(),
    })
}

fn code(code: i32) -> Box<ExitRecord> {
    record(shim::Outcome::Code(code), EndedBy::Itself)
}

#[test]
fn every_step_meets_every_finding() {
    let ended = Step::Ended(Ended { outcome: Outcome::Completed, exit: Exit::default(), log_length: 0, head: None });
    let finalizing = Step::Finalizing { exit: Exit::default() };
    let running = Step::Running { pid: 1, tmux_socket: String::new() };
    let steps = [None, Some(Step::Accepted), Some(Step::Preparing), Some(running), Some(finalizing), Some(ended)];
    let found = [Found::Present, Found::Recorded(code(0)), Found::Vanished, Found::Never, Found::Removed];
    let vanished = || Next::Finish(End::Vanished);
    let recorded = || Next::Finish(End::Recorded(code(0)));
    let removed = || Next::Finish(End::Removed);
    let expected = [
        [Next::Attend, recorded(), vanished(), Next::Prepare, removed()],
        [Next::Attend, recorded(), vanished(), Next::Prepare, removed()],
        [Next::Attend, recorded(), vanished(), Next::Prepare, removed()],
        [Next::Attend, recorded(), vanished(), vanished(), removed()],
        [vanished(), recorded(), vanished(), vanished(), removed()],
        [Next::Rest, Next::Rest, Next::Rest, Next::Rest, Next::Rest],
    ];
    for (step, row) in steps.iter().zip(expected) {
        for (found, expected) in found.iter().zip(row) {
            assert_eq!(next(step.as_ref(), found.clone(), true), expected, "{step:?} with {found:?}");
        }
    }
}

#[test]
fn a_reboot_interrupts_what_left_no_record() {
    let running = Step::Running { pid: 1, tmux_socket: String::new() };
    assert_eq!(next(Some(&running), Found::Vanished, false), Next::Finish(End::Rebooted));
    assert_eq!(next(Some(&running), Found::Recorded(code(3)), false), Next::Finish(End::Recorded(code(3))));
    assert_eq!(next(Some(&Step::Preparing), Found::Never, false), Next::Prepare);
}

#[test]
fn every_end_has_its_outcome() {
    let cause = |end: End, wish| match judge(&end, wish, "robot", Some(Duration::from_secs(90))) {
        Outcome::Completed => "completed".to_owned(),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::Fenced => "fenced".to_owned(),
        Outcome::Failed(failure) => format!("{}: {}", failure.cause.as_str(), failure.message),
    };
    let ended = |outcome, by| End::Recorded(record(outcome, by));
    use shim::Outcome as O;
    const LOST: &str = "executor_lost: the executor did not reach the controller for longer than the task allows, so its agent was ended";
    for (end, wish, expected) in [
        (ended(O::Code(0), EndedBy::Itself), Wish::Run, "completed"),
        (ended(O::Code(0), EndedBy::Itself), Wish::Stop, "completed"),
        (ended(O::Code(3), EndedBy::Itself), Wish::Run, "agent_exit: \"robot\" exited with code 3"),
        (ended(O::Signal(9), EndedBy::Itself), Wish::Run, "agent_exit: \"robot\" was ended by signal 9 (SIGKILL)"),
        (ended(O::Signal(15), EndedBy::Stop), Wish::Stop, "cancelled"),
        (ended(O::Code(0), EndedBy::Stop), Wish::Stop, "cancelled"),
        (ended(O::Signal(15), EndedBy::Stop), Wish::Fence, "fenced"),
        (ended(O::Signal(9), EndedBy::Timeout), Wish::Run, "timeout: it ran longer than its limit of 1m 30s"),
        (ended(O::Signal(15), EndedBy::Lease), Wish::Run, LOST),
        (ended(O::Signal(15), EndedBy::Lease), Wish::Fence, "fenced"),
        (
            ended(O::NotStarted("No such file".into()), EndedBy::Itself),
            Wish::Run,
            "setup: the agent could not be started: No such file",
        ),
        (ended(O::Signal(15), EndedBy::Lease), Wish::Stop, LOST),
        (ended(O::Signal(9), EndedBy::Timeout), Wish::Stop, "timeout: it ran longer than its limit of 1m 30s"),
        (ended(O::Code(0), EndedBy::Timeout), Wish::Run, "timeout: it ran longer than its limit of 1m 30s"),
        (ended(O::Code(0), EndedBy::Itself), Wish::Fence, "fenced"),
        (End::Vanished, Wish::Stop, "cancelled"),
        (End::Removed, Wish::Stop, "cancelled"),
        (End::Removed, Wish::Fence, "fenced"),
        (End::Vanished, Wish::Fence, "fenced"),
    ] {
        assert_eq!(cause(end.clone(), wish), expected, "{end:?} {wish:?}");
    }
    assert!(cause(ended(O::Signal(15), EndedBy::Host), Wish::Run).starts_with("interrupted"));
    assert!(cause(End::Rebooted, Wish::Run).starts_with("interrupted"));
    assert!(cause(End::Removed, Wish::Run).starts_with("internal: the attempt's directory"));
    assert!(cause(ended(O::Signal(15), EndedBy::Removed), Wish::Run).starts_with("internal: the attempt's directory"));
    assert!(cause(ended(O::Signal(15), EndedBy::Signal), Wish::Run).starts_with("internal: somebody ended"));
    assert!(cause(End::Vanished, Wish::Run).starts_with("internal"));
    let mut oom = code(137);
    oom.out_of_memory = true;
    assert!(cause(End::Recorded(oom), Wish::Run).starts_with("oom"));
}
