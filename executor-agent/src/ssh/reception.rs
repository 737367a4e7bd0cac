//! The duty that takes people in: proves who we are, dials for each who waits at the controller, and opens to those who come
//! straight to this host.

use std::{sync::Arc, time::Duration};

use russh::keys::ssh_key::PrivateKey;
use sculpt_proto::id::{PairingId, TunnelId};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::{
    direct,
    guests::{self, GuestList},
    host_proof::{self, HostProof},
    place::Attempts,
    reports::Beside,
    server::{COMES_IN_WITHIN, Means, Server},
    tunnel::Tunnel,
};
use crate::attempts::{self, Context};

/// Between tries to be certified.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// People who wait at the controller, as far as we were told and have not dialled. Beyond them nobody is dialled for, and asks
/// again.
const DIALS: usize = 256;

/// How long it may take to meet somebody, who waits no longer either.
const DIALS_WITHIN: Duration = Duration::from_secs(10);

/// Reports on their way.
const REPORTS: usize = 256;

/// What the session and the attempts tell it.
#[derive(Debug)]
pub struct Told {
    /// Whom to let in.
    pub guests: watch::Sender<GuestList>,
    /// For whom to dial.
    pub dials: mpsc::Sender<Dial>,
    /// Raised when an attempt has ended.
    pub ends: watch::Sender<u64>,
    /// Who is there.
    pub beside: Beside,
}

/// Somebody who waits at the controller.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// Where.
    pub tunnel: TunnelId,
    /// What they have asked with.
    pub pairing: PairingId,
}

/// The duty's ends of what it is told.
#[derive(Debug)]
pub struct Hears {
    guests: watch::Receiver<GuestList>,
    dials: mpsc::Receiver<Dial>,
    ends: watch::Receiver<u64>,
}

/// Between who tells and the duty.
pub fn news() -> (Told, Hears) {
    let (guests, told) = watch::channel(GuestList::default());
    let (dials, dialled) = mpsc::channel(DIALS);
    let (ends, ended) = watch::channel(0);
    (Told { guests, dials, ends, beside: Beside::default() }, Hears { guests: told, dials: dialled, ends: ended })
}

/// Takes people in until the executor ends.
pub async fn run(context: Arc<Context>, attempts: attempts::Attempts, hears: Hears) {
    let cancel = context.cancel.clone();
    let key = match host_proof::key(&context.layout.identity_directory()) {
        Ok(key) => key,
        Err(error) => return warn!(%error, "nobody can be taken to this executor's attempts by ssh"),
    };
    let tasks = TaskTracker::new();
    tokio::select! {
        () = cancel.cancelled() => {}
        () = receive(&context, attempts, &key, hears, &tasks) => {}
    }
    tasks.close();
    tasks.wait().await;
}

async fn receive(
    context: &Arc<Context>,
    attempts: attempts::Attempts,
    key: &PrivateKey,
    mut hears: Hears,
    tasks: &TaskTracker,
) {
    let (tell, proof) = watch::channel(None);
    let (reports, told) = context.people.beside.reports(REPORTS);
    let authorities = hears.guests.clone();
    let server = Server::new(Means {
        proof,
        guests: hears.guests,
        attempts: Attempts::new(context.layout.clone(), context.program.clone()),
        reports,
        ends: hears.ends,
        disk: context.room.watched(),
        comes_in_within: COMES_IN_WITHIN,
        cancel: context.cancel.clone(),
    });
    tasks.spawn(async move { attempts.write_seats(told).await });
    if let Some(direct) = &context.settings.ssh {
        tasks.spawn(direct::open(direct.listen, server.clone(), context.cancel.clone()));
    }
    let dialling = async {
        while let Some(dial) = hears.dials.recv().await {
            tasks.spawn(take_in(Arc::clone(context), server.clone(), dial));
        }
    };
    tokio::select! {
        () = prove(context, key, &tell, authorities) => {}
        () = dialling => {}
    }
}

/// Keeps a certificate that is good: another one before it is over, and as soon as others certify.
async fn prove(
    context: &Context,
    key: &PrivateKey,
    tell: &watch::Sender<Option<HostProof>>,
    mut list: watch::Receiver<GuestList>,
) {
    loop {
        let (proof, after) = certified(context, key).await;
        tell.send_replace(Some(proof));
        tokio::select! {
            () = sleep(after) => {}
            () = guests::other_authorities(&mut list) => info!("others certify for ssh; so the key of this host is certified anew"),
        }
    }
}

/// A certificate, however long it takes to get one.
async fn certified(context: &Context, key: &PrivateKey) -> (HostProof, Duration) {
    let mut backoff = context.dialer.backoff(FIRST_WAIT, LONGEST_WAIT);
    let mut told = false;
    loop {
        match host_proof::certify(key, &context.dialer).await {
            Ok(certified) => return certified,
            Err(error) if std::mem::replace(&mut told, true) => {
                debug!(%error, "the key of this host for ssh is still not certified")
            }
            Err(error) => {
                warn!(%error, "the key of this host for ssh is not certified, and without that nobody is taken in; trying again")
            }
        }
        backoff.wait().await;
    }
}

async fn take_in(context: Arc<Context>, server: Server, Dial { tunnel: id, pairing }: Dial) {
    let called = match server.calls(pairing) {
        Ok(called) => called,
        Err(error) => return info!(tunnel = %id, %error, "somebody who waited was not met"),
    };
    let dialled = tokio::select! {
        () = context.cancel.cancelled() => return,
        dialled = timeout(DIALS_WITHIN, Tunnel::dial(&context.dialer, id)) => dialled,
    };
    let Ok(dialled) = dialled else {
        return info!(tunnel = %id, "somebody who waited was not met in time");
    };
    let (tunnel, last_words) = match dialled {
        Ok(dialled) => dialled,
        Err(error) => return info!(tunnel = %id, %error, "somebody who waited was not met"),
    };
    server.receive(tunnel, called, id).await;
    last_words.arrive().await;
}
