//! Locks: what a user, an executor or a token may do at present, which is nothing.

use std::time::Duration;

use sculpt_proto::id::{ExecutorId, LockId, TokenId, UserId};
use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    Connection, Store, StoreError, Time,
    audit::{self, Act, By},
    bearers, executors,
    requests::{Request, RequestError, Taken, take_request},
    tokens::{self, TokenError},
    users::{self, STANDING, UserError},
};
use crate::access::{Administer, May, Unknown, Whose};

/// Who is to be locked, as people name them.
#[derive(Clone, Debug)]
pub enum Target {
    /// By name.
    User(String),
    /// By name, uuid, or the beginning of the uuid.
    Executor(String),
    /// By uuid, or the beginning of it.
    Token(String),
}

/// Who is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    User(UserId),
    Executor(ExecutorId),
    Token(TokenId),
}

/// A lock.
#[derive(Clone, Debug, FromRow)]
pub struct Lock {
    /// Its id.
    pub id: Uuid,
    /// Whom it locks: one of the three.
    pub user_name: Option<String>,
    /// An executor's name.
    pub executor_name: Option<String>,
    /// A token.
    pub token_id: Option<Uuid>,
    /// In the words of who locked it.
    pub reason: String,
    /// Who that was.
    pub locked_by: String,
    /// When.
    pub created_at: Time,
    /// Until when; `None`: until somebody unlocks it.
    pub expires_at: Option<Time>,
}

/// Why an executor may do nothing now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bar {
    /// For good.
    #[error("the executor was removed from this controller; join again under a fresh data directory")]
    Removed,
    /// Until somebody unlocks it, for a reason in their words.
    #[error("the executor is locked{}; an admin can unlock it with `sculpt unlock`", because(.0))]
    Locked(String),
    /// Until it has renewed its certificate.
    #[error("the executor's certificate has run out; it is renewed first")]
    Lapsed,
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

/// Why nothing was locked or unlocked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// There is no such executor.
    #[error("there is no executor {0:?}; `sculpt executor ls` lists those there are")]
    UnknownExecutor(String),
    /// There are several.
    #[error("{0:?} is the beginning of several executors' uuids; give more of it, or the name")]
    Ambiguous(String),
    /// Who locks themselves cannot unlock themselves.
    #[error("this would lock yourself out; let another admin do it")]
    Oneself,
    /// Who asks may not any more.
    #[error(transparent)]
    Lost(#[from] Unknown),
    /// The user.
    #[error(transparent)]
    User(#[from] UserError),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The request was not taken.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const SELECT: &str = "SELECT l.id, u.name AS user_name, e.name AS executor_name, l.token_id, l.reason, l.locked_by, \
                      l.created_at, l.expires_at FROM locks l LEFT JOIN users u ON u.id = l.user_id \
                      LEFT JOIN executors e ON e.id = l.executor_id";

impl Store {
    /// Locks `target`.
    pub async fn lock(
        &self,
        by: May<Administer>,
        request: Request,
        target: Target,
        reason: String,
        ttl: Option<Duration>,
    ) -> Result<Lock, LockError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_exclusive(conn, by.caller()).await?;
                let (subject, name) = resolve(conn, &by, &target).await?;
                if subject == Subject::User(by.caller().user()) || subject == Subject::Token(by.caller().token()) {
                    return Err(LockError::Oneself);
                }
                let id = LockId::fresh();
                match take_request(conn, &request, id.0).await? {
                    Taken::Done(done) => Ok(one(conn, done).await?),
                    Taken::Fresh => {
                        insert(conn, id, subject, &name, &reason, ttl, &by.by()).await?;
                        if matches!(subject, Subject::User(_)) {
                            users::still_ruled(conn).await?;
                        }
                        Ok(one(conn, id.0).await?)
                    }
                }
            })
        })
        .await
    }

    /// Lifts the locks of `target`, and tells which.
    pub async fn unlock(&self, by: May<Administer>, request: Request, target: Target) -> Result<Vec<Lock>, LockError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_shared(conn, by.caller()).await?;
                let (subject, name) = resolve(conn, &by, &target).await?;
                let standing = of(conn, subject).await?;
                let id = match subject {
                    Subject::User(id) => id.0,
                    Subject::Executor(id) => id.0,
                    Subject::Token(id) => id.0,
                };
                if let Taken::Done(_) = take_request(conn, &request, id).await? {
                    return Ok(Vec::new());
                }
                let ids: Vec<Uuid> = standing.iter().map(|lock| lock.id).collect();
                let sql = "UPDATE locks SET lifted_at = now() WHERE id = ANY ($1)";
                sqlx::query(sql).bind(ids).execute(&mut *conn).await.map_err(StoreError::from)?;
                if !standing.is_empty() {
                    audit::append(conn, &by.by(), Act::new(subject.action(false), name)).await?;
                }
                Ok(standing)
            })
        })
        .await
    }

    /// Locks that stand, oldest first.
    pub async fn locks(&self, _by: &May<Administer>) -> Result<Vec<Lock>, StoreError> {
        let sql = format!("{SELECT} WHERE {STANDING} ORDER BY l.created_at");
        let mut conn = self.read().await?;
        Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut *conn).await?)
    }

    /// Which of these executors may do nothing now, and why.
    pub async fn barred(&self, executors: &[ExecutorId]) -> Result<Vec<(ExecutorId, Bar)>, StoreError> {
        let ids: Vec<Uuid> = executors.iter().map(|executor| executor.0).collect();
        let sql = format!(
            "SELECT e.id, e.removed_at IS NOT NULL AS removed, l.reason \
             FROM executors e LEFT JOIN LATERAL (SELECT l.reason FROM locks l \
               WHERE l.executor_id = e.id AND {STANDING} ORDER BY l.created_at LIMIT 1) l ON true \
             WHERE e.id = ANY ($1) AND (e.removed_at IS NOT NULL OR l.reason IS NOT NULL OR e.certified_until < now())"
        );
        let mut conn = self.read().await?;
        let found: Vec<(Uuid, bool, Option<String>)> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(ids).fetch_all(&mut *conn).await?;
        let bar = |removed, locked| match (removed, locked) {
            (true, _) => Bar::Removed,
            (false, Some(reason)) => Bar::Locked(reason),
            (false, None) => Bar::Lapsed,
        };
        Ok(found.into_iter().map(|(id, removed, locked)| (ExecutorId(id), bar(removed, locked))).collect())
    }
}

impl Subject {
    fn action(self, locked: bool) -> &'static str {
        match (self, locked) {
            (Self::User(_), true) => "user.lock",
            (Self::User(_), false) => "user.unlock",
            (Self::Executor(_), true) => "executor.lock",
            (Self::Executor(_), false) => "executor.unlock",
            (Self::Token(_), true) => "token.lock",
            (Self::Token(_), false) => "token.unlock",
        }
    }

    /// What stands in the columns user_id, executor_id, token_id.
    fn columns(self) -> (Option<Uuid>, Option<Uuid>, Option<Uuid>) {
        match self {
            Self::User(id) => (Some(id.0), None, None),
            Self::Executor(id) => (None, Some(id.0), None),
            Self::Token(id) => (None, None, Some(id.0)),
        }
    }
}

/// Locks an executor in the transaction that found its key in two places.
pub(super) async fn lock_executor(
    conn: &mut Connection,
    executor: ExecutorId,
    name: &str,
    reason: &str,
) -> Result<(), StoreError> {
    let subject = Subject::Executor(executor);
    insert(conn, LockId::fresh(), subject, &audit::executor(name), reason, None, &By::controller()).await
}

/// Whether `executor` is locked.
pub(super) async fn is_locked(conn: &mut Connection, executor: ExecutorId) -> Result<bool, StoreError> {
    Ok(!of(conn, Subject::Executor(executor)).await?.is_empty())
}

async fn insert(
    conn: &mut Connection,
    id: LockId,
    subject: Subject,
    name: &str,
    reason: &str,
    ttl: Option<Duration>,
    by: &By,
) -> Result<(), StoreError> {
    let (user, executor, token) = subject.columns();
    sqlx::query(
        "INSERT INTO locks (id, user_id, executor_id, token_id, reason, locked_by, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))",
    )
    .bind(id.0)
    .bind(user)
    .bind(executor)
    .bind(token)
    .bind(reason)
    .bind(by.actor())
    .bind(ttl.map(|ttl| ttl.as_secs_f64()))
    .execute(&mut *conn)
    .await?;
    let details = json!({ "reason": reason, "seconds": ttl.map(|ttl| ttl.as_secs()) });
    audit::append(conn, by, Act::new(subject.action(true), name).with(details)).await
}

/// Who is meant, and what the record calls them.
async fn resolve(conn: &mut Connection, by: &May<Administer>, target: &Target) -> Result<(Subject, String), LockError> {
    Ok(match target {
        Target::User(name) => {
            let user = users::named(conn, name).await?;
            (Subject::User(user.id()), format!("user:{}", user.name))
        }
        Target::Token(name) => {
            let token = tokens::find(conn, &Whose::everybody(by), name).await?;
            (Subject::Token(token), format!("token:{token}"))
        }
        Target::Executor(name) => {
            let found = executors::named(conn, &crate::access::Sees::everything(), name).await?;
            match found.as_slice() {
                [] => return Err(LockError::UnknownExecutor(name.clone())),
                [one] => (Subject::Executor(ExecutorId(one.id)), audit::executor(&one.name)),
                _ => return Err(LockError::Ambiguous(name.clone())),
            }
        }
    })
}

async fn of(conn: &mut Connection, subject: Subject) -> Result<Vec<Lock>, StoreError> {
    let (user, executor, token) = subject.columns();
    let sql = format!(
        "{SELECT} WHERE {STANDING} AND (l.user_id = $1 OR l.executor_id = $2 OR l.token_id = $3) ORDER BY l.created_at"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(user).bind(executor).bind(token).fetch_all(conn).await?)
}

async fn one(conn: &mut Connection, id: Uuid) -> Result<Lock, StoreError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE l.id = $1"))).bind(id).fetch_one(conn).await?)
}
