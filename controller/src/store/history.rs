//! Which history the database is in: a promoted standby begins a new timeline, and a copy that was put back stands before
//! where it stood.

use super::{Connection, StoreError};

/// How far the database has written, and in which timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As names of WAL files begin.
    timeline: String,
    /// Bytes since the beginning of all.
    written: i64,
}

impl Place {
    /// Whether all that was committed at `before` is still there: it is not after a promotion, or after an older copy was
    /// put back.
    pub fn follows(&self, before: &Self) -> bool {
        self.timeline == before.timeline && self.written >= before.written
    }
}

/// Where the database is now. Fails on a standby.
pub async fn place(conn: &mut Connection) -> Result<Place, StoreError> {
    let (timeline, written) = sqlx::query_as(
        "SELECT left(pg_walfile_name(lsn), 8), pg_wal_lsn_diff(lsn, '0/0')::bigint FROM pg_current_wal_lsn() AS lsn",
    )
    .fetch_one(conn)
    .await?;
    Ok(Place { timeline, written })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_stands_only_further_on_in_the_same_timeline() {
        let place = |timeline: &str, written| Place { timeline: timeline.to_owned(), written };
        let before = place("00000001", 100);
        for (now, follows) in [
            (place("00000001", 100), true),
            (place("00000001", 500), true),
            (place("00000001", 99), false),
            (place("00000002", 500), false),
        ] {
            assert_eq!(now.follows(&before), follows, "{now:?}");
        }
    }
}
