//! Answers that end when their caller loses a right.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    BoxError,
    body::{Body, Bytes},
};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::Status;

/// The body of an answer, cut when its caller is lost.
pub(crate) struct Guarded {
    inner: Body,
    lost: Option<Pin<Box<dyn Future<Output = Status> + Send>>>,
    grpc: bool,
}

impl Guarded {
    /// `inner` until `lost` tells why it ends.
    pub(crate) fn new(inner: Body, lost: impl Future<Output = Status> + Send + 'static, grpc: bool) -> Self {
        Self { inner, lost: Some(Box::pin(lost)), grpc }
    }
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(lost) = &mut self.lost else { return Poll::Ready(None) };
        if let Poll::Ready(status) = lost.as_mut().poll(context) {
            self.lost = None;
            self.inner = Body::empty();
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(match status.add_header(&mut trailers) {
                Ok(()) if self.grpc => Ok(Frame::trailers(trailers)),
                _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, status.message().to_owned()).into()),
            }));
        }
        Pin::new(&mut self.inner).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.lost.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
