//! Whom executors let in: the pairings that stand, of people who still may.

use std::{collections::BTreeMap, time::Duration};

use sculpt_pairing::Rights;
use sculpt_proto::id::{AttemptId, ExecutorId, PairingId, ProjectId, TokenId};
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use super::rights;
use crate::{
    access::Holders,
    store::{Connection, Store, StoreError, attempts::LIVES, bearers},
};

/// Somebody whom an executor lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// By which.
    pub pairing: PairingId,
    /// Beside which attempt.
    pub attempt: AttemptId,
    /// Their name.
    pub user: String,
    /// What they may do there.
    pub rights: Rights,
    /// For how long sessions can be begun.
    pub remaining: Duration,
}

impl Guest {
    /// Whether both are let in for the same, however long.
    pub fn is(&self, other: &Self) -> bool {
        let Self { pairing, attempt, user, rights, remaining: _ } = self;
        (pairing, attempt, user, rights) == (&other.pairing, &other.attempt, &other.user, &other.rights)
    }
}

/// The pairings that were not taken back: of attempts that live those that are new enough, or in use; of those that have
/// ended (`over`) those in use at the end, whose people look on at the last picture for as long as their executor lets them.
/// That somebody sits there may be told late: for an hour whoever came in time is kept.
pub(super) fn standing_rows() -> String {
    // An executor says of everybody that they are there no longer just before it says that the attempt has ended.
    const IN_USE: &str = "EXISTS (SELECT FROM seats s WHERE s.attempt_id = a.id AND s.pairing_id = p.id \
         AND (s.ended_at IS NULL OR s.ended_at > COALESCE(a.ended_at, now()) - interval '1 minute'))";
    format!(
        "(SELECT p.*, a.task_id, a.executor_id, false AS over \
         FROM attempts a JOIN pairings p ON p.attempt_id = a.id AND p.closed_at IS NULL \
         AND (p.expires_at > now() - interval '1 hour' OR {IN_USE}) \
         WHERE a.released_at IS NULL AND {LIVES} \
         UNION ALL SELECT p.*, a.task_id, a.executor_id, true \
         FROM attempts a JOIN pairings p ON p.attempt_id = a.id AND p.closed_at IS NULL AND {IN_USE} \
         WHERE a.ended_at > now() - interval '10 minutes' AND a.fenced_at IS NULL) p"
    )
}

/// One of them.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) id: PairingId,
    pub(super) remaining: Duration,
    /// Its attempt has ended.
    pub(super) over: bool,
    executor: ExecutorId,
    attempt: AttemptId,
    user: String,
    rights: Rights,
    token: TokenId,
    project: Option<ProjectId>,
    /// Who made the task.
    creator: String,
}

impl Standing {
    fn into_guest(self) -> (ExecutorId, Guest) {
        let Self { id: pairing, executor, attempt, user, rights, remaining, .. } = self;
        (executor, Guest { pairing, attempt, user, rights, remaining })
    }
}

impl Store {
    /// Whom each of these executors is to let in. One that nobody may come to is not among them.
    pub async fn guests(&self, executors: &[ExecutorId]) -> Result<BTreeMap<ExecutorId, Vec<Guest>>, StoreError> {
        let ids = executors.iter().map(|executor| executor.0).collect();
        let mut guests: BTreeMap<ExecutorId, Vec<Guest>> = BTreeMap::new();
        for standing in standing(&mut *self.read().await?, "executor_id", ids).await? {
            let (executor, guest) = standing.into_guest();
            guests.entry(executor).or_default().push(guest);
        }
        Ok(guests)
    }
}

/// The pairings that stand where `column` is one of `ids`, of people who may all that theirs lets them; oldest first.
pub(super) async fn standing(
    conn: &mut Connection,
    column: &'static str,
    ids: Vec<Uuid>,
) -> Result<Vec<Standing>, StoreError> {
    let rows = standing_rows();
    let sql = format!(
        "SELECT p.id, p.attempt_id, p.token_id, p.rights::text[] AS rights, p.executor_id, u.name AS user_name, \
         GREATEST(EXTRACT(EPOCH FROM p.expires_at - now()), 0)::float8 AS remaining, p.over, t.project_id, t.created_by \
         FROM {rows} JOIN tasks t ON t.id = p.task_id JOIN users u ON u.id = p.user_id \
         WHERE p.{column} = ANY ($1) ORDER BY p.created_at, p.id"
    );
    let mut standing: Vec<Standing> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(ids).fetch_all(&mut *conn).await?;
    if standing.is_empty() {
        return Ok(standing);
    }
    let mut tokens: Vec<TokenId> = standing.iter().map(|row| row.token).collect();
    tokens.sort_unstable();
    tokens.dedup();
    let holders = Holders::of(bearers::of(conn, &tokens).await?);
    standing.retain(|row| {
        let may = holders.rights(row.token, row.project, &row.creator);
        row.rights != Rights::NONE && row.rights.within(may) == row.rights
    });
    Ok(standing)
}

impl sqlx::FromRow<'_, PgRow> for Standing {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let named: Vec<String> = row.try_get("rights")?;
        let project: Option<Uuid> = row.try_get("project_id")?;
        let id = PairingId(row.try_get("id")?);
        Ok(Self {
            id,
            over: row.try_get("over")?,
            remaining: Duration::try_from_secs_f64(row.try_get("remaining")?).unwrap_or_default(),
            executor: ExecutorId(row.try_get("executor_id")?),
            attempt: AttemptId(row.try_get("attempt_id")?),
            user: row.try_get("user_name")?,
            rights: rights(id, &named),
            token: TokenId(row.try_get("token_id")?),
            project: project.map(ProjectId),
            creator: row.try_get("created_by")?,
        })
    }
}
