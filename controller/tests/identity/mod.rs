//! Executors by their certificates, over real listeners; and the commands of the controller's host.

mod commands;
mod directory;
mod evicted;
mod known;
mod lapsed;

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt as _, path::Path};

use rcgen::{BasicConstraints, CertificateParams, IsCa};
use sculpt_proto::{
    executor::v1::{Hello, executor_service_client::ExecutorServiceClient},
    id::RequestId,
    v1::{self, identity_client::IdentityClient, lock_target::Target},
};
use sculpt_tls::{Key, private};
use tonic::Status;
use uuid::Uuid;

use crate::{
    harness::{self, Enrolled, Stack},
    sessions::executor::{Scripted, hello},
};

/// A Control connection of an executor.
async fn dial(stack: &Stack, enrolled: &Enrolled, hello: &Hello) -> Scripted {
    let client = ExecutorServiceClient::new(stack.executor_channel(enrolled).await);
    Scripted::over(client, hello.clone()).await
}

/// A controller, and an executor that has joined it.
async fn joined() -> (Stack, Hello, Enrolled) {
    let stack = harness::stack().await;
    let who = hello("one");
    let enrolled = stack.enrol(&who).await;
    (stack, who, enrolled)
}

/// What an executor has after it has renewed its certificate.
async fn renewed(stack: &Stack, enrolled: &Enrolled) -> Enrolled {
    stack.renew(enrolled, Uuid::new_v4()).await.expect("it is renewed")
}

/// What an executor is told whose certificate is not renewed.
async fn unrenewed(stack: &Stack, enrolled: &Enrolled) -> Status {
    stack.renew(enrolled, Uuid::new_v4()).await.err().expect("it is refused")
}

/// The same, welcomed and without attempts.
async fn ready(stack: &Stack, enrolled: &Enrolled, hello: &Hello) -> Scripted {
    let mut executor = dial(stack, enrolled, hello).await;
    executor.welcomed().await;
    executor.observe(vec![]).await;
    assert!(executor.desired().await.full);
    executor
}

fn target(executor: &str) -> Option<v1::LockTarget> {
    Some(v1::LockTarget { target: Some(Target::Executor(executor.into())) })
}

async fn lock(stack: &Stack, executor: &str, reason: &str) {
    let request_id = RequestId::fresh().to_string();
    let request = v1::LockRequest { request_id, target: target(executor), reason: reason.into(), ttl: None };
    IdentityClient::new(stack.authorised()).lock(request).await.expect("it is locked");
}

async fn unlock(stack: &Stack, executor: &str) {
    let request = v1::UnlockRequest { request_id: RequestId::fresh().to_string(), target: target(executor) };
    IdentityClient::new(stack.authorised()).unlock(request).await.expect("it is unlocked");
}

/// The executor as people see it.
async fn shown(stack: &Stack, executor: &str) -> v1::Executor {
    let request = v1::GetExecutorRequest { executor: executor.into() };
    stack.executors().get_executor(request).await.expect("it is there").into_inner().executor.expect("an executor")
}

/// How often the record has this action.
async fn recorded(stack: &Stack, action: &str) -> i64 {
    let sql = "SELECT count(*) FROM audit WHERE action = $1";
    sqlx::query_scalar(sql).bind(action).fetch_one(&mut *stack.store().read().await.unwrap()).await.unwrap()
}

async fn run(stack: &Stack, sql: &'static str) {
    sqlx::query(sql).execute(&mut *stack.store().read().await.unwrap()).await.unwrap();
}

/// Puts an authority into `directory` as it may be given from outside: it certifies the ends of chains alone, and vouches for
/// no other.
fn given(directory: &Path) {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).expect("a directory");
    let key = Key::fresh().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = params.self_signed(key.pair()).expect("a certificate").pem();
    private::write(&directory.join("tls.pem"), &format!("{}{certificate}", key.to_pem())).expect("it is written");
}
