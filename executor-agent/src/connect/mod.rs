//! Dialling the controller. Control, logs and bulk have a connection each, so that none starves another.

mod backoff;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use sculpt_proto::{MAX_MESSAGE, executor::v1::executor_service_client::ExecutorServiceClient};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

pub use backoff::{Backoff, Jitter};

const STREAM_WINDOW: u32 = 1 << 20;

/// A stub whose calls carry the executor's token.
pub type Client = ExecutorServiceClient<InterceptedService<Channel, Bearer>>;

/// The controller cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not a URL of the kind that is spoken.
    #[error("the controller's address {url:?} is wrong: {problem}; it looks like http://127.0.0.1:7434")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Beyond this machine everything would be readable by everyone on the way.
    #[error(
        "refused to dial {0}: until executors prove their identity only a controller on this machine (127.0.0.1, ::1, localhost) is dialled"
    )]
    NotLoopback(String),
    /// The token cannot be read.
    #[error(
        "could not read the token in {path}: {source}; the controller writes it to tokens/executor in its data directory"
    )]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("could not reach the controller at {url}: {source}")]
    Dial {
        /// Where.
        url: String,
        /// Why not.
        source: tonic::transport::Error,
    },
}

/// Opens a connection to an endpoint.
pub type Connect = fn(Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>>;

/// The network: how connections are opened, and what keeps a fleet from coming back all at once. The simulation has
/// another one.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Opens a connection.
    pub connect: Connect,
    /// Where waits get their chance from; none: from the system.
    pub jitter: Option<Jitter>,
}

impl Default for Network {
    fn default() -> Self {
        Self { connect: |endpoint| Box::pin(async move { endpoint.connect().await }), jitter: None }
    }
}

/// Knows where the controller is and what proves our right to call it; each dial is a connection of its own.
#[derive(Clone)]
pub struct Dialer {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    token: String,
    bearer: Bearer,
    network: Network,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

impl Dialer {
    /// Checks the address and reads the token.
    pub fn new(url: &str, token_file: &Path) -> Result<Self, ConnectError> {
        Self::over(Network::default(), url, token_file)
    }

    /// The same over another network than that of this machine.
    pub fn over(network: Network, url: &str, token_file: &Path) -> Result<Self, ConnectError> {
        let url = loopback(url)?;
        let fail = |source| ConnectError::Token { path: token_file.to_owned(), source };
        let token = std::fs::read_to_string(token_file).map_err(fail)?.trim().to_owned();
        let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
        let mut value = match value {
            Ok(value) if !token.is_empty() => value,
            _ => return Err(fail(io::Error::other("it holds no token"))),
        };
        value.set_sensitive(true);
        Ok(Self { inner: Arc::new(Inner { url, token, bearer: Bearer(value), network }) })
    }

    /// The controller's address, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// What proves our right to call it.
    pub fn token(&self) -> &str {
        &self.inner.token
    }

    /// How long to wait between tries to reach the controller.
    pub fn backoff(&self, first: Duration, limit: Duration) -> Backoff {
        let backoff = Backoff::new(first, limit);
        match self.inner.network.jitter {
            Some(jitter) => backoff.with_jitter(jitter),
            None => backoff,
        }
    }

    /// Opens a new connection.
    pub async fn dial(&self) -> Result<Client, ConnectError> {
        let fail = |source| ConnectError::Dial { url: self.inner.url.clone(), source };
        let endpoint = Endpoint::from_shared(self.inner.url.clone())
            .map_err(fail)?
            .user_agent(concat!("sculpt-executor/", env!("CARGO_PKG_VERSION")))
            .map_err(fail)?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(16 * STREAM_WINDOW);
        let channel = (self.inner.network.connect)(endpoint).await.map_err(fail)?;
        Ok(ExecutorServiceClient::with_interceptor(channel, self.inner.bearer.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE))
    }
}

/// Adds the executor's token to a call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(…)")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// The address without a path, when all that it can mean is on this machine.
fn loopback(text: &str) -> Result<String, ConnectError> {
    let wrong = |problem| ConnectError::Url { url: text.to_owned(), problem };
    let url = url::Url::parse(text).map_err(|_| wrong("it is not a URL"))?;
    if url.scheme() != "http" {
        return Err(wrong("only http:// is spoken until TLS comes with identity"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it holds credentials; the token comes from a file"));
    }
    let port = url.port_or_known_default().ok_or_else(|| wrong("it has no port"))?;
    let host = url.host().ok_or_else(|| wrong("it has no host"))?;
    let addresses: Vec<IpAddr> = match host {
        url::Host::Ipv4(address) => vec![address.into()],
        url::Host::Ipv6(address) => vec![address.into()],
        url::Host::Domain(name) => {
            let found = (name, port).to_socket_addrs().map_err(|_| ConnectError::NotLoopback(text.to_owned()))?;
            found.map(|address: SocketAddr| address.ip()).collect()
        }
    };
    if addresses.is_empty() || !addresses.iter().all(IpAddr::is_loopback) {
        return Err(ConnectError::NotLoopback(text.to_owned()));
    }
    Ok(format!("http://{}:{port}", url.host_str().unwrap_or("127.0.0.1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_dialled() {
        assert_eq!(loopback("http://127.0.0.1:7434/").unwrap(), "http://127.0.0.1:7434");
        assert_eq!(loopback("http://[::1]:7434").unwrap(), "http://[::1]:7434");
        assert_eq!(loopback("http://localhost:7434").unwrap(), "http://localhost:7434");
        for far in ["http://10.0.0.1:1", "http://0.0.0.0:1", "http://[2001:db8::1]:1", "http://no.such.host.invalid:1"]
        {
            assert!(matches!(loopback(far), Err(ConnectError::NotLoopback(_))), "{far}");
        }
        for wrong in ["127.0.0.1:1", "https://127.0.0.1:1", "unix:/x", "http://u:p@127.0.0.1:1"] {
            assert!(matches!(loopback(wrong), Err(ConnectError::Url { .. })), "{wrong}");
        }
    }

    #[test]
    fn an_empty_token_is_told_before_anything_is_dialled() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Dialer::new("http://127.0.0.1:1", file.path()).unwrap_err();
        assert!(error.to_string().contains("holds no token"), "{error}");
    }
}
