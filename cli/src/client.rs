//! The connection to the controller: credential, limits of time, retries, and what its refusals mean.

mod trust;

use std::{
    future::Future,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use sculpt_proto::v1::{
    WhoAmIRequest, WhoAmIResponse, audit_client::AuditClient, events_client::EventsClient,
    executors_client::ExecutorsClient, git_client::GitClient, identity_client::IdentityClient, logs_client::LogsClient,
    pairings_client::PairingsClient, projects_client::ProjectsClient, system_client::SystemClient,
    tasks_client::TasksClient,
};
use sculpt_tls::{Matter, Problem, Server};
use tokio::{sync::Notify, task::JoinSet};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{
    authority,
    config::{ConfigError, Context, Overrides, TOKEN},
    exit::Exit,
    failure::{Failure, is_passing},
    output::note,
    up::{data_of, start_command},
};

/// How long the controller may take to be reached.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a later connection may take; the first is told to be late before the transport says so in its own words.
const RECONNECT: Duration = Duration::from_secs(6);
/// How long one call that is not followed may take.
const CALL: Duration = Duration::from_secs(30);
/// How long a change is tried again, with the same request id, when the connection breaks under it.
const RETRY: Duration = Duration::from_secs(8);

/// Adds the credential to every call.
#[derive(Clone)]
pub(crate) struct Credential(MetadataValue<Ascii>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Wire = InterceptedService<Channel, Credential>;

/// A controller that was reached.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) context: Context,
    wire: Wire,
    /// Told of each connection after the first, and of the first when it shows an authority that is not kept.
    again: Arc<Notify>,
    /// Ends with the last clone.
    _learning: Option<Arc<JoinSet<()>>>,
}

impl Client {
    /// Reaches the controller of the context within 5 s.
    pub(crate) async fn connect() -> Result<Self, Failure> {
        let context = Context::load().map_err(|error| unusable(&error))?;
        Self::to(context).await
    }

    /// Reaches this controller within 5 s.
    pub(crate) async fn to(context: Context) -> Result<Self, Failure> {
        let (client, server) = Self::dial(context).await?;
        client.met(&server);
        // Who vouches for the other authority may be retired before the hour is over.
        let another = client.again.notified().now_or_never().is_some();
        if another || authority::is_due(&client.context) {
            client.learn_authorities().await;
        }
        let learning = trust::learning(client.clone());
        Ok(Self { _learning: Some(Arc::new(learning)), ..client })
    }

    /// Reaches this controller within 5 s, and says whom it was believed to be. Nothing is written down.
    pub(crate) async fn dial(context: Context) -> Result<(Self, Server), Failure> {
        let away = |why: String| {
            Failure::new(Exit::OutOfReach, format!("reach the controller at {}", context.address()), why)
                .next(start_it(&context))
        };
        let server = authority::server(&context).map_err(|error| unusable(&error))?;
        let endpoint = Endpoint::from_shared(context.url.to_string())
            .map_err(|error| away(error.to_string()))?
            .connect_timeout(RECONNECT)
            .tcp_nodelay(true)
            // A controller that hangs is noticed within 5 s, and a broken connection also while nothing is sent.
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            // One stream that is read slowly does not stall the others.
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(16 << 20);
        let again = Arc::new(Notify::new());
        let connecting = trust::connect(endpoint, &context, server.clone(), RECONNECT, Arc::clone(&again));
        let channel = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                return Err(match sculpt_tls::explain(&error) {
                    Some(problem) => untrusted(&context, problem),
                    None => away(root_cause(&error)),
                });
            }
            Err(_) => return Err(away("it did not answer within 5 s".to_owned())),
        };
        let credential = format!("Bearer {}", context.token)
            .parse()
            .map(Credential)
            .map_err(|_| away("the token cannot stand in a header".to_owned()))?;
        let wire = InterceptedService::new(channel, credential);
        Ok((Self { context, wire, again, _learning: None }, server))
    }

    /// Keeps the authority that was met.
    pub(crate) fn met(&self, server: &Server) {
        if let Err(error) = authority::keep(&self.context, server) {
            note(format!("the controller's authority is not remembered: {error}"));
        }
    }

    /// Asks whom to trust from now on, so that another authority can take over unnoticed. What goes wrong with that is told
    /// by the call that follows.
    async fn learn_authorities(&self) {
        let answer = tokio::time::timeout(CONNECT, self.identity().who_am_i(WhoAmIRequest {})).await;
        if let Ok(Ok(who)) = answer {
            self.trust_from_now_on(&who.into_inner());
        }
    }

    /// Keeps the authorities that the controller names.
    pub(crate) fn trust_from_now_on(&self, who: &WhoAmIResponse) {
        if let Err(error) = authority::learn(&self.context, &who.trust, who.public) {
            note(format!("the controller's authorities are not remembered: {error}"));
        }
    }

    /// Waits for an answer that changes nothing.
    pub(crate) async fn read<R>(
        &self,
        attempted: &str,
        call: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<R, Failure> {
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(attempted, &status)),
            Err(_) => {
                Err(self.refused(attempted, &Status::deadline_exceeded("the controller did not answer within 30 s")))
            }
        }
    }

    /// Asks for a change whose request carries a request id, again when the connection breaks under it.
    pub(crate) async fn change<R>(
        &self,
        attempted: &str,
        mut call: impl AsyncFnMut() -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        let mut backoff = Backoff::new();
        let begun = Instant::now();
        loop {
            match tokio::time::timeout(CALL, call()).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) if is_passing(&status) && begun.elapsed() < RETRY => backoff.pause().await,
                Ok(Err(status)) => return Err(self.refused(attempted, &status)),
                Err(_) => {
                    let status = Status::deadline_exceeded("the controller did not answer within 30 s");
                    return Err(self.refused(attempted, &status));
                }
            }
        }
    }

    /// What a refusal means, with what to do about it.
    pub(crate) fn refused(&self, attempted: &str, status: &Status) -> Failure {
        // Only what was made on this side has a source: the answer never came.
        if let Some(problem) = sculpt_tls::explain(status).filter(|problem| problem.matter == Matter::Authority) {
            return untrusted(&self.context, problem);
        }
        if let Some(source) = std::error::Error::source(status) {
            let why = format!("the controller at {} does not answer: {}", self.context.address(), root_cause(source));
            return Failure::status(attempted, &Status::unavailable(why));
        }
        let failure = Failure::status(attempted, status);
        if failure.exit == Exit::NotAllowed && self.context.token_source == TOKEN {
            return failure
                .next(format!("the token is that of {TOKEN}; `unset {TOKEN}` uses that of the configuration"));
        }
        let own = data_of(Path::new(&self.context.token_source)).is_some();
        match status.code() {
            Code::Unauthenticated if own => {
                failure.next("on this machine `sculpt-controller admin reset` makes another token for an admin")
            }
            Code::Unauthenticated => {
                failure.next(format!("`sculpt login {}` signs in with another token", self.context.address()))
            }
            _ => failure,
        }
    }

    pub(crate) fn tasks(&self) -> TasksClient<Wire> {
        TasksClient::new(self.wire.clone()).max_decoding_message_size(64 << 20)
    }

    pub(crate) fn logs(&self) -> LogsClient<Wire> {
        LogsClient::new(self.wire.clone()).max_decoding_message_size(sculpt_proto::MAX_MESSAGE * 2)
    }

    pub(crate) fn projects(&self) -> ProjectsClient<Wire> {
        ProjectsClient::new(self.wire.clone())
    }

    pub(crate) fn git(&self) -> GitClient<Wire> {
        GitClient::new(self.wire.clone()).max_decoding_message_size(64 << 20)
    }

    pub(crate) fn pairings(&self) -> PairingsClient<Wire> {
        PairingsClient::new(self.wire.clone())
    }

    pub(crate) fn executors(&self) -> ExecutorsClient<Wire> {
        ExecutorsClient::new(self.wire.clone()).max_decoding_message_size(64 << 20)
    }

    pub(crate) fn events(&self) -> EventsClient<Wire> {
        EventsClient::new(self.wire.clone())
    }

    pub(crate) fn identity(&self) -> IdentityClient<Wire> {
        IdentityClient::new(self.wire.clone())
    }

    pub(crate) fn audit(&self) -> AuditClient<Wire> {
        AuditClient::new(self.wire.clone())
    }

    pub(crate) fn system(&self) -> SystemClient<Wire> {
        SystemClient::new(self.wire.clone())
    }
}

/// Somebody else answers than the controller, or nobody who is one.
fn untrusted(context: &Context, problem: Problem) -> Failure {
    let Problem { matter, why, next } = problem;
    match matter {
        Matter::Address => {
            Failure::new(Exit::OutOfReach, format!("reach the controller at {}", context.address()), why)
        }
        Matter::Authority | Matter::Clock | Matter::Own => {
            Failure::new(Exit::NotAllowed, format!("trust the controller at {}", context.address()), why)
        }
    }
    .next(next)
}

/// A context that cannot be used, and how to mend it.
pub(crate) fn unusable(error: &ConfigError) -> Failure {
    let failure = |exit| Failure::new(exit, "find the controller", error.to_string());
    match error {
        ConfigError::NoContext(_) => failure(Exit::OutOfReach)
            .next("start one on this machine with `sculpt up`, or set SCULPT_URL and SCULPT_TOKEN"),
        ConfigError::UnknownContext { .. } if Overrides::from_environment().context.is_some() => {
            failure(Exit::BadInput)
                .next("SCULPT_CONTEXT names it; `unset SCULPT_CONTEXT` uses the current one of the file")
        }
        ConfigError::UnknownContext { .. } => failure(Exit::BadInput).next("look at `current` in the file"),
        ConfigError::Syntax { .. } => {
            failure(Exit::BadInput).next("mend the file, or move it away: `sculpt up` writes it anew")
        }
        ConfigError::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            failure(Exit::NotAllowed).next("use the account that started `sculpt up`, or set SCULPT_TOKEN")
        }
        ConfigError::File { file, .. } => failure(Exit::OutOfReach)
            .next(format!("`{}` makes the token and writes the configuration", start_command(file))),
        ConfigError::NotAFile(_) => {
            failure(Exit::BadInput).next("let `token_file` of the context name the file with the token")
        }
        ConfigError::Exposed { file, .. } => {
            let file = crate::output::shell_quoted(&file.to_string_lossy());
            failure(Exit::NotAllowed).next(format!("chmod 600 {file}"))
        }
        ConfigError::NoToken(_) => {
            failure(Exit::NotAllowed).next("set SCULPT_TOKEN, or name a context that has a token file")
        }
        ConfigError::Token { .. } => {
            failure(Exit::NotAllowed).next("look at SCULPT_TOKEN, or at the token file of the context")
        }
        ConfigError::Url { .. } => failure(Exit::BadInput).next("look at SCULPT_URL, or at `url` in the configuration"),
        ConfigError::NoHome => failure(Exit::BadInput).next("set HOME or XDG_CONFIG_HOME"),
    }
}

/// What to do about a controller that cannot be reached.
fn start_it(context: &Context) -> String {
    if Overrides::from_environment().url.is_some() {
        return "SCULPT_URL says that it is there; `unset SCULPT_URL` uses the configuration".to_owned();
    }
    let source = Path::new(&context.token_source);
    if data_of(source).is_some() || context.is_here() {
        let start = start_command(source);
        return format!("start it on this machine with `{start}`, or see what is wrong with `sculpt doctor`");
    }
    "see that the address is right, that it runs there, and that nothing on the way holds the port back".to_owned()
}

/// The innermost reason: transports wrap it three times over.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Growing pauses between attempts, each of a length of its own: after an outage everybody comes back at once.
pub(crate) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    pub(crate) fn new() -> Self {
        Self(Self::FIRST)
    }

    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.0.mul_f64(rand::random_range(0.75..1.25))).await;
        self.0 = (self.0 * 2).min(Self::LONGEST);
    }

    pub(crate) fn reset(&mut self) {
        self.0 = Self::FIRST;
    }
}

/// Says once that the controller went away, and once that it is back.
#[derive(Default)]
pub(crate) struct Outage {
    away: bool,
}

impl Outage {
    pub(crate) fn began(&mut self, quiet: bool) {
        if !std::mem::replace(&mut self.away, true) && !quiet {
            note("the controller is out of reach; waiting for it (the agents go on meanwhile)");
        }
    }

    pub(crate) fn ended(&mut self, quiet: bool) {
        if std::mem::take(&mut self.away) && !quiet {
            note("the controller is back");
        }
    }
}
