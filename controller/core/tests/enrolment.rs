use proptest::prelude::*;
use sculpt_core::enrolment::{Barred, Holder, Refusal, Renewal, Verdict, is_current, renew};
use uuid::Uuid;

const KEY: [u8; 32] = [1; 32];

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn holder(generation: u64, renewal: u128) -> Holder {
    Holder { key: Some(KEY), generation, renewal: Some(id(renewal)), barred: None }
}

#[test]
fn table() {
    let asks = |generation, number| Renewal { key: KEY, generation, id: id(number) };
    for (holder, renewal, verdict) in [
        (holder(5, 9), asks(5, 10), Verdict::Issue { generation: 6 }),
        // Asked again after its answer was lost.
        (holder(5, 9), asks(4, 9), Verdict::Repeat { generation: 5 }),
        // An id alone proves nothing.
        (holder(5, 9), asks(3, 9), Verdict::Stolen),
        (holder(5, 9), asks(5, 9), Verdict::Issue { generation: 6 }),
        (holder(5, 9), asks(4, 10), Verdict::Stolen),
        (holder(5, 9), asks(1, 10), Verdict::Stolen),
        // The database was restored from a time before.
        (holder(5, 9), asks(7, 10), Verdict::Issue { generation: 8 }),
        (Holder { renewal: None, ..holder(1, 0) }, asks(1, 10), Verdict::Issue { generation: 2 }),
        (holder(5, 9), Renewal { key: [2; 32], ..asks(5, 10) }, Verdict::Refuse(Refusal::OtherKey)),
        // An outsider's key locks nobody.
        (holder(5, 9), Renewal { key: [2; 32], ..asks(1, 10) }, Verdict::Refuse(Refusal::OtherKey)),
        (Holder { barred: Some(Barred::Removed), ..holder(5, 9) }, asks(5, 10), Verdict::Refuse(Refusal::Removed)),
        (Holder { barred: Some(Barred::Locked), ..holder(5, 9) }, asks(1, 10), Verdict::Refuse(Refusal::Locked)),
    ] {
        assert_eq!(renew(&holder, &renewal), verdict, "{holder:?} {renewal:?}");
    }
    assert!(is_current(&holder(5, 9), &KEY, 5) && is_current(&holder(5, 9), &KEY, 6));
    assert!(!is_current(&holder(5, 9), &KEY, 4) && !is_current(&holder(5, 9), &[2; 32], 5));
    assert!(!is_current(&Holder { barred: Some(Barred::Locked), ..holder(5, 9) }, &KEY, 5));
    let keyless = Holder { key: None, renewal: None, ..holder(0, 0) };
    assert!(is_current(&keyless, &KEY, 5));
    for barred in [Barred::Removed, Barred::Locked] {
        assert!(!is_current(&Holder { barred: Some(barred), ..keyless.clone() }, &KEY, 5), "{barred:?}");
    }
}

/// Who holds the key, and what happens to its requests.
#[derive(Clone, Copy, Debug)]
struct Turn {
    copy: bool,
    answered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Executor {
    generation: u64,
    pending: Option<Uuid>,
}

/// Plays `turns`; how often each of two holders was given a certificate of its own before the key was locked.
fn play(turns: &[Turn]) -> ([u32; 2], Holder) {
    let mut known = Holder { renewal: None, ..holder(1, 0) };
    let mut holders = [Executor { generation: 1, pending: None }; 2];
    let (mut given, mut next) = ([0; 2], 0);
    for turn in turns {
        let who = &mut holders[usize::from(turn.copy)];
        let pending = *who.pending.get_or_insert_with(|| {
            next += 1;
            id(next)
        });
        let verdict = renew(&known, &Renewal { key: KEY, generation: who.generation, id: pending });
        let generation = match verdict {
            Verdict::Issue { generation } => {
                given[usize::from(turn.copy)] += 1;
                known = Holder { generation, renewal: Some(pending), ..known };
                generation
            }
            Verdict::Repeat { generation } => generation,
            Verdict::Stolen => {
                known.barred = Some(Barred::Locked);
                continue;
            }
            Verdict::Refuse(_) => continue,
        };
        if turn.answered {
            *who = Executor { generation, pending: None };
        }
    }
    (given, known)
}

fn any_turns(copies: bool) -> impl Strategy<Value = Vec<Turn>> {
    let copy = if copies { any::<bool>().boxed() } else { Just(false).boxed() };
    prop::collection::vec((copy, any::<bool>()).prop_map(|(copy, answered)| Turn { copy, answered }), 0..40)
}

proptest! {
    #[test]
    fn who_is_alone_is_never_locked(turns in any_turns(false)) {
        let (_, known) = play(&turns);
        prop_assert_eq!(known.barred, None);
    }

    #[test]
    fn of_two_only_one_gets_on(turns in any_turns(true)) {
        let (given, known) = play(&turns);
        prop_assert!(given[0] == 0 || given[1] == 0, "both were served: {given:?}");
        let both = turns.iter().any(|turn| turn.copy) && turns.iter().any(|turn| !turn.copy);
        prop_assert_eq!(both, known.barred.is_some(), "as soon as the second asks");
    }
}
