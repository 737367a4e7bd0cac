//! Who may call, and what a refusal looks like.

use sculpt_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::harness::{self, Stack};

#[tokio::test]
async fn no_call_passes_without_the_token() {
    let stack = harness::stack().await;
    let list = || v1::ListTasksRequest::default();
    let mut bare = v1::tasks_client::TasksClient::new(stack.channel());
    let error = bare.list_tasks(list()).await.expect_err("no token");
    assert!(error.code() == Code::Unauthenticated && error.message().contains("sculpt_user_"), "{error}");
    let mut wrong = Request::new(list());
    wrong.metadata_mut().insert("authorization", "Bearer wrong".parse().expect("a value"));
    assert_eq!(bare.list_tasks(wrong).await.expect_err("wrong token").code(), Code::Unauthenticated);
    let mut basic = Request::new(list());
    basic.metadata_mut().insert("authorization", "Basic Z2l0Ong=".parse().expect("a value"));
    assert_eq!(bare.list_tasks(basic).await.expect_err("for git alone").code(), Code::Unauthenticated);

    let health = HealthCheckRequest { service: String::new() };
    let refused = HealthClient::new(stack.channel()).check(health.clone()).await.expect_err("no token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    HealthClient::new(stack.authorised()).check(health).await.expect("it is well");

    let mut system = v1::system_client::SystemClient::new(stack.authorised());
    let info = system.get_info(v1::GetInfoRequest {}).await.expect("info").into_inner();
    let names: Vec<_> = info.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["database", "audit record", "disk", "git", "retention"]);
    assert!(info.checks[0].ok && !info.user.is_empty());
    stack.stop().await;
}

#[tokio::test]
async fn what_a_browser_was_made_to_send_is_refused() {
    let stack = harness::stack().await;
    let host = format!("Host: {}", stack.address());
    let token = format!("Authorization: {}", stack.bearer());
    let foreign = "Origin: http://evil.example";
    assert_eq!(answer(&stack, &[&host]).await, 401);
    assert_eq!(answer(&stack, &[&host, &token]).await, 404, "let through to where nothing is");
    assert_eq!(answer(&stack, &[&host, &token, foreign]).await, 403);
    let own = format!("Origin: https://{}", stack.address());
    assert_eq!(answer(&stack, &[&host, &token, &own]).await, 404, "our own pages may");
    stack.stop().await;
}

/// Status of an answer to a plain HTTP/1.1 request for something that a web page could ask for.
async fn answer(stack: &Stack, headers: &[&str]) -> u16 {
    let mut stream = stack.raw().await;
    let request = format!("GET /nothing HTTP/1.1\r\n{}\r\nConnection: close\r\n\r\n", headers.join("\r\n"));
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("an answer");
    said.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}
