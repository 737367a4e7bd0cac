//! What tasks are for and how far they have come.

use sculpt_proto::v1;
use tonic::Code;

use super::{command, create, fresh};
use crate::harness::{self, Stack};

async fn say(stack: &Stack, request: v1::DescribeTaskRequest) -> Result<v1::Task, Code> {
    let answer = stack.tasks().describe_task(request).await;
    answer.map(|answer| answer.into_inner().task.expect("a task")).map_err(|status| status.code())
}

fn words(intent: Option<&str>, milestone: &str) -> v1::DescribeTaskRequest {
    let intent = intent.map(str::to_owned);
    v1::DescribeTaskRequest { request_id: fresh(), task: "1".to_owned(), intent, milestone: milestone.to_owned() }
}

#[tokio::test]
async fn a_task_is_for_what_was_said_last() {
    let stack = harness::stack().await;
    let spec = v1::TaskSpec { title: "Title".to_owned(), ..command(&["true"]) };
    let made = stack.tasks().create_task(create(spec.clone())).await.expect("it is made").into_inner().task;
    assert_eq!(made.expect("a task").intent_line, "Title");
    let spec = v1::TaskSpec { intent: " ship it ".to_owned(), ..spec };
    let made = stack.tasks().create_task(create(spec)).await.expect("it is made").into_inner().task;
    assert_eq!(made.expect("a task").intent_line, "ship it");
    assert_eq!(say(&stack, words(Some("learn"), "")).await.expect("said").intent_line, "learn");
    let listed = stack.tasks().list_tasks(v1::ListTasksRequest::default()).await.expect("a list").into_inner();
    let lines: Vec<_> = listed.tasks.iter().map(|task| task.intent_line.as_str()).collect();
    assert_eq!(lines, ["ship it", "learn"]);
    assert_eq!(say(&stack, words(Some(""), "")).await.expect("said").intent_line, "Title");
    let long = v1::TaskSpec { intent: "x".repeat(201), ..command(&["true"]) };
    assert_eq!(stack.tasks().create_task(create(long)).await.expect_err("too long").code(), Code::InvalidArgument);
    stack.stop().await;
}

#[tokio::test]
async fn milestones_have_the_name_of_who_said_them_and_are_said_once() {
    let stack = harness::stack().await;
    let made = stack.tasks().create_task(create(command(&["true"]))).await.expect("it is made").into_inner().task;
    let request = words(None, "half of it");
    for _ in 0..2 {
        let task = say(&stack, request.clone()).await.expect("said");
        let said: Vec<_> = task.milestones.iter().map(|one| (one.text.as_str(), one.attempt)).collect();
        assert_eq!(said, [("half of it", 0)]);
        let one = &task.milestones[0];
        assert!(one.time.is_some() && Some(&one.user) == made.as_ref().map(|made| &made.created_by), "{one:?}");
        assert_eq!(Some(task.revision), made.as_ref().map(|made| made.revision));
    }
    let other = v1::DescribeTaskRequest { milestone: "all of it".to_owned(), ..request };
    assert_eq!(say(&stack, other).await, Err(Code::AlreadyExists));
    assert_eq!(say(&stack, words(None, " ")).await, Err(Code::InvalidArgument));
    let absent = v1::DescribeTaskRequest { task: "9".to_owned(), ..words(None, "x") };
    assert_eq!(say(&stack, absent).await, Err(Code::NotFound));
    stack.stop().await;
}
