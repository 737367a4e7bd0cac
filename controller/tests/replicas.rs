//! Two controllers on one database: what one of them learns the other one knows, by NOTIFY and not by its poll.

use std::time::{Duration, Instant};

use sculpt_proto::{
    executor::v1::executor_service_client::ExecutorServiceClient,
    v1::{self, read_log_response::Part},
};

use crate::{
    api::{command, create},
    harness,
    sessions::executor::{Scripted, completed, finalizing, hello},
};

/// How often a thing is done. Found by polls alone, of 5 s for the queue and for stops, of 2 s for logs, all of them would
/// take twice [`LIMIT`] or more.
const TASKS: usize = 4;
const LINES: usize = 30;

/// What they may take together.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_of_one_replica_serves_the_callers_of_the_other() {
    let one = harness::stack().await;
    let two = one.replica().await;
    let who = hello("one");
    let enrolled = one.enrol(&who).await;
    let client = ExecutorServiceClient::new(one.executor_channel(&enrolled).await);
    let mut executor = Scripted::over(client, who).await;
    executor.welcomed().await;
    executor.observe(vec![]).await;
    assert!(executor.desired().await.full);

    // Created at the second, placed by the first, stopped at the second, told by the first.
    let begin = Instant::now();
    let mut attempts = Vec::new();
    for _ in 0..TASKS {
        let made = two.tasks().create_task(create(command(&["true"]))).await.expect("it is made").into_inner();
        let attempt = executor.run_one().await;
        let stop = v1::StopTaskRequest {
            request_id: uuid::Uuid::new_v4().to_string(),
            task: made.task.expect("a task").uuid,
            ..v1::StopTaskRequest::default()
        };
        two.tasks().stop_task(stop).await.expect("it is stopped");
        assert_eq!(executor.desired().await.attempts[0].attempt_id, attempt);
        attempts.push(attempt);
    }
    assert!(begin.elapsed() < LIMIT, "placed and stopped in {:?}", begin.elapsed());
    for attempt in attempts {
        executor.report(&attempt, 4, finalizing(0)).await;
        executor.report(&attempt, 5, completed(0)).await;
        assert_eq!(executor.desired().await.released, [attempt]);
    }

    // Followed at the second while the first takes it in.
    let made = two.tasks().create_task(create(command(&["true"]))).await.expect("it is made").into_inner();
    let request = v1::ReadLogRequest { task: made.task.expect("a task").uuid, follow: true, ..Default::default() };
    let mut followed = two.logs().read_log(request).await.expect("a stream").into_inner();
    let attempt = executor.run_one().await;
    let epoch = executor.epoch;
    let mut logs = executor.logs(epoch).await;
    let begin = Instant::now();
    let mut at = 0;
    for number in 0..LINES {
        let line = format!("line {number}\n");
        let committed = logs.append(&attempt, at, line.as_bytes()).await.expect("it is taken").committed;
        let Some(Part::Chunk(chunk)) = followed.message().await.expect("a message").expect("it goes on").part else {
            panic!("no chunk");
        };
        assert_eq!((chunk.offset, chunk.data.as_ref()), (at, line.as_bytes()));
        at = committed;
    }
    assert!(begin.elapsed() < LIMIT, "followed in {:?}", begin.elapsed());
    executor.report(&attempt, 4, finalizing(0)).await;
    executor.report(&attempt, 5, completed(at)).await;
    assert_eq!(executor.desired().await.released, [attempt]);
    let Some(Part::End(end)) = followed.message().await.expect("a message").expect("an end").part else {
        panic!("no end");
    };
    assert_eq!(end, v1::LogEnd { length: at, complete: true });

    // When the first goes, its executor's session is taken over by the second.
    let who = sculpt_proto::executor::v1::Hello { executor_id: executor.id.clone(), ..hello("one") };
    one.stop().await;
    assert!(executor.rejected().await.retry_after.is_some());
    let mut executor = Scripted::over(ExecutorServiceClient::new(two.executor_channel(&enrolled).await), who).await;
    executor.welcomed().await;
    assert_eq!(executor.epoch, epoch + 1);
    executor.observe(vec![]).await;
    assert!(executor.desired().await.full);
    two.tasks().create_task(create(command(&["true"]))).await.expect("it is made");
    executor.run_one().await;
    two.stop().await;
}
