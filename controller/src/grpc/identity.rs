//! Users, their roles and tokens, and locks.

use std::{collections::BTreeMap, time::Duration};

use sculpt_core::rights::{Grants, Role};
use sculpt_proto::{FieldError, duration, id::ProjectId, required, timestamp, v1};
use sculpt_tls::{Kind, Token as Fresh};
use tonic::{Request, Response, Status};

use super::{
    Api, caller,
    once::{once, once_of},
};
use crate::{
    access::Whose,
    store::{
        locks::{Lock, Target},
        roles::{Binding, Wish},
        tokens::{For, NewToken, Token},
        users::{NewUser, User},
    },
};

/// Most characters of a name, an address or a reason.
const LONGEST: usize = 1024;

#[tonic::async_trait]
impl v1::identity_server::Identity for Api {
    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = caller(&request)?;
        let mut user = self.store.caller(&caller).await?;
        let token = self.store.token(&caller).await?;
        user.roles = left(caller.grants(), user.roles, token.scope.as_deref());
        let user = shown_user(user);
        Ok(Response::new(v1::WhoAmIResponse {
            roles: user.roles.clone(),
            user: Some(user),
            token: Some(shown_token(token)),
            cluster_id: self.about.cluster.to_string(),
            trust: self.about.authority.borrow().trust().to_pem(),
            public: self.about.public.borrow().is_some(),
        }))
    }

    async fn add_user(&self, request: Request<v1::AddUserRequest>) -> Result<Response<v1::AddUserResponse>, Status> {
        let by = caller(&request)?.may()?;
        let message = request.into_inner();
        let request = once_of(&message, "AddUser", |message| &mut message.request_id)?;
        let new = NewUser {
            name: message.name,
            email: short(message.email, "email")?,
            roles: wishes(message.roles, "roles")?,
        };
        let user = self.store.add_user(by, request, new).await?;
        self.bus.access();
        Ok(Response::new(v1::AddUserResponse { user: Some(shown_user(user)) }))
    }

    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        let by = caller(&request)?.may()?;
        let users = self.store.users(&by).await?.into_iter().map(shown_user).collect();
        Ok(Response::new(v1::ListUsersResponse { users }))
    }

    async fn remove_user(
        &self,
        request: Request<v1::RemoveUserRequest>,
    ) -> Result<Response<v1::RemoveUserResponse>, Status> {
        let by = caller(&request)?.may()?;
        let message = request.into_inner();
        let request = once(&message.request_id, "RemoveUser", &message.name)?;
        let user = self.store.remove_user(by, request, message.name).await?;
        self.bus.access();
        Ok(Response::new(v1::RemoveUserResponse { user: Some(shown_user(user)) }))
    }

    async fn grant_role(
        &self,
        request: Request<v1::GrantRoleRequest>,
    ) -> Result<Response<v1::GrantRoleResponse>, Status> {
        let by = caller(&request)?.may()?;
        let message = request.into_inner();
        let request = once_of(&message, "GrantRole", |message| &mut message.request_id)?;
        let wish = wish(required(message.role, "role")?, "role")?;
        let user = self.store.grant_role(by, request, message.user, wish).await?;
        self.bus.access();
        Ok(Response::new(v1::GrantRoleResponse { user: Some(shown_user(user)) }))
    }

    async fn revoke_role(
        &self,
        request: Request<v1::RevokeRoleRequest>,
    ) -> Result<Response<v1::RevokeRoleResponse>, Status> {
        let by = caller(&request)?.may()?;
        let message = request.into_inner();
        let request = once_of(&message, "RevokeRole", |message| &mut message.request_id)?;
        let wish = wish(required(message.role, "role")?, "role")?;
        let user = self.store.revoke_role(by, request, message.user, wish).await?;
        self.bus.access();
        Ok(Response::new(v1::RevokeRoleResponse { user: Some(shown_user(user)) }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let request = once_of(&message, "CreateToken", |message| &mut message.request_id)?;
        let whom = if message.user.is_empty() || message.user == caller.name() {
            For::Caller(caller)
        } else {
            For::User(caller.may()?, message.user)
        };
        let secret = Fresh::fresh(Kind::User, self.about.pin_for_people());
        let new = NewToken {
            digest: secret.secret.digest(),
            name: short(message.name, "name")?,
            scope: wishes(message.scope, "scope")?,
            ttl: ttl(message.ttl)?,
        };
        let token = self.store.create_token(whom, request, new).await?;
        self.bus.access();
        Ok(Response::new(v1::CreateTokenResponse { token: Some(shown_token(token)), secret: secret.reveal() }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let whose = match message.user.as_str() {
            "" => caller.own(),
            "*" => Whose::everybody(&caller.may()?),
            name if name == caller.name() => caller.own(),
            name => {
                let by = caller.may()?;
                Whose::of(&by, self.store.user(&by, name).await?.id())
            }
        };
        let tokens = self.store.tokens(&whose, message.revoked_too).await?;
        let tokens = tokens.into_iter().map(shown_token).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let request = once(&message.request_id, "RevokeToken", &message.token)?;
        let whose = match caller.may() {
            Ok(by) => Whose::everybody(&by),
            Err(_) => caller.own(),
        };
        let token = self.store.revoke_token(whose, request, message.token).await?;
        self.bus.access();
        Ok(Response::new(v1::RevokeTokenResponse { token: Some(shown_token(token)) }))
    }

    async fn lock(&self, request: Request<v1::LockRequest>) -> Result<Response<v1::LockResponse>, Status> {
        let by = caller(&request)?.may()?;
        let message = request.into_inner();
        let request = once_of(&message, "Lock", |message| &mut message.request_id)?;
        let reason = short(message.reason, "reason")?;
        let (target, ttl) = (target(message.target)?, ttl(message.ttl)?);
        let lock = self.store.lock(by, request, target, reason, ttl).await?;
        self.bus.access();
        Ok(Response::new(v1::LockResponse { lock: Some(shown_lock(lock)) }))
    }

    async fn unlock(&self, request: Request<v1::UnlockRequest>) -> Result<Response<v1::UnlockResponse>, Status> {
        let by = caller(&request)?.may()?;
        let message = request.into_inner();
        let request = once_of(&message, "Unlock", |message| &mut message.request_id)?;
        let locks = self.store.unlock(by, request, target(message.target)?).await?;
        self.bus.access();
        Ok(Response::new(v1::UnlockResponse { locks: locks.into_iter().map(shown_lock).collect() }))
    }

    async fn list_locks(
        &self,
        request: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        let by = caller(&request)?.may()?;
        let locks = self.store.locks(&by).await?.into_iter().map(shown_lock).collect();
        Ok(Response::new(v1::ListLocksResponse { locks }))
    }
}

fn wishes(bindings: Vec<v1::RoleBinding>, field: &'static str) -> Result<Vec<Wish>, FieldError> {
    bindings.into_iter().map(|binding| wish(binding, field)).collect()
}

fn wish(binding: v1::RoleBinding, field: &'static str) -> Result<Wish, FieldError> {
    let role: Role = binding
        .role
        .parse()
        .map_err(|error: sculpt_core::rights::UnknownRole| FieldError::new(field, error.to_string()))?;
    Ok(Wish { role, project: Some(binding.project).filter(|project| !project.is_empty()) })
}

fn short(text: String, field: &'static str) -> Result<String, FieldError> {
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        return Err(FieldError::new(field, format!("has more than {LONGEST} bytes, or control characters")));
    }
    Ok(text)
}

/// Longest life that is counted; what is to live longer lives for ever.
const LONGEST_TTL: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

fn ttl(span: Option<prost_types::Duration>) -> Result<Option<Duration>, FieldError> {
    let Some(span) = span else { return Ok(None) };
    let span = duration(span, "ttl")?;
    if span.is_zero() || span > LONGEST_TTL {
        return Err(FieldError::new("ttl", "must be more than nothing and at most 100 years; absent: for ever"));
    }
    Ok(Some(span))
}

fn target(target: Option<v1::LockTarget>) -> Result<Target, FieldError> {
    use v1::lock_target::Target as Said;
    Ok(match required(required(target, "target")?.target, "target")? {
        Said::User(name) => Target::User(name),
        Said::Executor(name) => Target::Executor(name),
        Said::Token(name) => Target::Token(name),
    })
}

/// What is left of a user's `roles` in the `scope` of a token that leaves `grants` of them.
fn left(grants: &Grants<ProjectId>, roles: Vec<Binding>, scope: Option<&[Binding]>) -> Vec<Binding> {
    let Some(scope) = scope else { return roles };
    let named: BTreeMap<&ProjectId, &String> =
        roles.iter().chain(scope).filter_map(|binding| binding.project.as_ref()).map(|(id, name)| (id, name)).collect();
    let binding = |(project, role): (Option<ProjectId>, Role)| match project {
        None => Some(Binding { role, project: None }),
        // One that is not named was removed.
        Some(id) => named.get(&id).map(|name| Binding { role, project: Some((id, (*name).clone())) }),
    };
    grants.roles().into_iter().filter_map(binding).collect()
}

fn shown_binding(binding: Binding) -> v1::RoleBinding {
    v1::RoleBinding {
        role: binding.role.to_string(),
        project: binding.project.map(|(_, name)| name).unwrap_or_default(),
    }
}

fn shown_user(user: User) -> v1::User {
    let locked = user.locked.map(|why| if why.is_empty() { "locked".to_owned() } else { why });
    v1::User {
        name: user.name,
        email: user.email,
        roles: user.roles.into_iter().map(shown_binding).collect(),
        created_at: Some(timestamp(user.created_at)),
        locked: locked.unwrap_or_default(),
    }
}

fn shown_token(token: Token) -> v1::Token {
    v1::Token {
        uuid: token.id.to_string(),
        user: token.user,
        name: token.name,
        scope: token.scope.unwrap_or_default().into_iter().map(shown_binding).collect(),
        created_at: Some(timestamp(token.created_at)),
        expires_at: token.expires_at.map(timestamp),
        last_used_at: token.last_used_at.map(timestamp),
        last_used_from: token.last_used_from,
        revoked_at: token.revoked_at.map(timestamp),
    }
}

fn shown_lock(lock: Lock) -> v1::LockEntry {
    use v1::lock_target::Target as Said;
    let target = match (lock.user_name, lock.executor_name, lock.token_id) {
        (Some(user), _, _) => Some(Said::User(user)),
        (None, Some(executor), _) => Some(Said::Executor(executor)),
        (None, None, token) => token.map(|token| Said::Token(token.to_string())),
    };
    v1::LockEntry {
        uuid: lock.id.to_string(),
        target: Some(v1::LockTarget { target }),
        reason: lock.reason,
        by: lock.locked_by,
        created_at: Some(timestamp(lock.created_at)),
        expires_at: lock.expires_at.map(timestamp),
    }
}
