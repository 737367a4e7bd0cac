//! The Publish call over a real session: what it moves, and what it must not move.

use sculpt_controller::{
    background::liveness,
    store::{projects::Wish, requests::Request},
};
use sculpt_proto::{
    executor::v1::{Ended, ended, report::Step},
    id::RequestId,
};
use tonic::Code;

use super::{
    Stack,
    executor::{Scripted, accepted, finalizing, hello, pieces, preparing, running},
};
use crate::{git::repo::Repo, harness, make};

/// An attempt of a task on a base.
pub(super) struct Run {
    pub(super) stack: Stack,
    pub(super) executor: Scripted,
    repo: Repo,
    base: String,
    pub(super) attempt: String,
}

const REFS: &str = "SELECT coalesce(string_agg(name || ' ' || target, ',' ORDER BY name), '') FROM refs \
                    WHERE name NOT LIKE 'refs/sculpt/bases/%'";

impl Run {
    /// A running one.
    pub(super) async fn new() -> Self {
        let mut run = Self::silent().await;
        run.report_all().await;
        run
    }

    /// One of which no report has come yet.
    async fn silent() -> Self {
        let mut stack = Stack::start().await;
        let repo = Repo::new().await;
        let base = repo.commit("a.txt", "base\n").await;
        let wish = Wish {
            name: "demo".into(),
            exact_name: false,
            root_commit: base.clone(),
            remote: String::new(),
            default_agent: None,
            commit_changes: None,
            record_typing: None,
        };
        let request = Request { id: RequestId::fresh(), method: "EnsureProject", digest: [0; 32] };
        let project =
            stack.store.ensure_project(harness::admin(&stack.store).await, request, wish).await.unwrap().0.id();
        let mut pack = stack.repositories.receive().await.unwrap();
        pack.write(&repo.pack(&base, &[]).await).await.unwrap();
        stack.repositories.keep_base(project, &base, &mut pack).await.unwrap();
        drop(pack);
        make::task_on(&stack.store, project, &base).await;
        let (mut executor, _) = Scripted::ready(&mut stack, hello("one")).await;
        stack.place().await;
        let attempt = executor.desired().await.attempts.remove(0).attempt_id;
        executor.spec(&attempt).await.unwrap();
        Self { stack, executor, repo, base, attempt }
    }

    async fn report_all(&mut self) {
        let attempt = self.attempt.clone();
        for (sequence, step) in (1..).zip([accepted(), preparing(), running()]) {
            assert_eq!(self.executor.report(&attempt, sequence, step).await.through, sequence);
        }
    }

    /// A commit on the base, with its pack.
    pub(super) async fn work(&self) -> (String, Vec<u8>) {
        // What does not compress is a pack of several messages.
        let noise: Vec<u8> = (0..200_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let head = self.repo.commit("new.bin", noise).await;
        let pack = self.repo.pack(&head, &[&self.base]).await;
        (head, pack)
    }

    pub(super) async fn publish(&mut self, head: &str, pack: &[u8]) -> Result<String, Code> {
        let (epoch, attempt) = (self.executor.epoch, self.attempt.clone());
        self.executor.publish(epoch, &attempt, head, pack).await.map_err(|status| status.code())
    }

    /// Files of calls that are under way.
    fn half_done(&self) -> usize {
        let entries = std::fs::read_dir(self.stack.directory.path().join("tmp/git")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().file_name() != "home").count()
    }

    /// Nothing was published, and nothing of what was sent is left.
    async fn assert_nothing(&self) {
        assert_eq!(self.stack.value::<String>(REFS).await, "");
        assert_eq!(self.stack.value::<i64>("SELECT count(*) FROM packs").await, 1, "the base's");
        assert_eq!(self.stack.value::<i64>("SELECT count(*) FROM attempts WHERE head IS NOT NULL").await, 0);
        assert_eq!(self.half_done(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_commits_move_both_refs_once_and_need_review() {
    let mut run = Run::new().await;
    let (head, pack) = run.work().await;
    let revision = "SELECT revision FROM tasks";
    let mut revisions = Vec::new();
    for _ in 0..3 {
        assert_eq!(run.publish(&head, &pack).await.as_deref(), Ok(head.as_str()));
        revisions.push(run.stack.value::<i64>(revision).await);
    }
    assert_eq!(revisions, [revisions[0]; 3], "a repetition moves nothing");
    let task = "SELECT task_id FROM attempts";
    let task: uuid::Uuid = run.stack.value(task).await;
    let expected = format!("refs/heads/sculpt/1-true {head},refs/sculpt/attempts/{task}/{} {head}", run.attempt);
    assert_eq!(run.stack.value::<String>(REFS).await, expected);
    assert_eq!(run.stack.value::<i64>("SELECT count(*) FROM packs").await, 2, "the base's and this one");
    assert_eq!(run.stack.value::<i64>("SELECT count(*) FROM dead_blobs").await, 0);
    assert_eq!(run.half_done(), 0);
    let ended = Ended { outcome: ended::Outcome::Completed.into(), head: head.clone(), ..Ended::default() };
    let attempt = run.attempt.clone();
    assert_eq!(run.executor.report(&attempt, 4, finalizing(0)).await.through, 4);
    assert_eq!(run.executor.report(&attempt, 5, Step::Ended(ended)).await.through, 5);
    let row = "SELECT shown::text || ' ' || review_head FROM tasks";
    assert_eq!(run.stack.value::<String>(row).await, format!("needs_review {head}"));
    assert_eq!(run.publish(&head, b"").await.as_deref(), Ok(head.as_str()), "also after its end");
}

/// After an outage the call may overtake the reports, which have a stream of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_overtakes_its_reports_has_to_wait() {
    let mut run = Run::silent().await;
    let (head, pack) = run.work().await;
    assert_eq!(run.publish(&head, &pack).await, Err(Code::Unavailable));
    run.assert_nothing().await;
    run.report_all().await;
    assert_eq!(run.publish(&head, &pack).await.as_deref(), Ok(head.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_base_alone_is_no_result() {
    let mut run = Run::new().await;
    let base = run.base.clone();
    assert_eq!(run.publish(&base, b"").await.as_deref(), Ok(""));
    run.assert_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_over_publishes_nothing() {
    let mut run = Run::new().await;
    let (head, pack) = run.work().await;
    let who = sculpt_proto::executor::v1::Hello { executor_id: run.executor.id.clone(), ..hello("one") };
    // The newer one connects in the middle of a call that began in time.
    let (sender, parts) = tokio::sync::mpsc::channel(1024);
    let length = pack.len() as u64;
    sender.send(run.executor.header(run.executor.epoch, &run.attempt, &head, length)).await.unwrap();
    let mut client = run.executor.client.clone();
    let call = tokio::spawn(async move { client.publish(tokio_stream::wrappers::ReceiverStream::new(parts)).await });
    harness::eventually("the call to begin", async || (run.half_done() > 0).then_some(())).await;
    let newer = Scripted::welcome(&mut run.stack, who).await;
    assert_eq!(newer.epoch, run.executor.epoch + 1);
    for piece in pieces(&pack) {
        sender.send(piece).await.unwrap();
    }
    drop(sender);
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Aborted);
    assert_eq!(run.publish(&head, &pack).await, Err(Code::Aborted), "one that begins too late");
    run.assert_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_attempt_publishes_nothing() {
    let mut run = Run::new().await;
    let (head, pack) = run.work().await;
    run.stack.run("UPDATE tasks SET on_lost = 'retry', lost_after = '1 minute'").await;
    run.stack.run("UPDATE executors SET last_seen = now() - interval '1 hour'").await;
    while run.stack.value::<i64>("SELECT count(*) FROM attempts WHERE fenced_at IS NULL").await > 0 {
        liveness::look(&run.stack.dispatch).await.unwrap();
    }
    assert_eq!(run.publish(&head, &pack).await, Err(Code::FailedPrecondition));
    run.assert_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_whole_pack_is_refused_and_nothing_of_it_stays() {
    let mut run = Run::new().await;
    let (head, pack) = run.work().await;
    let mut flipped = pack.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    for (what, pack) in [
        ("flipped", flipped.as_slice()),
        ("cut off", &pack[..pack.len() - 30]),
        ("not a pack", b"this is no pack, but long enough for one"),
        ("empty", b""),
    ] {
        assert_eq!(run.publish(&head, pack).await, Err(Code::InvalidArgument), "{what}");
    }
    let (epoch, attempt) = (run.executor.epoch, run.attempt.clone());
    for length in [pack.len() as u64 - 1, pack.len() as u64 + 1] {
        let parts: Vec<_> =
            [run.executor.header(epoch, &attempt, &head, length)].into_iter().chain(pieces(&pack)).collect();
        let refused = run.executor.client.publish(tokio_stream::iter(parts)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    // Not one object is missing but the tree that the commit names.
    let bare = run.repo.pack_of(&[&head]).await;
    assert_eq!(run.publish(&head, &bare).await, Err(Code::InvalidArgument));
    let headless: Vec<_> = pieces(&pack).collect();
    let refused = run.executor.client.publish(tokio_stream::iter(headless)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let stranger = super::executor::unknown();
    let refused = run.executor.publish(epoch, &stranger, &head, &pack).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    run.assert_nothing().await;
    assert_eq!(run.publish(&head, &pack).await.as_deref(), Ok(head.as_str()), "the whole one is taken");
}
