//! A stream that can be ended from outside, whoever holds it and whatever they wait for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Like the stream in it until it is severed: then it ends for the reader and is broken for the writer.
pub(super) struct Severable<S> {
    stream: S,
    // One for each half, since each wakes who waits on it.
    reading: Pin<Box<WaitForCancellationFutureOwned>>,
    writing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Severable<S> {
    /// Severed when `cut` is cancelled.
    pub(super) fn new(stream: S, cut: &CancellationToken) -> Self {
        let severed = || Box::pin(cut.clone().cancelled_owned());
        Self { stream, reading: severed(), writing: severed() }
    }

    fn is_severed(&mut self, context: &mut Context<'_>) -> bool {
        self.writing.as_mut().poll(context).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Severable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reading.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severable<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_severed(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_severed(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_severed(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn it_ends_for_whoever_waits() {
        let cut = CancellationToken::new();
        // Nobody reads at the other end, which holds one byte.
        let (ours, _theirs) = tokio::io::duplex(1);
        let (mut reader, mut writer) = tokio::io::split(Severable::new(ours, &cut));
        let mut nothing = Vec::new();
        let ending = async {
            tokio::task::yield_now().await;
            cut.cancel();
        };
        let (read, written, ()) = tokio::join!(reader.read_to_end(&mut nothing), writer.write_all(b"more"), ending);
        assert_eq!(read.unwrap(), 0);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
