//! Ports that stay the same from one start to the next, because git remotes and the executor remember them.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{exit::Exit, failure::Failure, output::note};

/// The port that is tried first.
const USUAL: u16 = 7433;

/// What the data directory remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    listen: Option<SocketAddr>,
    executor_listen: Option<SocketAddr>,
    ssh_listen: Option<SocketAddr>,
}

/// Where the controller listens, for people and for the executor, and the executor for people's ssh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) listen: SocketAddr,
    pub(super) executor_listen: SocketAddr,
    pub(super) ssh_listen: SocketAddr,
}

impl Ports {
    /// What was asked for, else what was used before, else 7433, else a free port.
    pub(super) fn choose(data: &Path, wished: Option<SocketAddr>) -> Result<Self, Failure> {
        let remembered = Remembered::load(data);
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, USUAL));
        let listen = match wished.filter(|wished| wished.port() != 0) {
            Some(wished) => {
                free(wished).map_err(|error| {
                    let why = if error.kind() == io::ErrorKind::AddrInUse {
                        "another program listens there".to_owned()
                    } else {
                        error.to_string()
                    };
                    Failure::new(Exit::Conflict, format!("listen on {wished}"), why)
                        .next("leave --listen away to get a free port")
                })?;
                wished
            }
            None => {
                let same_host = |address: &SocketAddr| wished.is_none_or(|wished| wished.ip() == address.ip());
                let before = remembered.listen.filter(same_host);
                let first = if wished.is_none() { Some(before.unwrap_or(usual)) } else { before };
                let ip = wished.map_or(Ipv4Addr::LOCALHOST.into(), |wished| wished.ip());
                let chosen =
                    first.and_then(|address| free(address).ok()).map_or_else(|| free(SocketAddr::from((ip, 0))), Ok);
                let chosen =
                    chosen.map_err(|error| Failure::new(Exit::Failed, format!("listen on {ip}"), error.to_string()))?;
                if let Some(first) = first.filter(|first| *first != chosen) {
                    note(format!("port {} is taken by another program; using {}", first.port(), chosen.port()));
                }
                chosen
            }
        };
        // Held until both are chosen, so that they differ.
        let (_held, executor_listen) = same_or_any(remembered.executor_listen)?;
        let (_held, ssh_listen) = same_or_any(remembered.ssh_listen)?;
        Ok(Self { listen, executor_listen, ssh_listen })
    }

    /// Writes the choice down for the next start.
    pub(super) fn remember(self, data: &Path) -> Result<(), Failure> {
        let Self { listen, executor_listen, ssh_listen } = self;
        let remembered =
            Remembered { listen: Some(listen), executor_listen: Some(executor_listen), ssh_listen: Some(ssh_listen) };
        let write = || {
            let file = tempfile::NamedTempFile::new_in(data)?;
            serde_json::to_writer(&file, &remembered)?;
            file.persist(data.join("up.json")).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error: io::Error| Failure::new(Exit::Failed, "remember the ports", error.to_string()))
    }
}

impl Remembered {
    fn load(data: &Path) -> Self {
        // Without it, or with a torn one, ports are chosen anew.
        fs::read(data.join("up.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }
}

/// The port of the last time, else one that is free.
fn same_or_any(before: Option<SocketAddr>) -> Result<(TcpListener, SocketAddr), Failure> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let held = before.and_then(|address| TcpListener::bind(address).ok()).map_or_else(|| TcpListener::bind(any), Ok);
    let found = held.and_then(|held| held.local_addr().map(|address| (held, address)));
    found.map_err(|error| Failure::new(Exit::Failed, "find a free port", error.to_string()))
}

/// The address, with a port of the kernel's choice for port 0, if it can be listened on.
fn free(address: SocketAddr) -> io::Result<SocketAddr> {
    TcpListener::bind(address)?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::once;

    #[test]
    fn ports_are_remembered_and_taken_ones_are_left() {
        let data = tempfile::tempdir().unwrap();
        let wished = free(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let first = once(|| Ports::choose(data.path(), Some(wished)).ok());
        assert_eq!(first.listen, wished);
        assert_ne!(first.executor_listen, first.ssh_listen);
        first.remember(data.path()).unwrap();
        once(|| Ports::choose(data.path(), None).ok().filter(|ports| *ports == first));

        let taken = once(|| TcpListener::bind(first.listen).ok());
        let others = |ports: &Ports| (ports.executor_listen, ports.ssh_listen);
        let other = once(|| Ports::choose(data.path(), None).ok().filter(|other| others(other) == others(&first)));
        assert_ne!(other.listen, first.listen);
        assert_eq!(Ports::choose(data.path(), Some(first.listen)).unwrap_err().exit, Exit::Conflict);
        drop(taken);
    }
}
