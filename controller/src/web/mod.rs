//! Listeners and what stands before every call: TLS, limits, deadlines. Who calls is asked behind them.

pub mod deadline;
pub mod git_http;
pub mod listen;
mod newcomers;
mod patience;

use http::{HeaderMap, header};

/// Whether the caller speaks gRPC, and so wants its refusals in gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}
