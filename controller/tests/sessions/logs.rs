use std::time::Duration;

use sculpt_controller::background::{maintenance, seal};
use sculpt_proto::{
    executor::v1::{Append, log_refusal::Code as Refused},
    v1::{LogEnd, LogFrame, LogSize, ReadLogRequest, ReadLogResponse, read_log_response::Part},
};
use tonic::{Code, Streaming};

use super::{
    Stack,
    executor::{LogStream, Scripted, append, completed, finalizing, hello, unknown},
};
use crate::make;

/// A running attempt of task 1, its executor, and its Logs connection.
pub(super) async fn running(stack: &mut Stack) -> (Scripted, LogStream, String) {
    let (mut executor, _) = Scripted::ready(stack, hello("one")).await;
    make::task(&stack.store).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    let epoch = executor.epoch;
    let logs = executor.logs(epoch).await;
    (executor, logs, attempt)
}

pub(super) fn request(from_offset: u64, follow: bool) -> ReadLogRequest {
    ReadLogRequest { task: "1".into(), attempt: 0, from_offset, follow }
}

/// Everything up to the end: checked to be without a hole, and to be framed exactly.
pub(super) async fn read_all(mut stream: Streaming<ReadLogResponse>, from: u64) -> (Vec<u8>, LogEnd) {
    let mut bytes = Vec::new();
    loop {
        match stream.message().await.unwrap().expect("an end").part.unwrap() {
            Part::Chunk(chunk) => {
                assert_eq!(chunk.offset, from + bytes.len() as u64);
                let framed: usize = chunk.frames.iter().map(|frame| frame.length as usize).sum();
                assert_eq!(framed, chunk.data.len());
                bytes.extend_from_slice(&chunk.data);
            }
            Part::End(end) => {
                assert!(stream.message().await.unwrap().is_none());
                return (bytes, end);
            }
        }
    }
}

/// Numbered lines, so that a hole or a double is seen.
pub(super) fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| format!("line {n}\n").into_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_taken_at_their_offset_and_nowhere_else() {
    let mut stack = Stack::start().await;
    let (_executor, mut logs, attempt) = running(&mut stack).await;
    for (start, data, committed) in [
        (0, "", 0),
        (3, "too early", 0),
        (0, "hello ", 6),
        (0, "hello ", 6),
        (2, "llo w", 7),
        (7, "orld", 11),
        (0, "hello world", 11),
        (20, "", 11),
        (11, "!", 12),
    ] {
        let ack = logs.append(&attempt, start, data.as_bytes()).await.unwrap();
        assert_eq!(ack.committed, committed, "{data:?} at {start}");
        assert!(ack.credit > 0);
    }
    for (start, data) in [(0, "Hello"), (10, "x and more"), (11, "?")] {
        let refusal = logs.append(&attempt, start, data.as_bytes()).await.unwrap_err();
        assert_eq!(refusal.code(), Refused::Differs, "{data:?} at {start}");
    }
    assert_eq!(logs.append(&unknown(), 0, b"x").await.unwrap_err().code(), Refused::UnknownAttempt);
    let (bytes, end) =
        read_all(stack.logs_client().await.read_log(request(0, false)).await.unwrap().into_inner(), 0).await;
    assert_eq!((bytes.as_slice(), end), (b"hello world!".as_slice(), LogEnd { length: 12, complete: false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_log_ends_the_connection_and_adds_nothing() {
    let mut stack = Stack::start().await;
    let (mut executor, _logs, attempt) = running(&mut stack).await;
    let frames = vec![LogFrame { length: 9, stream: 1, ..LogFrame::default() }];
    for bad in [
        append(&attempt, u64::MAX, b"x"),
        append(&attempt, i64::MAX as u64, b"xx"),
        append("not a uuid", 0, b"x"),
        sculpt_proto::executor::v1::Append { frames, ..append(&attempt, 0, b"x") },
        append(&attempt, 0, &vec![0; (256 << 10) + 1]),
    ] {
        let epoch = executor.epoch;
        let mut logs = executor.logs(epoch).await;
        logs.send(bad).await;
        assert_eq!(logs.message().await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(stack.value::<i64>("SELECT log_bytes FROM attempts").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_gets_every_byte_once_and_the_end() {
    let mut stack = Stack::start().await;
    make::task(&stack.store).await;
    let mut client = stack.logs_client().await;
    // Follows a queued task: it waits for the attempt.
    let follower = client.read_log(request(0, true)).await.unwrap().into_inner();
    let reading = tokio::spawn(read_all(follower, 0));
    let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
    stack.place().await;
    let attempt = executor.run_one().await;
    let epoch = executor.epoch;
    let mut logs = executor.logs(epoch).await;
    let log = lines(20_000);
    let mut at = 0;
    for piece in log.chunks(1009) {
        logs.send(append(&attempt, at, piece)).await;
        at += piece.len() as u64;
    }
    logs.committed(at).await;
    executor.report(&attempt, 4, finalizing(0)).await;
    executor.report(&attempt, 5, completed(at)).await;
    let (bytes, end) = reading.await.unwrap();
    assert!(bytes == log, "{} of {} bytes", bytes.len(), log.len());
    assert_eq!(end, LogEnd { length: at, complete: true });
    let late = client.read_log(request(at - 10, true)).await.unwrap().into_inner();
    assert_eq!(read_all(late, at - 10).await.0, log[log.len() - 10..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_waited_for_and_holds_nobody_up() {
    let mut stack = Stack::start().await;
    let (_executor, mut logs, attempt) = running(&mut stack).await;
    // It reads nothing while all of this is committed: far more than its connection holds.
    let slow = stack.logs_client().await.read_log(request(0, false)).await;
    let mut follower = stack.logs_client().await.read_log(request(0, true)).await.unwrap().into_inner();
    let log = lines(700_000);
    let mut at = 0;
    for piece in log.chunks(256 << 10) {
        logs.send(append(&attempt, at, piece)).await;
        at += piece.len() as u64;
    }
    logs.committed(at).await;
    drop(slow);
    let mut read = Vec::new();
    while read.len() < log.len() {
        match follower.message().await.unwrap().unwrap().part.unwrap() {
            Part::Chunk(chunk) => {
                assert_eq!(chunk.offset, read.len() as u64);
                read.extend_from_slice(&chunk.data);
            }
            Part::End(end) => panic!("{end:?}"),
        }
    }
    assert!(read == log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_does_not_notice_that_a_log_was_sealed() {
    let mut stack = Stack::start().await;
    let (mut executor, mut logs, attempt) = running(&mut stack).await;
    let log = lines(1_200_000);
    let mut at = 0;
    for piece in log.chunks(200_000) {
        logs.send(append(&attempt, at, piece)).await;
        at += piece.len() as u64;
    }
    logs.committed(at).await;
    let mut client = stack.logs_client().await;
    let mut during = client.read_log(request(0, false)).await.unwrap().into_inner();
    let first = during.message().await.unwrap();
    let made = seal::seal(&stack.store, &stack.blobs, 1 << 20, Duration::from_secs(3600)).await.unwrap();
    assert!(made >= 2, "{made} segments of {} bytes", log.len());
    let Some(Part::Chunk(first)) = first.and_then(|reply| reply.part) else { panic!("no chunk") };
    let (rest, _) = read_all(during, first.data.len() as u64).await;
    assert!([first.data.as_ref(), &rest].concat() == log);
    assert!(stack.value::<i64>("SELECT log_sealed FROM attempts").await > 8 << 20);
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM dead_blobs").await, 0);

    // What is sent again is compared with what is sealed.
    assert_eq!(logs.append(&attempt, 100, &log[100..5000]).await.unwrap().committed, at);
    assert_eq!(logs.append(&attempt, 100, &log[101..5000]).await.unwrap_err().code(), Refused::Differs);

    executor.report(&attempt, 4, finalizing(0)).await;
    executor.report(&attempt, 5, completed(at)).await;
    seal::seal(&stack.store, &stack.blobs, 1 << 20, Duration::ZERO).await.unwrap();
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM log_chunks").await, 0);
    for from in [0, 1, 4_500_000, log.len() as u64 - 1, log.len() as u64, log.len() as u64 + 5] {
        let (bytes, end) = read_all(client.read_log(request(from, true)).await.unwrap().into_inner(), from).await;
        let from = usize::try_from(from).unwrap().min(log.len());
        assert!(bytes == log[from..], "from {from}");
        assert_eq!(end, LogEnd { length: at, complete: true });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_stand_at_their_bytes_however_often_they_are_sent() {
    let mut stack = Stack::start().await;
    let (mut executor, mut logs, attempt) = running(&mut stack).await;
    let frame = |length, columns| {
        let size = (columns > 0).then_some(LogSize { columns, rows: 50 });
        LogFrame { length, stream: 1, time_ms: 0, size }
    };
    // Ends of appends before, at and behind the bytes at which the terminal changed.
    for (start, data, frames) in [
        (0, "abcd", vec![frame(4, 200)]),
        (0, "abcdefg", vec![frame(4, 200), frame(2, 80), frame(1, 0)]),
        (4, "efgh", vec![frame(2, 80), frame(1, 0), frame(1, 90)]),
        (5, "fgh", vec![frame(2, 0), frame(1, 90)]),
        (7, "hi", vec![frame(1, 90), frame(1, 91)]),
    ] {
        logs.send(Append { frames, ..append(&attempt, start, data.as_bytes()) }).await;
        logs.committed(start + data.len() as u64).await;
    }
    let all = [(0, 200), (4, 80), (7, 90), (8, 91)];
    assert_eq!(sizes(&mut stack, 0).await, all);
    executor.report(&attempt, 4, finalizing(0)).await;
    executor.report(&attempt, 5, completed(9)).await;
    seal::seal(&stack.store, &stack.blobs, 1 << 20, Duration::ZERO).await.unwrap();
    assert_eq!(stack.value::<i64>("SELECT count(*) FROM log_chunks").await, 0);
    for from in 0..=9 {
        let wanted: Vec<_> = all.iter().copied().filter(|(at, _)| *at >= from).collect();
        assert_eq!(sizes(&mut stack, from).await, wanted, "from {from}");
    }
}

/// Where the terminal changed its size, and to how many columns.
async fn sizes(stack: &mut Stack, from: u64) -> Vec<(u64, u32)> {
    let mut stream = stack.logs_client().await.read_log(request(from, false)).await.unwrap().into_inner();
    let mut sizes = Vec::new();
    while let Some(Part::Chunk(chunk)) = stream.message().await.unwrap().and_then(|reply| reply.part) {
        let mut at = chunk.offset;
        for frame in chunk.frames {
            sizes.extend(frame.size.map(|size| (at, size.columns)));
            at += u64::from(frame.length);
        }
    }
    sizes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_complete_only_when_its_last_byte_is_held() {
    let mut stack = Stack::start().await;
    let (mut executor, mut logs, attempt) = running(&mut stack).await;
    logs.append(&attempt, 0, b"12345").await.unwrap();
    executor.report(&attempt, 4, finalizing(0)).await;
    let ack = executor.report(&attempt, 5, completed(3)).await;
    assert_eq!(ack.through, 4, "{}", ack.text);
    executor.report(&attempt, 5, completed(8)).await;
    let mut client = stack.logs_client().await;
    let (_, end) = read_all(client.read_log(request(0, false)).await.unwrap().into_inner(), 0).await;
    assert_eq!(end, LogEnd { length: 5, complete: false });
    assert_eq!(logs.append(&attempt, 5, b"6789").await.unwrap_err().code(), Refused::Differs);
    assert_eq!(logs.append(&attempt, 5, b"678").await.unwrap().committed, 8);
    assert_eq!(executor.desired().await.released, [attempt]);
    let (bytes, end) = read_all(client.read_log(request(0, true)).await.unwrap().into_inner(), 0).await;
    assert_eq!((bytes.as_slice(), end), (b"12345678".as_slice(), LogEnd { length: 8, complete: true }));
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_drops_no_day_that_holds_what_is_not_sealed() {
    let mut stack = Stack::start().await;
    let (mut executor, mut logs, attempt) = running(&mut stack).await;
    let log = lines(1_000);
    let end = logs.append(&attempt, 0, &log).await.unwrap().committed;
    // What came long ago, in a day of its own; another day has been emptied since.
    for day in ["20200101", "20200102"] {
        let (year, date) = ("2020", &day[6..]);
        let sql = format!(
            "CREATE TABLE log_chunks_{day} PARTITION OF log_chunks \
             FOR VALUES FROM ('{year}-01-{date} 00:00:00+00') TO ('{year}-01-{date} 24:00:00+00')"
        );
        let mut conn = stack.store.read().await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *conn).await.unwrap();
    }
    stack.run("UPDATE log_chunks SET at = '2020-01-01 12:00:00+00'").await;
    let days = "SELECT coalesce(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class \
                WHERE relname ~ '^log_chunks_2020[0-9]{4}$'";
    let mut client = stack.logs_client().await;
    let keep = |store: sculpt_controller::store::Store| async move { maintenance::once(&store, 1).await.unwrap() };
    keep(stack.store.clone()).await;
    assert_eq!(stack.value::<String>(days).await, "log_chunks_20200101", "the emptied one alone is gone");
    let (bytes, _) = read_all(client.read_log(request(0, false)).await.unwrap().into_inner(), 0).await;
    assert!(bytes == log);
    // Also of a log that has ended, until it is sealed.
    executor.report(&attempt, 4, finalizing(0)).await;
    executor.report(&attempt, 5, completed(end)).await;
    keep(stack.store.clone()).await;
    assert_eq!(stack.value::<String>(days).await, "log_chunks_20200101");
    seal::seal(&stack.store, &stack.blobs, 1 << 20, Duration::ZERO).await.unwrap();
    keep(stack.store.clone()).await;
    assert_eq!(stack.value::<String>(days).await, "");
    let (bytes, end) = read_all(client.read_log(request(0, true)).await.unwrap().into_inner(), 0).await;
    assert!(bytes == log && end.complete);
}
