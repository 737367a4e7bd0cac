//! What people do beside an attempt, as its executor reports it: an entry of the journal each, and who sits there now.

use std::time::Duration;

use sculpt_pairing::Role;
use sculpt_proto::{
    FieldError, duration,
    executor::v1 as wire,
    id::{AttemptId, ExecutorId, PairingId, SeatId},
};
use serde_json::{Value, json};

use crate::{
    dispatch::Moved,
    store::{
        Connection, StoreError,
        attempts::Ledger,
        events::{Entry, record},
        seats::{self, NewSeat},
        task_state::Locked,
    },
};

/// Longest reason that is taken, in characters.
const MAX_WHY: usize = 200;

/// How much of one block of input is kept, in bytes: whoever follows the journal reads hundreds of blocks at once.
const MAX_TEXT: usize = 8 << 10;

/// What somebody does in a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// Which seat.
    pub seat: SeatId,
    /// What.
    pub done: Done,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// They sat down.
    Attached {
        /// Which lets them, and says who they are.
        pairing: PairingId,
        /// As what.
        role: Role,
    },
    /// They typed a block of input.
    Typed {
        /// How many bytes.
        bytes: u64,
        /// From the first to the last.
        took: Duration,
        /// What, as far as the executor tells it.
        content: Vec<u8>,
    },
    /// They left.
    Detached {
        /// Empty when they wished to.
        why: String,
    },
}

impl TryFrom<wire::Attached> for Deed {
    type Error = FieldError;

    /// Whose it is stands in the database, by the pairing.
    fn try_from(attached: wire::Attached) -> Result<Self, FieldError> {
        let done = Done::Attached {
            pairing: FieldError::parse(&attached.pairing_id, "report.attached.pairing_id")?,
            role: FieldError::parse(&attached.role, "report.attached.role")?,
        };
        Ok(Self { seat: FieldError::parse(&attached.session_id, "report.attached.session_id")?, done })
    }
}

impl TryFrom<wire::Typed> for Deed {
    type Error = FieldError;

    fn try_from(typed: wire::Typed) -> Result<Self, FieldError> {
        let took = typed.took.map(|took| duration(took, "report.typed.took")).transpose()?.unwrap_or_default();
        let done = Done::Typed { bytes: typed.bytes, took, content: typed.content };
        Ok(Self { seat: FieldError::parse(&typed.session_id, "report.typed.session_id")?, done })
    }
}

impl TryFrom<wire::Detached> for Deed {
    type Error = FieldError;

    fn try_from(detached: wire::Detached) -> Result<Self, FieldError> {
        let why = detached.why.chars().filter(|c| !c.is_control()).take(MAX_WHY).collect();
        let seat = FieldError::parse(&detached.session_id, "report.detached.session_id")?;
        Ok(Self { seat, done: Done::Detached { why } })
    }
}

/// Writes what was done beside an attempt of `executor` `age` ago. None: it was known before, or it is of nobody who was let
/// in there: an executor cannot say that of people.
pub(super) async fn apply(
    conn: &mut Connection,
    locked: &Locked,
    ledger: &Ledger,
    executor: ExecutorId,
    age: Duration,
    deed: &Deed,
) -> Result<Option<Moved>, StoreError> {
    let (attempt, at) = (AttemptId(ledger.fence.id), locked.before(age));
    let sitter = match &deed.done {
        Done::Attached { pairing, role } => {
            let seat = NewSeat { id: deed.seat, pairing: *pairing, attempt, role: *role, began_at: at };
            seats::take(conn, &seat).await?
        }
        Done::Typed { .. } => seats::typed(conn, deed.seat, attempt, at).await?,
        Done::Detached { why } => seats::leave(conn, deed.seat, attempt, at, why).await?,
    };
    let Some(sitter) = sitter else {
        tracing::debug!(%executor, %attempt, seat = %deed.seat, kind = kind(&deed.done), "a report changes nothing");
        return Ok(None);
    };
    let recorded = match &deed.done {
        // Its spec told the executor so at the claim; what the project says now counts.
        Done::Typed { content, .. } if !content.is_empty() => seats::recorded(conn, attempt).await?,
        Done::Attached { .. } | Done::Typed { .. } | Done::Detached { .. } => false,
    };
    let entry = Entry {
        task: Some((locked.id, locked.number, locked.revision, locked.shown())),
        attempt: Some((ledger.fence.number, executor)),
        data: details(deed, &sitter.role, recorded),
        actor: sitter.user_name,
    };
    record(conn, kind(&deed.done), &entry).await?;
    let (task, number, revision) = (locked.id, locked.number, locked.revision);
    Ok(Some(Moved { task, number, revision, journaled: true, effects: Vec::new() }))
}

fn kind(done: &Done) -> &'static str {
    match done {
        Done::Attached { .. } => "pairing.attached",
        Done::Typed { .. } => "pairing.typed",
        Done::Detached { .. } => "pairing.detached",
    }
}

/// What the journal keeps of it beyond who it was: what was typed only where that is `recorded`.
fn details(deed: &Deed, role: &str, recorded: bool) -> Value {
    let mut data = json!({ "session": deed.seat, "role": role });
    match &deed.done {
        Done::Attached { pairing, .. } => data["pairing"] = json!(pairing),
        Done::Typed { bytes, took, content } => {
            data["bytes"] = json!(bytes);
            data["seconds"] = json!(took.as_secs_f64());
            if recorded {
                let (text, whole) = text(content);
                if !whole || (content.len() as u64) < *bytes {
                    data["cut"] = json!(true);
                }
                data["text"] = json!(text);
            }
        }
        Done::Detached { why } if why.is_empty() => {}
        Done::Detached { why } => data["why"] = json!(why),
    }
    data
}

/// What was typed as the database can hold it: text, without the one character that it has no place for; and whether that is
/// all of it.
fn text(content: &[u8]) -> (String, bool) {
    let content = String::from_utf8_lossy(content);
    let mut text = String::new();
    for char in content.chars().map(|c| if c == '\0' { '\u{2400}' } else { c }) {
        if text.len() + char.len_utf8() > MAX_TEXT {
            return (text, false);
        }
        text.push(char);
    }
    (text, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat() -> SeatId {
        "019a0000-0000-7000-8000-00000000000a".parse().unwrap()
    }

    fn attached() -> wire::Attached {
        let pairing_id = "019a0000-0000-7000-8000-00000000000b".into();
        wire::Attached { pairing_id, session_id: seat().to_string(), role: "driver".into() }
    }

    #[test]
    fn what_cannot_be_is_not_taken() {
        type Change = fn(&mut wire::Attached);
        let bad: [(&str, Change); 3] = [
            ("report.attached.pairing_id", |attached| attached.pairing_id = "b".into()),
            ("report.attached.session_id", |attached| attached.session_id.clear()),
            ("report.attached.role", |attached| attached.role = "root".into()),
        ];
        for (field, change) in bad {
            let mut changed = attached();
            change(&mut changed);
            assert_eq!(Deed::try_from(changed).unwrap_err().field, field);
        }
        assert!(Deed::try_from(attached()).is_ok());
    }

    #[test]
    fn the_journal_keeps_what_was_done() {
        let typed = |content: &'static [u8]| Done::Typed {
            bytes: 4,
            took: Duration::from_millis(1500),
            content: content.to_vec(),
        };
        let pairing = PairingId::fresh();
        for (done, recorded, kept) in [
            (Done::Attached { pairing, role: Role::Driver }, false, json!({ "pairing": pairing })),
            (typed(b""), false, json!({ "bytes": 4, "seconds": 1.5 })),
            (typed(b"a\0\xff\x1b"), false, json!({ "bytes": 4, "seconds": 1.5 })),
            (typed(b"a\0\xff\x1b"), true, json!({ "bytes": 4, "seconds": 1.5, "text": "a\u{2400}\u{fffd}\u{1b}" })),
            (typed(b"abc"), true, json!({ "bytes": 4, "seconds": 1.5, "text": "abc", "cut": true })),
            (Done::Detached { why: String::new() }, false, json!({})),
            (Done::Detached { why: "cut".into() }, false, json!({ "why": "cut" })),
        ] {
            let mut whole = json!({ "session": seat(), "role": "driver" });
            whole.as_object_mut().unwrap().extend(kept.as_object().unwrap().clone());
            assert_eq!(details(&Deed { seat: seat(), done }, "driver", recorded), whole);
        }
    }

    #[test]
    fn only_so_much_is_kept_of_what_was_typed() {
        for (byte, length, kept, whole) in [
            (b'x', MAX_TEXT, MAX_TEXT, true),
            (b'x', MAX_TEXT + 1, MAX_TEXT, false),
            // What takes more room than it came in.
            (b'\xff', MAX_TEXT / 3, MAX_TEXT / 3 * 3, true),
            (b'\0', MAX_TEXT / 3 + 1, MAX_TEXT / 3 * 3, false),
        ] {
            let (text, all) = text(&vec![byte; length]);
            assert_eq!((text.len(), all), (kept, whole), "{length} of {byte}");
        }
    }
}
