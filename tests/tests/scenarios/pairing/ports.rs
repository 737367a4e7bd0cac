//! Ports of this machine's loopback.

use std::net::TcpListener;

use anyhow::Result;
use sculpt_tests::harness::{DEADLINE, again};
use tokio::net::TcpStream;

/// A port that is free now, for a program that cannot choose one itself.
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A connection to a port, once somebody listens there.
pub(super) async fn connects(port: u16) -> Result<TcpStream> {
    let what = format!("somebody to listen on port {port}");
    again(DEADLINE, &what, async || Ok(TcpStream::connect(("127.0.0.1", port)).await.ok())).await
}
