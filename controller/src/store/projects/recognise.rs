//! Which project a repository is: by its history and its remote, or by the name that a person gives.

use super::{Project, SELECT, Wish, names::sanitised};
use crate::store::{Connection, StoreError};

/// The project that this repository is among those that are registered. Nothing is changed about it: who asks may not be
/// one who sees it.
pub(super) async fn recognised(conn: &mut Connection, wish: &Wish) -> Result<Option<Project>, StoreError> {
    if let Some(known) = by_identity(conn, wish).await? {
        return Ok(Some(known));
    }
    if let Some(known) = adopted(conn, wish).await? {
        return Ok(Some(known));
    }
    let sql = format!("{SELECT} WHERE removed_at IS NULL AND root_commit = $1 LIMIT 2");
    let same_root: Vec<Project> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&wish.root_commit).fetch_all(conn).await?;
    Ok(alike(same_root, wish))
}

/// The project that this repository was until it was removed.
pub(super) async fn removed_before(conn: &mut Connection, wish: &Wish) -> Result<Option<Project>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE removed_at IS NOT NULL AND root_commit = $1 AND remote = $2 ORDER BY removed_at DESC LIMIT 1"
    );
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&wish.root_commit).bind(&wish.remote).fetch_optional(conn).await?)
}

async fn by_identity(conn: &mut Connection, wish: &Wish) -> Result<Option<Project>, StoreError> {
    let sql = format!("{SELECT} WHERE removed_at IS NULL AND root_commit = $1 AND remote = $2");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(&wish.root_commit).bind(&wish.remote).fetch_optional(conn).await?)
}

/// The project of this name that was made from an attempt which was taken over: nothing else is known of it yet.
async fn adopted(conn: &mut Connection, wish: &Wish) -> Result<Option<Project>, StoreError> {
    let sql = format!("{SELECT} WHERE name = $1 AND adopted AND removed_at IS NULL");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(sanitised(&wish.name)).fetch_optional(conn).await?)
}

/// The only project with this history, unless something says that it is another: forks share their history, and differ in
/// their remotes. A repository without a remote says nothing of that kind, but a person may, with a name.
fn alike(same_root: Vec<Project>, wish: &Wish) -> Option<Project> {
    let [only] = <[Project; 1]>::try_from(same_root).ok()?;
    let silent = only.remote.is_empty() || wish.remote.is_empty();
    let named_so = !wish.exact_name || sanitised(&wish.name) == only.name;
    (silent && named_so).then_some(only)
}

#[cfg(test)]
mod tests {
    use super::{Project, Wish, alike};

    fn project(remote: &str) -> Project {
        Project {
            id: uuid::Uuid::nil(),
            name: "web".to_owned(),
            root_commit: "a".repeat(40),
            remote: remote.to_owned(),
            default_agent: String::new(),
            commit_changes: true,
            record_typing: false,
            adopted: false,
            created_at: chrono::DateTime::UNIX_EPOCH,
            task_count: 0,
        }
    }

    #[test]
    fn a_history_tells_a_repository_where_nothing_contradicts() {
        for (known, remote, exact_name, same) in [
            (&[""][..], "https://x/a", None, true),
            (&["https://x/a"], "", None, true),
            (&["https://x/a"], "", Some("web"), true),
            (&["https://x/a"], "", Some("other"), false),
            (&["https://x/a"], "https://x/fork", None, false),
            (&["https://x/a", "https://x/fork"], "", None, false),
            (&[], "", None, false),
        ] {
            let wish = Wish {
                name: exact_name.unwrap_or("folder").to_owned(),
                exact_name: exact_name.is_some(),
                root_commit: "a".repeat(40),
                remote: remote.to_owned(),
                default_agent: None,
                commit_changes: None,
                record_typing: None,
            };
            let projects = known.iter().map(|remote| project(remote)).collect();
            assert_eq!(alike(projects, &wish).is_some(), same, "{known:?} and {remote:?} {exact_name:?}");
        }
    }
}
