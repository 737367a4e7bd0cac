//! Users, tokens, locks and the audit record, for programs and for people.

use sculpt_proto::v1::{AuditEntry, JoinToken, LockEntry, RoleBinding, Token, User, lock_target::Target};
use serde::Serialize;
use serde_json::Value;

use super::{tasks::filled, time::rfc3339};

/// A role in one project, or in all.
#[derive(Debug, Serialize)]
pub(crate) struct RoleJson {
    role: String,
    project: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct UserJson {
    name: String,
    email: Option<String>,
    roles: Vec<RoleJson>,
    locked: Option<String>,
    created_at: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TokenJson {
    uuid: String,
    user: String,
    name: Option<String>,
    scope: Vec<RoleJson>,
    created_at: Option<String>,
    expires_at: Option<String>,
    last_used_at: Option<String>,
    last_used_from: Option<String>,
    revoked_at: Option<String>,
    /// Only of one that was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct JoinTokenJson {
    uuid: String,
    pool: String,
    labels: std::collections::BTreeMap<String, String>,
    uses: u32,
    used: u32,
    created_by: String,
    created_at: Option<String>,
    expires_at: Option<String>,
    /// Only of one that was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executor_url: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct LockJson {
    uuid: String,
    kind: &'static str,
    target: String,
    reason: Option<String>,
    by: String,
    created_at: Option<String>,
    expires_at: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct AuditJson {
    sequence: u64,
    time: Option<String>,
    actor: String,
    action: String,
    subject: Option<String>,
    project: Option<String>,
    token: Option<String>,
    from: Option<String>,
    details: Value,
    hash: String,
}

impl From<&RoleBinding> for RoleJson {
    fn from(binding: &RoleBinding) -> Self {
        Self { role: binding.role.clone(), project: filled(&binding.project) }
    }
}

impl From<&User> for UserJson {
    fn from(user: &User) -> Self {
        Self {
            name: user.name.clone(),
            email: filled(&user.email),
            roles: user.roles.iter().map(RoleJson::from).collect(),
            locked: filled(&user.locked),
            created_at: rfc3339(user.created_at.as_ref()),
        }
    }
}

impl From<&Token> for TokenJson {
    fn from(token: &Token) -> Self {
        Self {
            uuid: token.uuid.clone(),
            user: token.user.clone(),
            name: filled(&token.name),
            scope: token.scope.iter().map(RoleJson::from).collect(),
            created_at: rfc3339(token.created_at.as_ref()),
            expires_at: rfc3339(token.expires_at.as_ref()),
            last_used_at: rfc3339(token.last_used_at.as_ref()),
            last_used_from: filled(&token.last_used_from),
            revoked_at: rfc3339(token.revoked_at.as_ref()),
            token: None,
        }
    }
}

impl TokenJson {
    /// The one time that it is shown whole.
    pub(crate) fn revealed(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }
}

impl JoinTokenJson {
    /// The one time that it is shown whole, with where to use it.
    pub(crate) fn revealed(self, token: String, executor_url: String) -> Self {
        Self { token: Some(token), executor_url: Some(executor_url), ..self }
    }
}

impl From<&JoinToken> for JoinTokenJson {
    fn from(token: &JoinToken) -> Self {
        Self {
            uuid: token.uuid.clone(),
            pool: token.pool.clone(),
            labels: token.labels.clone().into_iter().collect(),
            uses: token.uses,
            used: token.used,
            created_by: token.created_by.clone(),
            created_at: rfc3339(token.created_at.as_ref()),
            expires_at: rfc3339(token.expires_at.as_ref()),
            token: None,
            executor_url: None,
        }
    }
}

impl From<&LockEntry> for LockJson {
    fn from(lock: &LockEntry) -> Self {
        let (kind, target) = locked(lock);
        Self {
            uuid: lock.uuid.clone(),
            kind,
            target,
            reason: filled(&lock.reason),
            by: lock.by.clone(),
            created_at: rfc3339(lock.created_at.as_ref()),
            expires_at: rfc3339(lock.expires_at.as_ref()),
        }
    }
}

impl From<&AuditEntry> for AuditJson {
    fn from(entry: &AuditEntry) -> Self {
        Self {
            sequence: entry.sequence,
            time: rfc3339(entry.at.as_ref()),
            actor: entry.actor.clone(),
            action: entry.action.clone(),
            subject: filled(&entry.subject),
            project: filled(&entry.project),
            token: filled(&entry.token),
            from: filled(&entry.from),
            details: serde_json::from_str(&entry.details).unwrap_or_else(|_| Value::String(entry.details.clone())),
            hash: entry.hash.clone(),
        }
    }
}

/// What a lock locks.
pub(crate) fn locked(lock: &LockEntry) -> (&'static str, String) {
    match lock.target.as_ref().and_then(|target| target.target.clone()) {
        Some(Target::User(name)) => ("user", name),
        Some(Target::Executor(name)) => ("executor", name),
        Some(Target::Token(uuid)) => ("token", uuid),
        None => ("", String::new()),
    }
}

/// Roles as they are typed: `viewer`, `operator@website`.
pub(crate) fn roles(bindings: &[RoleBinding]) -> String {
    let typed = bindings.iter().map(|binding| match binding.project.as_str() {
        "" => binding.role.clone(),
        project => format!("{}@{project}", binding.role),
    });
    typed.collect::<Vec<_>>().join(", ")
}

/// The beginning of a uuid, by which people name it. Its first 8 letters are the same for a minute, as they are a time.
pub(crate) fn short(uuid: &str) -> &str {
    uuid.get(..13).unwrap_or(uuid)
}
