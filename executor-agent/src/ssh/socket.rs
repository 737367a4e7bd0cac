//! Sockets of an attempt: a process of the attempt opens them, in its network, with its account and its files, and hands them
//! to us.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use clap::Subcommand;
use rustix::{
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketType, recvmsg, sendmsg, sockopt::socket_type,
    },
    stdio::stdin,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    process::Command,
    time::timeout,
};

use super::place::Place;
use crate::{stage, text::ByteText};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much is heard of why it could not be done: who says it is of the attempt's account.
const WORDS: u64 = 4 << 10;

/// The executor's subcommand by which it is done.
const COMMAND: &str = "socket";

/// Which socket.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Wanted {
    /// One that is connected to this address
    Tcp {
        /// Where somebody listens
        address: SocketAddr,
    },
    /// One that is connected to this path
    Unix {
        /// Where somebody listens
        path: PathBuf,
    },
    /// One that listens on this address
    Listen {
        /// Port 0 is any that is free
        address: SocketAddr,
    },
}

impl Wanted {
    fn words(&self) -> [ByteText; 2] {
        match self {
            Self::Tcp { address } => ["tcp".into(), address.to_string().as_str().into()],
            Self::Unix { path } => ["unix".into(), path.as_path().into()],
            Self::Listen { address } => ["listen".into(), address.to_string().as_str().into()],
        }
    }

    fn open(&self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp { address } => TcpStream::connect_timeout(address, PATIENCE)?.into(),
            Self::Unix { path } => UnixStream::connect(path)?.into(),
            Self::Listen { address } => TcpListener::bind(address)?.into(),
        })
    }
}

/// Entry of `sculpt-executor socket`: opens it and hands it to whoever is at the other end of stdin.
pub fn main(wanted: &Wanted) -> io::Result<()> {
    let socket = wanted.open()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let handed = [socket.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&handed)) {
        return Err(io::Error::other("it does not fit into a message"));
    }
    sendmsg(stdin(), &[IoSlice::new(b"s")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Has a process of the attempt at `place` open what is wanted. The error is the reason, for people.
pub(super) async fn open(place: &Place, wanted: &Wanted) -> Result<OwnedFd, String> {
    match timeout(PATIENCE, fetch(place, wanted)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it took more than {} s", PATIENCE.as_secs())),
    }
}

async fn fetch(place: &Place, wanted: &Wanted) -> io::Result<OwnedFd> {
    let argv = [place.program().into(), COMMAND.into()].into_iter().chain(wanted.words());
    let stage = place.stage(argv.collect(), []);
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::from(stage::command_ahead(place.program()));
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut errors = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?.take(WORDS);
    // It holds the other end as well.
    drop(command);
    ours.set_nonblocking(true)?;
    let mut ours = tokio::net::UnixStream::from_std(ours)?;
    ours.write_all(&stage::ahead(&stage)?).await?;
    let received = ours.async_io(Interest::READABLE, || receive(&ours)).await;
    // Whoever waits for it waits for its end, too.
    let _closed = ours.into_std().and_then(|ours| ours.shutdown(Shutdown::Both));
    match received? {
        Some(socket) if matches!(socket_type(&socket), Ok(SocketType::STREAM)) => Ok(socket),
        Some(_) => Err(io::Error::other("what was handed over is something else")),
        None => {
            let mut words = Vec::new();
            errors.read_to_end(&mut words).await?;
            let words = String::from_utf8_lossy(&words);
            Err(io::Error::other(words.trim().trim_start_matches("sculpt-executor: ").to_owned()))
        }
    }
}

/// The descriptor that is handed over; none when the other end has closed.
fn receive(from: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.flatten().next())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        wanted: Wanted,
    }

    #[test]
    fn what_is_wanted_is_said_as_it_is_read() {
        for wanted in [
            Wanted::Tcp { address: "127.0.0.1:3000".parse().unwrap() },
            Wanted::Unix { path: "/tmp/a b".into() },
            Wanted::Listen { address: "[::1]:0".parse().unwrap() },
        ] {
            let words = wanted.words();
            let line = Line::parse_from([&COMMAND.into(), &words[0], &words[1]].map(ByteText::as_os_str));
            assert_eq!(line.wanted, wanted);
        }
    }
}
