//! Ports and sockets, to what the agent's own processes listen on and from there to the person's.

use std::{fs, io::ErrorKind, net::TcpListener};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinSet,
};

use super::{
    ports::{connects, free_port},
    world::World,
};

async fn answers(mut stream: impl AsyncRead + AsyncWrite + Unpin, question: &str) -> Result<String> {
    stream.write_all(question.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn what_the_agent_serves_is_reached() -> Result<()> {
    let (world, server) = World::with_server().await?;
    let (host, port) = (format!("sculpt.{}", server.task), free_port()?);
    let socket = world.ada.home.join("socket");
    let by_port = format!("{port}:localhost:{}", server.port);
    let by_path = format!("{}:{}/served", socket.display(), server.place.display());
    let forward = world.ssh(&world.ada, &["ssh", "-N", "-L", &by_port, "-L", &by_path, &host]).follow()?;
    ensure!(answers(connects(port).await?, "hello\n").await? == "HELLO\n");
    ensure!(answers(UnixStream::connect(&socket).await?, "by path\n").await? == "BY PATH\n");
    let mut asking = JoinSet::new();
    for number in 0..20 {
        let stream = connects(port).await?;
        asking.spawn(async move {
            let question = format!("question {number} ").repeat(10_000);
            let answer = answers(stream, &format!("{question}\n")).await?;
            ensure!(answer.trim_end() == question.to_uppercase().trim_end(), "question {number} has another answer");
            Ok(())
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    drop(forward);
    // ssh was killed, and has not removed its own.
    fs::remove_file(&socket)?;

    let here = free_port()?;
    let forwarded = format!("sculpt port-forward {} {here}:{}", server.task, server.port);
    let forward = world.ada.types(&world.stack, &forwarded).follow()?;
    ensure!(answers(connects(here).await?, "hello\n").await? == "HELLO\n");
    drop(forward);
    world.ends(&server.task).await
}

/// Nobody gets further into the executor's host than to this agent.
#[tokio::test]
async fn nothing_else_of_the_host_is_reached() -> Result<()> {
    let (world, server) = World::with_server().await?;
    let host = format!("sculpt.{}", server.task);
    let others = TcpListener::bind("127.0.0.1:0")?;
    others.set_nonblocking(true)?;
    let asks = |target: String| world.ssh(&world.ada, &["ssh", "-W", &target, &host]).stdin("hello\n").run();
    let own = asks(format!("localhost:{}", server.port)).await?.done()?;
    ensure!(own.stdout == b"HELLO\n", "{own:?}");
    let port = others.local_addr()?.port();
    asks(format!("localhost:{port}")).await?.exits(255)?.says("none of the attempt's own processes")?;
    let controller = world.stack.user_address()?;
    asks(controller).await?.exits(255)?.says("none of the attempt's own processes")?;
    asks("192.0.2.1:80".to_owned()).await?.exits(255)?.says("only what the attempt listens on")?;
    let nobody = others.accept().err().map(|error| error.kind());
    ensure!(nobody == Some(ErrorKind::WouldBlock), "somebody was connected: {nobody:?}");
    world.ends(&server.task).await
}

#[tokio::test]
async fn the_agents_side_reaches_what_the_person_serves() -> Result<()> {
    let (world, server) = World::with_server().await?;
    let theirs = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let (there, host) = (free_port()?, format!("sculpt.{}", server.task));
    let back = format!("{there}:{}", theirs.local_addr()?);
    let asks = format!(
        "python3 -c 'import socket; s = socket.create_connection((\"127.0.0.1\", {there})); s.sendall(b\"hello\"); \
         s.shutdown(1); print(s.recv(100).decode())'"
    );
    let words = ["ssh", "-o", "ExitOnForwardFailure=yes", "-R", &back, &host, &asks];
    let answering = async {
        let (mut stream, _) = theirs.accept().await.context("somebody comes from there")?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        stream.write_all(format!("{heard} yourself").as_bytes()).await?;
        Ok::<_, anyhow::Error>(())
    };
    let (said, ()) = tokio::try_join!(world.ssh(&world.ada, &words).run(), answering)?;
    ensure!(said.done()?.text() == "hello yourself");
    world.ends(&server.task).await
}
