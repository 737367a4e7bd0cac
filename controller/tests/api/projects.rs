//! Projects.

use sculpt_proto::v1;
use tonic::Code;

use super::{create, fresh, prompt};
use crate::harness;

fn ensure(name: &str, root: char, remote: &str) -> v1::EnsureProjectRequest {
    v1::EnsureProjectRequest {
        request_id: fresh(),
        name: name.to_owned(),
        root_commit: root.to_string().repeat(40),
        remote: remote.to_owned(),
        ..v1::EnsureProjectRequest::default()
    }
}

#[tokio::test]
async fn a_repository_is_told_by_its_root_and_remote_not_by_its_folder() {
    let stack = harness::stack().await;
    let mut projects = stack.projects();
    let mut make = async |request: v1::EnsureProjectRequest| {
        let made = projects.ensure_project(request).await.expect("it is made").into_inner();
        (made.project.expect("a project"), made.created)
    };
    let (first, created) = make(ensure("web app", 'a', "https://x/a")).await;
    assert!(created && first.name == "web-app" && first.git_path == format!("/git/{}.git", first.uuid));
    let (again, created) = make(ensure("elsewhere", 'a', "https://x/a")).await;
    assert!(!created && again.uuid == first.uuid);
    let (second, created) = make(ensure("web app", 'b', "")).await;
    assert!(created && second.name == "web-app-2");
    let (changed, _) =
        make(v1::EnsureProjectRequest { default_agent: Some("robot".to_owned()), ..ensure("x", 'b', "") }).await;
    assert_eq!(changed.default_agent, "robot");

    let exact = v1::EnsureProjectRequest { exact_name: true, ..ensure("web-app", 'c', "") };
    assert_eq!(stack.projects().ensure_project(exact).await.expect_err("taken").code(), Code::AlreadyExists);
    let wrong = v1::EnsureProjectRequest { root_commit: "main".to_owned(), ..ensure("x", 'c', "") };
    assert_eq!(stack.projects().ensure_project(wrong).await.expect_err("no commit").code(), Code::InvalidArgument);
    let (same, created) = {
        let request = ensure("x", 'a', "https://me:secret@x/a");
        let made = stack.projects().ensure_project(request).await.expect("it is known").into_inner();
        (made.project.expect("a project"), made.created)
    };
    assert!(!created && same.uuid == first.uuid, "secrets are no part of a remote");

    let page = v1::ListProjectsRequest { page_size: 1, ..Default::default() };
    let page = stack.projects().list_projects(page).await.expect("a list").into_inner();
    assert_eq!(page.projects[0].name, "web-app");
    let rest = v1::ListProjectsRequest { page_token: page.next_page_token, ..Default::default() };
    let rest = stack.projects().list_projects(rest).await.expect("a list").into_inner();
    assert_eq!((rest.projects.len(), rest.next_page_token.as_str()), (1, ""));
    stack.stop().await;
}

#[tokio::test]
async fn a_project_with_work_in_progress_is_not_removed() {
    let stack = harness::stack().await;
    let made = stack.projects().ensure_project(ensure("web", 'a', "")).await.expect("it is made").into_inner();
    let project = made.project.expect("a project");
    let base = "b".repeat(40);
    let spec = v1::TaskSpec { project: "web".to_owned(), base: base.clone(), ..prompt("Add a page") };
    let error = stack.tasks().create_task(create(spec.clone())).await.expect_err("no such commit");
    assert!(error.code() == Code::InvalidArgument && error.message().contains(&base), "{error}");

    let mut conn = stack.store().read().await.expect("a connection");
    sqlx::query("INSERT INTO refs (project_id, name, target) VALUES ($1, 'refs/sculpt/bases/x', $2)")
        .bind(uuid::Uuid::parse_str(&project.uuid).expect("a uuid"))
        .bind(&base)
        .execute(&mut *conn)
        .await
        .expect("a base that is here");
    drop(conn);
    let task = stack.tasks().create_task(create(spec)).await.expect("it is made").into_inner().task.expect("a task");
    assert_eq!((task.branch.as_str(), task.project.as_str()), ("sculpt/1-add-a-page", "web"));

    let remove = v1::RemoveProjectRequest { request_id: fresh(), project: "web".to_owned(), force: false };
    let error = stack.projects().remove_project(remove.clone()).await.expect_err("it is busy");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let stop = v1::StopTaskRequest { request_id: fresh(), task: "1".to_owned(), ..Default::default() };
    stack.tasks().stop_task(stop).await.expect("it is stopped");
    for _ in 0..2 {
        let gone = stack.projects().remove_project(remove.clone()).await.expect("once or again").into_inner();
        assert_eq!(gone.project.expect("a project").uuid, project.uuid);
    }
    let other = v1::RemoveProjectRequest { request_id: fresh(), ..remove };
    assert_eq!(stack.projects().remove_project(other).await.expect_err("it is gone").code(), Code::NotFound);
    let get = v1::GetTaskRequest { task: "1".to_owned() };
    let task = stack.tasks().get_task(get.clone()).await.expect("it is kept").into_inner().task.expect("a task");
    assert!(task.project_removed && task.project == "web");

    let back = stack.projects().ensure_project(ensure("web", 'a', "")).await.expect("again").into_inner();
    assert!(back.restored && !back.created);
    assert_eq!(back.project.expect("a project").uuid, project.uuid, "with the tasks that it had");
    let task = stack.tasks().get_task(get).await.expect("it is there").into_inner().task.expect("a task");
    assert!(!task.project_removed);
    stack.stop().await;
}

#[tokio::test]
async fn commits_that_nobody_has_judged_are_not_removed_unasked() {
    let stack = harness::stack().await;
    let made = stack.projects().ensure_project(ensure("web", 'a', "")).await.expect("it is made").into_inner();
    let project = made.project.expect("a project");
    let task = stack.tasks().create_task(create(prompt("Add a page"))).await.expect("it is made").into_inner();
    let task = task.task.expect("a task");
    let mut conn = stack.store().read().await.expect("a connection");
    // What an executor would have published.
    let sql = "WITH e AS (INSERT INTO executors (id, name, pool, slots, hostname, version) \
                 VALUES (gen_random_uuid(), 'one', 'default', 1, 'one', '0') RETURNING id), \
               a AS (INSERT INTO attempts (id, task_id, number, executor_id, state, outcome, ended_at, head, spec_digest) \
                 SELECT gen_random_uuid(), $1, 1, id, 'ended', 'completed', now(), repeat('c', 40), '' FROM e RETURNING id) \
               UPDATE tasks SET project_id = $2, attempt_id = a.id, next_attempt = NULL, shown = 'needs_review', \
               review = 'needed', review_head = repeat('c', 40), base = repeat('b', 40), ended_at = now() FROM a WHERE tasks.id = $1";
    let id = |text: &str| uuid::Uuid::parse_str(text).expect("a uuid");
    sqlx::query(sql).bind(id(&task.uuid)).bind(id(&project.uuid)).execute(&mut *conn).await.expect("it is published");
    drop(conn);
    let remove = v1::RemoveProjectRequest { request_id: fresh(), project: "web".to_owned(), force: false };
    let error = stack.projects().remove_project(remove.clone()).await.expect_err("it holds work");
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains(&format!("rejected: {}", task.number)), "{error}");
    let forced = v1::RemoveProjectRequest { request_id: fresh(), force: true, ..remove };
    stack.projects().remove_project(forced).await.expect("it was asked for");
    stack.stop().await;
}

#[tokio::test]
async fn a_wished_name_is_given_and_a_lone_history_recognised() {
    let stack = harness::stack().await;
    let mut projects = stack.projects();
    let mut make = async |request: v1::EnsureProjectRequest| {
        let made = projects.ensure_project(request).await?.into_inner();
        Ok::<_, tonic::Status>((made.project.expect("a project"), made.created))
    };
    let exact = |request| v1::EnsureProjectRequest { exact_name: true, ..request };
    let (first, _) = make(ensure("web", 'a', "")).await.expect("it is made");
    let (renamed, created) = make(exact(ensure("site", 'a', ""))).await.expect("it is renamed");
    assert!(!created && renamed.name == "site" && renamed.uuid == first.uuid);
    make(ensure("other", 'b', "")).await.expect("it is made");
    assert_eq!(make(exact(ensure("other", 'a', ""))).await.expect_err("taken").code(), Code::AlreadyExists);

    let (same, created) = make(ensure("x", 'a', "https://x/a")).await.expect("it is known");
    assert!(!created && same.uuid == first.uuid && same.remote == "https://x/a", "it has got a remote");
    let (fork, created) = make(ensure("x", 'a', "https://x/fork")).await.expect("it is made");
    assert!(created && fork.uuid != first.uuid);
    stack.stop().await;
}
