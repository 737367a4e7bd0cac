//! The one way out: `git upload-pack`, one child per request.
//!
//! `refs/sculpt` is not advertised, for tidiness and not for secrecy: by its protocol version 2 git gives any object whose
//! id is asked for. So whoever may read a project may read all of it, and an executor fetches a base by its id.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStdin, ChildStdout},
    sync::mpsc::{self, Sender},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    GitError, Repositories,
    child::{Running, tail},
    names,
};
use crate::access::Fetch;

/// Longest silence of either side.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pieces that wait for a slow client.
const PIECES: usize = 4;

/// Size of a piece in bytes.
const PIECE: usize = 64 << 10;

/// What a client asks.
pub enum Question {
    /// Which refs and abilities there are.
    Refs,
    /// A request in git's protocol.
    Objects(BoxStream<'static, io::Result<Bytes>>),
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refs => "Refs",
            Self::Objects(_) => "Objects",
        })
    }
}

/// What git answers, at the speed of whoever reads it. Dropped, it ends the child.
#[derive(Debug)]
pub struct Answer {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    _pump: AbortOnDropHandle<()>,
}

impl Stream for Answer {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(context)
    }
}

impl Repositories {
    /// Lets git answer who may read. `protocol` is what the client said in its `Git-Protocol` header.
    pub async fn upload_pack(
        &self,
        fetch: Fetch,
        protocol: Option<&str>,
        question: Question,
    ) -> Result<Answer, GitError> {
        let seat = self.reader().await;
        let reading = self.open(fetch.project()).await?;
        let hidden = format!("transfer.hideRefs={}", names::HIDDEN);
        let mut call =
            self.inner.git.upload_pack(&["uploadpack.allowFilter=true", "uploadpack.allowAnySHA1InWant=true", &hidden]);
        if let Some(protocol) = protocol {
            call = call.env("GIT_PROTOCOL", protocol);
        }
        if let Question::Refs = question {
            call = call.arg("--http-backend-info-refs");
        }
        let mut running = call.arg(reading.directory()).start()?;
        let (sender, pieces) = mpsc::channel(PIECES);
        let pump = async move {
            let stdin = running.stdin();
            let body = match question {
                Question::Refs => futures_util::stream::empty().boxed(),
                Question::Objects(body) => body,
            };
            talk(&mut running, feed(stdin, body), &sender).await;
            drop((seat, reading));
        };
        Ok(Answer { pieces, _pump: AbortOnDropHandle::new(tokio::spawn(pump)) })
    }
}

/// Moves bytes both ways until the child has said everything.
async fn talk(running: &mut Running, feed: impl Future<Output = ()>, sender: &Sender<io::Result<Bytes>>) {
    let (stdout, stderr) = (running.stdout(), running.stderr());
    let answer = async { tokio::join!(copy(stdout, sender), tail(stderr)) };
    let fed = async {
        feed.await;
        std::future::pending::<()>().await;
    };
    let (copied, said) = tokio::select! {
        done = answer => done,
        () = fed => return,
    };
    if let Err(error) = copied {
        tracing::debug!(%error, "a fetch was cut off");
        sender.try_send(Err(error)).ok();
        return;
    }
    match running.wait().await {
        Ok(status) if status.success() => {}
        // What was wrong with the request stands in the answer, in git's own way.
        Ok(status) => tracing::debug!(%status, said, "git upload-pack refused a request"),
        Err(error) => tracing::warn!(%error, "git upload-pack was not waited for"),
    }
}

async fn feed(stdin: Option<ChildStdin>, mut body: BoxStream<'static, io::Result<Bytes>>) {
    let Some(mut stdin) = stdin else { return };
    while let Ok(Some(Ok(piece))) = tokio::time::timeout(PATIENCE, body.next()).await {
        if stdin.write_all(&piece).await.is_err() {
            return;
        }
    }
}

async fn copy(stdout: Option<ChildStdout>, sender: &Sender<io::Result<Bytes>>) -> io::Result<()> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        if stdout.read_buf(&mut piece).await? == 0 {
            return Ok(());
        }
        if sender.send_timeout(Ok(piece.freeze()), PATIENCE).await.is_err() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"));
        }
    }
}
