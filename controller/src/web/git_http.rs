//! git's own smart HTTP, read-only: what `git clone` and `git fetch` speak.
//!
//! The same on both listeners: who may read a project may read all of it. Credentials are checked by the layer in front; whether
//! who shows them may read the repository is asked here, and no handler gives out anything without the proof of it.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bytes::Bytes;
use flate2::write::GzDecoder;
use futures_util::{StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sculpt_proto::id::ProjectId;

use crate::{
    access::{Caller, Fetch},
    git::{GitError, Question, Repositories},
    session::who::Who,
    store::{Store, StoreError},
};

/// Most that one request may say after decompression, in bytes: a long list of what the client has.
const LONGEST_REQUEST: usize = 64 << 20;

/// Compressed bytes that are unpacked in one step; bounds what a hostile body can make of them.
const UNPACKED_AT_ONCE: usize = 4 << 10;

/// When to try again while the database is away.
const RETRY: Duration = Duration::from_secs(2);

/// What who asks for something else is told.
pub(crate) const NO_REPOSITORY: &str = "A repository's path is /git/<uuid of the project>.git.";

/// The routes of all repositories; what a caller may read is asked in front of each.
pub const ROUTES: [&str; 3] =
    ["/git/{repository}/info/refs", "/git/{repository}/git-upload-pack", "/git/{repository}/git-receive-pack"];

/// `/git/<project uuid>.git/…`, for the callers whom the layer in front has found out.
pub fn routes(repositories: Repositories, store: Store) -> Router {
    let [advertised, fetched, pushed] = ROUTES;
    Router::new()
        .route(advertised, get(refs))
        .route(fetched, post(upload_pack))
        .route(pushed, post(receive_pack))
        .layer(middleware::from_fn_with_state(store, readable))
        .with_state(repositories)
}

/// Lets through whoever may read the repository, with the proof of it among the extensions; others learn of none.
async fn readable(
    State(store): State<Store>,
    Path(repository): Path<String>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(project) = project(&repository) else { return refuse(StatusCode::NOT_FOUND, NO_REPOSITORY) };
    let extensions = request.extensions();
    let fetch = match (extensions.get::<Caller>(), extensions.get::<Who>().cloned()) {
        (Some(caller), _) => Ok(Fetch::of_caller(caller, project)),
        (None, Some(who)) => Fetch::of_executor(&who, &store, project).await,
        (None, None) => Ok(None),
    };
    match fetch {
        Ok(Some(fetch)) => {
            request.extensions_mut().insert(fetch);
            next.run(request).await
        }
        Ok(None) => failure(project, GitError::NoProject(project)),
        Err(error) => failure(project, error.into()),
    }
}

fn project(repository: &str) -> Option<ProjectId> {
    repository.strip_suffix(".git")?.parse().ok()
}

async fn refs(
    State(repositories): State<Repositories>,
    Extension(fetch): Extension<Fetch>,
    request: Request,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let service = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "service");
    match service.as_ref().map(|(_, service)| service.as_ref()) {
        Some("git-upload-pack") => {}
        Some("git-receive-pack") => return receive_pack().await,
        Some(_) | None => {
            return refuse(StatusCode::FORBIDDEN, "Only git's smart HTTP is spoken here; use a git from this decade.");
        }
    }
    let protocol = protocol(request.headers());
    let head = match protocol.as_deref() {
        Some(protocol) if protocol.split(':').any(|part| part == "version=2") => Bytes::new(),
        Some(_) | None => Bytes::from_static(b"001e# service=git-upload-pack\n0000"),
    };
    let question = Question::Refs;
    answer(&repositories, fetch, protocol, question, head, "application/x-git-upload-pack-advertisement").await
}

async fn upload_pack(
    State(repositories): State<Repositories>,
    Extension(fetch): Extension<Fetch>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let said = |name| head.headers.get(name).map(HeaderValue::as_bytes);
    if said(header::CONTENT_TYPE) != Some(b"application/x-git-upload-pack-request") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "A fetch is sent as application/x-git-upload-pack-request.");
    }
    let packed = match said(header::CONTENT_ENCODING) {
        None | Some(b"identity") => false,
        Some(b"gzip" | b"x-gzip") => true,
        Some(_) => {
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "A fetch is sent plain or compressed by gzip.");
        }
    };
    let protocol = protocol(&head.headers);
    let body = body.into_data_stream().map_err(io::Error::other).boxed();
    let question = Question::Objects(bounded(if packed { unpacked(body) } else { body }));
    answer(&repositories, fetch, protocol, question, Bytes::new(), "application/x-git-upload-pack-result").await
}

async fn receive_pack() -> Response {
    let text = "Pushing here is not possible: commits come in with the tasks that make them. \
                Push to the project's own remote, then run `sculpt run` from there.";
    refuse(StatusCode::FORBIDDEN, text)
}

/// Lets git answer, after `head`.
async fn answer(
    repositories: &Repositories,
    fetch: Fetch,
    protocol: Option<String>,
    question: Question,
    head: Bytes,
    kind: &'static str,
) -> Response {
    match repositories.upload_pack(fetch, protocol.as_deref(), question).await {
        Ok(pieces) => {
            let body = Body::from_stream(stream::iter([Ok(head)]).chain(pieces));
            let headers =
                [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache, max-age=0, must-revalidate")];
            (headers, body).into_response()
        }
        Err(error) => failure(fetch.project(), error),
    }
}

fn failure(project: ProjectId, error: GitError) -> Response {
    match error {
        GitError::NoProject(_) => refuse(StatusCode::NOT_FOUND, error.to_string()),
        GitError::Store(StoreError::Unavailable(error)) => {
            tracing::warn!(%project, %error, "a fetch was refused while the database is away");
            let text = "The controller cannot reach its database now; try again in a moment.";
            let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, text);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY.as_secs()));
            response
        }
        error => {
            tracing::error!(%project, error = &error as &dyn std::error::Error, "a fetch failed");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        }
    }
}

/// A refusal that git shows to its user.
fn refuse(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.into() + "\n").into_response()
}

/// What the client asks for in `Git-Protocol`, if it is of that form: it becomes an environment variable.
fn protocol(headers: &HeaderMap) -> Option<String> {
    let said = headers.get("git-protocol")?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"=:.-_".contains(&b);
    (said.len() <= 128 && said.bytes().all(plain)).then(|| said.to_owned())
}

type Pieces = BoxStream<'static, io::Result<Bytes>>;

/// Ends with an error beyond what a request may say.
fn bounded(body: Pieces) -> Pieces {
    body.scan(LONGEST_REQUEST, |left, piece| {
        let piece = piece.and_then(|piece| match left.checked_sub(piece.len()) {
            Some(rest) => {
                *left = rest;
                Ok(piece)
            }
            None => Err(io::Error::new(io::ErrorKind::FileTooLarge, "the request is too long")),
        });
        std::future::ready(Some(piece))
    })
    .boxed()
}

/// Undoes gzip.
fn unpacked(body: Pieces) -> Pieces {
    let decoder = GzDecoder::new(Vec::new());
    let steps = body.map_ok(|piece| stream::iter(split(piece)).map(io::Result::Ok)).try_flatten();
    steps
        .scan(decoder, |decoder, piece| {
            let piece = piece.and_then(|piece| {
                decoder.write_all(&piece)?;
                decoder.flush()?;
                Ok(Bytes::from(std::mem::take(decoder.get_mut())))
            });
            std::future::ready(Some(piece))
        })
        .boxed()
}

fn split(mut piece: Bytes) -> Vec<Bytes> {
    let mut parts = Vec::new();
    while !piece.is_empty() {
        parts.push(piece.split_to(piece.len().min(UNPACKED_AT_ONCE)));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn whole(pieces: Pieces) -> io::Result<Vec<u8>> {
        pieces.map_ok(|piece| piece.to_vec()).try_concat().await
    }

    fn body(bytes: &[u8]) -> Pieces {
        let pieces: Vec<_> = bytes.chunks(777).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        stream::iter(pieces).boxed()
    }

    #[tokio::test]
    async fn gzip_is_undone() {
        let text: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&text).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(whole(unpacked(body(&packed))).await.unwrap() == text);
        assert!(whole(unpacked(body(b"this is not gzip"))).await.is_err());
    }

    #[tokio::test]
    async fn a_body_that_swells_is_cut_off() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        (0..LONGEST_REQUEST / zeros.len() + 1).for_each(|_| encoder.write_all(&zeros).unwrap());
        let packed = encoder.finish().unwrap();
        assert!(packed.len() < 1 << 20);
        assert_eq!(whole(bounded(unpacked(body(&packed)))).await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn only_a_plain_protocol_reaches_the_environment() {
        let said = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("git-protocol", HeaderValue::from_static(text));
            protocol(&headers)
        };
        assert_eq!(said("version=2").as_deref(), Some("version=2"));
        assert_eq!(said("version=2 $(x)"), None);
        assert_eq!(protocol(&HeaderMap::new()), None);
    }
}
