//! A TCP proxy that misbehaves on demand: cut, one-way blackhole, delay, throttle. The same seed gives the same delays.

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
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What is wrong with the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Connections are closed, and new ones as soon as they are made.
    Cut,
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
                connections.spawn(carry(stream, target.clone(), faults.clone(), Dice(seed ^ (number << 32))));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, fault, accepted, worker })
    }

    /// Where to dial instead of the target.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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
async fn carry(near: TcpStream, target: String, mut faults: watch::Receiver<Fault>, dice: Dice) {
    if *faults.borrow_and_update() == Fault::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(&target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let up = pass(near_read, far_write, Direction::Up, faults.clone(), dice);
    let down = pass(far_read, near_write, Direction::Down, faults.clone(), Dice(!dice.0));
    let cut = async { drop(faults.wait_for(|fault| *fault == Fault::Cut).await) };
    tokio::select! {
        () = async { tokio::join!(up, down); } => {}
        () = cut => {}
    }
}

async fn pass(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
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
            Fault::None | Fault::Cut | Fault::BlackholeUp | Fault::BlackholeDown => {}
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// SplitMix64 (Steele, Lea and Flood, 2014): all that a delay needs of randomness.
#[derive(Clone, Copy)]
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}
