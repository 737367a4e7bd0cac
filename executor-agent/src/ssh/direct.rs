//! The executor's own door, for people who reach this host without the controller: the same server, the same certificates.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    server::{Came, Server},
    strangers::Strangers,
};
use crate::connect::Backoff;

/// Between tries to listen.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// After a connection could not be accepted: the host may have too many open files.
const AGAIN: Duration = Duration::from_millis(100);

/// Takes in who comes to `address` until cancelled; returns when they have gone.
pub(super) async fn open(address: SocketAddr, server: Server, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    tokio::select! {
        () = cancel.cancelled() => {}
        () = listen(address, &server, &tasks) => {}
    }
    tasks.close();
    tasks.wait().await;
}

async fn listen(address: SocketAddr, server: &Server, tasks: &TaskTracker) {
    let listener = bound(address).await;
    info!(%address, "people can come to this executor's attempts without the controller");
    let strangers = Strangers::default();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // What somebody types is shown at once. One who has gone already is noticed below.
                let _gone = stream.set_nodelay(true);
                let server = server.clone();
                let (stranger, makes_way) = strangers.comes(from.ip());
                tasks.spawn(async move {
                    tokio::select! {
                        () = server.receive(stream, Came::Straight(stranger), from) => {}
                        () = makes_way.cancelled() => debug!(%from, "a stranger who had not said who they are made way"),
                    }
                });
            }
            Err(error) => {
                warn!(%error, "a connection of ssh could not be accepted");
                sleep(AGAIN).await;
            }
        }
    }
}

/// Another process may have the port for a while, and agents run whether or not people come this way.
async fn bound(address: SocketAddr) -> TcpListener {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if std::mem::replace(&mut told, true) => {
                debug!(%address, %error, "still nothing listens for people")
            }
            Err(error) => {
                warn!(%address, %error, "could not listen for people (ssh.listen); they come through the controller, and it is tried again");
            }
        }
        backoff.wait().await;
    }
}
