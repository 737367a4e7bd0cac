//! Parts that live, take connections, and answer nothing.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_proto::v1::{Command, CreateTaskRequest, ListTasksRequest, TaskSpec, task_spec::Work};
use sculpt_tests::harness::{
    Api, Stack,
    nemesis::{Part, candidates},
};
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;
use uuid::Uuid;

/// Callers at once: some are in the middle of a statement when the database stops.
const CALLERS: usize = 8;

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(30);

fn create(id: Uuid) -> CreateTaskRequest {
    // They stay queued: nobody has that label.
    let spec = TaskSpec {
        work: Some(Work::Command(Command { argv: vec![b"true".to_vec()] })),
        requirements: [("nobody".to_owned(), "has-it".to_owned())].into(),
        ..TaskSpec::default()
    };
    CreateTaskRequest { request_id: id.to_string(), spec: Some(spec) }
}

/// Creates tasks until a call fails; the wishes that were answered, and the one that was not.
async fn until_refused(mut api: Api) -> Result<(Vec<(Uuid, u64)>, Uuid)> {
    let mut made = Vec::new();
    loop {
        let id = Uuid::new_v4();
        let begin = Instant::now();
        let answer = tokio::time::timeout(LIMIT, api.tasks.create_task(create(id))).await;
        let answer = answer.with_context(|| format!("no answer within {LIMIT:?}"))?;
        match answer {
            Ok(answer) => made.push((id, answer.into_inner().task.context("a task")?.number)),
            Err(status) => {
                let took = begin.elapsed();
                ensure!(status.code() == Code::Unavailable, "after {took:?}: {status:?}");
                ensure!(status.message().contains("database"), "it says what is away: {status:?}");
                return Ok((made, id));
            }
        }
    }
}

async fn tasks(api: &mut Api) -> Result<BTreeSet<u64>> {
    let list = ListTasksRequest { page_size: 1000, ..ListTasksRequest::default() };
    let tasks = api.tasks.list_tasks(list).await?.into_inner().tasks;
    Ok(tasks.into_iter().map(|task| task.number).collect())
}

#[tokio::test]
async fn a_database_that_answers_nothing_holds_no_call_and_loses_nothing() -> Result<()> {
    let stack = Stack::parts().await?;
    let counting = stack.counting(&["--no-tty"]).await?;
    let following = stack.following(&counting).await?;
    let mut api = stack.api().await?;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(until_refused(stack.api().await?));
    }
    while tasks(&mut api).await?.len() <= 4 * CALLERS {
        ensure!(callers.try_join_next().is_none(), "a call failed before anything was done");
    }
    let stopped: Vec<_> =
        [Part::Postmaster, Part::Backend].into_iter().flat_map(|part| candidates(&stack, part)).collect();
    stopped.iter().for_each(|found| found.signal(Signal::STOP));
    let outcome = callers.join_all().await;
    counting.counter.prints(100).await?;
    stopped.iter().for_each(|found| found.signal(Signal::CONT));

    let mut numbers = BTreeSet::new();
    for told in outcome {
        let (made, refused) = told?;
        for (id, number) in made {
            ensure!(number == api.tasks.create_task(create(id)).await?.into_inner().task.context("a task")?.number);
            ensure!(numbers.insert(number), "two wishes have task {number}");
        }
        // Done by then or not: asked again it is one task.
        let mut again = BTreeSet::new();
        for _ in 0..2 {
            again.insert(repeated(&mut api, refused).await?);
        }
        ensure!(again.len() == 1 && numbers.insert(again.iter().copied().sum()), "{again:?}");
    }
    numbers.insert(counting.task.parse()?);
    let there = tasks(&mut api).await?;
    ensure!(there == numbers, "{there:?} are there, {numbers:?} were told");
    for number in &numbers {
        if number.to_string() != counting.task {
            stack.sculpt(["stop", &number.to_string()]).run().await?.done()?;
        }
    }
    counting.arrives(&stack).await?;
    following.saw_all(&stack, counting).await?;
    stack.finish().await
}

/// The task of a wish that is uttered until it is answered: the database has just begun to go on.
async fn repeated(api: &mut Api, id: Uuid) -> Result<u64> {
    let begin = Instant::now();
    loop {
        match api.tasks.create_task(create(id)).await {
            Ok(answer) => return Ok(answer.into_inner().task.context("a task")?.number),
            Err(status) if status.code() == Code::Unavailable && begin.elapsed() < LIMIT => {}
            Err(status) => return Err(status).context("repeat a wish"),
        }
    }
}
