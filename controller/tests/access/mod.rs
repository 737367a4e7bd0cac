//! Who may do what, over a real controller; and what is kept of who they are.

mod actions;
mod audit;
mod cut;
mod described;
mod enrolment;
mod guesses;
mod guests;
mod machines;
mod pairings;
mod pools;
mod recognised;
mod rules;
mod separation;
mod standing;
mod tokens;
mod tunnels;
mod visible;
mod written;

use sculpt_controller::{
    access::Caller,
    config::Config,
    store::{
        Store,
        projects::{Project, Wish},
        requests::Request,
        roles,
        tokens::{For, NewToken},
        users::NewUser,
    },
};
use sculpt_core::rights::Role;
use sculpt_proto::id::RequestId;
use sculpt_tls::{Kind, Token};
use sqlx::Connection as _;

use crate::harness::{self, Stack};

/// A controller with two projects, and an admin to make more.
struct World {
    stack: Stack,
    ada: Caller,
    /// Of the project `web`.
    web: Project,
    /// Of the project `ops`.
    ops: Project,
}

/// Lets `first` wait for what `gate` holds, then `second`, and both go on in this order.
async fn in_order<A: Send + 'static, B: Send + 'static>(
    store: &Store,
    gate: &'static str,
    first: impl Future<Output = A> + Send + 'static,
    second: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    let mut conn = store.read().await.unwrap();
    let mut held = conn.begin().await.unwrap();
    sqlx::query(gate).execute(&mut *held).await.unwrap();
    let first = tokio::spawn(first);
    harness::until_waiting(store, 1, || first.is_finished()).await;
    assert!(!first.is_finished(), "the first waits for nobody");
    let second = tokio::spawn(second);
    harness::until_waiting(store, 2, || second.is_finished()).await;
    assert!(!first.is_finished() && !second.is_finished(), "the second waits for nobody");
    held.commit().await.unwrap();
    (first.await.unwrap(), second.await.unwrap())
}

/// A wished change that nobody wished before.
fn request() -> Request {
    Request { id: RequestId::fresh(), method: "Test", digest: [0; 32] }
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with other settings.
    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let stack = harness::stack_with(change).await;
        let ada = harness::admin(stack.store()).await;
        let web = project(&stack, &ada, "web", 'a').await;
        let ops = project(&stack, &ada, "ops", 'b').await;
        Self { stack, ada, web, ops }
    }

    /// A user of this name who is this in this project, or everywhere; the token that they show.
    async fn user(&self, name: &str, roles: &[(Role, Option<&str>)]) -> String {
        let wish =
            |(role, project): &(Role, Option<&str>)| roles::Wish { role: *role, project: project.map(Into::into) };
        let roles = roles.iter().map(wish).collect();
        let new = NewUser { name: name.into(), email: String::new(), roles };
        self.stack.store().add_user(self.ada.may().unwrap(), request(), new).await.unwrap();
        self.token(name, &[]).await
    }

    /// Another token of a user, limited to these.
    async fn token(&self, name: &str, scope: &[(Role, Option<&str>)]) -> String {
        let token = Token::fresh(Kind::User, None);
        let wish =
            |(role, project): &(Role, Option<&str>)| roles::Wish { role: *role, project: project.map(Into::into) };
        let scope = scope.iter().map(wish).collect();
        let new = NewToken { digest: token.secret.digest(), name: "test".into(), scope, ttl: None };
        let whom = For::User(self.ada.may().unwrap(), name.into());
        self.stack.store().create_token(whom, request(), new).await.unwrap();
        token.reveal()
    }
}

async fn project(stack: &Stack, ada: &Caller, name: &str, letter: char) -> Project {
    let wish = Wish {
        name: name.into(),
        exact_name: true,
        root_commit: letter.to_string().repeat(40),
        remote: String::new(),
        default_agent: None,
        commit_changes: None,
        record_typing: None,
    };
    stack.store().ensure_project(ada.clone(), request(), wish).await.unwrap().0
}
