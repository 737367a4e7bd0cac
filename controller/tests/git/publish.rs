//! What attempts publish.

use sculpt_controller::{
    access::{On, Read},
    bus::Bus,
    dispatch::{Actor, Dispatch, DispatchError},
    git::{GitError, Publication, Published, SessionCheck, names, publish},
    store::{
        refs,
        sessions::{self, Epoch, Introduction},
        tasks::NewTask,
    },
};
use sculpt_core::{
    attempt::{Fence, Step},
    outcome::{Cause, Failure, Outcome},
    placement::{AgentNeed, Needs},
    task::{Event, IllegalTransition, OnLost, Policy},
};
use sculpt_proto::id::{AttemptId, ExecutorId, TaskId};
use uuid::Uuid;

use super::{World, no_labels, repo::Repo, request};
use crate::{harness::until_waiting, make};

struct Run {
    world: World,
    repo: Repo,
    base: String,
    dispatch: Dispatch,
    epoch: Epoch,
    task: TaskId,
}

/// An admin's right to look at the task.
async fn readable(run: &Run) -> On<Read> {
    let ada = crate::harness::admin(&run.world.store).await;
    let task = run.world.store.find_task(&ada.sees(), &run.task.to_string()).await.unwrap();
    ada.on(&task).unwrap()
}

impl Run {
    /// A task on a base, with an executor, without an attempt.
    async fn new() -> Self {
        let (world, repo) = (World::new().await, Repo::new().await);
        let base = repo.commit("a.txt", "base\n").await;
        world.send_all(&repo, &base).await;
        let epoch = connect(&world, ExecutorId::fresh()).await;
        let needs = Needs { pool: "default".to_owned(), requirements: no_labels(), agent: AgentNeed::None };
        let new = NewTask {
            base: Some((world.project, base.clone())),
            needs,
            title: "Fix".to_owned(),
            labels: no_labels(),
            priority: 0,
            created_by: String::new(),
            policy: Policy { on_lost: OnLost::Wait, lost_after: chrono::TimeDelta::minutes(15) },
            spec: Vec::new(),
            brief: None,
        };
        let start = crate::make::start(&world.store, new.base.clone()).await;
        let (task, _) = world.store.create_task(start, request(), new).await.unwrap();
        let dispatch = Dispatch::new(world.store.clone(), Bus::new());
        Self { world, repo, base, dispatch, epoch, task }
    }

    async fn apply(&self, event: Event) {
        let _ = self.dispatch.apply(self.task, event, Actor::system()).await.unwrap();
    }

    /// A running attempt.
    async fn attempt(&self, number: u32) -> Fence {
        let fence = Fence { number, id: Uuid::now_v7() };
        self.apply(Event::Claimed { fence, executor: self.epoch.executor.0 }).await;
        for step in [Step::Accepted, Step::Preparing, Step::Running] {
            self.apply(Event::Stepped { fence, step }).await;
        }
        fence
    }

    async fn fail(&self, fence: Fence) {
        let failure = Failure { cause: Cause::AgentExit, message: "It failed.".to_owned() };
        self.apply(Event::Stepped { fence, step: Step::Ended { outcome: Outcome::Failed(failure) } }).await;
    }

    async fn publish(&self, fence: Fence, head: &str, pack: &[u8]) -> Result<Published, GitError> {
        let epoch = self.epoch;
        let check: SessionCheck = Box::new(move |conn| Box::pin(sessions::holds(conn, epoch)));
        self.publish_if(fence, head, pack, check).await
    }

    async fn publish_if(
        &self,
        fence: Fence,
        head: &str,
        pack: &[u8],
        check: SessionCheck,
    ) -> Result<Published, GitError> {
        let mut received = self.world.repositories.receive().await?;
        received.write(pack).await?;
        let publication = Publication {
            task: self.task,
            fence,
            project: self.world.project,
            base: self.base.clone(),
            head: head.to_owned(),
            branch: "sculpt/1-fix".to_owned(),
        };
        publish(&self.world.repositories, &self.dispatch, publication, received, check).await
    }

    /// A commit on the base, with its pack.
    async fn work(&self, text: &str) -> (String, Vec<u8>) {
        self.repo.git(&["checkout", "-q", "--detach", &self.base]).await;
        let head = self.repo.commit("a.txt", text).await;
        let pack = self.repo.pack(&head, &[&self.base]).await;
        (head, pack)
    }

    async fn at(&self, name: &str) -> Option<String> {
        let mut conn = self.world.store.read().await.unwrap();
        refs::target(&mut conn, self.world.project, name).await.unwrap()
    }

    async fn branch(&self) -> Option<String> {
        self.at("refs/heads/sculpt/1-fix").await
    }
}

async fn connect(world: &World, id: ExecutorId) -> Epoch {
    let who = introduction(id);
    world.store.write(move |conn| Box::pin(async move { sessions::open(conn, &who).await })).await.unwrap()
}

fn introduction(id: ExecutorId) -> Introduction {
    Introduction { id, ..make::introduction("host", 4) }
}

#[tokio::test]
async fn a_head_is_published_once_however_often_it_is_sent() {
    let run = Run::new().await;
    let fence = run.attempt(1).await;
    let (head, pack) = run.work("mine\n").await;
    for _ in 0..3 {
        assert_eq!(run.publish(fence, &head, &pack).await.unwrap(), Published::Moved);
    }
    assert_eq!(run.branch().await.as_ref(), Some(&head));
    assert_eq!(run.at(&names::attempt(run.task, AttemptId(fence.id))).await.as_ref(), Some(&head));
    let view = run.world.store.task(&readable(&run).await).await.unwrap().unwrap();
    assert_eq!(view.attempts[0].head.as_ref(), Some(&head));
    // Its end does not take that back, and a late repetition learns the same.
    run.fail(fence).await;
    assert_eq!(run.publish(fence, &head, b"").await.unwrap(), Published::Moved);
    assert!(run.world.has(&head).await);
}

#[tokio::test]
async fn the_base_itself_moves_nothing() {
    let run = Run::new().await;
    let fence = run.attempt(1).await;
    assert_eq!(run.publish(fence, &run.base, b"").await.unwrap(), Published::Nothing);
    assert_eq!(run.branch().await, None);
}

#[tokio::test]
async fn a_fenced_attempt_publishes_nothing() {
    let run = Run::new().await;
    let first = run.attempt(1).await;
    let (old, old_pack) = run.work("old\n").await;
    run.publish(first, &old, &old_pack).await.unwrap();
    run.fail(first).await;
    run.apply(Event::Retry).await;
    let second = run.attempt(2).await;
    let (late, late_pack) = run.work("late\n").await;
    let error = run.publish(first, &late, &late_pack).await.unwrap_err();
    let fenced = |error: &GitError| matches!(error, GitError::Dispatch(DispatchError::Illegal(IllegalTransition::Fenced { fence })) if *fence == first);
    assert!(fenced(&error), "{error}");
    assert_eq!(run.branch().await.as_ref(), Some(&old));
    assert!(!run.world.has(&late).await);
    // The branch follows the newer attempt, and the older one's commits stay.
    let (new, new_pack) = run.work("new\n").await;
    run.publish(second, &new, &new_pack).await.unwrap();
    assert_eq!(run.branch().await.as_ref(), Some(&new));
    assert!(run.world.has(&old).await);
}

#[tokio::test]
async fn a_superseded_session_publishes_nothing() {
    let run = Run::new().await;
    let fence = run.attempt(1).await;
    connect(&run.world, run.epoch.executor).await;
    let (head, pack) = run.work("mine\n").await;
    let error = run.publish(fence, &head, &pack).await.unwrap_err();
    assert!(matches!(error, GitError::Superseded), "{error}");
    assert_eq!(run.branch().await, None);
    let view = run.world.store.task(&readable(&run).await).await.unwrap().unwrap();
    assert_eq!(view.attempts[0].head, None);
}

/// Both hold what the other needs, unless each takes the executor's row first.
#[tokio::test]
async fn an_executor_that_comes_back_elsewhere_and_a_publication_do_not_wait_for_each_other() {
    let run = Run::new().await;
    let fence = run.attempt(1).await;
    sqlx::query("UPDATE attempts SET spec_read = true")
        .execute(&mut *run.world.store.read().await.unwrap())
        .await
        .unwrap();
    let (head, pack) = run.work("mine\n").await;
    let (store, epoch) = (run.world.store.clone(), run.epoch);
    let (coming, mut came) = tokio::sync::mpsc::channel(1);
    let check: SessionCheck = Box::new(move |conn| {
        Box::pin(async move {
            let who = Introduction { directory: Some(Uuid::now_v7()), ..introduction(epoch.executor) };
            let opened = tokio::spawn({
                let store = store.clone();
                async move { store.write(move |conn| Box::pin(async move { sessions::open(conn, &who).await })).await }
            });
            // It is open, or waits for a row.
            until_waiting(&store, 1, || opened.is_finished()).await;
            coming.send(opened).await.expect("the test waits");
            sessions::holds(conn, epoch).await
        })
    });
    let published = run.publish_if(fence, &head, &pack, check).await;
    came.recv().await.expect("it came").await.unwrap().unwrap();
    assert!(matches!(published, Err(GitError::Superseded)), "{published:?}");
    assert_eq!(run.branch().await, None);
}

#[tokio::test]
async fn a_branch_that_somebody_else_moved_is_left_alone() {
    let run = Run::new().await;
    let fence = run.attempt(1).await;
    let strange = run.repo.commit("b.txt", "not of this task\n").await;
    run.world.send_all(&run.repo, &strange).await;
    run.world.make_refs(vec!["refs/heads/sculpt/1-fix".to_owned()], &strange).await;
    let (head, pack) = run.work("mine\n").await;
    let error = run.publish(fence, &head, &pack).await.unwrap_err();
    assert!(matches!(error, GitError::ForeignBranch { .. }), "{error}");
    assert_eq!(run.branch().await, Some(strange));
}

#[tokio::test]
async fn of_two_that_saw_the_same_ref_one_moves_it() {
    let run = Run::new().await;
    let (one, two) = (run.work("one\n").await.0, run.work("two\n").await.0);
    run.world.make_refs(vec!["refs/heads/main".to_owned()], &run.base).await;
    let moved = |target: String| {
        let (project, base) = (run.world.project, run.base.clone());
        run.world.store.write(move |conn| {
            Box::pin(async move {
                refs::raise_revision(conn, project).await?;
                refs::move_ref(conn, project, "refs/heads/main", Some(&base), &target).await
            })
        })
    };
    let (first, second) = tokio::join!(moved(one), moved(two));
    assert!(first.is_ok() != second.is_ok(), "{first:?}, {second:?}");
    let error = first.and(second).unwrap_err();
    assert!(matches!(&error, refs::RefError::Stale { actual: Some(_), .. }), "{error}");
}
