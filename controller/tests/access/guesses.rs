//! Who shows nothing good, again and again, waits; who is known does not.

use sculpt_proto::{
    executor::v1::{JoinRequest, enrolment_client::EnrolmentClient},
    v1::{self, identity_client::IdentityClient},
};
use sculpt_tls::{Key, Kind, Token};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Status};
use uuid::Uuid;

use super::World;
use crate::harness;

/// More than an address has.
const MANY: usize = 2000;

/// What ends a run of calls that are wrong, and how many there were.
async fn exhausted(mut call: impl AsyncFnMut() -> Status) -> (usize, Status) {
    for n in 0..MANY {
        let status = call().await;
        if status.code() == Code::ResourceExhausted {
            return (n, status);
        }
    }
    panic!("nobody stops it");
}

#[tokio::test]
async fn who_guesses_waits_and_who_is_known_does_not() {
    let world = World::new().await;
    let ben = world.user("ben", &[]).await;
    let ask = async |token: &str| {
        IdentityClient::new(world.stack.showing(token)).who_am_i(v1::WhoAmIRequest {}).await.map(drop)
    };
    ask(&ben).await.expect("it is known");
    let guess = async || {
        let status = ask(&Token::fresh(Kind::User, None).reveal()).await.expect_err("nobody has it");
        assert!(matches!(status.code(), Code::Unauthenticated | Code::ResourceExhausted), "{status}");
        status
    };
    let (before, status) = exhausted(guess).await;
    assert!(before >= 100, "a few mistakes are borne: {before}");
    let wait: u64 = status.metadata().get("retry-after").expect("how long").to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "nobody is locked out for good: {wait} s");
    assert!(status.message().contains("try again in"), "{status}");
    for _ in 0..100 {
        ask(&ben).await.expect("who was let in from there is let in");
    }

    let head = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", world.stack.address());
    let said = loop {
        let (mut stream, mut said) = (world.stack.raw().await, String::new());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.read_to_string(&mut said).await.unwrap();
        // The next place may be there before the call is.
        if !said.starts_with("HTTP/1.1 401") {
            break said;
        }
    };
    assert!(said.starts_with("HTTP/1.1 429"), "{said}");
    assert!(said.to_lowercase().contains("retry-after: "), "{said}");
    world.stack.stop().await;
}

#[tokio::test]
async fn join_tokens_are_not_guessed_either() {
    let world = World::new().await;
    let hello = crate::sessions::executor::hello("one");
    let enrolled = world.stack.enrol(&hello).await;
    let request = Key::fresh().unwrap().request().unwrap().to_vec();
    let stranger = EnrolmentClient::new(world.stack.stranger().await);
    let guess = async || {
        let join = JoinRequest {
            token: Token::fresh(Kind::Join, None).reveal(),
            certificate_request: request.clone(),
            join_id: Uuid::new_v4().to_string(),
            executor_id: Uuid::new_v4().to_string(),
            name: "eve".into(),
            ..JoinRequest::default()
        };
        stranger.clone().join(join).await.expect_err("nobody has it")
    };
    exhausted(guess).await;
    let channel = world.stack.executor_channel(&enrolled).await;
    let client = sculpt_proto::executor::v1::executor_service_client::ExecutorServiceClient::new(channel);
    let mut scripted = crate::sessions::executor::Scripted::over(client, hello).await;
    scripted.welcomed().await;
    world.stack.stop().await;
}

#[tokio::test]
async fn who_calls_the_others_listener_again_and_again_waits() {
    let world = World::new().await;
    let astray = async || {
        let status =
            EnrolmentClient::new(world.stack.channel()).join(JoinRequest::default()).await.expect_err("astray");
        assert!(matches!(status.code(), Code::Unimplemented | Code::ResourceExhausted), "{status}");
        status
    };
    let (before, status) = exhausted(astray).await;
    assert!(before >= 100, "a few mistakes are borne: {before}");
    assert!(status.message().contains("try again in"), "{status}");
    let ask = || async {
        let answer = IdentityClient::new(world.stack.stranger().await).who_am_i(v1::WhoAmIRequest {}).await;
        answer.map(drop).expect_err("executors call there")
    };
    exhausted(ask).await;
    world.stack.stop().await;
}

#[tokio::test]
async fn a_flood_of_guesses_leaves_the_database_to_others() {
    let world = World::new().await;
    let ben = world.user("ben", &[]).await;
    let ask = |token: String| {
        let mut client = IdentityClient::new(world.stack.showing(&token));
        async move { client.who_am_i(v1::WhoAmIRequest {}).await.map(drop) }
    };
    ask(ben.clone()).await.expect("it is known");
    // The database answers nobody who asks for a token.
    let mut slow = world.stack.store().read().await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE").execute(&mut *slow).await.unwrap();
    let mut guesses = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        guesses.spawn(ask(Token::fresh(Kind::User, None).reveal()));
    }
    harness::until_waiting(world.stack.store(), 8, || false).await;
    for _ in 0..10 {
        world.stack.store().cluster().await.expect("it has connections left");
    }
    sqlx::raw_sql("COMMIT").execute(&mut *slow).await.unwrap();
    for _ in 0..100 {
        ask(ben.clone()).await.expect("who is known is let in");
    }
    while let Some(guessed) = guesses.join_next().await {
        let status = guessed.unwrap().expect_err("nobody has it");
        assert!(matches!(status.code(), Code::Unauthenticated | Code::ResourceExhausted), "{status}");
    }
    world.stack.stop().await;
}
