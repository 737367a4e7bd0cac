//! Places in lists and in the journal, as callers keep them: opaque, and true for one database only.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sculpt_proto::{FieldError, id::ClusterId};
use uuid::Uuid;

use crate::store::events::Place;

const VERSION: u8 = 1;

/// Why a cursor is of no use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CursorError {
    /// It was not made by us.
    Malformed,
    /// It belongs to another database's history.
    OtherCluster,
}

/// A place in the journal of `cluster`, for a caller to keep.
pub(super) fn cursor(cluster: ClusterId, place: Place) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(cluster.0.as_bytes());
    bytes.extend_from_slice(&place.0.to_be_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The place that `text` was made of.
pub(super) fn place(cluster: ClusterId, text: &str) -> Result<Place, CursorError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Malformed)?;
    let bytes: [u8; 25] = bytes.try_into().map_err(|_| CursorError::Malformed)?;
    let [version, rest @ ..] = bytes;
    let (of, at) = rest.split_at(16);
    let (Ok(of), Ok(at)) = (Uuid::from_slice(of), <[u8; 8]>::try_from(at)) else { return Err(CursorError::Malformed) };
    let at = i64::from_be_bytes(at);
    if version != VERSION || at < 0 {
        return Err(CursorError::Malformed);
    }
    if of != cluster.0 {
        return Err(CursorError::OtherCluster);
    }
    Ok(Place(at))
}

/// What a list's next page begins after.
pub(super) fn page_token(last: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(last)
}

/// What `token` was made of; `None` for the first page.
pub(super) fn page(token: &str) -> Result<Option<String>, FieldError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.map(Some).ok_or_else(|| FieldError::new("page_token", "was not given by this controller"))
}

/// How many rows a page has.
pub(super) fn page_size(asked: u32) -> u32 {
    if asked == 0 { 100 } else { asked.min(1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back() {
        let cluster = ClusterId::fresh();
        let text = cursor(cluster, Place(4711));
        assert_eq!(place(cluster, &text), Ok(Place(4711)));
        assert_eq!(place(ClusterId::fresh(), &text), Err(CursorError::OtherCluster));
        assert_eq!(place(cluster, "4711"), Err(CursorError::Malformed));
        assert_eq!(place(cluster, ""), Err(CursorError::Malformed));
    }

    #[test]
    fn page_tokens_come_back() {
        assert_eq!(page(&page_token("17")), Ok(Some("17".to_owned())));
        assert_eq!(page(""), Ok(None));
        assert!(page("!").is_err());
    }
}
