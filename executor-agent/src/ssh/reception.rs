//! The duty that takes people in: proves who we are, and dials for each who waits at the controller.

use std::{sync::Arc, time::Duration};

use russh::keys::ssh_key::PrivateKey;
use sculpt_proto::id::{AttemptId, TunnelId};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{
    blocks::Report,
    guests::GuestList,
    host_proof::{self, HostProof},
    place::Attempts,
    server::{COMES_IN_WITHIN, Means, Server},
    tunnel::Tunnel,
};
use crate::attempts::Context;

/// Between tries to be certified.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// People who wait at the controller, as far as we were told and have not dialled. Beyond them nobody is dialled for, and asks
/// again.
const DIALS: usize = 256;

/// Reports on their way.
const REPORTS: usize = 256;

/// What the session tells it.
#[derive(Debug)]
pub struct Told {
    /// Whom to let in.
    pub guests: watch::Sender<GuestList>,
    /// For whom to dial.
    pub dials: mpsc::Sender<TunnelId>,
}

/// The duty's ends of what it is told.
#[derive(Debug)]
pub struct Hears {
    guests: watch::Receiver<GuestList>,
    dials: mpsc::Receiver<TunnelId>,
}

/// Between a session and the duty.
pub fn news() -> (Told, Hears) {
    let (guests, told) = watch::channel(GuestList::default());
    let (dials, dialled) = mpsc::channel(DIALS);
    (Told { guests, dials }, Hears { guests: told, dials: dialled })
}

/// Takes people in until the executor ends.
pub async fn run(context: Arc<Context>, hears: Hears) {
    let cancel = context.cancel.clone();
    let key = match host_proof::key(&context.layout.identity_directory()) {
        Ok(key) => key,
        Err(error) => return warn!(%error, "nobody can be taken to this executor's attempts by ssh"),
    };
    let tasks = TaskTracker::new();
    tokio::select! {
        () = cancel.cancelled() => {}
        () = receive(&context, &key, hears, &tasks) => {}
    }
    tasks.close();
    tasks.wait().await;
}

async fn receive(context: &Arc<Context>, key: &PrivateKey, mut hears: Hears, tasks: &TaskTracker) {
    let (first, renew_after) = certified(context, key).await;
    let (tell, proof) = watch::channel(first);
    let (reports, told) = mpsc::channel(REPORTS);
    let server = Server::new(Means {
        proof,
        guests: hears.guests,
        attempts: Attempts::new(context.layout.clone(), context.program.clone()),
        reports,
        comes_in_within: COMES_IN_WITHIN,
        cancel: context.cancel.clone(),
    });
    tasks.spawn(note(told));
    let renewing = async {
        let mut after = renew_after;
        loop {
            sleep(after).await;
            let (proof, next) = certified(context, key).await;
            after = next;
            tell.send_replace(proof);
        }
    };
    let dialling = async {
        while let Some(tunnel) = hears.dials.recv().await {
            tasks.spawn(take_in(Arc::clone(context), server.clone(), tunnel));
        }
    };
    tokio::select! {
        () = renewing => {}
        () = dialling => {}
    }
}

/// A certificate, however long it takes to get one.
async fn certified(context: &Context, key: &PrivateKey) -> (HostProof, Duration) {
    let mut backoff = context.dialer.backoff(FIRST_WAIT, LONGEST_WAIT);
    loop {
        match host_proof::certify(key, &context.dialer).await {
            Ok(certified) => return certified,
            Err(error) => debug!(%error, "the key of this host for ssh is not certified; trying again"),
        }
        backoff.wait().await;
    }
}

async fn take_in(context: Arc<Context>, server: Server, id: TunnelId) {
    let dialled = tokio::select! {
        () = context.cancel.cancelled() => return,
        dialled = Tunnel::dial(&context.dialer, id) => dialled,
    };
    let ended = match dialled {
        Ok(tunnel) => server.serve(tunnel).await,
        Err(error) => return info!(tunnel = %id, %error, "somebody who waited was not met"),
    };
    if let Err(error) = ended {
        info!(tunnel = %id, %error, "a person's connection was ended");
    }
}

/// Until attempts' journals have them, the executor's own log does.
async fn note(mut told: mpsc::Receiver<(AttemptId, Report)>) {
    while let Some((attempt, report)) = told.recv().await {
        info!(%attempt, user = report.user, pairing = %report.pairing, deed = ?report.deed, "a person at a terminal");
    }
}
