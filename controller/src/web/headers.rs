//! How much the headers of a call may be. HTTP/2 counts them itself; HTTP/1.1 is only read in pieces that end near the limit.

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};

/// Most that the headers of a call may take, in bytes, as HTTP/2 counts them.
pub(super) const MOST: u32 = 64 << 10;

/// What each header takes besides its name and value (RFC 9113, 6.5.2).
const EACH: usize = 32;

/// Lets a call through whose headers are short enough.
pub(super) async fn bounded(request: Request, next: Next) -> Response {
    if size(request.headers()) > MOST as usize {
        let text = format!("the headers of a call may take {} KiB\n", MOST >> 10);
        return (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text).into_response();
    }
    next.run(request).await
}

/// PURE: what `headers` take, in bytes.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + EACH).sum()
}
