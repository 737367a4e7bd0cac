//! The API as other programs meet it.

use anyhow::{Context as _, Result, ensure};
use sculpt_proto::v1::{
    Command, CreateTaskRequest, ListTasksRequest, StopTaskRequest, TaskSpec, TaskState, task_spec::Work,
};
use sculpt_tests::harness::{Api, Stack, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;
use uuid::Uuid;

fn spec(words: &[&str]) -> TaskSpec {
    let argv = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    TaskSpec { work: Some(Work::Command(Command { argv })), ..TaskSpec::default() }
}

fn create(request_id: &str, words: &[&str]) -> CreateTaskRequest {
    CreateTaskRequest { request_id: request_id.to_owned(), spec: Some(spec(words)) }
}

#[tokio::test]
async fn a_request_id_is_one_wish() -> Result<()> {
    let stack = Stack::up().await?;
    let mut api = stack.api().await?;
    let id = Uuid::new_v4().to_string();
    let first = api.tasks.create_task(create(&id, &["echo", "one"])).await?.into_inner().task.context("a task")?;
    let again = api.tasks.create_task(create(&id, &["echo", "one"])).await?.into_inner().task.context("a task")?;
    ensure!(first.uuid == again.uuid && first.number == again.number, "{first:?} {again:?}");
    let other = api.tasks.create_task(create(&id, &["echo", "two"])).await.err().context("a conflict")?;
    ensure!(other.code() == Code::AlreadyExists, "{other:?}");
    // Ten at once with one id are one task as well.
    let id = Uuid::new_v4().to_string();
    let mut racers = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (mut tasks, id) = (api.tasks.clone(), id.clone());
        racers.spawn(async move { tasks.create_task(create(&id, &["echo", "race"])).await });
    }
    let mut numbers = std::collections::BTreeSet::new();
    while let Some(created) = racers.join_next().await {
        numbers.insert(created??.into_inner().task.context("a task")?.number);
    }
    ensure!(numbers.len() == 1, "{numbers:?}");
    for number in numbers.into_iter().chain([first.number]) {
        stack.done(&number.to_string()).await?;
    }
    stack.finish().await
}

#[tokio::test]
async fn bad_requests_are_answered_with_their_kind() -> Result<()> {
    let stack = Stack::up().await?;
    let mut api = stack.api().await?;
    let id = || Uuid::new_v4().to_string();
    let mut codes = Vec::new();
    let bad = |argv: &[&str], change: fn(&mut TaskSpec)| {
        let mut request = create(&id(), argv);
        request.spec.as_mut().map(change);
        request
    };
    for request in [
        create("not a uuid", &["true"]),
        create(&id(), &[]),
        CreateTaskRequest { request_id: id(), spec: None },
        bad(&["true"], |spec| spec.priority = 5_000),
        bad(&["true"], |spec| spec.subdirectory = b"../up".to_vec()),
        bad(&["true"], |spec| spec.work = Some(Work::Prompt(" \n".to_owned()))),
        bad(&["true"], |spec| spec.work = Some(Work::Prompt("x".repeat((1 << 20) + 1)))),
        bad(&["true"], |spec| spec.work = Some(Work::Command(Command { argv: vec![b"a\0b".to_vec()] }))),
        bad(&["true"], |spec| drop(spec.env.insert("A=B".to_owned(), String::new()))),
        bad(&["true"], |spec| spec.title = "x".repeat(201)),
    ] {
        let short = format!("{request:?}").chars().take(300).collect::<String>();
        let status = api.tasks.create_task(request).await.err().with_context(|| format!("refusal of {short}"))?;
        ensure!(status.code() == Code::InvalidArgument, "{short}: {status:?}");
        codes.push(status.code());
    }
    let unknown = StopTaskRequest { request_id: id(), task: "4711".to_owned(), ..Default::default() };
    ensure!(api.tasks.stop_task(unknown).await.err().map(|status| status.code()) == Some(Code::NotFound));

    let task = api.tasks.create_task(create(&id(), &["true"])).await?.into_inner().task.context("a task")?;
    stack.done(&task.uuid).await?;
    let stop = |expected_revision| StopTaskRequest {
        request_id: id(),
        task: task.uuid.clone(),
        expected_revision,
        ..Default::default()
    };
    let status = api.tasks.stop_task(stop(0)).await.err().context("a refusal")?;
    ensure!(status.code() == Code::FailedPrecondition, "{status:?}");
    stack.finish().await
}

#[tokio::test]
async fn a_revision_that_has_passed_is_refused() -> Result<()> {
    let stack = Stack::up().await?;
    let mut api = stack.api().await?;
    let request = create(&Uuid::new_v4().to_string(), &["sleep", "4242"]);
    let task = api.tasks.create_task(request).await?.into_inner().task.context("a task")?;
    let running = stack.until(&task.uuid, "running", |task| task.state() == TaskState::Running).await?;
    let stop = |expected_revision| StopTaskRequest {
        request_id: Uuid::new_v4().to_string(),
        task: task.uuid.clone(),
        expected_revision,
        ..Default::default()
    };
    let status = api.tasks.stop_task(stop(running.revision + 1000)).await.err().context("a refusal")?;
    ensure!(status.code() == Code::Aborted, "{status:?}");
    api.tasks.stop_task(stop(running.revision)).await?;
    stack.until(&task.uuid, "cancelled", |task| task.state() == TaskState::Cancelled).await?;
    stack.finish().await
}

#[tokio::test]
async fn lists_are_paged_and_filtered() -> Result<()> {
    let stack = Stack::up().await?;
    let mut api = stack.api().await?;
    for number in 0..5 {
        let mut request = create(&Uuid::new_v4().to_string(), &["true"]);
        let parity = if number % 2 == 0 { "even" } else { "odd" };
        request.spec.as_mut().context("a spec")?.labels.insert("parity".to_owned(), parity.to_owned());
        let task = api.tasks.create_task(request).await?.into_inner().task.context("a task")?;
        stack.until(&task.uuid, "completed", |task| task.state() == TaskState::Completed).await?;
    }
    let mut numbers = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTasksRequest { page_size: 2, page_token, ..Default::default() };
        let page = api.tasks.list_tasks(request).await?.into_inner();
        ensure!(page.tasks.len() <= 2, "{} tasks on a page of 2", page.tasks.len());
        numbers.extend(page.tasks.iter().map(|task| task.number));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    ensure!(numbers == [5, 4, 3, 2, 1], "{numbers:?}");
    let labels = [("parity".to_owned(), "odd".to_owned())].into();
    let odd = api.tasks.list_tasks(ListTasksRequest { labels, ..Default::default() }).await?.into_inner().tasks;
    ensure!(odd.iter().map(|task| task.number).eq([4, 2]), "{odd:?}");
    let states = vec![TaskState::Running.into()];
    let none = api.tasks.list_tasks(ListTasksRequest { states, ..Default::default() }).await?.into_inner().tasks;
    ensure!(none.is_empty(), "{none:?}");
    stack.finish().await
}

#[tokio::test]
async fn without_the_token_nothing_answers() -> Result<()> {
    let stack = Stack::up().await?;
    // What lets a machine join opens the executors' door alone.
    for token in ["", "wrong", &stack.join_token("default").await?] {
        let mut api = Api::dial(stack.url()?, stack.trust()?, token)?;
        let status = api.tasks.list_tasks(ListTasksRequest::default()).await.err().context("a refusal")?;
        ensure!(status.code() == Code::Unauthenticated, "{token:?}: {status:?}");
    }
    stack.finish().await
}

/// A client that speaks in the clear has shown its token already; it is told at once, and gets nothing for it.
#[tokio::test]
async fn in_the_clear_nothing_answers() -> Result<()> {
    let stack = Stack::up().await?;
    let mut stream = TcpStream::connect(stack.url()?.trim_start_matches("https://")).await?;
    let request = format!(
        "GET /git/{}.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        Uuid::nil(),
        stack.token()?
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    within(std::time::Duration::from_secs(20), "an answer", async { Ok(stream.read_to_string(&mut answer).await?) })
        .await?;
    ensure!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer:?}");
    stack.finish().await
}
