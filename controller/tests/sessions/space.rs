//! Room on disks: the controller's own, and what executors say of theirs.

use std::time::Duration;

use sculpt_controller::{
    background::{retention, seal},
    dispatch::Actor,
    git::{GitSettings, Repositories},
    room::{Room, Standing},
    session::{
        garbage::{Ask, PIECES},
        held::SEGMENT,
    },
    store::{StoreError, retention as dropping},
};
use sculpt_core::task::Event;
use sculpt_proto::{
    executor::v1::{Collected, Heartbeat, control_request, control_response, report::Step},
    id::{ExecutorId, TaskId},
    v1::GarbageItem,
};
use sculpt_space::{Level, Space};
use tokio::sync::mpsc;
use tonic::Code;

use super::{
    Stack,
    executor::{Scripted, append, completed, failed, finalizing, hello},
    logs::{lines, read_all, request, running},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_controller_takes_no_log_bytes_and_loses_none() {
    let room = Room::default();
    let mut stack = Stack::start().await;
    stack.blobs = stack.blobs.clone().within(room.clone());
    let settings = GitSettings::below(stack.directory.path());
    let repositories = Repositories::new(stack.store.clone(), stack.blobs.clone(), settings).unwrap();
    let (executor, mut logs, attempt) = running(&mut stack).await;
    logs.append(&attempt, 0, b"before ").await.unwrap();
    room.set(Standing { space: Space { used: 96, budget: 100 }, level: Level::Full, free: 0 });
    logs.send(append(&attempt, 7, b"after")).await;
    let refused = logs.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "to be sent again: {refused:?}");
    assert_eq!(stack.value::<i64>("SELECT log_bytes FROM attempts").await, 7, "and not acknowledged");
    assert!(repositories.receive().await.is_err(), "no pack either");
    room.set(Standing { space: Space { used: 50, budget: 100 }, level: Level::Open, free: 0 });
    assert!(repositories.receive().await.is_ok());
    let mut executor = executor;
    let epoch = executor.epoch;
    let mut logs = executor.logs(epoch).await;
    assert_eq!(logs.append(&attempt, 7, b"after").await.unwrap().committed, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_goes_on_when_the_disk_is_full_and_gives_room_back() {
    const HELD: &str = "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits \
                        WHERE inhparent = 'log_chunks'::regclass";
    let room = Room::default();
    let mut stack = Stack::start().await;
    stack.blobs = stack.blobs.clone().within(room.clone());
    let (mut executor, mut logs, attempt) = running(&mut stack).await;
    let log = lines(1_000_000);
    let mut end = 0;
    for piece in log.chunks(256 << 10) {
        end = logs.append(&attempt, end, piece).await.unwrap().committed;
    }
    executor.report(&attempt, 4, finalizing(0)).await;
    executor.report(&attempt, 5, completed(end)).await;
    let before = stack.value::<i64>(HELD).await;
    let full = |free| Standing { space: Space { used: 96, budget: 100 }, level: Level::Full, free };
    let sealing = || seal::seal(&stack.store, &stack.blobs, SEGMENT, Duration::ZERO);
    room.set(full(1 << 20));
    assert_eq!(sealing().await.unwrap(), 0, "what is left belongs to Postgres");
    room.set(full(1 << 30));
    assert_eq!(sealing().await.unwrap(), 3);
    stack.run("VACUUM log_chunks").await;
    let after = stack.value::<i64>(HELD).await;
    let key = stack.value::<String>("SELECT blob FROM log_segments LIMIT 1").await.parse().unwrap();
    let blob = i64::try_from(stack.blobs.get(&key).await.unwrap().len()).unwrap();
    assert!(before - after > 3 * blob, "{before} bytes of rows became {after} and three blobs like one of {blob}");
    let mut client = stack.logs_client().await;
    let (bytes, _) = read_all(client.read_log(request(0, false)).await.unwrap().into_inner(), 0).await;
    assert!(bytes == log);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_drops_the_logs_of_ended_tasks_and_says_so() {
    let mut stack = Stack::start().await;
    let (mut executor, mut logs, attempt) = running(&mut stack).await;
    let log = lines(1_000);
    let end = logs.append(&attempt, 0, &log).await.unwrap().committed;
    let sweep = |store: sculpt_controller::store::Store| async move {
        retention::sweep(&store, Duration::from_secs(3600)).await.unwrap()
    };
    let age = "UPDATE tasks SET ended_at = ended_at - interval '2 hours'; \
               UPDATE attempts SET ended_at = ended_at - interval '2 hours'";
    assert_eq!(sweep(stack.store.clone()).await, 0, "it runs");
    executor.report(&attempt, 4, finalizing(0)).await;
    executor.report(&attempt, 5, completed(end)).await;
    assert_eq!(sweep(stack.store.clone()).await, 0, "it has just ended");
    let mut conn = stack.store.read().await.unwrap();
    sqlx::raw_sql(age).execute(&mut *conn).await.unwrap();
    drop(conn);
    assert_eq!(sweep(stack.store.clone()).await, 0, "it is not sealed");
    seal::seal(&stack.store, &stack.blobs, 1 << 20, Duration::ZERO).await.unwrap();
    let mut client = stack.logs_client().await;
    let (bytes, _) = read_all(client.read_log(request(0, false)).await.unwrap().into_inner(), 0).await;
    assert!(bytes == log);

    assert_eq!(sweep(stack.store.clone()).await, 1);
    assert_eq!(sweep(stack.store.clone()).await, 0);
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM log_segments").await, 0);
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM dead_blobs").await, 1, "its blob is deleted later");
    let mut reading = client.read_log(request(0, true)).await.unwrap().into_inner();
    let gone = reading.message().await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert!(gone.message().contains("log_retention"), "{gone:?}");
    let (rest, end) = read_all(client.read_log(request(end, true)).await.unwrap().into_inner(), end).await;
    assert!(rest.is_empty() && end.complete, "its length is still known");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_taken_up_again_keeps_its_logs() {
    const AGE: Duration = Duration::from_secs(3600);
    let mut stack = Stack::start().await;
    let (mut executor, mut logs, attempt) = running(&mut stack).await;
    let end = logs.append(&attempt, 0, &lines(10)).await.unwrap().committed;
    executor.report(&attempt, 4, finalizing(0)).await;
    let mut ended = failed("agent_exit");
    if let Step::Ended(ended) = &mut ended {
        ended.log_length = end;
    }
    executor.report(&attempt, 5, ended).await;
    stack.run("UPDATE attempts SET ended_at = ended_at - interval '2 hours'").await;
    stack.run("UPDATE tasks SET ended_at = ended_at - interval '2 hours'").await;
    seal::seal(&stack.store, &stack.blobs, 1 << 20, Duration::ZERO).await.unwrap();
    let found = dropping::old_logs(&mut stack.store.read().await.unwrap(), AGE, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    let task = stack.value::<uuid::Uuid>("SELECT id FROM tasks").await;
    let _queued = stack.dispatch.apply(TaskId(task), Event::Retry, Actor::user("ada")).await.unwrap();
    let dropped = stack
        .store
        .write::<_, StoreError>(move |conn| Box::pin(async move { dropping::drop_logs(conn, &found, AGE).await }));
    assert_eq!(dropped.await.unwrap(), 0);
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM log_segments").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_executor_says_of_its_disk_is_kept() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    let full = Heartbeat {
        sequence: 1,
        accepts_work: false,
        reason: "its disk is nearly full".into(),
        disk_used: 800,
        disk_budget: 1000,
        ..Heartbeat::default()
    };
    executor.send(control_request::Part::Heartbeat(full)).await;
    // The second answer says that the first heartbeat is committed.
    loop {
        match executor.next().await {
            control_response::Part::HeartbeatAck(ack) if ack.leased == 1 => break,
            control_response::Part::HeartbeatAck(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let known = stack.store.executors(&crate::harness::admin(&stack.store).await.sees()).await.unwrap().remove(0);
    assert_eq!((known.disk_used, known.disk_budget), (Some(800), Some(1000)));
    assert_eq!(known.closed.as_deref(), Some("its disk is nearly full"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_garbage_reaches_the_executor_and_comes_back() {
    let mut stack = Stack::start().await;
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    let id: ExecutorId = executor.id.parse().unwrap();
    let (answer, mut pieces) = mpsc::channel(PIECES);
    assert!(stack.sessions.ask(id, Ask { dry_run: true, all: true, answer }));
    let control_response::Part::Collect(collect) = executor.next().await else { panic!("no Collect") };
    assert!(collect.dry_run && collect.all);
    let item = GarbageItem { kind: "workspace".into(), bytes: 7, ..GarbageItem::default() };
    for last in [false, true] {
        let answer = Collected { request: collect.request, items: vec![item.clone()], last };
        executor.send(control_request::Part::Collected(answer)).await;
    }
    let got = pieces.recv().await.unwrap();
    assert_eq!((got.items.as_slice(), got.last), ([item.clone()].as_slice(), false));
    assert!(pieces.recv().await.unwrap().last && pieces.recv().await.is_none());

    // One that goes away leaves nobody waiting.
    let (answer, mut pieces) = mpsc::channel(PIECES);
    assert!(stack.sessions.ask(id, Ask { dry_run: false, all: false, answer }));
    drop(executor);
    assert!(pieces.recv().await.is_none());
    let (answer, _pieces) = mpsc::channel(PIECES);
    assert!(!stack.sessions.ask(ExecutorId::fresh(), Ask { dry_run: false, all: false, answer }));
}
