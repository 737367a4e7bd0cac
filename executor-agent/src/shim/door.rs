//! A listening socket that is made again when its file is gone: what tidies up temporary directories, or a logout, may
//! remove it while the agent lives on, and then nobody could stop the agent or hear of its end. The attempt's directory
//! is looked for beside it.

use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt::socket_peercred,
    process::geteuid,
};

use super::{
    Error,
    home::Home,
    shared::{Event, Shared},
};

/// How often the file is looked for.
const LOOK: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// Pause after a failure, such as being out of descriptors: others are freed by and by.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether the peer is root's, of this account, or of `uid`. The directory keeps others out already; this holds also when
/// somebody opens it.
pub(super) fn is_of(stream: &UnixStream, uid: Option<u32>) -> bool {
    socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == geteuid() || uid == Some(peer.uid.as_raw()))
}

/// Where peers come in.
pub(super) struct Door {
    socket: PathBuf,
    home: Arc<Home>,
    /// The attempt's directory was gone at the last look.
    homeless: bool,
    listener: UnixListener,
    listen: Box<dyn Fn() -> Result<UnixListener, Error> + Send>,
    shared: Arc<Shared>,
}

impl Door {
    /// A door at `socket`, which `listen` makes, now and whenever it has vanished.
    pub(super) fn open(
        socket: PathBuf,
        home: Arc<Home>,
        shared: Arc<Shared>,
        listen: impl Fn() -> Result<UnixListener, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        Ok(Self { socket, home, homeless: false, listener: listen()?, listen: Box::new(listen), shared })
    }

    /// The next peer.
    pub(super) fn accept(&mut self) -> UnixStream {
        loop {
            match self.wait() {
                Ok(Some(stream)) => return stream,
                Ok(None) => self.look(),
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn wait(&self) -> io::Result<Option<UnixStream>> {
        match poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
            Ok(_) => self.listener.accept().map(|(stream, _)| Some(stream)),
            Err(error) => Err(error.into()),
        }
    }

    fn look(&mut self) {
        // A released shim is about to go, and its sockets with it.
        if self.shared.state().released {
            return;
        }
        let gone = self.home.is_gone();
        // One that is being replaced is soon back.
        if std::mem::replace(&mut self.homeless, gone) && gone {
            self.shared.tell(Event::Removed);
        }
        if self.socket.symlink_metadata().is_ok() {
            return;
        }
        if let Ok(listener) = (self.listen)() {
            self.listener = listener;
        }
    }
}
