//! Adoption as a person asks for it.

use prost::Message as _;
use sculpt_proto::{
    executor::v1::{
        AttemptSpec, ObservedAttempt, PutSpecRequest, control_response, executor_service_client::ExecutorServiceClient,
    },
    id::{AttemptId, ClusterId, RequestId, TaskId},
    v1::{AdoptAttemptsRequest, AdoptedAttempt, Command, GetExecutorRequest, TaskSpec, task_spec::Work},
};
use tonic::{Code, Status};

use crate::{
    harness::{Stack, stack},
    sessions::executor::{Scripted, hello},
};

fn spec() -> AttemptSpec {
    let work = Some(Work::Command(Command { argv: vec![b"true".to_vec()] }));
    AttemptSpec {
        cluster_id: ClusterId::fresh().to_string(),
        attempt_id: AttemptId::fresh().to_string(),
        task_id: TaskId::fresh().to_string(),
        task_number: 40,
        number: 1,
        task: Some(TaskSpec { work, ..TaskSpec::default() }),
        ..AttemptSpec::default()
    }
}

async fn adopt(stack: &Stack, id: RequestId, executor: &str, named: &[&str]) -> Result<Vec<AdoptedAttempt>, Status> {
    let request = AdoptAttemptsRequest {
        request_id: id.to_string(),
        executor: executor.to_owned(),
        attempts: named.iter().map(|name| (*name).to_owned()).collect(),
    };
    stack.executors().adopt_attempts(request).await.map(|answer| answer.into_inner().attempts)
}

/// An executor that has `spec`, which the controller knows by now that it does not know.
async fn executor_with(stack: &Stack, spec: &AttemptSpec) -> Scripted {
    let who = hello("one");
    let enrolled = stack.enrol(&who).await;
    let client = ExecutorServiceClient::new(stack.executor_channel(&enrolled).await);
    let mut executor = Scripted::over(client, who).await;
    executor.welcomed().await;
    let seen = ObservedAttempt {
        attempt_id: spec.attempt_id.clone(),
        task_id: spec.task_id.clone(),
        number: 1,
        cluster_id: spec.cluster_id.clone(),
        ..ObservedAttempt::default()
    };
    executor.observe(vec![seen]).await;
    assert!(executor.desired().await.full);
    let request = GetExecutorRequest { executor: "one".into() };
    let shown = stack.executors().get_executor(request).await.unwrap().into_inner().executor.unwrap();
    assert_eq!(shown.unknown_attempts, std::slice::from_ref(&spec.attempt_id));
    executor
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_waited_for_and_answered_once_per_request() {
    let stack = stack().await;
    let spec = spec();
    let mut executor = executor_with(&stack, &spec).await;
    let id = RequestId::fresh();
    let hand_in = async {
        loop {
            match executor.next().await {
                control_response::Part::Desired(desired) if desired.adopted == [spec.attempt_id.clone()] => break,
                _ => {}
            }
        }
        let request = PutSpecRequest {
            executor_id: executor.id.clone(),
            epoch: executor.epoch,
            attempt_id: spec.attempt_id.clone(),
            spec: spec.encode_to_vec(),
        };
        executor.client.put_spec(request).await.unwrap();
    };
    let (answer, ()) = tokio::join!(adopt(&stack, id, "one", &[]), hand_in);
    let expected = [AdoptedAttempt { attempt_id: spec.attempt_id.clone(), task_number: 40, refusal: String::new() }];
    assert_eq!(answer.unwrap(), expected);
    assert_eq!(adopt(&stack, id, "one", &[]).await.unwrap(), expected, "the same request again");
    assert_eq!(adopt(&stack, RequestId::fresh(), "one", &[]).await.unwrap(), [], "nothing is left");
    assert_eq!(adopt(&stack, RequestId::fresh(), "one", &[&spec.attempt_id]).await.unwrap(), expected);
    let other = adopt(&stack, id, "one", &[&spec.attempt_id]).await.unwrap_err();
    assert_eq!(other.code(), Code::AlreadyExists);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_at_once() {
    let stack = stack().await;
    let spec = spec();
    let _executor = executor_with(&stack, &spec).await;
    let stranger = AttemptId::fresh().to_string();
    let refused = adopt(&stack, RequestId::fresh(), "one", &[&stranger]).await.unwrap().remove(0);
    assert!(refused.task_number == 0 && refused.refusal.contains("sculpt executor show one"), "{refused:?}");
    for (executor, named, code) in [
        ("two", vec![], Code::NotFound),
        ("one", vec!["17"], Code::InvalidArgument),
        ("one", vec!["17"; 1001], Code::InvalidArgument),
    ] {
        assert_eq!(adopt(&stack, RequestId::fresh(), executor, &named).await.unwrap_err().code(), code, "{executor}");
    }
    let sql = "UPDATE executors SET liveness = 'lost'";
    sqlx::query(sql).execute(&mut *stack.store().read().await.unwrap()).await.unwrap();
    let away = adopt(&stack, RequestId::fresh(), "one", &[]).await.unwrap_err();
    assert_eq!(away.code(), Code::FailedPrecondition);
    assert!(away.message().contains("executor one is lost"), "{away:?}");
    stack.stop().await;
}
