//! A TCP line of some length: everything arrives so much later than it was sent, in order, however much is on its way.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// Pieces on their way; beyond them the sender waits, as at the end of a window.
const ON_THE_WAY: usize = 1024;

/// A line; gone when dropped.
#[derive(Debug)]
pub struct Distance {
    address: SocketAddr,
    worker: JoinHandle<()>,
}

impl Distance {
    /// Listens on a free port of loopback; `target` is `one_way` away from there.
    pub async fn start(target: impl Into<String>, one_way: Duration) -> Result<Self> {
        let target = target.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the line")?;
        let address = listener.local_addr()?;
        let worker = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(carry(stream, target.clone(), one_way));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, worker })
    }

    /// Where to dial instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

async fn carry(near: TcpStream, target: String, one_way: Duration) {
    let Ok(far) = TcpStream::connect(&target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(pass(near_read, far_write, one_way), pass(far_read, near_write, one_way));
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, one_way: Duration) {
    let (leaves, mut arrives) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if leaves.send((Instant::now() + one_way, buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = arrives.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The end of what is sent comes after what was sent.
        let _gone = to.shutdown().await;
    };
    tokio::join!(read, write);
}
