//! The way to an executor: straight to its own port where that can be reached, else through the controller.

use std::{fmt, io, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

/// How long a port that can be reached takes at most to answer.
const ANSWERS: Duration = Duration::from_millis(1500);

/// How a server of ssh begins.
const GREETING: &[u8; 4] = b"SSH-";

/// How ssh gets there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Route {
    /// Through the controller.
    Tunnel,
    /// To the executor's own port.
    Direct(Address),
}

/// Which way somebody wants to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Via {
    /// The direct one where there is one.
    #[default]
    #[value(skip)]
    Any,
    /// Through the controller.
    Tunnel,
    /// To the executor's own port.
    Direct,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What is no host with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not HOST:PORT")]
pub(crate) struct NotAnAddress;

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAnAddress)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let sound = match bare {
            // A zone names an interface of the other side.
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.starts_with('-') && host.bytes().all(plain),
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(NotAnAddress)?;
        if sound { Ok(Self { host: bare.unwrap_or(host).to_owned(), port }) } else { Err(NotAnAddress) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl TryFrom<String> for Address {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Self, NotAnAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// The way to go. One that was found closed `before` is not tried again with the same certificate: most are closed for good,
/// and each try costs a person time.
pub(super) async fn choose(address: Option<&Address>, via: Via, before: Option<&Route>) -> Route {
    let Some(address) = address else { return Route::Tunnel };
    match (via, before) {
        (Via::Tunnel, _) | (Via::Any, Some(Route::Tunnel)) => Route::Tunnel,
        (Via::Direct, _) => Route::Direct(address.clone()),
        (Via::Any, Some(Route::Direct(_)) | None) => match timeout(ANSWERS, greets(address)).await {
            Ok(Ok(true)) => Route::Direct(address.clone()),
            Ok(Ok(false) | Err(_)) | Err(_) => Route::Tunnel,
        },
    }
}

/// Whether a server of ssh takes in who comes there: what only opens the connection, and then cuts it or says nothing, would
/// do the same to ssh.
async fn greets(address: &Address) -> io::Result<bool> {
    let mut stream = TcpStream::connect((&*address.host, address.port)).await?;
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting).await?;
    Ok(greeting == *GREETING)
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host) in
            [("host.example:22", "host.example"), ("10.0.0.1:2222", "10.0.0.1"), ("[2001:db8::1]:22", "2001:db8::1")]
        {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.to_string().as_str()), (host, text));
        }
        for text in
            ["host", "host:", "host:0", "host:65536", ":22", "-o:22", "a b:22", "2001:db8::1:22", "[x]:22", "a\n:1"]
        {
            assert_eq!(text.parse::<Address>(), Err(NotAnAddress), "{text}");
        }
    }

    /// The address of somebody who says this to whoever comes, and is gone.
    async fn greeter(words: &'static [u8]) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(words).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_port_that_lets_people_in_is_the_way() {
        let (open, cut) = (greeter(b"SSH-2.0-x\r\n").await, greeter(b"").await);
        let other = greeter(b"220 mail.example\r\n").await;
        // Held and never listened on, so that it stays closed.
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed: Address = held.local_addr().unwrap().to_string().parse().unwrap();
        let direct = |address: &Address| Route::Direct(address.clone());
        for (address, via, before, route) in [
            (None, Via::Any, None, Route::Tunnel),
            (None, Via::Direct, None, Route::Tunnel),
            (Some(&open), Via::Any, None, direct(&open)),
            (Some(&open), Via::Tunnel, None, Route::Tunnel),
            (Some(&open), Via::Any, Some(Route::Tunnel), Route::Tunnel),
            (Some(&open), Via::Direct, Some(Route::Tunnel), direct(&open)),
            (Some(&cut), Via::Any, None, Route::Tunnel),
            (Some(&other), Via::Any, None, Route::Tunnel),
            (Some(&closed), Via::Any, None, Route::Tunnel),
            (Some(&closed), Via::Any, Some(direct(&closed)), Route::Tunnel),
            (Some(&closed), Via::Direct, None, direct(&closed)),
        ] {
            assert_eq!(choose(address, via, before.as_ref()).await, route, "{address:?} {via:?} {before:?}");
        }
    }
}
