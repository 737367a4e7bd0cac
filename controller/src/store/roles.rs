//! Roles: who is what, in which project or in all.

use std::fmt;

use sculpt_core::rights::Role;
use sculpt_proto::id::{ProjectId, UserId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Connection, Store, StoreError,
    audit::{self, Act},
    bearers, columns, joins, projects,
    requests::{Request, Taken, take_request},
    users::{self, User, UserError},
};
use crate::access::{Administer, May, Sees};

/// A role in one project, or in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which.
    pub role: Role,
    /// Id and name of the project; `None`: all.
    pub project: Option<(ProjectId, String)>,
}

/// A role as it is asked for: the project by name or uuid, `None`: all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which.
    pub role: Role,
    /// Where.
    pub project: Option<String>,
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.project {
            Some((_, name)) => write!(f, "{} in {name}", self.role),
            None => write!(f, "{} everywhere", self.role),
        }
    }
}

/// Roles as a person is told of them.
pub(super) fn listed<'b>(bindings: impl IntoIterator<Item = &'b Binding>) -> String {
    let told: Vec<String> = bindings.into_iter().map(Binding::to_string).collect();
    if told.is_empty() { "no role".to_owned() } else { told.join(", ") }
}

impl Binding {
    /// For the record.
    pub(super) fn told(&self) -> Value {
        json!({ "role": self.role.as_str(), "project": self.project.as_ref().map(|(_, name)| name) })
    }

    /// As rights are made of.
    pub fn grant(&self) -> (Option<ProjectId>, Role) {
        (self.project.as_ref().map(|(id, _)| *id), self.role)
    }
}

impl Store {
    /// Makes `user` something; to be it already is fine.
    pub async fn grant_role(
        &self,
        by: May<Administer>,
        request: Request,
        user: String,
        wish: Wish,
    ) -> Result<User, UserError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_shared(conn, by.caller()).await?;
                let user = users::named(conn, &user).await?;
                if let Taken::Fresh = take_request(conn, &request, user.id).await? {
                    let binding = resolve(conn, &Sees::everything(), wish).await?;
                    if bind(conn, user.id(), &binding, by.by().actor()).await? {
                        tell(conn, &by, "role.grant", &user, &binding, binding.told()).await?;
                    }
                }
                users::by_id(conn, user.id()).await
            })
        })
        .await
    }

    /// Takes a role from `user`; not to have it is fine. Who may tend executors no more leaves no way for machines to join.
    pub async fn revoke_role(
        &self,
        by: May<Administer>,
        request: Request,
        user: String,
        wish: Wish,
    ) -> Result<User, UserError> {
        self.write(move |conn| {
            Box::pin(async move {
                bearers::lock_rights_exclusive(conn, by.caller()).await?;
                let user = users::named(conn, &user).await?;
                if let Taken::Fresh = take_request(conn, &request, user.id).await? {
                    let binding = resolve(conn, &Sees::everything(), wish).await?;
                    if unbind(conn, user.id(), &binding).await? {
                        users::still_ruled(conn).await?;
                        let left = users::by_id(conn, user.id()).await?;
                        let mut told = binding.told();
                        if !left.tends_executors() {
                            told["join_tokens"] = json!(joins::revoke_of(conn, &left.name).await?);
                        }
                        tell(conn, &by, "role.revoke", &user, &binding, told).await?;
                    }
                }
                users::by_id(conn, user.id()).await
            })
        })
        .await
    }
}

/// Writes what `user` became, or is no more, into the record.
async fn tell(
    conn: &mut Connection,
    by: &May<Administer>,
    action: &'static str,
    user: &User,
    binding: &Binding,
    told: Value,
) -> Result<(), StoreError> {
    let act = Act::new(action, format!("user:{}", user.name)).within(binding.grant().0).with(told);
    audit::append(conn, &by.by(), act).await
}

/// What `wish` means to somebody who sees `sees`.
pub(super) async fn resolve(conn: &mut Connection, sees: &Sees, wish: Wish) -> Result<Binding, UserError> {
    let project = match wish.project {
        None => None,
        Some(name) => {
            let project = projects::find(conn, sees, &name).await?;
            Some((project.id(), project.name))
        }
    };
    Ok(Binding { role: wish.role, project })
}

/// Whether it is new.
pub(super) async fn bind(conn: &mut Connection, user: UserId, binding: &Binding, by: &str) -> Result<bool, StoreError> {
    let (project, role) = binding.grant();
    let done = sqlx::query(
        "INSERT INTO role_bindings (user_id, project_id, role, granted_by) VALUES ($1, $2, $3::role, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(user.0)
    .bind(project.map(|project| project.0))
    .bind(role.as_str())
    .bind(by)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn unbind(conn: &mut Connection, user: UserId, binding: &Binding) -> Result<bool, StoreError> {
    let (project, role) = binding.grant();
    let sql = "DELETE FROM role_bindings WHERE user_id = $1 AND project_id IS NOT DISTINCT FROM $2 AND role = $3::role";
    let done =
        sqlx::query(sql).bind(user.0).bind(project.map(|project| project.0)).bind(role.as_str()).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// Bindings in columns of arrays, which stand for one row each.
pub(super) fn read(
    roles: Vec<String>,
    projects: Vec<Option<Uuid>>,
    names: Vec<Option<String>>,
) -> Result<Vec<Binding>, StoreError> {
    let one = |((role, project), name): ((String, Option<Uuid>), Option<String>)| {
        let role = role.parse().map_err(|_| columns::unreadable("role_bindings.role", &role))?;
        Ok(Binding { role, project: project.map(ProjectId).zip(name) })
    };
    roles.into_iter().zip(projects).zip(names).map(one).collect()
}
