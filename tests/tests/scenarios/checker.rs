//! The checker is checked: each rule finds a violation that was planted for it, and nothing in a clean world.

mod seats;

use std::{fs, time::Duration};

use anyhow::Context as _;
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use sculpt_tests::harness::checker::{
    AttemptFacts, Cut, Facts, Invariant, JournalEntry, Ledger, Promise, RefFacts, Secret, Spread, TaskFacts, Text,
    judge,
};
use serde_json::json;
use ssh_key::{LineEnding, PrivateKey, private::Ed25519Keypair};

const LOG: &[u8] = b"line 1\nline 2\n";
const COMMIT: &str = "aaaa";

/// One task whose only attempt printed two lines, published a commit and ended; all of it was shown to somebody.
fn clean() -> Facts {
    let attempt = AttemptFacts {
        id: "a1".into(),
        task: 1,
        task_id: "t1".into(),
        number: 1,
        state: "ended".into(),
        outcome: Some("completed".into()),
        exit_code: Some(0),
        head: Some(COMMIT.into()),
        reports: 5,
        log_bytes: LOG.len() as u64,
        log_final: Some(LOG.len() as u64),
        log: LOG.to_vec(),
        spool: Some(LOG.to_vec()),
        witness: Some(LOG.to_vec()),
        recorded_for: Some(Duration::from_millis(20)),
        noted_for: Some(Duration::from_millis(20)),
        ..AttemptFacts::default()
    };
    let task = TaskFacts {
        id: "t1".into(),
        number: 1,
        revision: 4,
        shown: "needs_review".into(),
        title: "x".into(),
        branch: "sculpt/1-x".into(),
        project_id: Some("p1".into()),
        attempt_id: Some("a1".into()),
    };
    let row = |name: &str| RefFacts { project_id: "p1".into(), name: name.into(), target: COMMIT.into() };
    let event = json!({ "cursor": "c1", "kind": "task.created", "task": 1 });
    let mut facts = Facts {
        tasks: vec![task],
        attempts: vec![attempt],
        journal: vec![
            entry(1, "task.created", "queued", None),
            entry(2, "attempt.offered", "starting", Some(1)),
            entry(3, "attempt.published", "running", Some(1)),
            entry(4, "attempt.ended", "needs_review", Some(1)),
        ],
        events: vec![event.clone()],
        refs: vec![row("refs/sculpt/attempts/t1/a1"), row("refs/heads/sculpt/1-x")],
        executor_runs: true,
        ..Facts::default()
    };
    facts.ledger.promised(Promise::Created(1));
    facts.ledger.event(event);
    facts.ledger.log(1, "1", 0, b"line 1");
    facts
}

fn entry(revision: u64, kind: &str, shown: &str, attempt: Option<u32>) -> JournalEntry {
    JournalEntry { kind: kind.into(), task: 1, attempt, revision, shown: Some(shown.into()) }
}

/// Fails unless what `plant` does to a clean world is found, as a violation of `invariant` and of nothing else.
#[track_caller]
fn finds(invariant: Invariant, plant: impl FnOnce(&mut Facts)) {
    let mut facts = clean();
    plant(&mut facts);
    let found = judge(&facts);
    assert!(!found.is_empty(), "nothing was found");
    assert!(found.iter().all(|violation| violation.invariant == invariant), "{found:#?}");
}

#[test]
fn a_clean_world_violates_nothing() {
    assert_eq!(judge(&clean()), []);
}

#[test]
fn i1_finds_what_a_log_lacks_or_has_too_much() {
    let log = |log: &'static [u8]| {
        move |facts: &mut Facts| {
            let attempt = &mut facts.attempts[0];
            attempt.log = log.to_vec();
            attempt.log_bytes = log.len() as u64;
            attempt.log_final = Some(log.len() as u64);
        }
    };
    let both = |bytes: &'static [u8]| {
        move |facts: &mut Facts| {
            log(bytes)(facts);
            facts.attempts[0].spool = Some(bytes.to_vec());
        }
    };
    finds(Invariant::Logs, log(b"line 1\nline 2\nline 2\n"));
    finds(Invariant::Logs, log(b"line 1\nline 3\n"));
    finds(Invariant::Logs, both(b"line 1\nline 2"));
    finds(Invariant::Logs, both(b"line 1\nline 2\nline 3\n"));
    finds(Invariant::Logs, |facts| facts.attempts[0].log_final = Some(15));
    finds(Invariant::Logs, |facts| facts.attempts[0].log_final = None);
    finds(Invariant::Logs, |facts| facts.attempts[0].log_bytes = 13);
    // Killed between writing a line and noting it, it may have written one more, and no two.
    let killed = |facts: &mut Facts| {
        facts.attempts[0].exit_code = None;
        facts.attempts[0].outcome = Some("failed".into());
        facts.attempts[0].cause = Some("agent_exit".into());
    };
    finds(Invariant::Logs, |facts| {
        both(b"line 1\nline 2\nline 3\nline 4\n")(facts);
        killed(facts);
    });
    finds(Invariant::Logs, |facts| {
        both(b"line 1\n")(facts);
        killed(facts);
    });
    let mut facts = clean();
    both(b"line 1\r\nline 2\r\nline 3\r\n")(&mut facts);
    killed(&mut facts);
    assert_eq!(judge(&facts), [], "a terminal's carriage returns and one more line");
}

/// The log is `log` on both sides of a shim that died, and its agent went on noting lines for `later` milliseconds.
fn without_shim(facts: &mut Facts, log: &[u8], later: u64) {
    let attempt = &mut facts.attempts[0];
    (attempt.log, attempt.spool) = (log.to_vec(), Some(log.to_vec()));
    (attempt.log_bytes, attempt.log_final) = (log.len() as u64, Some(log.len() as u64));
    (attempt.outcome, attempt.cause) = (Some("failed".into()), Some("internal".into()));
    (attempt.exit_code, facts.tasks[0].shown) = (None, "failed".into());
    facts.journal[3].shown = Some("failed".into());
    attempt.recorded_for = (!log.is_empty()).then(|| Duration::from_millis(20));
    attempt.noted_for = Some(Duration::from_millis(20 + later));
    facts.ledger = Ledger::default();
}

/// A recorder that was killed explains the loss of what was written in the last moment, and of nothing before it.
#[test]
fn i1_finds_a_tail_that_is_too_long() {
    let fits = |what: &str, plant: &dyn Fn(&mut Facts)| {
        let mut facts = clean();
        plant(&mut facts);
        assert_eq!(judge(&facts), [], "{what}");
    };
    fits("the end of a line", &|facts| without_shim(facts, b"line 1\nli", 200));
    fits("everything, of an agent that had just begun", &|facts| without_shim(facts, b"", 100));
    fits("the line that was not noted yet", &|facts| without_shim(facts, b"line 1\nline 2\nline 3\n", 0));
    finds(Invariant::Logs, |facts| without_shim(facts, b"", 5000));
    finds(Invariant::Logs, |facts| without_shim(facts, b"line 1\n", 5000));
    finds(Invariant::Logs, |facts| without_shim(facts, b"line 1\nline x\n", 0));
    finds(Invariant::Logs, |facts| without_shim(facts, b"line 2\n", 0));
    finds(Invariant::Logs, |facts| {
        without_shim(facts, b"line 1\n", 0);
        facts.attempts[0].noted_for = None;
    });
    // By its executor or by the cause that a controller gives: an end that took no task away came with a length.
    for cause in ["internal", "interrupted", "executor_lost"] {
        finds(Invariant::Logs, |facts| {
            without_shim(facts, LOG, 0);
            facts.attempts[0].cause = Some(cause.into());
            facts.attempts[0].log_final = None;
        });
    }
    // A shim that ends its agent by its own clock reads everything first.
    finds(Invariant::Logs, |facts| {
        without_shim(facts, b"line 1\n", 0);
        facts.attempts[0].cause = Some("executor_lost".into());
    });
    // A damaged recording is named, whatever is left of it.
    let damaged = |told: &'static str| {
        move |facts: &mut Facts| {
            without_shim(facts, b"line 1\n", 5000);
            facts.attempts[0].cut = Some(Cut::Recording);
            facts.attempts[0].told = told.into();
        }
    };
    finds(Invariant::Logs, damaged("its shim is gone"));
    fits("named", &damaged("the recording was damaged on the executor's disk, and the log is complete up to byte 7"));
    fits("what had not arrived when the task went on", &|facts| {
        without_shim(facts, b"line 1\n", 5000);
        facts.attempts[0].fenced = true;
        facts.attempts[0].spool = Some(LOG.to_vec());
    });
}

/// Ten lines, in which a run of bytes is lost, doubled, moved or changed between the agent and the reader.
#[test]
fn i1_finds_holes_doubles_and_swaps() {
    let lines: Vec<String> = (1..=10).map(|number| format!("line {number}\n")).collect();
    let whole = lines.concat().into_bytes();
    let forged = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut log = whole.clone();
        edit(&mut log);
        finds(Invariant::Logs, |facts| {
            let attempt = &mut facts.attempts[0];
            attempt.witness = Some(whole.clone());
            (attempt.log_bytes, attempt.log_final) = (log.len() as u64, Some(log.len() as u64));
            (attempt.log, attempt.spool) = (log.clone(), Some(log.clone()));
            facts.ledger = Ledger::default();
        });
    };
    forged(&|log| drop(log.drain(14..21)));
    forged(&|log| drop(log.drain(20..21)));
    forged(&|log| log.insert(20, b'\n'));
    forged(&|log| drop(log.splice(14..14, *b"line 2\n")));
    forged(&|log| log[7..21].rotate_left(7));
    forged(&|log| log[30] ^= 1);
    forged(&|log| log[30] = 0);
}

#[test]
fn i2_finds_what_never_or_twice_ends() {
    finds(Invariant::Ends, |facts| {
        facts.journal.push(entry(5, "attempt.ended", "needs_review", Some(1)));
        facts.tasks[0].revision = 5;
    });
    finds(Invariant::Ends, |facts| {
        facts.journal.push(entry(5, "attempt.running", "needs_review", Some(1)));
        facts.tasks[0].revision = 5;
    });
    finds(Invariant::Ends, |facts| facts.attempts[0].state = "running".into());
    finds(Invariant::Ends, |facts| {
        facts.tasks[0].shown = "running".into();
        facts.journal[3].shown = Some("running".into());
    });
    finds(Invariant::Ends, |facts| facts.tasks[0].shown = "failed".into());
    // Somebody sat down, which moves nothing: at the revision of before, and at no other.
    let mut facts = clean();
    facts.journal.insert(3, entry(3, "pairing.attached", "running", Some(1)));
    assert_eq!(judge(&facts), []);
    finds(Invariant::Ends, |facts| facts.journal.insert(3, entry(4, "pairing.attached", "running", Some(1))));
    finds(Invariant::Ends, |facts| facts.tasks[0].revision = 5);
    finds(Invariant::Ends, |facts| facts.journal[2].revision = 4);
}

#[test]
fn i3_finds_refs_of_a_stale_attempt() {
    finds(Invariant::Refs, |facts| facts.refs[0].target = "bbbb".into());
    finds(Invariant::Refs, |facts| facts.refs[1].target = "bbbb".into());
    finds(Invariant::Refs, |facts| drop(facts.refs.remove(0)));
    finds(Invariant::Refs, |facts| facts.refs[0].name = "refs/sculpt/attempts/t1/a9".into());
    // An attempt is offered with the number of the one before it.
    finds(Invariant::Refs, |facts| {
        facts.journal.insert(1, entry(2, "attempt.offered", "starting", Some(1)));
        facts.journal[0].revision = 1;
        for (index, entry) in facts.journal.iter_mut().enumerate() {
            entry.revision = index as u64 + 1;
        }
        facts.tasks[0].revision = 5;
    });
    // Numbers fall.
    finds(Invariant::Refs, |facts| {
        facts.journal.insert(1, entry(2, "attempt.offered", "starting", Some(2)));
        for (index, entry) in facts.journal.iter_mut().enumerate() {
            entry.revision = index as u64 + 1;
        }
        facts.tasks[0].revision = 5;
    });
    // It publishes although another one was offered meanwhile.
    finds(Invariant::Refs, |facts| {
        facts.journal.insert(2, entry(3, "attempt.offered", "starting", Some(2)));
        for (index, entry) in facts.journal.iter_mut().enumerate() {
            entry.revision = index as u64 + 1;
        }
        facts.tasks[0].revision = 5;
    });
}

#[test]
fn i4_finds_processes_that_outlive_their_attempt() {
    let spread = |attempt: &str| Spread { attempt: attempt.into(), process: "7 (sh): sh".into() };
    finds(Invariant::Strays, |facts| facts.processes.push(spread("a1")));
    finds(Invariant::Strays, |facts| facts.processes.push(spread("of-nobody")));
    // Neither that it was fenced nor that it failed lets it live on.
    finds(Invariant::Strays, |facts| {
        facts.attempts[0].fenced = true;
        facts.processes.push(spread("a1"));
    });
    finds(Invariant::Strays, |facts| {
        facts.unknown.insert("u1".into());
        facts.processes.extend([spread("u1"), spread("u2")]);
    });
    let mut facts = clean();
    facts.processes.push(spread("u1"));
    facts.unknown.insert("u1".into());
    assert_eq!(judge(&facts), [], "what the database does not know is not its to end");
}

#[test]
fn i5_finds_broken_promises() {
    finds(Invariant::Promises, |facts| facts.ledger.promised(Promise::Created(2)));
    finds(Invariant::Promises, |facts| facts.ledger.promised(Promise::Stopped(1)));
    finds(Invariant::Promises, |facts| facts.ledger.promised(Promise::Retried(1)));
    finds(Invariant::Promises, |facts| facts.ledger.promised(Promise::Applied("a1".into(), 6)));
    finds(Invariant::Promises, |facts| facts.ledger.promised(Promise::Applied("a2".into(), 1)));
    finds(Invariant::Promises, |facts| facts.ledger.promised(Promise::Held("a1".into(), LOG.len() as u64 + 1)));
    finds(Invariant::Promises, |facts| facts.ledger.log(2, "1", 1, b"line 2\n"));
    finds(Invariant::Promises, |facts| facts.ledger.log(1, "1", 0, b"\nline 3\n"));
    finds(Invariant::Promises, |facts| facts.ledger.event(json!({ "cursor": "c9" })));
    finds(Invariant::Promises, |facts| facts.events[0] = json!({ "cursor": "c1", "kind": "task.stop" }));
    let mut facts = clean();
    let mark = facts.ledger.mark();
    facts.ledger.promised(Promise::Created(2));
    facts.ledger.rewind(&mark);
    assert_eq!(judge(&facts), [], "what was lost on purpose is no promise");
}

#[test]
fn calls_and_followers_are_written_down() {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut ledger = clean().ledger;
    for (line, stdout) in
        [("run -q -d --no-repo -- true", "17\n"), ("stop 17", ""), ("retry 17", ""), ("show 17", "{}")]
    {
        ledger.answered(&words(line), stdout);
    }
    let expected = [Promise::Created(1), Promise::Created(17), Promise::Stopped(17), Promise::Retried(17)];
    assert_eq!(ledger.promises(), expected);
}

#[test]
fn i6_finds_secrets() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let key = directory.path().join("key.pem");
    assert_eq!(Secret::key(&key)?, None, "there is none yet");
    let made = sculpt_tls::Key::load_or_make(&key)?;
    let (ssh_file, seed) = (directory.path().join("ssh.key"), [42; 32]);
    let ssh = PrivateKey::from(Ed25519Keypair::from_seed(&seed)).to_openssh(LineEnding::LF)?;
    fs::write(&ssh_file, &ssh)?;
    let token = sculpt_tls::Token::fresh(sculpt_tls::Kind::User, None).reveal();
    let all = [
        Secret::token("the token", &token)?,
        Secret::key(&key)?.context("a key")?,
        Secret::variable("a variable", "hidden"),
        Secret::key(&ssh_file)?.context("a key of SSH")?,
    ];
    let text = |holds_specs: bool, content: &str| Text::search("a place", holds_specs, content.as_bytes(), &all);
    let encoded = &token["sculpt_user_".len()..];
    let secret = hexadecimal(&BASE64_URL_SAFE_NO_PAD.decode(encoded)?[..32]);
    let pem = made.to_pem();
    let der = BASE64_STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>())?;
    for (holds_specs, content) in [
        (true, format!("x {token}")),
        (false, encoded.to_owned()),
        (false, format!("\\x00{secret}ff")),
        (true, pem),
        (false, hexadecimal(&der)),
        (true, ssh.to_string()),
        (false, hexadecimal(&seed)),
        (false, "a hidden b".to_owned()),
    ] {
        let found = text(holds_specs, &content);
        assert_eq!(found.found.len(), 1, "in {content}");
        finds(Invariant::Secrets, |facts| facts.texts.push(found));
    }
    let mut facts = clean();
    let public = sculpt_tls::Pin::of_key(&made).to_string();
    facts.texts.extend([text(true, "a hidden b"), text(false, "nothing"), text(false, &public)]);
    assert_eq!(judge(&facts), [], "a spec holds its environment");
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
