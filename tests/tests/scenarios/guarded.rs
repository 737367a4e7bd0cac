//! What one guard alone stands before. Each of these fails when its guard is taken out (`tests/guards/list`).

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use sculpt_failpoints::VARIABLE;
use sculpt_proto::executor::v1::{
    Accepted, Ended, Heartbeat, Preparing, PublishRequest, Running, control_request, control_response, ended::Outcome,
    log_refusal, logs_response, publish_request, report::Step, report_ack::Refusal,
};
use sculpt_proto::v1::Exit;
use sculpt_tests::harness::{
    Peer, Repo, Stack, eventually,
    nemesis::{Part, candidates},
    peer::{append, hello},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// The pool of the executor that is the test's.
const POOL: &str = "tests";

fn running() -> Step {
    Step::Running(Running { pid: 1, tmux_socket: String::new() })
}

fn completed(head: &str, log_length: u64) -> Step {
    let exit = Some(Exit { code: Some(0), signal: None });
    let head = head.to_owned();
    Step::Ended(Ended { outcome: Outcome::Completed.into(), exit, log_length, head, ..Ended::default() })
}

/// Up to and with its agent running.
async fn begins(peer: &mut Peer, attempt: &str) -> Result<()> {
    for (sequence, step) in (1..).zip([Step::Accepted(Accepted {}), Step::Preparing(Preparing {}), running()]) {
        let ack = peer.report(attempt, sequence, step).await?;
        ensure!(ack.through == sequence && ack.refusal() == Refusal::Unspecified, "{ack:?}");
    }
    Ok(())
}

/// A task in `repo` for the test's executor.
async fn task_in(stack: &Stack, repo: &Repo) -> Result<String> {
    stack.detached(repo.path(), ["--no-tty", "--pool", POOL, "--", "true"]).await
}

/// A pack of the objects that `names` prints.
async fn pack(stack: &Stack, repo: &Repo, names: &str) -> Result<Vec<u8>> {
    let file = stack.fresh("pack");
    fs::create_dir_all(file.parent().context("a file stands in a directory")?)?;
    let script = format!("{{ {names}; }} | git pack-objects -q --stdout > '{}'", file.display());
    stack.shell("sh", ["-c", &script]).dir(repo.path()).run().await?.done()?;
    fs::read(&file).context("read the pack")
}

/// A commit on top of the repository's, which only its pack brings to the controller.
async fn made(stack: &Stack, repo: &Repo, content: &str) -> Result<(String, Vec<u8>)> {
    let base = repo.head()?;
    let head = repo.commit("made.txt", content)?;
    repo.git(["reset", "-q", "--hard", &base])?;
    let pack = pack(stack, repo, &format!("git rev-list --objects {head} ^{base} | cut -d' ' -f1")).await?;
    Ok((head, pack))
}

fn code(answer: Result<String, Status>) -> Result<String, Code> {
    answer.map_err(|status| status.code())
}

/// A publication that began while its attempt had the task, and whose pack arrives when another has it.
#[tokio::test]
async fn a_stale_attempt_moves_nothing() -> Result<()> {
    let stack = Stack::parts().await?;
    let repo = stack.repo()?;
    let mut peer = stack.peer(hello("tests", POOL)).await?;
    let task = task_in(&stack, &repo).await?;
    let stale = desired(&mut peer, "").await?;
    let (head, pack) = made(&stack, &repo, "stale\n").await?;
    let header = publish_request::Header {
        executor_id: peer.id.clone(),
        epoch: peer.epoch,
        attempt_id: stale.clone(),
        head: head.clone(),
        pack_length: pack.len() as u64,
        from_branch: String::new(),
    };
    let (pieces, stream) = mpsc::channel(4);
    let mut client = peer.client.clone();
    let publication = tokio::spawn(async move { client.publish(ReceiverStream::new(stream)).await });
    pieces.send(PublishRequest { part: Some(publish_request::Part::Header(header)) }).await?;
    // It has been looked at once the controller has made room for the pack.
    let scratch = stack.data().join("controller");
    eventually("room for the pack", || Ok(has_upload(&scratch).then_some(()))).await?;

    // Nobody has read the spec, so the attempt is taken back at once.
    stack.sculpt(["stop", &task]).run().await?.done()?;
    stack.sculpt(["retry", &task]).run().await?.done()?;
    let current = desired(&mut peer, &stale).await?;
    peer.spec(&current, peer.epoch).await?;
    begins(&mut peer, &current).await?;
    pieces.send(PublishRequest { part: Some(publish_request::Part::Data(pack.into())) }).await?;
    drop(pieces);
    let answer = publication.await?.map(|_| ()).map_err(|status| status.code());
    ensure!(answer == Err(Code::FailedPrecondition), "the stale publication was answered by {answer:?}");
    ensure!(stack.show(&task).await?["head"].is_null(), "{:#}", stack.show(&task).await?);

    let ack = peer.report(&stale, 1, Step::Accepted(Accepted {})).await?;
    ensure!(ack.refusal() == Refusal::Fenced, "a stale report was answered by {ack:?}");
    let answer = peer.logs(peer.epoch).await?.append(append(&stale, 0, b"stale")).await?;
    let logs_response::Part::Refusal(refusal) = answer else {
        anyhow::bail!("stale bytes were answered by {answer:?}")
    };
    ensure!(refusal.code() == log_refusal::Code::Fenced, "{refusal:?}");

    peer.report(&current, 4, completed("", 0)).await?;
    stack.done(&task).await?;
    stack.finish().await
}

/// Whether a pack is being taken in.
fn has_upload(controller: &Path) -> bool {
    let entries = fs::read_dir(controller.join("tmp/git")).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("pack-"))
}

/// The attempt that it should have, once that is another than `before`.
async fn desired(peer: &mut Peer, before: &str) -> Result<String> {
    peer.answer("an attempt", |part| match part {
        control_response::Part::Desired(desired) => {
            desired.attempts.iter().map(|one| one.attempt_id.clone()).find(|id| id != before)
        }
        _ => None,
    })
    .await
}

/// Somebody else moves a ref between the look at it and its move.
#[tokio::test]
async fn a_ref_that_moved_meanwhile_stays_where_it_is() -> Result<()> {
    let stack = Stack::parts().await?;
    let repo = stack.repo()?;
    let mut peer = stack.peer(hello("tests", POOL)).await?;
    let task = task_in(&stack, &repo).await?;
    let own = peer.offered().await?;
    begins(&mut peer, &own).await?;
    let (first, first_pack) = made(&stack, &repo, "first\n").await?;
    let length = first_pack.len() as u64;
    ensure!(code(peer.publish(&own, &first, &first_pack, length).await) == Ok(first.clone()));
    // The branch moves first; whoever is quick moves the attempt's own ref then.
    let elsewhere = repo.head()?;
    stack
        .sql(&format!(
            "CREATE FUNCTION quick() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             UPDATE refs SET target = '{elsewhere}' WHERE name LIKE 'refs/sculpt/attempts/%'; RETURN NULL; END $$"
        ))
        .await?;
    stack
        .sql(
            "CREATE TRIGGER quick AFTER UPDATE ON refs FOR EACH ROW \
             WHEN (NEW.name LIKE 'refs/heads/%' AND pg_trigger_depth() = 0) EXECUTE FUNCTION quick()",
        )
        .await?;
    let (second, second_pack) = made(&stack, &repo, "second\n").await?;
    let answer = code(peer.publish(&own, &second, &second_pack, second_pack.len() as u64).await);
    ensure!(answer == Err(Code::Aborted), "a publication over another's was answered by {answer:?}");
    stack.sql("DROP TRIGGER quick ON refs").await?;
    let shown = stack.show(&task).await?;
    ensure!(shown["head"] == first.as_str(), "{shown:#}");
    peer.report(&own, 4, completed(&first, 0)).await?;
    stack.done(&task).await?;
    stack.finish().await
}

/// Packs that are sound as packs, and whose commits lack something or lead out of a checkout.
#[tokio::test]
async fn packs_that_lack_or_smuggle_something_are_refused() -> Result<()> {
    let stack = Stack::parts().await?;
    let repo = stack.repo()?;
    let mut peer = stack.peer(hello("tests", POOL)).await?;
    let task = task_in(&stack, &repo).await?;
    let own = peer.offered().await?;
    begins(&mut peer, &own).await?;
    let (lacking, _) = made(&stack, &repo, "lacking\n").await?;
    let alone = pack(&stack, &repo, &format!("echo {lacking}")).await?;
    let answer = code(peer.publish(&own, &lacking, &alone, alone.len() as u64).await);
    ensure!(answer == Err(Code::InvalidArgument), "a commit without its tree was answered by {answer:?}");

    let inner = repo.git(["rev-parse", "HEAD:"])?;
    let file = stack.root().join("tree");
    let id = (0..inner.len()).step_by(2).map(|at| u8::from_str_radix(&inner[at..at + 2], 16));
    let id: Vec<u8> = id.collect::<Result<_, _>>()?;
    fs::write(&file, [b"40000 .git\0".as_slice(), &id].concat())?;
    let file = file.to_string_lossy();
    let tree = repo.git(["hash-object", "-t", "tree", "-w", "--literally", &file])?;
    let smuggling = repo.git(["commit-tree", "-p", "HEAD", "-m", "Smuggle", &tree])?;
    let names = format!("git rev-list --objects {smuggling} ^HEAD | cut -d' ' -f1");
    let sound = pack(&stack, &repo, &names).await?;
    let answer = code(peer.publish(&own, &smuggling, &sound, sound.len() as u64).await);
    ensure!(answer == Err(Code::InvalidArgument), "a tree with .git in it was answered by {answer:?}");

    peer.report(&own, 4, completed("", 0)).await?;
    stack.done(&task).await?;
    stack.finish().await
}

/// The controller dies before its commit: nobody was told that there was one.
#[tokio::test]
async fn nobody_is_told_before_the_commit() -> Result<()> {
    let points = tempfile::Builder::new().prefix("sct-points-").tempdir_in("/tmp")?;
    let place = points.path().to_str().context("a path of plain letters")?;
    let mut stack = Stack::options().env(VARIABLE, place).parts().await?;
    let liar = hello("tests", POOL);
    let mut peer = stack.peer(liar.clone()).await?;
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--pool", POOL, "--", "true"]).await?;
    let own = peer.offered().await?;
    begins(&mut peer, &own).await?;
    for point in ["report.before_commit", "log.before_commit"] {
        let mut logs = peer.logs(peer.epoch).await?;
        fs::write(points.path().join(point), "")?;
        if point.starts_with("report") {
            let told = peer.report(&own, 4, Step::Note(Default::default())).await;
            ensure!(told.is_err(), "a report that is not committed was answered by {told:?}");
        } else {
            let told = logs.append(append(&own, 0, b"bytes")).await;
            ensure!(told.is_err(), "bytes that are not committed were answered by {told:?}");
        }
        stack.controller()?.gone().await?;
        stack.start_controller().await?;
        peer = stack.dial_peer(liar.clone()).await?;
        let seen = sculpt_proto::executor::v1::ObservedAttempt {
            attempt_id: own.clone(),
            cluster_id: peer.cluster.clone(),
            number: 1,
            ..Default::default()
        };
        peer.observe(vec![seen], true).await;
    }
    peer.report(&own, 4, completed("", 0)).await?;
    stack.done(&task).await?;
    stack.finish().await
}

/// Heartbeats are answered while the database stands still, and no lease is confirmed by that.
#[tokio::test]
async fn no_lease_is_confirmed_before_the_commit() -> Result<()> {
    let stack = Stack::parts().await?;
    let mut peer = stack.peer(hello("tests", POOL)).await?;
    let postgres = || [Part::Postmaster, Part::Backend].into_iter().flat_map(|part| candidates(&stack, part));
    postgres().for_each(|found| found.signal(Signal::STOP));
    let halted = async {
        for sequence in 1..=3 {
            let (leased, _) = beat(&mut peer, sequence).await?;
            ensure!(leased < sequence, "heartbeat {sequence} was confirmed by a database that stands still");
        }
        Ok::<_, anyhow::Error>(())
    }
    .await;
    postgres().for_each(|found| found.signal(Signal::CONT));
    halted?;
    // What was committed late is confirmed by itself.
    peer.answer("the lease of the third heartbeat", |part| match part {
        control_response::Part::HeartbeatAck(ack) => (ack.leased >= 3).then_some(()),
        _ => None,
    })
    .await?;
    stack.finish().await
}

/// Says that it lives: up to which heartbeat its lease is confirmed, and which one is answered.
async fn beat(peer: &mut Peer, sequence: u64) -> Result<(u64, u64)> {
    let heartbeat = Heartbeat { sequence, accepts_work: true, ..Heartbeat::default() };
    peer.say(control_request::Part::Heartbeat(heartbeat)).await;
    peer.answer("the answer to a heartbeat", |part| match part {
        control_response::Part::HeartbeatAck(ack) => Some((ack.leased, ack.sequence)),
        _ => None,
    })
    .await
}

/// The executor dies while it writes a report down: the controller knows of no report that is not in the journal.
#[tokio::test]
async fn nothing_is_told_before_it_is_written_down() -> Result<()> {
    let points = tempfile::Builder::new().prefix("sct-points-").tempdir_in("/tmp")?;
    let place = points.path().to_str().context("a path of plain letters")?;
    let mut stack = Stack::options().env(VARIABLE, place).parts().await?;
    for passed in 0..4 {
        fs::write(points.path().join("journal.before_sync"), passed.to_string())?;
        let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "true"]).await?;
        let struck = points.path().join("journal.before_sync.hit");
        eventually("the executor to die", || Ok(struck.exists().then_some(()))).await?;
        stack.executor()?.gone().await?;
        fs::remove_file(struck)?;
        let attempt = stack.attempt_of(&task).await?;
        let journal = fs::read(stack.executor_data().join("attempts").join(&attempt).join("journal"));
        let written = journal.unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
        let told = stack.sql(&format!("SELECT report_sequence FROM attempts WHERE id = '{attempt}'")).await?;
        let told: usize = told.parse().with_context(|| format!("the number of reports is {told:?}"))?;
        ensure!(told <= written, "{told} reports are told, {written} are written down");
        stack.start_executor().await?;
        stack.done(&task).await?;
    }
    stack.finish().await
}
