//! Refs are rows, moved by compare-and-swap inside the caller's transaction.
//!
//! Lock order: after the rows of tasks and attempts (`store`), [`raise_revision`] locks the project's row; every other function here
//! and in `store::packs` that takes a connection is called under that lock.

use sculpt_proto::id::ProjectId;

use crate::store::{Connection, StoreError};

/// A name and the commit that it stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ref {
    /// Full, like `refs/heads/main`.
    pub name: String,
    /// Full commit id.
    pub target: String,
}

/// Why a ref was not moved.
#[derive(Debug, thiserror::Error)]
pub enum RefError {
    /// It is not where the caller saw it.
    #[error("{name} is at {}, not at {}", actual.as_deref().unwrap_or("nothing"), expected.as_deref().unwrap_or("nothing"))]
    Stale {
        /// The ref.
        name: String,
        /// Where the caller saw it; `None`: nowhere.
        expected: Option<String>,
        /// Where it is; `None`: nowhere.
        actual: Option<String>,
    },
    /// The database did not take it.
    #[error("move a ref in the database")]
    Store(#[from] StoreError),
}

/// Locks the project's row and raises its git revision, which tells every cache that it is old. `None`: there is no such
/// project, or it was removed.
pub async fn raise_revision(conn: &mut Connection, project: ProjectId) -> Result<Option<i64>, StoreError> {
    let sql = "UPDATE projects SET git_revision = git_revision + 1 WHERE id = $1 AND removed_at IS NULL \
               RETURNING git_revision";
    Ok(sqlx::query_scalar(sql).bind(project.0).fetch_optional(conn).await?)
}

/// Where `name` stands.
pub async fn target(conn: &mut Connection, project: ProjectId, name: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT target FROM refs WHERE project_id = $1 AND name = $2";
    Ok(sqlx::query_scalar(sql).bind(project.0).bind(name).fetch_optional(conn).await?)
}

/// Moves `name` from `expected` (`None`: it must not exist) to `target`.
pub async fn move_ref(
    conn: &mut Connection,
    project: ProjectId,
    name: &str,
    expected: Option<&str>,
    target: &str,
) -> Result<(), RefError> {
    let sql = match expected {
        Some(_) => {
            "UPDATE refs SET target = $3, moved_at = clock_timestamp() WHERE project_id = $1 AND name = $2 AND target = $4"
        }
        None => {
            "INSERT INTO refs (project_id, name, target) SELECT $1, $2, $3 WHERE $4::text IS NULL ON CONFLICT DO NOTHING"
        }
    };
    let query = sqlx::query(sql).bind(project.0).bind(name).bind(target).bind(expected);
    let moved = query.execute(&mut *conn).await.map_err(StoreError::from)?.rows_affected();
    if moved == 1 {
        return Ok(());
    }
    let actual = self::target(conn, project, name).await?;
    Err(RefError::Stale { name: name.to_owned(), expected: expected.map(str::to_owned), actual })
}

/// Whether a ref whose name begins with `prefix` stands at `commit`.
pub async fn any_at(conn: &mut Connection, project: ProjectId, prefix: &str, commit: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT FROM refs WHERE project_id = $1 AND target = $3 AND starts_with(name, $2))";
    Ok(sqlx::query_scalar(sql).bind(project.0).bind(prefix).bind(commit).fetch_one(conn).await?)
}

/// Those of `commits` that a ref stands at.
pub async fn targets_among(
    conn: &mut Connection,
    project: ProjectId,
    commits: &[String],
) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT DISTINCT target FROM refs WHERE project_id = $1 AND target = ANY($2)";
    Ok(sqlx::query_scalar(sql).bind(project.0).bind(commits).fetch_all(conn).await?)
}
