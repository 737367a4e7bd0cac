//! Classes: what tasks need of an executor and whose they are, one row for all tasks that can be placed on the same ones.

use std::collections::BTreeMap;

use sculpt_core::{
    placement::{AgentNeed, Class, Needs},
    task::Surviving,
};
use sculpt_proto::id::TaskId;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::{Row as _, postgres::PgRow, types::Json};

use crate::store::{Connection, StoreError};

/// Columns of a class `c`, as [`read`] takes them.
pub(super) const COLUMNS: &str = "c.pool, c.requirements, c.agent, c.executor_id, c.project_id, c.requester";

/// The class in the columns of a row.
pub(super) fn read(row: &PgRow) -> Result<Class, StoreError> {
    let needs = Needs {
        pool: row.try_get("pool")?,
        requirements: row.try_get::<Json<BTreeMap<String, String>>, _>("requirements")?.0,
        agent: need(row.try_get("agent")?),
    };
    Ok(Class {
        needs,
        executor: row.try_get("executor_id")?,
        project: row.try_get("project_id")?,
        requester: row.try_get("requester")?,
    })
}

/// The need that a column `agent` stands for.
pub fn need(agent: Option<String>) -> AgentNeed {
    match agent {
        None => AgentNeed::None,
        Some(name) if name.is_empty() => AgentNeed::Default,
        Some(name) => AgentNeed::Named(name),
    }
}

/// The row of a class, made on first use.
pub(super) async fn id(conn: &mut Connection, class: &Class) -> Result<i64, StoreError> {
    let Class { needs, executor, project, requester } = class;
    let agent = match &needs.agent {
        AgentNeed::None => None,
        AgentNeed::Default => Some(""),
        AgentNeed::Named(name) => Some(name.as_str()),
    };
    let canonical = json!([needs.pool, needs.requirements, agent, executor, project, requester]);
    let digest = Sha256::digest(canonical.to_string().as_bytes()).to_vec();
    let find = "SELECT id FROM classes WHERE digest = $1";
    if let Some(id) = sqlx::query_scalar(find).bind(&digest).fetch_optional(&mut *conn).await? {
        return Ok(id);
    }
    sqlx::query(
        "INSERT INTO classes (digest, pool, requirements, agent, executor_id, project_id, requester) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(&digest)
    .bind(&needs.pool)
    .bind(Json(&needs.requirements))
    .bind(agent)
    .bind(executor)
    .bind(project)
    .bind(requester)
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query_scalar(find).bind(&digest).fetch_one(&mut *conn).await?)
}

/// From now on `task` goes on in this workspace, on the executor that has it; `None`: anywhere, in a fresh clone.
pub(super) async fn pin(conn: &mut Connection, task: TaskId, to: Option<Surviving>) -> Result<(), StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM tasks t JOIN classes c ON c.id = t.class_id WHERE t.id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(task.0).fetch_one(&mut *conn).await?;
    let class = Class { executor: to.map(|surviving| surviving.executor), ..read(&row)? };
    let class = id(conn, &class).await?;
    sqlx::query("UPDATE tasks SET class_id = $2, workspace_of = $3 WHERE id = $1")
        .bind(task.0)
        .bind(class)
        .bind(to.map(|surviving| surviving.attempt))
        .execute(conn)
        .await?;
    Ok(())
}
