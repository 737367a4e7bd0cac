//! What a caller sees, as conditions: what is hidden is not read, so it can neither be shown nor counted.

use sculpt_core::rights::Visible;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use crate::access::{Loose, Sees};

/// The condition that a row `t` of `tasks` is seen.
pub(super) fn tasks(query: &mut QueryBuilder<Postgres>, sees: &Sees) {
    if sees.is_everything() {
        query.push("true");
        return;
    }
    query.push("(t.project_id IS NOT NULL AND ");
    projects(query, "t.project_id", sees);
    match sees.loose() {
        Loose::All => {
            query.push(" OR t.project_id IS NULL");
        }
        Loose::Of(name) => {
            query.push(" OR t.project_id IS NULL AND t.created_by = ").push_bind(name.clone());
        }
        Loose::None => {}
    }
    query.push(")");
}

/// The condition that the project whose id stands in `column` is seen.
pub(super) fn projects(query: &mut QueryBuilder<Postgres>, column: &str, sees: &Sees) {
    match sees.projects() {
        Visible::All => {
            query.push("true");
        }
        Visible::Only(projects) => {
            let ids: Vec<Uuid> = projects.iter().map(|project| project.0).collect();
            query.push(column).push(" = ANY (").push_bind(ids).push(")");
        }
    }
}
