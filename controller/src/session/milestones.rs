//! How far an attempt has come, as somebody within it says: a claim of whoever runs there, with the executor as messenger.

use std::time::Duration;

use sculpt_core::task::Effect;
use sculpt_proto::id::ExecutorId;

use crate::{
    dispatch::Moved,
    store::{
        Connection, StoreError,
        attempts::Ledger,
        milestones::{self, MAX_MILESTONE, NewMilestone},
        task_state::Locked,
    },
};

/// Keeps what was said within an attempt of `executor` `age` ago. None: nothing is left of it.
pub(super) async fn apply(
    conn: &mut Connection,
    locked: &Locked,
    ledger: &Ledger,
    executor: ExecutorId,
    age: Duration,
    text: &str,
) -> Result<Option<Moved>, StoreError> {
    let text = plain(text);
    if text.is_empty() {
        return Ok(None);
    }
    let attempt = Some((ledger.fence.number, executor));
    let new = NewMilestone { attempt, user: String::new(), at: locked.ago(age), text };
    milestones::add(conn, locked, &new).await?;
    let (task, number, revision) = (locked.id, locked.number, locked.revision);
    // So that the last word of all is what the executor shows, also once it begins anew.
    let effects = vec![Effect::Tell(executor.0)];
    Ok(Some(Moved { task, number, revision, journaled: true, effects }))
}

/// What an executor of any kind may send, as one line.
fn plain(text: &str) -> String {
    let plain: String = text.chars().filter(|char| !char.is_control()).take(MAX_MILESTONE).collect();
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_plain_line_is_kept() {
        assert_eq!(plain(" tests pass\r\n\x1b[31m\0 "), "tests pass[31m");
        assert_eq!(plain(&"ä".repeat(501)).chars().count(), MAX_MILESTONE);
        assert_eq!(plain("\n\t"), "");
    }
}
