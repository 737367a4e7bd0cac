//! How long a call may take that waits for nothing but the database: one that stands still answers nothing, not even that.

use std::time::Duration;

use axum::{extract::Request, middleware::Next, response::Response};
use sculpt_proto::v1::git_server;
use tonic::Status;

use super::is_grpc;

/// Until the answer begins: less than clients wait (30 s), more than any call takes on purpose.
const LIMIT: Duration = Duration::from_secs(25);

/// Reads all of a record that only ever grows, in pieces that are bounded, and ends when its caller goes.
const WHOLE: &str = "/sculpt.v1.Audit/VerifyAudit";

/// Answers a call that takes too long. A transaction that it began goes on by itself, to its end or to nothing.
pub async fn bounded(request: Request, next: Next) -> Response {
    // What git does takes as long as there is of it, with limits of its own.
    let service = request.uri().path().trim_start_matches('/').split('/').next();
    let long = service == Some(git_server::SERVICE_NAME) || request.uri().path() == WHOLE;
    if long || !is_grpc(request.headers()) {
        return next.run(request).await;
    }
    let path = request.uri().path().to_owned();
    match tokio::time::timeout(LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(path, "a call was given up: the database does not answer");
            let text = "the database has not answered for 25 s; call again, with the same request_id: what was done by then is \
                        not done twice";
            Status::unavailable(text).into_http()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::post};
    use http::header::CONTENT_TYPE;
    use tower::ServiceExt as _;

    use super::*;

    async fn called(path: &str, kind: &str) -> Option<Response> {
        let router = Router::new().fallback(post(std::future::pending::<()>)).layer(middleware::from_fn(bounded));
        let request = http::Request::post(path).header(CONTENT_TYPE, kind).body(Body::empty()).unwrap();
        let answer = tokio::time::timeout(2 * LIMIT, router.oneshot(request)).await;
        answer.ok().map(Result::unwrap)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_gets_no_answer_ends_with_a_status() {
        let answer = called("/sculpt.v1.Tasks/GetTask", "application/grpc").await.expect("an answer");
        assert_eq!(answer.headers().get("grpc-status").unwrap(), "14");
        assert!(called("/sculpt.v1.Git/SendPack", "application/grpc").await.is_none(), "packs take their time");
        assert!(called(WHOLE, "application/grpc").await.is_none(), "so does all of the record");
        assert!(called("/git/x.git/info/refs", "text/plain").await.is_none(), "and so do fetches");
    }
}
