//! Tasks.

use prost::Message as _;
use sculpt_controller::store::sessions::{self, Introduction};
use sculpt_proto::v1;
use tonic::{Code, Status};

use super::{command, create, fresh, prompt};
use crate::{
    harness::{self, Stack},
    make,
};

async fn made(stack: &Stack, spec: v1::TaskSpec) -> v1::Task {
    let response = stack.tasks().create_task(create(spec)).await.expect("it is made");
    response.into_inner().task.expect("a task")
}

async fn refused(stack: &Stack, spec: v1::TaskSpec) -> Status {
    stack.tasks().create_task(create(spec)).await.expect_err("it is refused")
}

async fn list(stack: &Stack, request: v1::ListTasksRequest) -> v1::ListTasksResponse {
    stack.tasks().list_tasks(request).await.expect("a list").into_inner()
}

fn stop(task: &str) -> v1::StopTaskRequest {
    v1::StopTaskRequest { request_id: fresh(), task: task.to_owned(), ..v1::StopTaskRequest::default() }
}

/// An executor that has connected, as far as the database knows.
async fn executor(stack: &Stack, name: &str) {
    let who = Introduction {
        labels: [("arch".to_owned(), "amd64".to_owned())].into(),
        agents: vec!["robot".to_owned(), "cat".to_owned()],
        ..make::introduction(name, 2)
    };
    let mut conn = stack.store().read().await.expect("a connection");
    sessions::open(&mut conn, &who).await.expect("it is enrolled");
}

#[tokio::test]
async fn one_request_id_makes_one_task() {
    let stack = harness::stack().await;
    let mut spec = command(&["true"]);
    spec.labels = (0..20).map(|n| (format!("key-{n}"), n.to_string())).collect();
    let request = create(spec);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut tasks, request) = (stack.tasks(), request.clone());
        all.spawn(async move {
            tasks.create_task(request).await.expect("it is made").into_inner().task.expect("a task").number
        });
    }
    let numbers = all.join_all().await;
    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
    assert_eq!(list(&stack, v1::ListTasksRequest::default()).await.tasks.len(), 1);

    let other = v1::CreateTaskRequest { spec: Some(command(&["false"])), ..request.clone() };
    let error = stack.tasks().create_task(other).await.expect_err("other content");
    assert_eq!(error.code(), Code::AlreadyExists, "{error}");
    let error = stack.tasks().create_task(v1::CreateTaskRequest { request_id: String::new(), ..request }).await;
    assert_eq!(error.expect_err("no id").code(), Code::InvalidArgument);
    assert_eq!(list(&stack, v1::ListTasksRequest::default()).await.tasks.len(), 1);
    stack.stop().await;
}

#[tokio::test]
async fn a_task_is_shown_as_it_was_asked_for() {
    let stack = harness::stack().await;
    let task = made(&stack, v1::TaskSpec { tty: true, priority: 7, ..prompt("Fix the\nbuild") }).await;
    assert_eq!((task.number, task.revision, task.state()), (1, 1, v1::TaskState::Queued));
    assert_eq!((task.title.as_str(), task.branch.as_str()), ("Fix the", ""));
    let waiting = task.waiting.expect("it waits");
    assert_eq!(waiting.reason(), v1::waiting::Reason::NoExecutor);
    let spec = task.spec.expect("a spec");
    assert!(spec.tty && spec.priority == 7 && spec.pool == "default");
    assert_eq!(spec.work, prompt("Fix the\nbuild").work);
    stack.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_and_through_filters() {
    let stack = harness::stack().await;
    for number in 1..=5 {
        let labels = [("odd".to_owned(), (number % 2).to_string())].into();
        made(&stack, v1::TaskSpec { labels, ..command(&["echo", &number.to_string()]) }).await;
    }
    stack.tasks().stop_task(stop("2")).await.expect("it is stopped");
    let mut request = v1::ListTasksRequest { page_size: 2, ..v1::ListTasksRequest::default() };
    let mut pages = Vec::new();
    loop {
        let page = list(&stack, request.clone()).await;
        pages.push(page.tasks.iter().map(|task| task.number).collect::<Vec<_>>());
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages, [vec![5, 4], vec![3, 2], vec![1]]);

    let numbers = |page: v1::ListTasksResponse| page.tasks.iter().map(|task| task.number).collect::<Vec<_>>();
    let odd = v1::ListTasksRequest { labels: [("odd".to_owned(), "1".to_owned())].into(), ..Default::default() };
    assert_eq!(numbers(list(&stack, odd).await), [5, 3, 1]);
    let states = vec![v1::TaskState::Cancelled.into(), v1::TaskState::Failed.into()];
    assert_eq!(numbers(list(&stack, v1::ListTasksRequest { states, ..Default::default() }).await), [2]);
    let nobody = v1::ListTasksRequest { created_by: "nobody at all".to_owned(), ..Default::default() };
    assert!(list(&stack, nobody).await.tasks.is_empty());

    for request in [
        v1::ListTasksRequest { page_token: "nonsense!".to_owned(), ..Default::default() },
        v1::ListTasksRequest { states: vec![0], ..Default::default() },
        v1::ListTasksRequest { states: vec![99], ..Default::default() },
    ] {
        assert_eq!(stack.tasks().list_tasks(request).await.expect_err("refused").code(), Code::InvalidArgument);
    }
    let unknown = v1::ListTasksRequest { project: "nowhere".to_owned(), ..Default::default() };
    assert_eq!(stack.tasks().list_tasks(unknown).await.expect_err("refused").code(), Code::NotFound);
    stack.stop().await;
}

#[tokio::test]
async fn a_page_of_large_tasks_stays_below_the_message_limit() {
    let stack = harness::stack().await;
    let long = "x".repeat(sculpt_proto::MAX_PROMPT);
    for _ in 0..6 {
        made(&stack, prompt(&long)).await;
    }
    let page = list(&stack, v1::ListTasksRequest::default()).await;
    assert_eq!(page.tasks.len(), 6);
    let listed = page.tasks[0].spec.as_ref().expect("a spec");
    assert!(page.tasks[0].spec_cut && listed.encoded_len() < 1024, "lists cut long prompts");
    assert!(matches!(&listed.work, Some(v1::task_spec::Work::Prompt(text)) if text.starts_with("xxx")));
    let get = v1::GetTaskRequest { task: "1".to_owned() };
    let whole = stack.tasks().get_task(get).await.expect("a task").into_inner().task.expect("a task");
    assert_eq!(whole.spec.expect("a spec").work, prompt(&long).work);
    stack.stop().await;
}

#[tokio::test]
async fn what_a_list_says_of_a_long_task_is_true() {
    let stack = harness::stack().await;
    let script = "echo 1; ".repeat(1_000);
    made(&stack, v1::TaskSpec { tty: true, priority: 3, ..command(&["sh", "-c", &script]) }).await;
    made(&stack, v1::TaskSpec { agent: "robot".to_owned(), tty: true, ..prompt(&script) }).await;
    made(&stack, v1::TaskSpec { tty: true, ..command(&["true"]) }).await;
    let page = list(&stack, v1::ListTasksRequest::default()).await;
    let [short, prompted, commanded] = page.tasks.try_into().expect("three tasks");
    assert!(!short.spec_cut && prompted.spec_cut && commanded.spec_cut);
    let specs = [short, prompted, commanded].map(|task| task.spec.expect("a spec"));
    assert!(specs.iter().all(|spec| spec.tty));
    let [short, prompted, commanded] = specs;
    assert_eq!(short.work, command(&["true"]).work);
    assert!(prompted.agent == "robot" && matches!(prompted.work, Some(v1::task_spec::Work::Prompt(_))));
    let Some(v1::task_spec::Work::Command(command)) = commanded.work else { panic!("a command") };
    assert_eq!(command.argv[..2], [b"sh".to_vec(), b"-c".to_vec()]);
    assert_eq!(commanded.priority, 3);
    stack.stop().await;
}

#[tokio::test]
async fn a_task_is_found_by_number_uuid_and_unique_prefix() {
    let stack = harness::stack().await;
    let first = made(&stack, command(&["true"])).await;
    let find = |name: String| {
        let mut tasks = stack.tasks();
        async move {
            tasks
                .get_task(v1::GetTaskRequest { task: name })
                .await
                .map(|found| found.into_inner().task.expect("a task").number)
        }
    };
    for name in ["1".to_owned(), first.uuid.clone(), first.uuid[..13].to_owned(), first.uuid[..4].to_owned()] {
        assert_eq!(find(name.clone()).await.expect("it is found"), 1, "{name}");
    }
    // Made in the same millisecond or not, they share the first digits of the time.
    made(&stack, command(&["true"])).await;
    let error = find(first.uuid[..4].to_owned()).await.expect_err("two");
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains('2'), "{error}");
    assert_eq!(find("99".to_owned()).await.expect_err("none").code(), Code::NotFound);
    assert_eq!(find(fresh()).await.expect_err("none").code(), Code::NotFound);
    assert_eq!(find("9".repeat(38)).await.expect_err("none").code(), Code::NotFound);
    for name in ["", "abc", "not a task"] {
        assert_eq!(find(name.to_owned()).await.expect_err("no name").code(), Code::NotFound, "{name:?}");
    }
    stack.stop().await;
}

#[tokio::test]
async fn stop_and_retry_move_a_task_once() {
    let stack = harness::stack().await;
    made(&stack, command(&["true"])).await;
    let wrong = v1::StopTaskRequest { expected_revision: 9, ..stop("1") };
    assert_eq!(stack.tasks().stop_task(wrong).await.expect_err("changed meanwhile").code(), Code::Aborted);
    let request = v1::StopTaskRequest { expected_revision: 1, reason: "no need".to_owned(), ..stop("1") };
    for _ in 0..2 {
        let task = stack.tasks().stop_task(request.clone()).await.expect("once or again").into_inner().task;
        let task = task.expect("a task");
        assert_eq!((task.state(), task.revision), (v1::TaskState::Cancelled, 2));
        assert!(task.ended_at.is_some());
    }
    let error = stack.tasks().stop_task(stop("1")).await.expect_err("it has ended");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let reused = v1::RetryTaskRequest {
        request_id: request.request_id,
        task: "1".to_owned(),
        expected_revision: 0,
        in_workspace: false,
    };
    assert_eq!(stack.tasks().retry_task(reused.clone()).await.expect_err("reused").code(), Code::AlreadyExists);
    let retry = v1::RetryTaskRequest { request_id: fresh(), ..reused };
    let task = stack.tasks().retry_task(retry).await.expect("again").into_inner().task.expect("a task");
    assert_eq!((task.state(), task.revision), (v1::TaskState::Queued, 3));
    stack.stop().await;
}

#[tokio::test]
async fn a_follower_sees_each_revision_and_the_end_of_the_controller() {
    let stack = harness::stack().await;
    made(&stack, command(&["true"])).await;
    let watch = v1::WatchTaskRequest { task: "1".to_owned() };
    let mut follower = stack.tasks().watch_task(watch).await.expect("a stream").into_inner();
    let next =
        |message: Option<v1::WatchTaskResponse>| message.and_then(|message| message.task).expect("a task").state();
    assert_eq!(next(follower.message().await.expect("a message")), v1::TaskState::Queued);
    stack.tasks().stop_task(stop("1")).await.expect("it is stopped");
    assert_eq!(next(follower.message().await.expect("a message")), v1::TaskState::Cancelled);
    stack.stop().await;
    assert_eq!(follower.message().await.expect_err("it ends").code(), Code::Unavailable);
}

#[tokio::test]
async fn what_no_executor_has_is_refused_once_there_are_executors() {
    let stack = harness::stack().await;
    let early = made(&stack, v1::TaskSpec { agent: "unheard-of".to_owned(), ..prompt("x") }).await;
    assert_eq!(early.state(), v1::TaskState::Queued, "who knows what will connect");
    executor(&stack, "one").await;
    let named = refused(&stack, v1::TaskSpec { agent: "unheard-of".to_owned(), ..prompt("x") }).await;
    assert_eq!(named.code(), Code::InvalidArgument);
    assert!(named.message().contains("cat, robot"), "{named}");
    let none = refused(&stack, prompt("x")).await;
    assert!(none.code() == Code::InvalidArgument && none.message().contains("cat, robot"), "{none}");
    let pool = refused(&stack, v1::TaskSpec { pool: "gpu".to_owned(), ..command(&["true"]) }).await;
    assert!(pool.code() == Code::InvalidArgument && pool.message().contains("there are: default"), "{pool}");
    made(&stack, v1::TaskSpec { agent: "robot".to_owned(), ..prompt("x") }).await;

    let requirements = [("arch".to_owned(), "riscv".to_owned())].into();
    let waits = made(&stack, v1::TaskSpec { requirements, ..command(&["true"]) }).await.waiting.expect("it waits");
    assert_eq!(waits.reason(), v1::waiting::Reason::NoMatchingLabels);
    assert!(waits.text.contains("arch=riscv"), "{}", waits.text);

    let all =
        stack.executors().list_executors(v1::ListExecutorsRequest {}).await.expect("a list").into_inner().executors;
    assert_eq!((all.len(), all[0].slots, all[0].slots_used), (1, 2, 0));
    let get = |name: &str| v1::GetExecutorRequest { executor: name.to_owned() };
    for name in ["one", &all[0].uuid, &all[0].uuid[..8]] {
        assert!(stack.executors().get_executor(get(name)).await.is_ok(), "{name}");
    }
    assert_eq!(stack.executors().get_executor(get("two")).await.expect_err("none").code(), Code::NotFound);
    stack.stop().await;
}
