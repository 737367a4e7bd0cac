//! Listeners and what stands before every call: TLS, limits, deadlines. Who calls is asked behind them.

pub mod deadline;
pub mod doors;
pub mod git_http;
pub mod guesses;
mod headers;
pub mod listen;
mod newcomers;
mod patience;

use std::net::IpAddr;

use http::{HeaderMap, header};

/// The address by which one host is counted: it has as many of IPv6 as it likes, in a network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => IpAddr::V4(mapped),
            None => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        },
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Whether the caller speaks gRPC, and so wants its refusals in gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}
