//! Dialling the controller. Control, logs and bulk have a connection each, so that none starves another.

mod backoff;

use std::{
    fmt, io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use sculpt_proto::{MAX_MESSAGE, executor::v1::executor_service_client::ExecutorServiceClient};
pub use sculpt_tls::Problem;
use sculpt_tls::{CONTROLLER_NAME, ClientError, Matter, Server, causes, client_config, connector, explain};
use tonic::transport::{Channel, Endpoint};
use url::Url;

pub use backoff::{Backoff, Jitter};

use crate::identity::Credentials;

const STREAM_WINDOW: u32 = 1 << 20;

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(5);

/// The executor's side of the protocol.
pub type Client = ExecutorServiceClient<Channel>;

/// The controller cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not a URL of the kind that is spoken.
    #[error("the controller's address {url:?} is wrong: {problem}; it looks like https://controller.example:7434")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Who answers is not believed, or does not believe us.
    #[error("{} {url}: {}; {}", distrust(problem), .problem.why, .problem.next)]
    Distrust {
        /// Where.
        url: String,
        /// Why, and what to do.
        problem: Problem,
    },
    /// TLS cannot be set up.
    #[error("cannot prepare a connection to {url}: {source}")]
    Security {
        /// Where to.
        url: String,
        /// Why not.
        source: ClientError,
    },
    /// The name means nothing.
    #[error("could not find the address of the controller at {url}: {source}")]
    Name {
        /// Where.
        url: String,
        /// Why not.
        source: io::Error,
    },
    /// Nobody answers.
    #[error(
        "could not reach the controller at {url}: {}; see that host and port are right, and that the controller runs",
        root_cause(source)
    )]
    Dial {
        /// Where.
        url: String,
        /// Why not.
        source: tonic::transport::Error,
    },
}

/// Opens a connection to an endpoint.
pub type Connect = fn(Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>>;

/// Another network than that of this machine, as the simulation has it: how connections are opened, and what keeps a
/// fleet from coming back all at once.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Opens a connection; who answers needs no proof there.
    pub connect: Connect,
    /// Where waits get their chance from.
    pub jitter: Jitter,
}

/// Knows where the controller is and what we prove to each other; each dial is a connection of its own. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    inner: Arc<Inner>,
}

struct Inner {
    url: Url,
    way: Way,
}

enum Way {
    Tls(Box<RwLock<(Server, ClientConfig)>>),
    Other(Network),
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("url", &self.inner.url.as_str()).finish_non_exhaustive()
    }
}

impl Dialer {
    /// Dials `url` as who `credentials` say.
    pub fn new(url: &str, credentials: &Credentials) -> Result<Self, ConnectError> {
        let server = Server::Known(credentials.trust.clone());
        let config = client_config(&server, Some(credentials.proof()));
        Self::with(url, server, config)
    }

    /// Dials `url` as nobody yet, and believes `server`.
    pub fn unproved(url: &str, server: Server) -> Result<Self, ConnectError> {
        let config = client_config(&server, None);
        Self::with(url, server, config)
    }

    /// Dials over another network.
    pub fn over(network: Network, url: &str) -> Result<Self, ConnectError> {
        let parsed = Url::parse(url).map_err(|_| wrong(url, "it is not a URL"))?;
        Ok(Self { inner: Arc::new(Inner { url: parsed, way: Way::Other(network) }) })
    }

    fn with(url: &str, server: Server, config: Result<ClientConfig, ClientError>) -> Result<Self, ConnectError> {
        let parsed = address(url)?;
        let config = config.map_err(|source| ConnectError::Security { url: url.to_owned(), source })?;
        let way = Way::Tls(Box::new(RwLock::new((server, config))));
        Ok(Self { inner: Arc::new(Inner { url: parsed, way }) })
    }

    /// From now on connections are opened as who `credentials` say.
    pub fn prove(&self, credentials: &Credentials) -> Result<(), ConnectError> {
        let Way::Tls(security) = &self.inner.way else { return Ok(()) };
        let server = Server::Known(credentials.trust.clone());
        let config = client_config(&server, Some(credentials.proof()))
            .map_err(|source| ConnectError::Security { url: self.url().to_owned(), source })?;
        *security.write().unwrap_or_else(PoisonError::into_inner) = (server, config);
        Ok(())
    }

    /// The controller's address, without a slash at its end.
    pub fn url(&self) -> &str {
        self.inner.url.as_str().trim_end_matches('/')
    }

    /// The controller's address under the name that it proves, and what makes curl find it there, as
    /// `http.curloptResolve` takes it.
    pub async fn proved_url(&self) -> Result<(String, String), ConnectError> {
        let url = &self.inner.url;
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = |source| ConnectError::Name { url: self.url().to_owned(), source };
        let found: Vec<String> = tokio::net::lookup_host((host, port))
            .await
            .map_err(name)?
            .map(|address| match address {
                std::net::SocketAddr::V4(address) => address.ip().to_string(),
                std::net::SocketAddr::V6(address) => format!("[{}]", address.ip()),
            })
            .collect();
        Ok((format!("https://{CONTROLLER_NAME}:{port}"), format!("{CONTROLLER_NAME}:{port}:{}", found.join(","))))
    }

    /// How long to wait between tries to reach the controller.
    pub fn backoff(&self, first: Duration, limit: Duration) -> Backoff {
        let backoff = Backoff::new(first, limit);
        match &self.inner.way {
            Way::Tls(_) => backoff,
            Way::Other(network) => backoff.with_jitter(network.jitter),
        }
    }

    /// Opens a new connection for the executor's protocol.
    pub async fn dial(&self) -> Result<Client, ConnectError> {
        let client = ExecutorServiceClient::new(self.channel().await?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// Opens a new connection.
    pub async fn channel(&self) -> Result<Channel, ConnectError> {
        let fail = |source: tonic::transport::Error| match explain(&source) {
            Some(problem) => ConnectError::Distrust { url: self.url().to_owned(), problem },
            None => ConnectError::Dial { url: self.url().to_owned(), source },
        };
        let endpoint = Endpoint::from_shared(self.url().to_owned())
            .map_err(fail)?
            .user_agent(concat!("sculpt-executor/", env!("CARGO_PKG_VERSION")))
            .map_err(fail)?
            .connect_timeout(PATIENCE)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(16 * STREAM_WINDOW);
        match &self.inner.way {
            Way::Tls(security) => {
                let (server, config) = security.read().unwrap_or_else(PoisonError::into_inner).clone();
                endpoint.connect_with_connector(connector(&server, config, PATIENCE)).await
            }
            Way::Other(network) => (network.connect)(endpoint).await,
        }
        .map_err(fail)
    }
}

fn distrust(problem: &Problem) -> &'static str {
    match problem.matter {
        Matter::Authority | Matter::Own => "no trust between us and",
        Matter::Clock | Matter::Address => "could not reach the controller at",
    }
}

/// What happened to the connection, in the words of the first cause where no better ones are known.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let kind = causes(error).filter_map(|cause| cause.downcast_ref()).map(io::Error::kind).last();
    match kind {
        Some(io::ErrorKind::TimedOut) => format!("it did not answer within {PATIENCE:?}"),
        Some(io::ErrorKind::UnexpectedEof) => "it closed the connection instead of proving who it is".to_owned(),
        _ => causes(error).last().map(ToString::to_string).unwrap_or_default(),
    }
}

fn wrong(url: &str, problem: &'static str) -> ConnectError {
    ConnectError::Url { url: url.to_owned(), problem }
}

/// Scheme, host and port, and nothing else.
fn address(text: &str) -> Result<Url, ConnectError> {
    let url = Url::parse(text).map_err(|_| wrong(text, "it is not a URL"))?;
    if url.scheme() != "https" {
        return Err(wrong(text, "it does not begin with https://, and nothing is sent in the clear"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(text, "it holds credentials; an executor proves itself by its certificate"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(text, "it has more than a host and a port"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, url) in [
            ("https://127.0.0.1:7434/", "https://127.0.0.1:7434"),
            ("https://[::1]:7434", "https://[::1]:7434"),
            ("https://controller.example", "https://controller.example"),
        ] {
            let dialer = Dialer::unproved(text, Server::Public).unwrap();
            assert_eq!(dialer.url(), url);
        }
        for wrong in ["127.0.0.1:1", "http://127.0.0.1:1", "unix:/x", "https://u:p@host:1", "https://host/x"] {
            assert!(matches!(Dialer::unproved(wrong, Server::Public), Err(ConnectError::Url { .. })), "{wrong}");
        }
    }

    #[tokio::test]
    async fn git_is_told_where_the_proved_name_stands() {
        let dialer = Dialer::unproved("https://127.0.0.1:7434", Server::Public).unwrap();
        let (url, resolve) = dialer.proved_url().await.unwrap();
        assert_eq!(url, "https://controller.sculpt.internal:7434");
        assert_eq!(resolve, "controller.sculpt.internal:7434:127.0.0.1");
        let dialer = Dialer::unproved("https://[::1]:7434", Server::Public).unwrap();
        assert_eq!(dialer.proved_url().await.unwrap().1, "controller.sculpt.internal:7434:[::1]");
    }
}
