//! The SSH server: connections, however they come, from their first byte to their end.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use russh::{
    Disconnect, MethodKind, MethodSet, SshId,
    server::{Config, run_stream},
};
use sculpt_proto::id::PairingId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info};

use super::{
    connection::{CHANNELS, Connection},
    cut::Cut,
    door::{Door, Entered},
    guests::{self, GuestList},
    host_proof::HostProof,
    inside::Inside,
    intake::{Intakes, Slow, WINDOW},
    place::Attempts,
    reports::Reports,
    severable::Severable,
    stores::Stores,
    strangers::Stranger,
    visit::Visit,
};
use crate::space::Standing;

/// How many tunnels there may be, being dialled or not come in through.
const CALLED: usize = 64;

/// How long it usually may take from the first byte to being let in.
pub const COMES_IN_WITHIN: Duration = Duration::from_secs(20);

/// How long who comes may wait for the controller to certify us.
const PROVED_WITHIN: Duration = Duration::from_secs(3);

/// A peer is asked whether it is there after so much silence; one that does not answer so often is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
const UNANSWERED: usize = 3;
const SILENT: Duration = Duration::from_secs(120);

/// How often a client may try: each of its keys counts.
const TRIES: usize = 6;

/// A refusal takes as long as this, whatever it is for.
const REFUSED_AFTER: Duration = Duration::from_millis(500);

/// What a channel receives, before the connection waits until it is taken in.
const QUEUED: usize = 16;

/// The longest packet.
const PACKET: u32 = 32 * 1024;

/// How long people may look on at the last picture of an agent that has ended.
pub(crate) const LOOKS_ON: Duration = Duration::from_secs(600);

/// How long a peer may take to leave what it looks at, and then to hear why it is cut.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a server serves with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Which executor this is, once that is certified; each connection takes the newest.
    pub proof: watch::Receiver<Option<HostProof>>,
    /// Whom it lets in.
    pub guests: watch::Receiver<GuestList>,
    /// Where it takes them.
    pub attempts: Attempts,
    /// Who is told what they do at terminals.
    pub reports: Reports,
    /// Raised when attempts have ended.
    pub ends: watch::Receiver<u64>,
    /// How full the disk is.
    pub disk: watch::Receiver<Standing>,
    /// How long it may take to be let in.
    pub comes_in_within: Duration,
    /// Ends all connections.
    pub cancel: CancellationToken,
}

/// The server. Connections are brought to it.
#[derive(Clone, Debug)]
pub struct Server {
    means: Means,
    called: Arc<Semaphore>,
    inside: Inside,
    stores: Stores,
}

/// How somebody came who has not shown who they are.
#[derive(Debug)]
pub enum Came {
    /// Straight to this host.
    Straight(Stranger),
    /// Through a tunnel.
    Called {
        /// It was asked for with this pairing.
        pairing: PairingId,
        /// Where it is counted.
        place: OwnedSemaphorePermit,
    },
}

/// Why a connection ended that has not ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// There are enough.
    #[error("called nobody: through {CALLED} tunnels nobody has come in yet")]
    Full,
    /// The controller has not certified us.
    #[error("refused a connection: the controller has not certified the key of this host for ssh; it is asked again")]
    Unproved,
    /// Nobody was let in in time.
    #[error("nobody came in within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// The way to the peer broke off.
    #[error("the connection was lost: {0}")]
    Lost(io::Error),
    /// The peer broke the protocol, or gave no sign of life.
    #[error("the connection failed: {0}")]
    Failed(russh::Error),
}

impl From<russh::Error> for ConnectionError {
    fn from(error: russh::Error) -> Self {
        match error {
            russh::Error::IO(error) => Self::Lost(error),
            error => Self::Failed(error),
        }
    }
}

impl Server {
    /// A server without connections.
    pub fn new(means: Means) -> Self {
        Self { means, called: Arc::new(Semaphore::new(CALLED)), inside: Inside::default(), stores: Stores::default() }
    }

    /// A place for one more who is called with this pairing, taken before anything is done for them.
    pub(super) fn calls(&self, pairing: PairingId) -> Result<Came, ConnectionError> {
        let place = Arc::clone(&self.called).try_acquire_owned().map_err(|_| ConnectionError::Full)?;
        Ok(Came::Called { pairing, place })
    }

    /// Serves one connection that came from there, and notes how it ended.
    pub(super) async fn receive<S>(&self, stream: S, came: Came, from: impl fmt::Display)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.serve(stream, Some(came)).await {
            Ok(()) => {}
            // Who leaves closes their connection; that it breaks off is an end like any other.
            Err(error @ ConnectionError::Lost(_)) => debug!(%from, %error, "a person's connection was over"),
            Err(error) => info!(%from, %error, "a person's connection was ended"),
        }
    }

    /// Serves one connection to its end; of what ran for it only that is left then which was left in the background. Until they
    /// have come in it is counted where they came; none: nowhere.
    pub async fn serve<S>(&self, stream: S, came: Option<Came>) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = Arc::new(self.proved().await?);
        let severed = CancellationToken::new();
        // However this function ends.
        let _severed = severed.clone().drop_guard();
        let stream = Severable::new(stream, &severed);
        let (enter, mut entered) = watch::channel(None);
        let tasks = TaskTracker::new();
        let (cut, over, why) = (severed.child_token(), CancellationToken::new(), Arc::new(OnceLock::new()));
        let visit = Arc::new(Visit::new(self.means.reports.clone()));
        let called = match &came {
            Some(Came::Called { pairing, .. }) => Some(*pairing),
            Some(Came::Straight(_)) | None => None,
        };
        let (list, attempts) = (self.means.guests.clone(), self.means.attempts.clone());
        let connection = Connection {
            door: Door { list, attempts, inside: self.inside.clone(), called },
            entered: enter,
            came,
            turned: None,
            channels: Arc::new(Semaphore::new(CHANNELS)),
            intakes: Intakes {
                disk: self.means.disk.clone(),
                tasks: tasks.clone(),
                slow: Slow::default(),
                stores: self.stores.clone(),
            },
            listening: HashMap::new(),
            busy: HashSet::new(),
            tasks: tasks.clone(),
            visit: Arc::clone(&visit),
            cut: cut.clone(),
            over: over.clone(),
            why: Arc::clone(&why),
        };
        let patience = self.means.comes_in_within;
        let mut late = pin!(late(patience, entered.clone()));
        let session = tokio::select! {
            session = run_stream(config, stream, connection) => session?,
            () = &mut late => return Err(ConnectionError::Late(patience)),
        };
        let handle = session.handle();
        let mut session = pin!(session);
        let ended = tokio::select! {
            ended = &mut session => ended.map_err(Into::into),
            () = late => Err(ConnectionError::Late(patience)),
            cause = self.cut_off(&mut entered, &over) => {
                let _first = why.set(cause);
                cut.cancel();
                tasks.close();
                // What they look at first leaves their terminal as it was.
                let leaving = timeout(LAST_WORDS, tasks.wait());
                let gone = tokio::select! {
                    ended = &mut session => Some(ended),
                    _left = leaving => None,
                };
                if gone.is_none() {
                    let said = handle.disconnect(Disconnect::ByApplication, cause.to_string(), "en".to_owned());
                    let _deaf = timeout(LAST_WORDS, async { (said.await.is_ok(), session.await.is_ok()) }).await;
                }
                Ok(())
            }
        };
        severed.cancel();
        tasks.close();
        tasks.wait().await;
        visit.ends(why.get().map(Cut::to_string).unwrap_or_default()).await;
        ended
    }

    /// How to serve with the newest certificate. An executor that has just begun is soon certified.
    async fn proved(&self) -> Result<Config, ConnectionError> {
        let mut proof = self.means.proof.clone();
        match timeout(PROVED_WITHIN, proof.wait_for(Option::is_some)).await {
            Ok(Ok(proof)) => proof.as_ref().map(config).ok_or(ConnectionError::Unproved),
            Ok(Err(_)) | Err(_) => Err(ConnectionError::Unproved),
        }
    }

    /// Returns when somebody who has come in may not stay. Cancels `over` when their attempt is.
    async fn cut_off(&self, entered: &mut watch::Receiver<Option<Arc<Entered>>>, over: &CancellationToken) -> Cut {
        let staying = async {
            let entered = entered.wait_for(Option::is_some).await.ok().and_then(|entered| entered.clone());
            let Some(entered) = entered else { return std::future::pending().await };
            let mut guests = self.means.guests.clone();
            tokio::select! {
                () = guests::taken_back(&mut guests, &entered.pass) => Cut::Withdrawn,
                () = self.ends(&entered) => {
                    over.cancel();
                    // They look on until the controller has them here no longer, or for so long.
                    tokio::select! {
                        () = guests::taken_back(&mut guests, &entered.pass) => {}
                        () = sleep(LOOKS_ON) => {}
                    }
                    Cut::Over
                }
            }
        };
        tokio::select! {
            cut = staying => cut,
            () = self.means.cancel.cancelled() => Cut::Ending,
        }
    }

    /// Returns when their attempt has ended.
    async fn ends(&self, entered: &Arc<Entered>) {
        let mut ends = self.means.ends.clone();
        loop {
            ends.mark_unchanged();
            if !entered.lives().await {
                return;
            }
            if ends.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Returns when nobody has come in by then.
async fn late(patience: Duration, entered: watch::Receiver<Option<Arc<Entered>>>) {
    sleep(patience).await;
    if entered.borrow().is_some() {
        std::future::pending::<()>().await;
    }
}

fn config(proof: &HostProof) -> Config {
    Config {
        server_id: SshId::Standard("SSH-2.0-sculpt".into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REFUSED_AFTER,
        // Every client begins with it, to hear what there is.
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![proof.key.clone()],
        certificates: vec![proof.certificate.clone()],
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: QUEUED,
        max_auth_attempts: TRIES,
        // A peer that is there answers the questions whether it is, and that counts.
        inactivity_timeout: Some(SILENT),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: UNANSWERED,
        nodelay: true,
        ..Config::default()
    }
}
