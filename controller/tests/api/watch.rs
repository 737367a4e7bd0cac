//! One task, followed by somebody who does not read.

use sculpt_proto::v1;

use super::{command, create, fresh};
use crate::harness;

/// Changes that the client misses.
const CHANGES: u64 = 60;

/// What may be on its way to a client that reads nothing: one message in its window, one that was encoded, one at hand.
const UNDER_WAY: usize = 3;

#[tokio::test]
async fn a_client_that_does_not_read_costs_a_few_messages_and_then_sees_what_is_newest() {
    let stack = harness::stack().await;
    // Each message holds the whole spec, far more than the client's window.
    let long = "x".repeat(100 << 10);
    let words: Vec<&str> = std::iter::once("true").chain((0..8).map(|_| long.as_str())).collect();
    let made = stack.tasks().create_task(create(command(&words))).await.expect("it is made").into_inner();
    let task = made.task.expect("a task");

    let channel = stack.narrow(65_535).await;
    let mut slow = v1::tasks_client::TasksClient::new(channel);
    let mut followed =
        slow.watch_task(v1::WatchTaskRequest { task: task.uuid.clone() }).await.expect("a stream").into_inner();

    let mut tasks = stack.tasks();
    for _ in 0..CHANGES / 2 {
        let stop = v1::StopTaskRequest { request_id: fresh(), task: task.uuid.clone(), ..Default::default() };
        tasks.stop_task(stop).await.expect("it is stopped");
        let retry = v1::RetryTaskRequest { request_id: fresh(), task: task.uuid.clone(), ..Default::default() };
        tasks.retry_task(retry).await.expect("it is queued again");
    }
    let mut messages = 0;
    loop {
        let seen = followed.message().await.expect("a message").expect("it goes on").task.expect("a task");
        messages += 1;
        if seen.revision == task.revision + CHANGES {
            break;
        }
    }
    assert!(messages <= UNDER_WAY + 1, "{messages} messages were kept for a client that read none of them");
    stack.stop().await;
}
