//! Adoption: attempts that an executor has and this database does not know.

mod refused;

use prost::Message as _;
use sculpt_controller::{
    session::spec,
    store::{
        StoreError,
        adopt::Adoption,
        claims,
        projects::{Ensured, Wish},
        requests::Request,
    },
};
use sculpt_core::attempt::Fence;
use sculpt_proto::{
    executor::v1::{
        AttemptSpec, Desired, ObservedAttempt, PutSpecRequest, control_response, ended::Outcome, report::Step,
        report_ack::Refusal,
    },
    id::{AttemptId, ClusterId, ExecutorId, ProjectId, RequestId, TaskId},
    v1::{Command, TaskSpec, task_spec::Work},
};
use tonic::{Code, Status};

use super::{
    Stack,
    executor::{Scripted, accepted, completed, finalizing, hello, preparing, running},
};
use crate::{git::repo::Repo, harness, make};

/// What an executor has from a controller that is gone.
fn spec() -> AttemptSpec {
    AttemptSpec {
        cluster_id: ClusterId::fresh().to_string(),
        attempt_id: AttemptId::fresh().to_string(),
        task_id: TaskId::fresh().to_string(),
        task_number: 4711,
        number: 2,
        task: Some(TaskSpec {
            work: Some(Work::Command(Command { argv: vec![b"true".to_vec()] })),
            ..TaskSpec::default()
        }),
        title: "True".into(),
        ..AttemptSpec::default()
    }
}

fn in_project(mut spec: AttemptSpec) -> AttemptSpec {
    spec.project_id = ProjectId::fresh().to_string();
    spec.project_name = "demo".into();
    spec.branch = "sculpt/4711-true".into();
    spec.git_path = format!("/git/{}.git", spec.project_id);
    let task = spec.task.as_mut().unwrap();
    (task.project, task.base) = (spec.project_id.clone(), "a".repeat(40));
    spec
}

fn unknown(spec: &AttemptSpec) -> ObservedAttempt {
    ObservedAttempt {
        attempt_id: spec.attempt_id.clone(),
        task_id: spec.task_id.clone(),
        number: spec.number,
        cluster_id: spec.cluster_id.clone(),
        ..ObservedAttempt::default()
    }
}

/// An executor that has these, all unknown here.
async fn executor_with(stack: &mut Stack, specs: &[&AttemptSpec]) -> Scripted {
    let mut executor = Scripted::welcome(stack, hello("one")).await;
    executor.observe(specs.iter().map(|spec| unknown(spec)).collect()).await;
    assert!(executor.desired().await.full);
    executor
}

fn request_for(method: &'static str) -> Request {
    Request { id: RequestId::fresh(), method, digest: [0; 32] }
}

/// What became of them.
async fn adoptions(stack: &Stack, request: &Request) -> Result<Vec<Adoption>, StoreError> {
    let ada = harness::admin(&stack.store).await;
    stack.store.adoptions(&ada.may().unwrap(), request).await
}

/// A person wants these, or all; returns the request.
async fn want(stack: &Stack, executor: &Scripted, attempts: &[&AttemptSpec]) -> Request {
    let request = request_for("AdoptAttempts");
    let attempts = attempts.iter().map(|spec| spec.attempt_id.parse().unwrap()).collect();
    let id: ExecutorId = executor.id.parse().unwrap();
    let ada = harness::admin(&stack.store).await;
    stack.store.want_adoptions(ada.may().unwrap(), request.clone(), id, attempts).await.unwrap();
    stack.dispatch.bus().tell(id);
    request
}

async fn hand_in(executor: &mut Scripted, attempt_id: &str, spec: &AttemptSpec) -> Result<String, Status> {
    let request = PutSpecRequest {
        executor_id: executor.id.clone(),
        epoch: executor.epoch,
        attempt_id: attempt_id.to_owned(),
        spec: spec.encode_to_vec(),
    };
    executor.client.put_spec(request).await.map(|answer| answer.into_inner().cluster_id)
}

/// Why it is refused.
async fn refused(executor: &mut Scripted, spec: &AttemptSpec) -> String {
    let status = hand_in(executor, &spec.attempt_id, spec).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    status.message().to_owned()
}

/// Waits for the question for specs, past everything else that is desired.
async fn asked(executor: &mut Scripted) -> Vec<String> {
    loop {
        match executor.next().await {
            control_response::Part::Desired(Desired { adopted, .. }) if !adopted.is_empty() => return adopted,
            control_response::Part::Desired(_) => {}
            other => panic!("no Desired but {other:?}"),
        }
    }
}

/// The answer to a report, past everything that is desired meanwhile.
async fn reported(executor: &mut Scripted, attempt: &str, sequence: u64, step: Step) -> (u64, Refusal) {
    let report =
        sculpt_proto::executor::v1::Report { attempt_id: attempt.into(), sequence, age: None, step: Some(step) };
    executor.send(sculpt_proto::executor::v1::control_request::Part::Report(report)).await;
    loop {
        match executor.next().await {
            control_response::Part::ReportAck(ack) => return (ack.through, ack.refusal()),
            control_response::Part::Desired(_) => {}
            other => panic!("no ReportAck but {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_of_a_lost_database_is_taken_over_from_its_first_report_and_byte() {
    let mut stack = Stack::start().await;
    let spec = in_project(spec());
    let mut executor = executor_with(&mut stack, &[&spec]).await;
    let attempt = spec.attempt_id.clone();
    assert_eq!(reported(&mut executor, &attempt, 1, accepted()).await, (0, Refusal::UnknownAttempt));
    let request = want(&stack, &executor, &[]).await;
    assert_eq!(asked(&mut executor).await, std::slice::from_ref(&attempt));
    for _ in 0..2 {
        assert_eq!(hand_in(&mut executor, &attempt, &spec).await.unwrap(), stack.cluster.to_string());
    }
    let adoption = Adoption { attempt: attempt.parse().unwrap(), task: Some(4711), refusal: None };
    assert_eq!(adoptions(&stack, &request).await.unwrap(), [adoption]);
    for (sequence, step) in (1..).zip([accepted(), preparing(), running(), finalizing(0)]) {
        assert_eq!(reported(&mut executor, &attempt, sequence, step).await, (sequence, Refusal::Unspecified));
    }
    let epoch = executor.epoch;
    let mut logs = executor.logs(epoch).await;
    assert_eq!(logs.append(&attempt, 0, b"from the first byte").await.unwrap().committed, 19);
    assert_eq!(reported(&mut executor, &attempt, 5, completed(19)).await, (5, Refusal::Unspecified));
    let row = "SELECT concat_ws(' ', number, shown, branch, created_by, title) FROM tasks";
    assert_eq!(stack.value::<String>(row).await, "4711 completed sculpt/4711-true ada True");
    let row = "SELECT name || ' ' || (SELECT cardinality(unknown) FROM executors)::text FROM projects";
    assert_eq!(stack.value::<String>(row).await, "demo 0");
    let events = "SELECT string_agg(kind || ':' || actor, ' ' ORDER BY id) FROM events WHERE task_id IS NOT NULL";
    let events = stack.value::<String>(events).await;
    assert!(events.starts_with("task.created:ada attempt.adopted:ada attempt.accepted:"), "{events}");
    // A person comes with the repository of that name: it is the same project.
    let wish = Wish {
        name: "demo".into(),
        exact_name: false,
        root_commit: "c".repeat(40),
        remote: "git@example.org:demo".into(),
        default_agent: None,
        commit_changes: None,
        record_typing: None,
    };
    for _ in 0..2 {
        let by = harness::admin(&stack.store).await;
        let (project, how) = stack.store.ensure_project(by, request_for("EnsureProject"), wish.clone()).await.unwrap();
        assert_eq!((project.id.to_string(), how), (spec.project_id.clone(), Ensured::Known));
    }
    // It has begun long ago: nobody begins it again.
    assert_eq!(executor.spec(&attempt).await, Err(Code::FailedPrecondition));
    // The next task's number is above the one that was taken over.
    make::task(&stack.store).await;
    assert_eq!(stack.value::<i64>("SELECT max(number) FROM tasks").await, 4712);
}

/// The controller has committed, and the executor died before it had written down whose the attempt is.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_forgot_the_answer_is_asked_again() {
    let mut stack = Stack::start().await;
    let spec = spec();
    let mut executor = executor_with(&mut stack, &[&spec]).await;
    want(&stack, &executor, &[]).await;
    asked(&mut executor).await;
    hand_in(&mut executor, &spec.attempt_id, &spec).await.unwrap();
    const UNKNOWN: &str = "SELECT cardinality(unknown) FROM executors";
    executor.observe(vec![unknown(&spec)]).await;
    // The first question may have been asked twice: what follows answers the one after the census.
    let compared = async || (stack.value::<i32>(UNKNOWN).await > 0).then_some(());
    harness::eventually("the census to be compared", compared).await;
    assert_eq!(asked(&mut executor).await, std::slice::from_ref(&spec.attempt_id));
    assert_eq!(hand_in(&mut executor, &spec.attempt_id, &spec).await.unwrap(), stack.cluster.to_string());
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM attempts").await, 1);
    assert_eq!(stack.value::<i32>(UNKNOWN).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_wait_for_the_base_that_was_lost_with_the_database() {
    let mut stack = Stack::start().await;
    let repo = Repo::new().await;
    let base = repo.commit("a.txt", "base\n").await;
    let head = repo.commit("b.txt", "made\n").await;
    let pack = repo.pack(&head, &[&base]).await;
    let mut spec = in_project(spec());
    spec.task.as_mut().unwrap().base.clone_from(&base);
    let mut executor = executor_with(&mut stack, &[&spec]).await;
    want(&stack, &executor, &[]).await;
    let attempt = spec.attempt_id.clone();
    hand_in(&mut executor, &attempt, &spec).await.unwrap();
    for (sequence, step) in (1..).zip([accepted(), preparing(), running()]) {
        reported(&mut executor, &attempt, sequence, step).await;
    }
    let epoch = executor.epoch;
    let refused = executor.publish(epoch, &attempt, &head, &pack).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains(&base) && refused.message().contains("sculpt run"), "{refused}");
    let mut sent = stack.repositories.receive().await.unwrap();
    sent.write(&repo.pack(&base, &[]).await).await.unwrap();
    stack.repositories.keep_base(spec.project_id.parse().unwrap(), &base, &mut sent).await.unwrap();
    assert_eq!(executor.publish(epoch, &attempt, &head, &pack).await.unwrap(), head);
}

/// The spec that this controller would mint for attempt `number` of `task`.
async fn minted(stack: &Stack, task: TaskId, number: u32) -> AttemptSpec {
    let mut conn = stack.store.read().await.unwrap();
    let order = claims::order(&mut conn, task, ExecutorId::fresh()).await.unwrap();
    let fence = Fence { number, id: AttemptId::fresh().0 };
    AttemptSpec::decode(spec::build(stack.cluster, task, fence, order).unwrap().body.as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_after_a_restored_task_takes_the_place_of_what_is_over_and_of_nothing_that_lives() {
    let mut stack = Stack::start().await;
    let (mut owner, _) = Scripted::ready(&mut stack, hello("owner")).await;
    let task = make::task(&stack.store).await;
    stack.place().await;
    let first = owner.run_one().await;
    let second = minted(&stack, task, 2).await;
    let mut executor = executor_with(&mut stack, &[&second]).await;
    want(&stack, &executor, &[]).await;
    assert!(refused(&mut executor, &second).await.contains("is at attempt 1, which has not ended; ask again"));
    let step =
        Step::Ended(sculpt_proto::executor::v1::Ended { outcome: Outcome::Cancelled.into(), ..Default::default() });
    assert_eq!(owner.report(&first, 4, step).await.refusal(), Refusal::Unspecified);
    want(&stack, &executor, &[]).await;
    hand_in(&mut executor, &second.attempt_id, &second).await.unwrap();
    let row = "SELECT t.shown::text || ' ' || t.intent::text || ' ' || a.number::text FROM attempts a JOIN tasks t ON t.attempt_id = a.id";
    assert_eq!(stack.value::<String>(row).await, "starting run 2");
    assert_eq!(reported(&mut executor, &second.attempt_id, 1, accepted()).await, (1, Refusal::Unspecified));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_of_a_cancelled_wait_reaches_what_was_taken_over() {
    let mut stack = Stack::start().await;
    let task = make::task(&stack.store).await;
    let spec = minted(&stack, task, 1).await;
    let _told = stack.dispatch.apply(task, sculpt_core::task::Event::Stop, Default::default()).await.unwrap();
    let mut executor = executor_with(&mut stack, &[&spec]).await;
    want(&stack, &executor, &[]).await;
    asked(&mut executor).await;
    hand_in(&mut executor, &spec.attempt_id, &spec).await.unwrap();
    let told = loop {
        let desired = executor.desired().await;
        if let Some(told) = desired.attempts.into_iter().next() {
            break told;
        }
    };
    assert_eq!(told.attempt_id, spec.attempt_id);
    assert_eq!(told.phase(), sculpt_proto::executor::v1::Phase::Stop);
}
