//! Where log bytes go.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sculpt_proto::v1::{LogChunk, LogStream};
use serde::Serialize;
use tokio::io::{AsyncWriteExt as _, Stdout};

use crate::{
    failure::Failure,
    output::{Format, screen::Screen},
};

/// Standard output as a log's reader wants it.
pub(crate) enum Sink {
    /// Every byte as it is.
    Raw(Stdout),
    /// Through a filter: for a terminal, or as plain text.
    Filtered(Stdout, SharedScreen),
    /// One JSON object for each frame.
    Json(Stdout),
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
    /// Plain text, JSON, what a terminal may see, or exact bytes.
    pub(crate) fn stdout(format: Format, plain: bool) -> Self {
        let out = tokio::io::stdout();
        match format {
            Format::Json => Self::Json(out),
            Format::Text if plain => Self::Filtered(out, SharedScreen::new(Screen::plain())),
            Format::Text if io::stdout().is_terminal() => Self::Filtered(out, SharedScreen::new(Screen::terminal())),
            Format::Text => Self::Raw(out),
        }
    }

    /// Writes a chunk of this attempt's log.
    pub(crate) async fn write(&mut self, attempt: u32, chunk: &LogChunk) -> Result<(), Failure> {
        match self {
            Self::Raw(out) => put(out, &chunk.data).await,
            Self::Filtered(out, screen) => {
                let shown = screen.feed(&chunk.data);
                put(out, &shown).await
            }
            Self::Json(out) => put(out, frames(attempt, chunk)?.as_bytes()).await,
            Self::Nothing => Ok(()),
        }
    }

    /// The filter, for whoever has to tidy up when the reading is cut off.
    pub(crate) fn screen(&self) -> Option<SharedScreen> {
        match self {
            Self::Filtered(_, screen) => Some(screen.clone()),
            Self::Raw(_) | Self::Json(_) | Self::Nothing => None,
        }
    }
}

/// A filter that outlives the reader it belongs to.
#[derive(Clone)]
pub(crate) struct SharedScreen(Arc<Mutex<Screen>>);

impl SharedScreen {
    fn new(screen: Screen) -> Self {
        Self(Arc::new(Mutex::new(screen)))
    }

    fn feed(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).feed(bytes)
    }

    /// Gives the terminal back as a shell expects it.
    pub(crate) fn restore(&self) -> Result<(), Failure> {
        let sequences = self.0.lock().unwrap_or_else(PoisonError::into_inner).restore();
        let mut out = io::stdout().lock();
        out.write_all(&sequences).and_then(|()| out.flush()).map_err(Failure::output)
    }
}

async fn put(out: &mut Stdout, bytes: &[u8]) -> Result<(), Failure> {
    out.write_all(bytes).await.map_err(Failure::output)?;
    out.flush().await.map_err(Failure::output)
}

fn frames(attempt: u32, chunk: &LogChunk) -> Result<String, Failure> {
    let mut lines = String::new();
    let mut start = 0;
    let whole = [(chunk.data.len(), LogStream::Unspecified, 0)];
    let frames: Vec<_> = if chunk.frames.is_empty() {
        whole.to_vec()
    } else {
        chunk.frames.iter().map(|frame| (frame.length as usize, frame.stream(), frame.time_ms)).collect()
    };
    for (length, stream, time_ms) in frames {
        let end = (start + length).min(chunk.data.len());
        let frame = FrameJson {
            attempt,
            offset: chunk.offset + start as u64,
            stream: stream_name(stream),
            time_ms,
            data: STANDARD.encode(&chunk.data[start..end]),
        };
        lines.push_str(&serde_json::to_string(&frame).map_err(|error| Failure::output(error.into()))?);
        lines.push('\n');
        start = end;
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
