//! Listeners against clients that want nothing good: each costs a descriptor for a while, and no neighbour is hurt.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Bytes,
    routing::{get, post},
};
use sculpt_controller::{
    pki::{Authority, Names},
    web::listen::{Limits, Peer, bind, serve},
};
use sculpt_tls::{CONTROLLER_NAME, Callers, Identity, Server, client_config, server_config};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// HEADERS of `GET http://…/`, the whole of a request.
const REQUEST: &[u8] = &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84];

/// The same for `/prove`, and once more for `/`, as the second call of a connection.
const PROOF: &[u8] = b"\0\0\x0a\x01\x05\0\0\0\x01\x82\x86\x04\x06/prove";
const AGAIN: &[u8] = &[0, 0, 3, 1, 5, 0, 0, 0, 3, 0x82, 0x86, 0x84];

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listener, gone with this value.
struct Listening {
    address: SocketAddr,
    authority: Authority,
    ending: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Listening {
    async fn start(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path()).unwrap();
        let proof = authority.controller(&Names::new([]).unwrap(), std::time::SystemTime::now()).unwrap();
        let config = server_config(Identity::new(proof, None).unwrap(), &Callers::Anyone).unwrap();
        let (_, tls) = watch::channel(Arc::new(config));
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, ending) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new()
            .route("/", get(|| async { "served" }))
            .route("/prove", get(prove))
            .route("/take", post(|body: Bytes| async move { body.len().to_string() }));
        tokio::spawn(serve(listener, tls, router, limits, ending.clone(), TaskTracker::new()));
        Self { address, authority, ending, _directory: directory }
    }

    /// A client that says this before anything else.
    async fn hears(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// A client that has shaken hands, and says this in the protocol that it chose.
    async fn says(&self, protocol: &[u8], bytes: &[u8]) -> TlsStream<TcpStream> {
        let trust = Server::Known(self.authority.trust().clone());
        let mut config = client_config(&trust, None).unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = CONTROLLER_NAME.try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    /// A client that makes this call in HTTP/2, and then waits for what comes.
    async fn calls(&self, request: &[u8]) -> TlsStream<TcpStream> {
        let mut stream = self.says(HTTP2, &[PREFACE, SETTINGS, request].concat()).await;
        is_answered(&mut stream).await;
        stream
    }

    /// What an honest client gets.
    async fn serves(&self) -> String {
        let mut stream = self.says(HTTP1, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
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

/// Lets its caller be known, as a good credential does.
async fn prove(Extension(peer): Extension<Peer>) -> &'static str {
    peer.proved();
    "served"
}

/// Returns when a call on it is answered.
async fn is_answered(stream: &mut TlsStream<TcpStream>) {
    let mut said = Vec::new();
    while !said.windows(6).any(|piece| piece == b"served") {
        let read = timeout(PATIENCE, stream.read_buf(&mut said)).await.expect("an answer").unwrap();
        assert_ne!(read, 0, "it is not cut");
    }
}

/// The same for one more call on it.
async fn is_answered_again(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(AGAIN).await.unwrap();
    stream.flush().await.unwrap();
    is_answered(stream).await;
}

/// Returns when the listener has closed it.
async fn is_cut(mut stream: impl AsyncRead + Unpin) {
    let mut said = Vec::new();
    let closed = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    // A reset is an end as well.
    let _reset = closed.expect("the connection to be cut");
}

/// The same while it goes on sending `piece` again and again.
async fn is_cut_while_it_sends(stream: TlsStream<TcpStream>, piece: &'static [u8]) {
    let (mut reader, mut writer) = tokio::io::split(stream);
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

/// Whoever is cut by such a listener made way.
fn patient() -> Limits {
    let hour = Duration::from_secs(3600);
    Limits { headers: hour, proof: hour, body: hour, ping: hour, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_clients_that_say_nothing_whole_is_cut_and_honest_ones_are_served() {
    let listening = Listening::start(Limits { strangers: 1000, ..hasty() }).await;
    let mut flood = JoinSet::new();
    for n in 0..300 {
        let (protocol, half): (_, &[u8]) = match n % 7 {
            0 => {
                flood.spawn(is_cut(listening.hears(b"").await));
                continue;
            }
            1 => {
                // The beginning of a hello of TLS.
                flood.spawn(is_cut(listening.hears(&[0x16, 3, 1, 2, 0, 1]).await));
                continue;
            }
            2 => (HTTP2, &PREFACE[..10]),
            3 => (HTTP2, PREFACE),
            4 => (HTTP1, b"GET / HTTP/1.1\r\nhost: x\r\n"),
            5 => (HTTP1, b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf"),
            _ => (HTTP1, b"G"),
        };
        flood.spawn(is_cut(listening.says(protocol, half).await));
    }
    assert!(listening.serves().await.ends_with("served"));
    while let Some(cut) = flood.join_next().await {
        cut.unwrap();
    }
    assert!(listening.serves().await.ends_with("served"));
}

/// A name, a protocol, what is said in it at first, and what again and again.
type Case<'a> = (&'static str, &'static [u8], &'a [u8], &'static [u8]);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trickles_is_cut_wherever_it_stands() {
    let listening = Listening::start(hasty()).await;
    let settled = [PREFACE, SETTINGS].concat();
    // A header block that never ends, one byte at a time.
    let headers = [settled.as_slice(), &[0, 0x3f, 0xff, 1, 4, 0, 0, 0, 1, 0x82]].concat();
    let cases: [Case<'_>; 4] = [
        ("headers of HTTP/1.1", HTTP1, b"GET / HTTP/1.1\r\nhost: x\r\nx: ", b"x"),
        ("a body", HTTP1, b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n", b"x"),
        ("settings alone", HTTP2, &settled, SETTINGS),
        ("headers of HTTP/2", HTTP2, &headers, &[0x82]),
    ];
    let mut all = JoinSet::new();
    for (what, protocol, begin, piece) in cases {
        let stream = listening.says(protocol, begin).await;
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
    is_cut(listening.says(HTTP2, &[PREFACE, SETTINGS, REQUEST].concat()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_clients_wait_until_one_goes() {
    let listening = Listening::start(Limits { connections: 4, ..patient() }).await;
    let mut known = Vec::new();
    for _ in 0..4 {
        known.push(listening.calls(PROOF).await);
    }
    let (served, ()) = tokio::join!(listening.serves(), async {
        for stream in &mut known {
            is_answered_again(stream).await;
        }
        known.pop();
    });
    assert!(served.ends_with("served"));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_the_oldest_stranger_makes_way() {
    let listening = Listening::start(Limits { connections: 4, ..patient() }).await;
    let mut known = listening.calls(PROOF).await;
    let (called, silent) = (listening.calls(REQUEST).await, listening.hears(b"").await);
    let last = listening.calls(REQUEST).await;
    for stranger in [listening.calls(REQUEST).await, listening.calls(REQUEST).await] {
        drop(stranger);
    }
    is_cut(called).await;
    is_cut(silent).await;
    is_answered_again(&mut known).await;
    drop(last);
}

/// As many as an address may have, all idle, and twice as many: nobody who is known notices.
#[tokio::test(flavor = "multi_thread")]
async fn idle_strangers_keep_nobody_out() {
    let listening = Listening::start(patient()).await;
    let mut before = listening.calls(PROOF).await;
    let mut idle = Vec::new();
    for _ in 0..patient().strangers {
        idle.push(listening.calls(REQUEST).await);
    }
    let mut known = listening.calls(PROOF).await;
    is_cut(idle.remove(0)).await;
    let mut more = Vec::new();
    for _ in 0..patient().strangers {
        more.push(listening.calls(REQUEST).await);
    }
    for stream in idle {
        is_cut(stream).await;
    }
    is_answered_again(&mut before).await;
    is_answered_again(&mut known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_proves_nothing_is_cut_in_time() {
    let second = Duration::from_secs(1);
    let listening = Listening::start(Limits { proof: second, ..patient() }).await;
    let mut known = listening.calls(PROOF).await;
    is_cut(listening.says(HTTP1, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await).await;
    is_answered_again(&mut known).await;

    // One that does not even take its leave.
    let listening = Listening::start(Limits { proof: second, headers: second, ..patient() }).await;
    is_cut(listening.calls(REQUEST).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_of_one_address_are_bounded() {
    let listening = Listening::start(Limits { strangers: 3, ..patient() }).await;
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(listening.hears(b"").await);
    }
    // Although there are seats.
    for stream in silent.drain(..3) {
        is_cut(stream).await;
    }
    assert!(listening.serves().await.ends_with("served"));
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_refused_at_a_limit() {
    let listening = Listening::start(Limits::default()).await;
    let stream = listening.says(HTTP1, b"GET / HTTP/1.1\r\nhost: x\r\nx: ").await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    // What is beyond the limit may find nobody who reads it.
    let flood = tokio::spawn(async move { writer.write_all(&vec![b'x'; 16 << 20]).await.is_err() });
    let mut said = Vec::new();
    let _reset = timeout(PATIENCE, reader.read_to_end(&mut said)).await.expect("an answer, or an end");
    assert!(flood.await.unwrap(), "not all of it is taken");
    assert!(listening.serves().await.ends_with("served"));
}

/// A header counts its name, its value and 32 bytes, in both versions of HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn headers_are_taken_up_to_the_limit_and_not_a_byte_beyond() {
    const MOST: usize = 64 << 10;
    let listening = Listening::start(Limits::default()).await;
    let others = "host".len() + "x".len() + "connection".len() + "close".len() + "x".len() + 3 * 32;
    for (length, answer) in [
        (MOST - others, "HTTP/1.1 200"),
        (MOST - others + 1, "HTTP/1.1 431"),
        // What the piece that reaches the limit may hold besides.
        (MOST + 4096, "HTTP/1.1 431"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {}\r\n\r\n", "x".repeat(length));
        let mut stream = listening.says(HTTP1, request.as_bytes()).await;
        let mut said = Vec::new();
        let _reset = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an answer");
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with(answer), "{length}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_in_the_clear_is_told() {
    let listening = Listening::start(hasty()).await;
    for hello in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], PREFACE] {
        let mut answer = Vec::new();
        let mut stream = listening.hears(hello).await;
        let _reset = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("use https://"), "{answer}");
    }
}
