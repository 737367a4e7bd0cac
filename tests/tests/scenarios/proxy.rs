//! The fault proxy does what it says, so that a scenario that passes has met the fault.

use std::time::{Duration, Instant};

use anyhow::Result;
use sculpt_tests::harness::{Fault, Proxy, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const SOON: Duration = Duration::from_secs(20);

/// A line through a proxy: the dialling side, the other side, and the proxy.
async fn line() -> Result<(TcpStream, TcpStream, Proxy)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = Proxy::start(listener.local_addr()?.to_string(), 7).await?;
    let near = TcpStream::connect(proxy.address()).await?;
    let (far, _) = listener.accept().await?;
    Ok((near, far, proxy))
}

async fn crosses(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) -> Result<()> {
    from.write_all(text).await?;
    arrives(to, text).await
}

async fn arrives(at: &mut TcpStream, text: &[u8]) -> Result<()> {
    let mut read = vec![0; text.len()];
    within(SOON, "bytes to arrive", async { Ok(at.read_exact(&mut read).await.map(drop)?) }).await?;
    assert_eq!(read, text);
    Ok(())
}

#[tokio::test]
async fn without_a_fault_bytes_pass_both_ways() -> Result<()> {
    let (mut near, mut far, proxy) = line().await?;
    crosses(&mut near, &mut far, b"up").await?;
    crosses(&mut far, &mut near, b"down").await?;
    assert_eq!(proxy.accepted(), 1);
    Ok(())
}

#[tokio::test]
async fn a_cut_closes_what_stands_and_what_comes() -> Result<()> {
    let (mut near, mut far, proxy) = line().await?;
    proxy.set(Fault::Cut);
    let mut rest = Vec::new();
    within(SOON, "the near end to close", async { Ok(near.read_to_end(&mut rest).await?) }).await?;
    within(SOON, "the far end to close", async { Ok(far.read_to_end(&mut rest).await?) }).await?;
    let mut new = TcpStream::connect(proxy.address()).await?;
    within(SOON, "a new line to close", async { Ok(new.read_to_end(&mut rest).await?) }).await?;
    assert!(rest.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_blackhole_holds_one_way_only_and_loses_nothing() -> Result<()> {
    let (mut near, mut far, proxy) = line().await?;
    proxy.set(Fault::BlackholeUp);
    near.write_all(b"held").await?;
    // What comes the other way proves that the proxy has seen the line since.
    crosses(&mut far, &mut near, b"down").await?;
    let mut byte = [0];
    assert!(far.try_read(&mut byte).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    proxy.set(Fault::None);
    arrives(&mut far, b"held").await
}

#[tokio::test]
async fn a_delay_keeps_the_order() -> Result<()> {
    let (mut near, mut far, proxy) = line().await?;
    proxy.set(Fault::Delay(Duration::from_millis(5)));
    for number in 0..20_u8 {
        near.write_all(&[number]).await?;
    }
    arrives(&mut far, &(0..20).collect::<Vec<u8>>()).await
}

#[tokio::test]
async fn a_throttled_line_takes_its_time() -> Result<()> {
    let (mut near, mut far, proxy) = line().await?;
    proxy.set(Fault::Throttle(100_000));
    let started = Instant::now();
    crosses(&mut near, &mut far, &[b'x'; 20_000]).await?;
    assert!(started.elapsed() >= Duration::from_millis(190), "{:?}", started.elapsed());
    Ok(())
}
