//! Listeners against clients that want nothing good: each costs a descriptor for a while, and no neighbour is hurt.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Bytes,
    routing::{get, post},
};
use sculpt_controller::web::listen::{Limits, bind, serve};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// HEADERS of `GET http://…/`, the whole of a request.
const REQUEST: &[u8] = &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84];

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener, gone with this value.
struct Listening {
    address: SocketAddr,
    ending: CancellationToken,
}

impl Listening {
    async fn start(limits: Limits) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, ending) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new()
            .route("/", get(|| async { "served" }))
            .route("/take", post(|body: Bytes| async move { body.len().to_string() }));
        tokio::spawn(serve(listener, router, limits, ending.clone(), TaskTracker::new()));
        Self { address, ending }
    }

    async fn says(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// What an honest client gets.
    async fn serves(&self) -> String {
        let mut stream = self.says(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        answer
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.ending.cancel();
    }
}

/// Returns when the listener has closed it.
async fn is_cut(mut stream: TcpStream) {
    let mut said = Vec::new();
    let closed = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    // A reset is an end as well.
    let _reset = closed.expect("the connection to be cut");
}

/// The same while it goes on sending `piece` again and again.
async fn is_cut_while_it_sends(stream: TcpStream, piece: &'static [u8]) {
    let (mut reader, mut writer) = stream.into_split();
    let mut trickle = JoinSet::new();
    trickle.spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while writer.write_all(piece).await.is_ok() {
            pause.tick().await;
        }
    });
    let mut said = Vec::new();
    let _reset = timeout(PATIENCE, reader.read_to_end(&mut said)).await.expect("the connection to be cut");
}

fn hasty() -> Limits {
    let second = Duration::from_secs(1);
    Limits { headers: second, body: second, ping: second, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_clients_that_say_nothing_whole_is_cut_and_honest_ones_are_served() {
    let listening = Listening::start(hasty()).await;
    let mut flood = JoinSet::new();
    for n in 0..300 {
        let half: &[u8] = match n % 6 {
            0 => b"",
            1 => &PREFACE[..10],
            2 => PREFACE,
            3 => b"GET / HTTP/1.1\r\nhost: x\r\n",
            4 => b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf",
            _ => b"G",
        };
        flood.spawn(is_cut(listening.says(half).await));
    }
    assert!(listening.serves().await.ends_with("served"));
    while let Some(cut) = flood.join_next().await {
        cut.unwrap();
    }
    assert!(listening.serves().await.ends_with("served"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trickles_is_cut_wherever_it_stands() {
    let listening = Listening::start(hasty()).await;
    let settled = [PREFACE, SETTINGS].concat();
    // A header block that never ends, one byte at a time.
    let headers = [settled.as_slice(), &[0, 0x3f, 0xff, 1, 4, 0, 0, 0, 1, 0x82]].concat();
    let cases: [(&str, &[u8], &[u8]); 4] = [
        ("headers of HTTP/1.1", b"GET / HTTP/1.1\r\nhost: x\r\nx: ", b"x"),
        ("a body", b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n", b"x"),
        ("settings alone", &settled, SETTINGS),
        ("headers of HTTP/2", &headers, &[0x82]),
    ];
    let mut all = JoinSet::new();
    for (what, begin, piece) in cases {
        let stream = listening.says(begin).await;
        let piece: &'static [u8] = piece.to_vec().leak();
        all.spawn(async move {
            is_cut_while_it_sends(stream, piece).await;
            what
        });
    }
    while let Some(cut) = all.join_next().await {
        cut.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_gone_without_a_word_is_noticed() {
    let listening = Listening::start(hasty()).await;
    // It makes a whole request, then answers no ping.
    is_cut(listening.says(&[PREFACE, SETTINGS, REQUEST].concat()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_clients_wait_until_one_goes() {
    let listening = Listening::start(Limits { connections: 4, ..hasty() }).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(listening.says(b"").await);
    }
    // Served as soon as the silent ones are cut, which nobody but the listener does.
    assert!(listening.serves().await.ends_with("served"));
    drop(silent);
}
