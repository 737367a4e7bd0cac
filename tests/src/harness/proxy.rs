//! A TCP proxy that misbehaves on demand: cut, half-open, one-way blackhole, delay, throttle. The same seed gives the
//! same delays.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::Dice;

/// What is wrong with the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Connections are closed, and new ones as soon as they are made.
    Cut,
    /// The far side is told that each connection is closed, the dialling side hears nothing more until this is over. New
    /// connections stand and are answered by nobody.
    HalfOpen,
    /// Connections stand, but nothing that the dialling side sends arrives before this is over; then everything does,
    /// as TCP's retransmission would have it.
    BlackholeUp,
    /// The same for what the other side sends.
    BlackholeDown,
    /// Each piece is held back for a random time up to this, in order.
    Delay(Duration),
    /// At most this many bytes a second in each direction.
    Throttle(u32),
}

/// A running proxy; gone when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    accepted: Arc<AtomicU64>,
    worker: JoinHandle<()>,
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Proxy {
    /// Listens on a free port of loopback and passes on to `target`.
    pub async fn start(target: impl Into<String>, seed: u64) -> Result<Self> {
        let target = target.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the proxy")?;
        let address = listener.local_addr()?;
        let (fault, faults) = watch::channel(Fault::None);
        let accepted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&accepted);
        let worker = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(carry(stream, target.clone(), faults.clone(), Dice::new(seed ^ (number << 32))));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, fault, accepted, worker })
    }

    /// Where to dial instead of the target. Who answers proves the same name there: the proxy passes on what it cannot read.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Where to dial instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the line is like this, also for connections that stand.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many connections were made so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// One connection, both ways, until either side closes it or it is cut.
async fn carry(near: TcpStream, target: String, mut faults: watch::Receiver<Fault>, mut dice: Dice) {
    let first = *faults.borrow_and_update();
    let (mut near_read, mut near_write) = near.into_split();
    let breaks = |fault: &Fault| matches!(fault, Fault::Cut | Fault::HalfOpen);
    if !breaks(&first) {
        let Ok(far) = TcpStream::connect(&target).await else { return };
        let _ = (near_write.as_ref().set_nodelay(true), far.set_nodelay(true));
        let (far_read, far_write) = far.into_split();
        let other = dice.fork();
        let up = pass(&mut near_read, far_write, Direction::Up, faults.clone(), dice);
        let down = pass(far_read, &mut near_write, Direction::Down, faults.clone(), other);
        tokio::select! {
            () = async { tokio::join!(up, down); } => return,
            _ = faults.wait_for(breaks) => {}
        }
    }
    // The near halves stand until the end of a half-open line.
    let _ended = faults.wait_for(|fault| *fault != Fault::HalfOpen).await;
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut faults: watch::Receiver<Fault>,
    mut dice: Dice,
) {
    let hole = match direction {
        Direction::Up => Fault::BlackholeUp,
        Direction::Down => Fault::BlackholeDown,
    };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let Ok(fault) = faults.wait_for(|fault| *fault != hole).await.map(|fault| *fault) else { break };
        match fault {
            Fault::Delay(most) => tokio::time::sleep(most.mul_f64(dice.roll())).await,
            Fault::Throttle(rate) => tokio::time::sleep(Duration::from_secs_f64(read as f64 / f64::from(rate))).await,
            Fault::None | Fault::Cut | Fault::HalfOpen | Fault::BlackholeUp | Fault::BlackholeDown => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
