//! What is not seen is not there: in lists, in the journal, by name, and in what is said about it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sculpt_controller::{
    bus::Bus,
    dispatch::{Actor, Dispatch},
};
use sculpt_core::{attempt::Fence, rights::Role, task::Event};
use sculpt_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use uuid::Uuid;

use super::World;
use crate::{
    api::{command, create},
    make,
};

#[tokio::test]
async fn a_list_and_the_journal_show_what_is_seen() {
    let world = World::new().await;
    let store = world.stack.store();
    let seen = make::task_on(store, world.web.id(), &"c".repeat(40)).await;
    let hidden = make::task_on(store, world.ops.id(), &"c".repeat(40)).await;
    make::task(store).await;
    let ben = world.user("ben", &[(Role::Viewer, Some("web"))]).await;
    let ben = || world.stack.showing(&ben);

    let mut tasks = v1::tasks_client::TasksClient::new(ben());
    let list = tasks.list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    assert_eq!(list.iter().map(|task| task.uuid.clone()).collect::<Vec<_>>(), [seen.to_string()]);
    let mut projects = v1::projects_client::ProjectsClient::new(ben());
    let list = projects.list_projects(v1::ListProjectsRequest::default()).await.unwrap().into_inner().projects;
    assert_eq!(list.iter().map(|project| project.name.as_str()).collect::<Vec<_>>(), ["web"]);

    let mut events = v1::events_client::EventsClient::new(ben());
    let mut stream = events.watch_events(v1::WatchEventsRequest::default()).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(v1::WatchEventsResponse { part }) = stream.message().await.unwrap() {
        if let Some(v1::watch_events_response::Part::Event(event)) = part {
            told.push(format!("{} {}", event.kind, event.task));
        }
    }
    assert_eq!(told, ["project.created 0", "task.created 1"]);

    // What is hidden is what is not there, to the letter.
    let absent = Uuid::new_v4().to_string();
    let mut ask = async |task: &str| {
        let error = tasks.get_task(v1::GetTaskRequest { task: task.into() }).await.expect_err("not seen");
        (error.code(), error.message().replace(task, "…"))
    };
    assert_eq!(ask(&hidden.to_string()).await, ask(&absent).await);
    assert_eq!(ask("2").await, ask("99").await);
    let mut filter = async |project: &str| {
        let request =
            v1::RemoveProjectRequest { request_id: Uuid::new_v4().to_string(), project: project.into(), force: false };
        let error = projects.remove_project(request).await.expect_err("not seen");
        (error.code(), error.message().replace(project, "…"))
    };
    assert_eq!(filter("ops").await, filter("nil").await);
    let denied = filter("web").await;
    assert_eq!(denied.0, Code::PermissionDenied);
    assert!(denied.1.contains("takes the role of a maintainer") && denied.1.contains("Ask "), "{}", denied.1);
    world.stack.stop().await;
}

#[tokio::test]
async fn what_is_hidden_is_not_counted_among_what_a_name_may_mean() {
    let world = World::new().await;
    let store = world.stack.store();
    let seen = make::task_on(store, world.web.id(), &"c".repeat(40)).await;
    let hidden = make::task_on(store, world.ops.id(), &"c".repeat(40)).await;
    let executor = make::executor(store, "one").await.executor;
    let dispatch = Dispatch::new(store.clone(), Bus::new());
    for task in [seen, hidden] {
        let fence = Fence { number: 1, id: Uuid::now_v7() };
        let _ = dispatch.apply(task, Event::Claimed { fence, executor: executor.0 }, Actor::system()).await.unwrap();
    }
    let ben = world.user("ben", &[(Role::Viewer, Some("web"))]).await;
    let ben = || world.stack.showing(&ben);

    // Made in one moment, both begin alike.
    let prefix = &seen.to_string()[..8];
    let mut tasks = v1::tasks_client::TasksClient::new(ben());
    let found = tasks.get_task(v1::GetTaskRequest { task: prefix.to_owned() }).await.expect("it is the only one");
    assert_eq!(found.into_inner().task.unwrap().uuid, seen.to_string());
    // Of an executor everybody sees how much it has to do, and for whom only who may see that.
    let mut executors = v1::executors_client::ExecutorsClient::new(ben());
    let request = v1::GetExecutorRequest { executor: "one".into() };
    let one = executors.get_executor(request).await.unwrap().into_inner().executor.unwrap();
    assert_eq!((one.slots_used, one.tasks), (2, vec![1]));

    for name in [hidden.to_string(), hidden.to_string()[..20].to_owned(), "2".to_owned()] {
        let mut logs = v1::logs_client::LogsClient::new(ben());
        let log = logs.read_log(v1::ReadLogRequest { task: name.clone(), ..Default::default() }).await;
        let watched = tasks.watch_task(v1::WatchTaskRequest { task: name.clone() }).await;
        let mut events = v1::events_client::EventsClient::new(ben());
        let told = events.watch_events(v1::WatchEventsRequest { task: name.clone(), ..Default::default() }).await;
        let mut git = v1::git_client::GitClient::new(ben());
        let diff = git.diff(v1::DiffRequest { task: name.clone(), attempt: 0 }).await;
        let codes = [log.err(), watched.err(), told.err(), diff.err()].map(|status| status.map(|status| status.code()));
        assert_eq!(codes, [Some(Code::NotFound); 4], "{name}");
    }
    world.stack.stop().await;
}

#[tokio::test]
async fn tasks_without_a_project_are_seen_by_who_made_them_and_by_admins() {
    let world = World::new().await;
    let (ben, eve) =
        (world.user("ben", &[(Role::Operator, None)]).await, world.user("eve", &[(Role::Maintainer, None)]).await);
    let zoe = world.user("zoe", &[(Role::Admin, None)]).await;
    let web = world.user("web", &[(Role::Maintainer, Some("web"))]).await;
    let limited = world.token("ben", &[(Role::Operator, Some("web"))]).await;
    let tasks = |token: &str| v1::tasks_client::TasksClient::new(world.stack.showing(token));
    let made = tasks(&ben).create_task(create(command(&["true"]))).await.unwrap().into_inner().task.unwrap();
    let refused = tasks(&web).create_task(create(command(&["true"]))).await.expect_err("it has one project alone");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let get = async |token: &str| {
        let found = tasks(token).get_task(v1::GetTaskRequest { task: made.uuid.clone() }).await;
        let listed = tasks(token).list_tasks(v1::ListTasksRequest::default()).await.unwrap().into_inner().tasks.len();
        assert_eq!(listed, usize::from(found.is_ok()), "lists tell the same");
        found.map(|_| ()).map_err(|status| status.code())
    };
    assert_eq!(get(&ben).await, Ok(()));
    assert_eq!(get(&zoe).await, Ok(()));
    for other in [&eve, &web, &limited] {
        assert_eq!(get(other).await, Err(Code::NotFound));
    }
    let stop = |token: &str| {
        let request_id = Uuid::new_v4().to_string();
        let request = v1::StopTaskRequest { request_id, task: made.uuid.clone(), ..Default::default() };
        let mut tasks = tasks(token);
        async move { tasks.stop_task(request).await.map(drop).map_err(|status| status.code()) }
    };
    assert_eq!(stop(&eve).await, Err(Code::NotFound));
    assert_eq!(stop(&zoe).await, Ok(()));
    world.stack.stop().await;
}

#[tokio::test]
async fn git_gives_what_is_seen() {
    let world = World::new().await;
    let ben = world.user("ben", &[(Role::Viewer, Some("web"))]).await;
    let host = format!("Host: {}", world.stack.address());
    let ask = async |project: &str, credential: &str| {
        let mut stream = world.stack.raw().await;
        let head = format!(
            "GET /git/{project}.git/info/refs?service=git-upload-pack HTTP/1.1\r\n{host}\r\n{credential}Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("it is taken");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("an answer");
        said
    };
    let password = BASE64_STANDARD.encode(format!("ben:{ben}"));
    let shown = format!("Authorization: Basic {password}\r\n");
    let (web, ops, absent) = (world.web.id.to_string(), world.ops.id.to_string(), Uuid::new_v4().to_string());
    assert!(ask(&web, &shown).await.starts_with("HTTP/1.1 200"), "by the credential helper");
    let hidden = ask(&ops, &shown).await;
    assert!(hidden.starts_with("HTTP/1.1 404"), "{hidden}");
    let body = |said: String, id: &str| said.split("\r\n\r\n").nth(1).unwrap_or_default().replace(id, "…");
    assert_eq!(body(hidden, &ops), body(ask(&absent, &shown).await, &absent));
    // Spelled in another way it is hidden as well.
    let escaped = format!("%{:02x}{}", ops.as_bytes()[0], &ops[1..]);
    for spelled in [escaped, ops.to_uppercase(), ops.replace('-', "")] {
        let hidden = ask(&spelled, &shown).await;
        assert!(hidden.starts_with("HTTP/1.1 404"), "{spelled}: {hidden}");
    }
    let asked = ask(&web, "").await;
    assert!(asked.starts_with("HTTP/1.1 401") && asked.to_lowercase().contains("www-authenticate: basic"), "{asked}");
    world.stack.stop().await;
}
