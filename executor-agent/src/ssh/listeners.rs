//! What an attempt's own processes listen on: nothing else of the host is reached by people.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::BufReader,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use procfs::{
    FromBufRead as _, FromBufReadSI as _,
    net::{TcpNetEntries, TcpNetEntry, TcpState, UnixNetEntries, UnixState},
};
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

/// How many go through processes at a time, for all who ask: a page opens dozens of connections at once, and the threads that
/// block are needed for disks too.
static LOOKS: Semaphore = Semaphore::const_new(4);

/// How many descriptors are looked at. An agent that holds more hides only its own.
const MOST_DESCRIPTORS: usize = 65_536;

/// For how long a socket that a process had is taken for its own.
const FRESH: Duration = Duration::from_secs(1);

/// The sockets of some processes on which something listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listeners {
    tcp: Vec<SocketAddr>,
    /// Somebody else's on the same networks.
    others: Vec<SocketAddr>,
    unix: Vec<PathBuf>,
}

/// The sockets of some processes, and where they are seen.
#[derive(Debug, Default)]
struct Sockets {
    /// By inode; of those who have inherited one, one says where it stands.
    own: HashMap<u64, u32>,
    /// One process for each network.
    networks: Vec<u32>,
}

/// Those that were found last.
#[derive(Debug, Default)]
pub(super) struct Found(Mutex<Option<(Instant, Sockets)>>);

/// Why somebody is not taken somewhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreached {
    /// It is another machine, or this one by a name that is not its own.
    #[error("{0:?} is not reached from here; only what the attempt listens on is, as localhost")]
    Host(String),
    /// No such port.
    #[error("{0} is no port")]
    Port(u32),
    /// None of its processes.
    #[error("none of the attempt's own processes listens on port {0}")]
    Nobody(u16),
    /// None of its processes.
    #[error("none of the attempt's own processes listens on {0:?}")]
    NoSocket(String),
}

/// Does something that goes through processes, when it is its turn.
pub(super) async fn one_of_few<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    // Nobody closes it.
    let turn = LOOKS.acquire().await.ok();
    let looked = spawn_blocking(look).await;
    drop(turn);
    looked
}

impl Found {
    /// What `find` finds among the listeners of `pids`. Whose a socket is, is not looked for anew when it was just now; that it
    /// still is what listens there, is: its port may be another's by now.
    pub(super) fn find<T>(
        &self,
        pids: impl FnOnce() -> Vec<u32>,
        find: impl Fn(&Listeners) -> Result<T, Unreached>,
    ) -> Result<T, Unreached> {
        // Who asks at the same time has it from the one who looks.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, sockets)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH)
            && let Ok(found) = find(&sockets.listeners())
        {
            return Ok(found);
        }
        let (_, sockets) = last.insert((Instant::now(), Sockets::of(&pids())));
        find(&sockets.listeners())
    }
}

impl Sockets {
    /// Those of the processes `pids`. Goes through their descriptors.
    fn of(pids: &[u32]) -> Self {
        Self { own: sockets(pids).collect(), networks: networks(pids) }
    }

    /// What listens now, by the tables of the kernel alone.
    fn listeners(&self) -> Listeners {
        let own = &self.own;
        let mut all = Listeners::default();
        for pid in self.networks.iter().copied() {
            let tcp = ["tcp", "tcp6"].into_iter().flat_map(|name| tcp(pid, name));
            let tcp = tcp.filter(|it| it.state == TcpState::Listen);
            for it in tcp {
                let list = if own.contains_key(&it.inode) { &mut all.tcp } else { &mut all.others };
                list.push(it.local_address);
            }
            let unix = open(pid, "unix").and_then(|table| UnixNetEntries::from_buf_read(table).ok());
            let unix = unix.into_iter().flat_map(|entries| entries.0);
            let unix = unix.filter(|it| it.state == UnixState::UNCONNECTED);
            let unix = unix.filter_map(|it| place(it.path?, *own.get(&it.inode)?));
            all.unix.extend(unix);
        }
        all
    }
}

impl Listeners {
    /// Where a person gets who asks for `port` of `host`.
    pub(super) fn tcp(&self, host: &str, port: u32) -> Result<SocketAddr, Unreached> {
        let asked: Vec<IpAddr> = match host {
            "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            _ => host.parse::<IpAddr>().ok().filter(IpAddr::is_loopback).into_iter().collect(),
        };
        if asked.is_empty() {
            return Err(Unreached::Host(host.to_owned()));
        }
        let number = u16::try_from(port).ok().filter(|port| *port != 0).ok_or(Unreached::Port(port))?;
        let listens = |on: IpAddr| {
            self.tcp.iter().any(|it| {
                // What listens on all of IPv6 mostly takes IPv4, too; not where somebody else does.
                let mapped = it.is_ipv6() && on.is_ipv4() && !self.is_anothers(number);
                let all = it.ip().is_unspecified() && (it.is_ipv6() == on.is_ipv6() || mapped);
                it.port() == number && (it.ip() == on || all)
            })
        };
        let address = asked.into_iter().find(|on| listens(*on)).ok_or(Unreached::Nobody(number))?;
        Ok(SocketAddr::new(address, number))
    }

    /// Whether somebody else listens on this port of IPv4.
    fn is_anothers(&self, port: u16) -> bool {
        self.others.iter().any(|it| it.is_ipv4() && it.port() == port)
    }

    /// The socket at `path`. What stands in `kept` is how the terminal is reached, for which there are other rights.
    pub(super) fn unix(&self, path: &str, kept: &Path) -> Result<&Path, Unreached> {
        let open = self.unix.iter().map(PathBuf::as_path).filter(|it| !it.starts_with(kept));
        let found = open.into_iter().find(|it| *it == Path::new(path));
        found.ok_or_else(|| Unreached::NoSocket(path.to_owned()))
    }
}

/// Where a socket stands in the view of who holds it: the kernel has its path as it was bound, mostly from where they still
/// are. None of one that has a name without a place.
fn place(bound: PathBuf, holder: u32) -> Option<PathBuf> {
    if bound.as_os_str().as_encoded_bytes().starts_with(b"@") {
        return None;
    }
    let directory =
        if bound.is_absolute() { PathBuf::new() } else { fs::read_link(format!("/proc/{holder}/cwd")).ok()? };
    Some(directory.join(bound))
}

/// Whether one of the processes `pids` has the end `from` of a connection to `to`. Who has closed it already is not found.
pub(super) fn connects(pids: &[u32], from: SocketAddr, to: SocketAddr) -> bool {
    let ends = |it: &TcpNetEntry| (it.local_address, it.remote_address) == (from, to);
    let found = networks(pids).into_iter().find_map(|pid| tcp(pid, "tcp").into_iter().find(ends));
    found.is_some_and(|it| sockets(pids).any(|(inode, _)| inode == it.inode))
}

/// One process for each network that they see: what encloses a sandbox stands outside of it.
fn networks(pids: &[u32]) -> Vec<u32> {
    let network = |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok().map(|network| (network, *pid));
    pids.iter().filter_map(network).collect::<HashMap<_, _>>().into_values().collect()
}

fn open(pid: u32, table: &str) -> Option<BufReader<File>> {
    File::open(format!("/proc/{pid}/net/{table}")).ok().map(BufReader::new)
}

/// The sockets of TCP in the network of a process.
fn tcp(pid: u32, table: &str) -> Vec<TcpNetEntry> {
    let entries = |table| TcpNetEntries::from_buf_read(table, procfs::current_system_info()).ok();
    open(pid, table).and_then(entries).map(|entries| entries.0).unwrap_or_default()
}

/// The inodes of the sockets of processes, and who has them; none of one that has gone or may not be looked into.
fn sockets(pids: &[u32]) -> impl Iterator<Item = (u64, u32)> {
    let entries = |pid: &u32| {
        let pid = *pid;
        fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(move |entry| (entry, pid))
    };
    let links = pids.iter().flat_map(entries).take(MOST_DESCRIPTORS);
    links.filter_map(|(entry, pid)| {
        let link = fs::read_link(entry.path()).ok()?;
        Some((link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?, pid))
    })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener};

    use super::*;

    fn addresses(tcp: &[&str]) -> Vec<SocketAddr> {
        tcp.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn listeners(tcp: &[&str]) -> Listeners {
        Listeners { tcp: addresses(tcp), ..Listeners::default() }
    }

    #[test]
    fn only_what_listens_is_reached_and_only_as_this_host() {
        type Expected = Result<&'static str, Unreached>;
        let nobody = || Err(Unreached::Nobody(3000));
        let host = |name: &str| Err(Unreached::Host(name.to_owned()));
        let table: [(&[&str], &str, u32, Expected); 15] = [
            (&["127.0.0.1:3000"], "localhost", 3000, Ok("127.0.0.1:3000")),
            (&["127.0.0.1:3000"], "127.0.0.1", 3000, Ok("127.0.0.1:3000")),
            (&["127.0.0.1:3000"], "::1", 3000, nobody()),
            (&["127.0.0.2:3000"], "127.0.0.1", 3000, nobody()),
            (&["127.0.0.2:3000"], "127.0.0.2", 3000, Ok("127.0.0.2:3000")),
            (&["0.0.0.0:3000"], "localhost", 3000, Ok("127.0.0.1:3000")),
            (&["0.0.0.0:3000"], "::1", 3000, nobody()),
            (&["[::]:3000"], "localhost", 3000, Ok("127.0.0.1:3000")),
            (&["[::1]:3000"], "localhost", 3000, Ok("[::1]:3000")),
            (&["10.0.0.5:3000"], "localhost", 3000, nobody()),
            (&["10.0.0.5:3000"], "10.0.0.5", 3000, host("10.0.0.5")),
            (&["127.0.0.1:3000"], "169.254.169.254", 80, host("169.254.169.254")),
            (&["127.0.0.1:3000"], "example.org", 3000, host("example.org")),
            (&["127.0.0.1:3000"], "localhost", 0, Err(Unreached::Port(0))),
            (&["127.0.0.1:3000"], "localhost", 65_536 + 3000, Err(Unreached::Port(68_536))),
        ];
        for (tcp, host, port, expected) in table {
            let reached = listeners(tcp).tcp(host, port);
            assert_eq!(reached, expected.map(|address| address.parse().unwrap()), "{host} {port} of {tcp:?}");
        }
    }

    #[test]
    fn what_listens_on_ipv6_alone_leads_nobody_to_anothers_ipv4() {
        let reached = |others: &[&str], host: &str| {
            Listeners { others: addresses(others), ..listeners(&["[::]:3000"]) }.tcp(host, 3000)
        };
        for others in [&["127.0.0.1:3000"][..], &["0.0.0.0:3000"], &["10.0.0.5:3000"]] {
            assert_eq!(reached(others, "localhost"), Ok("[::1]:3000".parse().unwrap()), "{others:?}");
            assert_eq!(reached(others, "127.0.0.1"), Err(Unreached::Nobody(3000)), "{others:?}");
        }
        assert_eq!(reached(&["127.0.0.1:80"], "localhost"), Ok("127.0.0.1:3000".parse().unwrap()));
    }

    #[test]
    fn who_connects_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(to).unwrap();
        let from = stream.local_addr().unwrap();
        assert!(connects(&[std::process::id()], from, to));
        assert!(!connects(&[std::os::unix::process::parent_id()], from, to), "it is not the parent's");
        assert!(!connects(&[std::process::id()], to, to) && !connects(&[], from, to));
    }

    #[test]
    fn whose_a_socket_is_is_known_for_a_while_and_what_was_not_found_is_looked_for() {
        let (found, looks) = (Found::default(), std::cell::Cell::new(0));
        let own = || {
            looks.set(looks.get() + 1);
            vec![std::process::id()]
        };
        let port = |listener: &TcpListener| u32::from(listener.local_addr().unwrap().port());
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let reached = |port| found.find(own, |listeners| listeners.tcp("localhost", port)).is_ok();
        assert!(reached(port(&first)) && reached(port(&first)));
        assert_eq!(looks.get(), 1);
        let second = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(reached(port(&second)) && reached(port(&first)));
        assert_eq!(looks.get(), 2);
    }

    #[test]
    fn a_port_that_was_released_leads_nobody_to_who_has_it_next() {
        // No other test is at this address, so that nobody takes the port between.
        let (found, host) = (Found::default(), "127.81.7.3");
        let first = TcpListener::bind((host, 0)).unwrap();
        let address = first.local_addr().unwrap();
        let asked = u32::from(address.port());
        let reached = |pids: &[u32]| found.find(|| pids.to_vec(), |listeners| listeners.tcp(host, asked));
        assert_eq!(reached(&[std::process::id()]), Ok(address));
        // The descriptors are not gone through anew.
        assert_eq!(reached(&[]), Ok(address));
        drop(first);
        let _anothers = TcpListener::bind(address).unwrap();
        assert_eq!(reached(&[]), Err(Unreached::Nobody(address.port())));
    }

    #[test]
    fn what_a_process_listens_on_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (tcp, _unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
        let port = tcp.local_addr().unwrap().port();
        let own = Sockets::of(&[std::process::id()]).listeners();
        assert_eq!(own.tcp("localhost", port.into()), Ok(tcp.local_addr().unwrap()));
        let (text, elsewhere) = (path.to_str().unwrap(), Path::new("/elsewhere"));
        assert_eq!(own.unix(text, elsewhere), Ok(path.as_path()));
        assert!(own.unix(text, directory.path()).is_err(), "it is kept from them");
        // Others of this host are somebody else's.
        let others = Sockets::of(&[std::os::unix::process::parent_id()]).listeners();
        assert_eq!(others.tcp("localhost", port.into()), Err(Unreached::Nobody(port)));
        assert!(others.unix(text, elsewhere).is_err());
        assert_eq!(Sockets::of(&[]).listeners(), Listeners::default());
    }
}
