//! The journal, followed from a list.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sculpt_proto::v1::{self, watch_events_response::Part};
use tonic::Code;

use super::{command, create, fresh};
use crate::harness::{self, Stack};

async fn watch(stack: &Stack, request: v1::WatchEventsRequest) -> tonic::Streaming<v1::WatchEventsResponse> {
    stack.events().watch_events(request).await.expect("a stream").into_inner()
}

async fn make(stack: &Stack) {
    stack.tasks().create_task(create(command(&["true"]))).await.expect("it is made");
}

#[tokio::test]
async fn a_list_and_what_follows_it_miss_nothing() {
    let stack = harness::stack().await;
    make(&stack).await;
    let list = stack.tasks().list_tasks(v1::ListTasksRequest::default()).await.expect("a list").into_inner();
    let from = v1::WatchEventsRequest { cursor: list.cursor.clone(), follow: true, ..Default::default() };
    let mut events = watch(&stack, from).await;
    let first = events.message().await.expect("a message").and_then(|message| message.part);
    assert_eq!(first, Some(Part::Cursor(list.cursor)), "nothing has happened since");
    make(&stack).await;
    let stop = v1::StopTaskRequest { request_id: fresh(), task: "2".to_owned(), ..Default::default() };
    let stop = v1::StopTaskRequest { reason: "enough".to_owned(), ..stop };
    stack.tasks().stop_task(stop).await.expect("it is stopped");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match events.message().await.expect("a message").and_then(|message| message.part) {
            Some(Part::Event(event)) => seen.push(event),
            Some(Part::Cursor(_)) => {}
            None => panic!("the stream has ended"),
        }
    }
    assert_eq!((seen[0].kind.as_str(), seen[0].task, seen[0].state.as_str()), ("task.created", 2, "queued"));
    assert_eq!((seen[1].kind.as_str(), seen[1].state.as_str(), seen[1].revision), ("task.stop", "cancelled", 2));
    assert!(seen[1].data.contains("enough") && !seen[1].actor.is_empty());

    let again = v1::WatchEventsRequest { cursor: seen[0].cursor.clone(), ..Default::default() };
    let mut events = watch(&stack, again).await;
    let next = events.message().await.expect("a message").and_then(|message| message.part);
    assert_eq!(next, Some(Part::Event(seen[1].clone())), "after the first comes the second");
    let end = events.message().await.expect("a message").and_then(|message| message.part);
    assert_eq!(end, Some(Part::Cursor(seen[1].cursor.clone())));
    assert_eq!(events.message().await.expect("the end"), None, "without `follow` that is all");
    stack.stop().await;
}

#[tokio::test]
async fn one_task_can_be_followed_alone() {
    let stack = harness::stack().await;
    for _ in 0..3 {
        make(&stack).await;
    }
    let mut events = watch(&stack, v1::WatchEventsRequest { task: "2".to_owned(), ..Default::default() }).await;
    let mut tasks = Vec::new();
    while let Some(message) = events.message().await.expect("a message") {
        if let Some(Part::Event(event)) = message.part {
            tasks.push(event.task);
        }
    }
    assert_eq!(tasks, [2]);
    let unknown = v1::WatchEventsRequest { task: "9".to_owned(), ..Default::default() };
    assert_eq!(stack.events().watch_events(unknown).await.expect_err("none").code(), Code::NotFound);
    stack.stop().await;
}

#[tokio::test]
async fn a_cursor_that_is_of_no_use_is_refused() {
    let stack = harness::stack().await;
    let foreign = BASE64_URL_SAFE_NO_PAD.encode([&[1][..], &[7; 16], &[0; 8]].concat());
    for (cursor, code) in [(foreign, Code::OutOfRange), ("nonsense".to_owned(), Code::InvalidArgument)] {
        let request = v1::WatchEventsRequest { cursor, ..Default::default() };
        assert_eq!(stack.events().watch_events(request).await.expect_err("refused").code(), code);
    }
    let now = v1::WatchEventsRequest { cursor: "now".to_owned(), ..Default::default() };
    let mut events = watch(&stack, now).await;
    let only = events.message().await.expect("a message").and_then(|message| message.part);
    assert!(matches!(only, Some(Part::Cursor(_))));
    stack.stop().await;
}
