//! The scripted controller's users, tokens and locks: it keeps what it was told.

use std::sync::{Mutex, MutexGuard};

use sculpt_proto::v1::{identity_server::Identity, system_server::System, *};
use tonic::{Request, Response, Status};

use crate::controller::{Answer, Script};

/// What was made by those who called.
#[derive(Default)]
pub(crate) struct Book {
    inner: Mutex<Pages>,
}

#[derive(Default)]
pub(crate) struct Pages {
    pub(crate) users: Vec<User>,
    pub(crate) tokens: Vec<CreateTokenRequest>,
    pub(crate) revoked: Vec<String>,
    pub(crate) locks: Vec<LockEntry>,
    pub(crate) executors: Vec<Executor>,
    pub(crate) join_tokens: Vec<CreateJoinTokenRequest>,
    pub(crate) pools: Vec<Pool>,
}

impl Book {
    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.inner.lock().unwrap()
    }

    fn user(&self, name: &str, change: impl FnOnce(&mut User)) -> Result<User, Status> {
        let mut pages = self.pages();
        let user = pages.users.iter_mut().find(|user| user.name == name);
        let user = user.ok_or_else(|| Status::not_found(format!("There is no user {name}.")))?;
        change(user);
        Ok(user.clone())
    }
}

pub(crate) const TOKEN: &str = "0198c0de-0000-7000-8000-0000000000c0";

pub(crate) fn soon() -> Option<prost_types::Timestamp> {
    let at = std::time::SystemTime::now() + std::time::Duration::from_secs(30 * 24 * 3_600 - 60);
    Some(at.into())
}

fn role(role: &str, project: &str) -> RoleBinding {
    RoleBinding { role: role.to_owned(), project: project.to_owned() }
}

fn shown(request: &CreateTokenRequest, uuid: &str) -> Token {
    Token {
        uuid: uuid.to_owned(),
        user: if request.user.is_empty() { "ada".to_owned() } else { request.user.clone() },
        name: request.name.clone(),
        scope: request.scope.clone(),
        expires_at: request.ttl.and_then(|_| soon()),
        ..Token::default()
    }
}

#[tonic::async_trait]
impl System for Script {
    async fn get_info(&self, _: Request<GetInfoRequest>) -> Answer<GetInfoResponse> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(GetInfoResponse { version, user: "ada".into(), ..GetInfoResponse::default() }))
    }
}

#[tonic::async_trait]
impl Identity for Script {
    async fn who_am_i(&self, _: Request<WhoAmIRequest>) -> Answer<WhoAmIResponse> {
        let ada = User { name: "ada".into(), roles: vec![role("admin", "")], ..User::default() };
        let token = Token { uuid: TOKEN.into(), user: "ada".into(), expires_at: soon(), ..Token::default() };
        Ok(Response::new(WhoAmIResponse {
            user: Some(ada),
            token: Some(token),
            roles: vec![role("operator", "website"), role("viewer", "")],
            cluster_id: "0198c0de-0000-7000-8000-00000000000c".into(),
            trust: self.trust.lock().unwrap().clone(),
            public: *self.public.lock().unwrap(),
        }))
    }

    async fn add_user(&self, request: Request<AddUserRequest>) -> Answer<AddUserResponse> {
        let AddUserRequest { name, email, roles, .. } = request.into_inner();
        let user = User { name, email, roles, created_at: soon(), ..User::default() };
        self.book.pages().users.push(user.clone());
        Ok(Response::new(AddUserResponse { user: Some(user) }))
    }

    async fn list_users(&self, _: Request<ListUsersRequest>) -> Answer<ListUsersResponse> {
        Ok(Response::new(ListUsersResponse { users: self.book.pages().users.clone() }))
    }

    async fn remove_user(&self, request: Request<RemoveUserRequest>) -> Answer<RemoveUserResponse> {
        let name = request.into_inner().name;
        let user = self.book.user(&name, |_| {})?;
        self.book.pages().users.retain(|user| user.name != name);
        Ok(Response::new(RemoveUserResponse { user: Some(user) }))
    }

    async fn grant_role(&self, request: Request<GrantRoleRequest>) -> Answer<GrantRoleResponse> {
        let GrantRoleRequest { user, role, .. } = request.into_inner();
        let user = self.book.user(&user, |user| user.roles.extend(role))?;
        Ok(Response::new(GrantRoleResponse { user: Some(user) }))
    }

    async fn revoke_role(&self, request: Request<RevokeRoleRequest>) -> Answer<RevokeRoleResponse> {
        let RevokeRoleRequest { user, role, .. } = request.into_inner();
        let user = self.book.user(&user, |user| user.roles.retain(|held| Some(held) != role.as_ref()))?;
        Ok(Response::new(RevokeRoleResponse { user: Some(user) }))
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Answer<CreateTokenResponse> {
        let request = request.into_inner();
        let token = shown(&request, TOKEN);
        self.book.pages().tokens.push(request);
        Ok(Response::new(CreateTokenResponse { token: Some(token), secret: self.token.clone() }))
    }

    async fn list_tokens(&self, _: Request<ListTokensRequest>) -> Answer<ListTokensResponse> {
        let tokens = self.book.pages().tokens.iter().map(|request| shown(request, TOKEN)).collect();
        Ok(Response::new(ListTokensResponse { tokens }))
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Answer<RevokeTokenResponse> {
        let token = request.into_inner().token;
        self.book.pages().revoked.push(token.clone());
        let token = shown(&CreateTokenRequest::default(), &token);
        Ok(Response::new(RevokeTokenResponse { token: Some(token) }))
    }

    async fn lock(&self, request: Request<LockRequest>) -> Answer<LockResponse> {
        let LockRequest { target, reason, ttl, .. } = request.into_inner();
        let expires_at = ttl.and_then(|_| soon());
        let lock = LockEntry { target, reason, by: "ada".into(), expires_at, ..LockEntry::default() };
        self.book.pages().locks.push(lock.clone());
        Ok(Response::new(LockResponse { lock: Some(lock) }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Answer<UnlockResponse> {
        let target = request.into_inner().target;
        let (lifted, left) = self.book.pages().locks.drain(..).partition(|lock| lock.target == target);
        self.book.pages().locks = left;
        Ok(Response::new(UnlockResponse { locks: lifted }))
    }

    async fn list_locks(&self, _: Request<ListLocksRequest>) -> Answer<ListLocksResponse> {
        Ok(Response::new(ListLocksResponse { locks: self.book.pages().locks.clone() }))
    }
}
