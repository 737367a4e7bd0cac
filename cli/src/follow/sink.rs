//! Where log bytes go.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sculpt_proto::v1::{LogChunk, LogStream};
use serde::Serialize;
use tokio::{
    io::{AsyncWriteExt as _, Stderr, Stdout},
    sync::mpsc,
};

use super::pieces::{Piece, pieces};

use crate::{
    exit::Exit,
    failure::Failure,
    output::{Format, screen::Screen},
};

/// Standard output as a log's reader wants it.
pub(crate) enum Sink {
    /// What people see. With `errors`, what the log knows to be of the agent's standard error goes there.
    Text { out: Stdout, errors: Option<Stderr>, screens: Screens },
    /// One JSON object for each frame.
    Json(Stdout),
    /// Whoever takes the chunks, as slowly as they like.
    Chunks(mpsc::Sender<LogChunk>),
    /// Nowhere.
    Nothing,
}

#[derive(Serialize)]
struct FrameJson {
    attempt: u32,
    offset: u64,
    stream: &'static str,
    /// Milliseconds since the agent's start.
    time_ms: u64,
    /// Base64.
    data: String,
}

impl Sink {
    /// The log as it is: plain text, JSON, what a terminal may see, or exact bytes, as many as the log has.
    pub(crate) fn whole(format: Format, plain: bool) -> Self {
        match format {
            Format::Json => Self::Json(tokio::io::stdout()),
            Format::Text => Self::Text { out: tokio::io::stdout(), errors: None, screens: Screens::new(plain) },
        }
    }

    /// As if the agent ran here: each of its streams on ours.
    pub(crate) fn apart() -> Self {
        Self::Text { out: tokio::io::stdout(), errors: Some(tokio::io::stderr()), screens: Screens::new(false) }
    }

    /// Writes a chunk of this attempt's log.
    pub(crate) async fn write(&mut self, attempt: u32, chunk: &LogChunk) -> Result<(), Failure> {
        match self {
            Self::Text { out, errors, screens } => {
                for piece in pieces(chunk) {
                    match errors.as_mut().filter(|_| piece.stream == LogStream::Stderr) {
                        Some(errors) => complain(errors, &screens.errors(piece.bytes)).await?,
                        None => put(out, &screens.out(piece.bytes)).await?,
                    }
                }
                Ok(())
            }
            Self::Json(out) => put(out, frames(attempt, chunk)?.as_bytes()).await,
            // Nobody reads on.
            Self::Chunks(taker) => taker.send(chunk.clone()).await.map_err(|_| Failure::quiet(Exit::Done)),
            Self::Nothing => Ok(()),
        }
    }

    /// The filters, for whoever has to tidy up when the reading is cut off.
    pub(crate) fn screens(&self) -> Option<Screens> {
        match self {
            Self::Text { screens, .. } => Some(screens.clone()),
            Self::Json(_) | Self::Chunks(_) | Self::Nothing => None,
        }
    }
}

/// Filters for both streams, of which the one may be a terminal and the other a file. They outlive the reader that they
/// belong to.
#[derive(Clone)]
pub(crate) struct Screens(Arc<Mutex<Filters>>);

/// None: exact bytes.
struct Filters {
    out: Option<Screen>,
    errors: Option<Screen>,
}

impl Screens {
    fn new(plain: bool) -> Self {
        let screen = |terminal: bool| match (plain, terminal) {
            (true, _) => Some(Screen::plain()),
            (false, true) => Some(Screen::terminal()),
            (false, false) => None,
        };
        let filters = Filters { out: screen(io::stdout().is_terminal()), errors: screen(io::stderr().is_terminal()) };
        Self(Arc::new(Mutex::new(filters)))
    }

    fn out<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        filtered(&mut self.filters().out, bytes)
    }

    fn errors<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        filtered(&mut self.filters().errors, bytes)
    }

    fn filters(&self) -> MutexGuard<'_, Filters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the terminal back as a shell expects it.
    pub(crate) fn restore(&self) -> Result<(), Failure> {
        let mut filters = self.filters();
        let sequences = |screen: &mut Option<Screen>| screen.as_mut().map(Screen::restore).unwrap_or_default();
        let (to_out, to_errors) = (sequences(&mut filters.out), sequences(&mut filters.errors));
        said(io::stdout().lock(), &to_out).map_err(Failure::output)?;
        // Without it there is no terminal to give back.
        let _ = said(io::stderr().lock(), &to_errors);
        Ok(())
    }
}

fn filtered<'a>(filter: &mut Option<Screen>, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    filter.as_mut().map_or(Cow::Borrowed(bytes), |screen| Cow::Owned(screen.feed(bytes)))
}

fn said(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).and_then(|()| to.flush())
}

async fn put(out: &mut Stdout, bytes: &[u8]) -> Result<(), Failure> {
    out.write_all(bytes).await.map_err(Failure::output)?;
    out.flush().await.map_err(Failure::output)
}

/// Who has closed standard error wants none of it, and reads on.
async fn complain(errors: &mut Stderr, bytes: &[u8]) -> Result<(), Failure> {
    let written = match errors.write_all(bytes).await {
        Ok(()) => errors.flush().await,
        failed => failed,
    };
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, "write to standard error", error.to_string()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn frames(attempt: u32, chunk: &LogChunk) -> Result<String, Failure> {
    let mut lines = String::new();
    for Piece { offset, stream, time_ms, bytes, .. } in pieces(chunk) {
        let frame = FrameJson { attempt, offset, stream: stream_name(stream), time_ms, data: STANDARD.encode(bytes) };
        lines.push_str(&serde_json::to_string(&frame).map_err(|error| Failure::output(error.into()))?);
        lines.push('\n');
    }
    Ok(lines)
}

const fn stream_name(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Unspecified => "unknown",
        LogStream::Terminal => "terminal",
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    }
}
