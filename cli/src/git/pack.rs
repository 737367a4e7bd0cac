//! Sending a base commit that the controller lacks.

use std::{pin::pin, process::Stdio};

use bytes::Bytes;
use git2::Oid;
use sculpt_proto::v1::{
    FindCommitsRequest, SendPackRequest,
    send_pack_request::{Header, Part},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{GitError, program, repository::Repo};
use crate::{
    client::{Backoff, Client},
    failure::{Failure, is_transient},
    output::{progress::Progress, time::size},
};

/// Bytes of one message.
const PIECE: usize = 256 << 10;
/// How often a broken transfer is begun again.
const ATTEMPTS: u32 = 5;

/// What ends one transfer early.
enum Broken {
    Refused(Status),
    Local(GitError),
}

/// Makes sure that the controller holds `tip` with all of its history. NOT_FOUND when it does not know the project.
pub(crate) async fn ensure(
    client: &Client,
    repo: &Repo,
    project: &str,
    tip: Oid,
    request_id: &str,
) -> Result<Sent, Failure> {
    const ATTEMPTED: &str = "send the base commit";
    let wanted = tip.to_string();
    let find = |commits| async {
        let request = FindCommitsRequest { project: project.to_owned(), commits };
        client.git().find_commits(request).await
    };
    match tokio::time::timeout(std::time::Duration::from_secs(30), find(vec![wanted.clone()])).await {
        Ok(Err(status)) if status.code() == tonic::Code::NotFound => return Ok(Sent::UnknownProject),
        Ok(Err(status)) => return Err(client.refused(ATTEMPTED, &status)),
        Ok(Ok(answer)) if answer.get_ref().present.contains(&wanted) => return Ok(Sent::Before),
        Ok(Ok(_)) => {}
        Err(_) => return Err(client.refused(ATTEMPTED, &Status::deadline_exceeded("the controller did not answer"))),
    }
    let local = |error: GitError| error.failure(ATTEMPTED);
    let candidates = repo.candidates(tip).map_err(local)?;
    let present = client.read(ATTEMPTED, find(candidates)).await?.present;
    refuse_shallow(repo, &wanted, &present).await.map_err(local)?;

    let mut backoff = Backoff::new();
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match transfer(client, repo, project, &wanted, &present, request_id).await {
            Ok(()) => return Ok(Sent::Now),
            Err(Broken::Refused(status)) if is_transient(&status) && left > 0 => backoff.pause().await,
            Err(Broken::Refused(status)) => return Err(client.refused(ATTEMPTED, &status)),
            Err(Broken::Local(error)) => return Err(local(error)),
        }
    }
}

/// How the controller came to have the commit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Before,
    Now,
    UnknownProject,
}

/// A shallow clone can send a commit only when the controller has everything behind the clone's border.
async fn refuse_shallow(repo: &Repo, tip: &str, present: &[String]) -> Result<(), GitError> {
    let border = repo.shallow_commits();
    if border.is_empty() {
        return Ok(());
    }
    let mut args = vec!["rev-list".to_owned(), tip.to_owned()];
    args.extend(present.iter().map(|commit| format!("^{commit}")));
    let list = program::run(&repo.directory, &args).await?;
    match String::from_utf8_lossy(&list).lines().find(|commit| border.contains(*commit)) {
        Some(commit) => Err(GitError::Shallow(commit.to_owned())),
        None => Ok(()),
    }
}

async fn transfer(
    client: &Client,
    repo: &Repo,
    project: &str,
    tip: &str,
    present: &[String],
    request_id: &str,
) -> Result<(), Broken> {
    let (pieces, queue) = mpsc::channel(8);
    let header = Header { project: project.to_owned(), tip: tip.to_owned(), request_id: request_id.to_owned() };
    // The channel has just been made and has room.
    let _ = pieces.try_send(SendPackRequest { part: Some(Part::Header(header)) });
    let mut git = client.git();
    let mut sending = pin!(git.send_pack(ReceiverStream::new(queue)));
    let packed = tokio::select! {
        packed = pack(repo, tip, present, pieces) => packed,
        // An answer before the pack is complete is a refusal, or the controller has it by now.
        answer = &mut sending => return answer.map(drop).map_err(Broken::Refused),
    };
    // The stream ends well only when the whole pack is in it; else the call is dropped and nothing is stored.
    let pieces = packed.map_err(Broken::Local)?;
    drop(pieces);
    sending.await.map(drop).map_err(Broken::Refused)
}

/// Streams a pack of everything that `tip` needs beyond `present`, and gives the open end back.
async fn pack(
    repo: &Repo,
    tip: &str,
    present: &[String],
    pieces: mpsc::Sender<SendPackRequest>,
) -> Result<mpsc::Sender<SendPackRequest>, GitError> {
    let broken = |source| GitError::File { doing: "pack the commit", source };
    let mut command = program::git(&repo.directory);
    command.args(["pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "-q"]).stdin(Stdio::piped());
    let mut child = command.spawn().map_err(GitError::NoProgram)?;
    let mut revisions = format!("{tip}\n");
    for commit in present {
        revisions.push_str(&format!("^{commit}\n"));
    }
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let writing = async move {
        if let Some(mut stdin) = stdin {
            // A git that ended early says itself why.
            let _ = stdin.write_all(revisions.as_bytes()).await;
        }
    };
    let reading = async {
        let mut progress = Progress::new("sending the base commit");
        let mut total = 0;
        if let Some(mut stdout) = stdout {
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                while piece.len() < PIECE && stdout.read_buf(&mut piece).await.map_err(broken)? > 0 {}
                if piece.is_empty() {
                    break;
                }
                total += piece.len() as u64;
                progress.tick(&size(total));
                if pieces.send(SendPackRequest { part: Some(Part::Data(Bytes::from(piece))) }).await.is_err() {
                    break;
                }
            }
        }
        Ok::<_, GitError>(())
    };
    let ((), read) = tokio::join!(writing, reading);
    read?;
    let output = child.wait_with_output().await.map_err(broken)?;
    if output.status.success() { Ok(pieces) } else { Err(program::failed(&command, &output)) }
}
