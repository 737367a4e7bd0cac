//! One connection: what russh asks of us while it lasts.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use russh::{
    Channel, ChannelId, ChannelOpenFailure, Pty,
    keys::ssh_key::Certificate,
    server::{Auth, ChannelOpenHandle, Handler, Msg, Session},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{
    channel,
    cut::Cut,
    door::{Answer, Door, Entered, Turned},
    forward::{Forwards, Target},
    intake::Intakes,
    relay::Line,
    request,
    server::Came,
    visit::Visit,
};

/// How many channels a connection may have at a time.
pub(super) const CHANNELS: usize = 32;

/// How many ports may listen for a person at a time.
const FORWARDS: usize = 16;

/// How long it may take until something listens. russh has the answer from the callback alone, so that everything else of the
/// connection waits for it.
const LISTENS_WITHIN: Duration = Duration::from_secs(3);

/// The code of a refusal for which there is too little of something.
const SHORTAGE: u32 = 4;

/// A connection's side of the protocol.
pub(super) struct Connection {
    pub(super) door: Door,
    /// Told when somebody has come in.
    pub(super) entered: watch::Sender<Option<Arc<Entered>>>,
    /// How they came, for which they count until they have come in.
    pub(super) came: Option<Came>,
    /// Why somebody who was recognised is turned away; they hear it, and then the connection ends.
    pub(super) turned: Option<Turned>,
    pub(super) channels: Arc<Semaphore>,
    pub(super) intakes: Intakes,
    /// What listens for the person, by the address and port that they know.
    pub(super) listening: HashMap<(String, u32), CancellationToken>,
    /// Channels in which something was asked to run.
    pub(super) busy: HashSet<ChannelId>,
    pub(super) tasks: TaskTracker,
    pub(super) visit: Arc<Visit>,
    /// Cancelled when the person is to go.
    pub(super) cut: CancellationToken,
    /// Cancelled when the attempt is over.
    pub(super) over: CancellationToken,
    /// Why the person is to go.
    pub(super) why: Arc<OnceLock<Cut>>,
}

impl Connection {
    fn guest(&self) -> Option<Arc<Entered>> {
        self.entered.borrow().clone()
    }

    /// Answers whether something may begin to run in a channel; its task sees to it that it does.
    fn begins(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        if self.busy.insert(channel) { session.channel_success(channel) } else { session.channel_failure(channel) }
    }
}

impl Connection {
    fn forwards(&self, entered: Arc<Entered>) -> Forwards {
        let (channels, tasks, cut) = (Arc::clone(&self.channels), self.tasks.clone(), self.cut.clone());
        let visit = Arc::clone(&self.visit);
        Forwards { entered, intakes: self.intakes.clone(), channels, tasks, cut, visit }
    }

    /// Connects the person with something of the attempt.
    async fn connect(&mut self, channel: Channel<Msg>, target: Target, reply: ChannelOpenHandle) {
        match self.place() {
            Ok((entered, place)) => {
                self.tasks.spawn(self.forwards(entered).connect(channel, target, reply, place));
            }
            Err(why) => reply.reject(why).await,
        }
    }

    /// Room for one more channel of somebody who has come in.
    fn place(&self) -> Result<(Arc<Entered>, OwnedSemaphorePermit), ChannelOpenFailure> {
        let entered = self.guest().filter(|_| !self.cut.is_cancelled());
        let entered = entered.ok_or(ChannelOpenFailure::AdministrativelyProhibited)?;
        let place = Arc::clone(&self.channels).try_acquire_owned().map_err(|_| {
            let reason = format!("a connection has at most {CHANNELS} channels; close one, or open another connection");
            ChannelOpenFailure::Other { code: SHORTAGE, reason }
        })?;
        Ok((entered, place))
    }
}

/// Nothing but certificates opens anything. What a callback does not mention is refused by russh's own default.
impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, login: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        match self.door.answer(certificate, login).await {
            Answer::In(entered) => {
                self.came = None;
                self.entered.send_replace(Some(entered));
                Ok(Auth::Accept)
            }
            Answer::Stranger => Ok(Auth::reject()),
            // A refusal of SSH's has no words. They hear the reason in the message that ends the connection, which is sent in
            // `auth_succeeded`, before anything else of theirs is read; nobody has entered, so nothing could be opened.
            Answer::Not(why) => {
                self.turned = Some(why);
                Ok(Auth::Accept)
            }
        }
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        match &self.turned {
            Some(why) => session.disconnect(why.disconnect(), &why.to_string(), "en"),
            None => Ok(()),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (entered, place) = match self.place() {
            Ok(place) => place,
            Err(why) => {
                reply.reject(why).await;
                return Ok(());
            }
        };
        let (messages, writer) = channel.split();
        let (asked, pieces) = self.intakes.session(messages, &entered);
        let (cut, over, why) = (self.cut.clone(), self.over.clone(), Arc::clone(&self.why));
        let line = Line { asked, pieces, writer, handle: session.handle(), cut, over, why };
        let visit = Arc::clone(&self.visit);
        self.tasks.spawn(async move {
            channel::serve(line, entered, visit).await;
            drop(place);
        });
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.connect(channel, Target::Tcp { host: host.to_owned(), port }, reply).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.connect(channel, Target::Unix(path.to_owned()), reply).await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Some(entered) = self.guest().filter(|_| self.listening.len() < FORWARDS) else { return Ok(false) };
        let end = CancellationToken::new();
        let listens = self.forwards(entered).listen(address, *port, session.handle(), end.clone());
        let late = |_| Err(format!("it took more than {} s", LISTENS_WITHIN.as_secs()));
        match timeout(LISTENS_WITHIN, listens).await.unwrap_or_else(late) {
            Ok(bound) => {
                *port = bound.into();
                self.listening.insert((address.to_owned(), *port), end);
                Ok(true)
            }
            Err(why) => {
                // A refusal of SSH's has no words here.
                debug!(address, port = *port, why, "nothing listens for a person");
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32, _: &mut Session) -> Result<bool, Self::Error> {
        let listening = self.listening.remove(&(address.to_owned(), port));
        Ok(listening.inspect(CancellationToken::cancel).is_some())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.intakes.slow.window()
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.busy.remove(&channel);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.busy.contains(&channel) { session.channel_failure(channel) } else { session.channel_success(channel) }
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if request::passes(name, value) { session.channel_success(channel) } else { session.channel_failure(channel) }
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.begins(channel, session)
    }

    async fn exec_request(&mut self, channel: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.begins(channel, session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.begins(channel, session)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_failure(channel)
    }
}
