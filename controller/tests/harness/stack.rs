//! A controller in this process, on loopback listeners of its own, and clients that show its token.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::CertificateDer;

use sculpt_controller::{
    app::Controller,
    background::guests,
    config::{Config, DatabaseSetting, EVENT_DAYS, TlsSettings},
    git::GitSettings,
    grpc::pairings,
    pki::{LEAF_LIFE, Names},
    store::Store,
};
use sculpt_proto::{
    executor::v1::{Hello, JoinRequest, RenewRequest, enrolment_client::EnrolmentClient},
    v1,
};
use sculpt_tls::{CONTROLLER_NAME, Key, Proof, Server, Subject, Trust, client_config, connector};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use uuid::Uuid;

use super::{Fresh, database, server};

/// Who serves from a private cluster.
const SERVICE: &str = "sculpt_service";

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A controller with its database. End it with [`Stack::stop`]; a failed test leaves it to the end of the program.
pub(crate) struct Stack {
    controller: Controller,
    channel: Channel,
    bearer: MetadataValue<Ascii>,
    directory: tempfile::TempDir,
    /// Replicas have one authority.
    authority: PathBuf,
    database: Arc<Fresh>,
}

/// What an executor has got for a token.
pub(crate) struct Enrolled {
    key: Key,
    chain: Vec<CertificateDer<'static>>,
}

impl Enrolled {
    /// Whom the certificate names.
    pub(crate) fn subject(&self) -> Subject {
        Subject::of(&self.chain[0]).expect("it names an executor")
    }

    /// As git takes it.
    pub(crate) fn key_pem(&self) -> String {
        self.key.to_pem()
    }

    /// As git takes it.
    pub(crate) fn chain_pem(&self) -> String {
        sculpt_tls::to_pem(&self.chain)
    }
}

/// A client's channel that shows the token.
pub(crate) type Authorised = InterceptedService<Channel, Bearer>;

/// `channel` with a token.
pub(crate) fn authorised(channel: Channel, token: &str) -> Authorised {
    InterceptedService::new(channel, Bearer(format!("Bearer {}", token.trim()).parse().expect("a value")))
}

/// Adds the token to each call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A controller on a fresh database.
pub(crate) async fn stack() -> Stack {
    stack_with(|_| {}).await
}

/// The same with other settings.
pub(crate) async fn stack_with(change: impl FnOnce(&mut Config)) -> Stack {
    Stack::on(Arc::new(database().await), None, change).await
}

/// A connection to `url` that believes only those who stand in the file `trust`.
pub(crate) async fn connect(url: &str, trust: &Path) -> Channel {
    connect_with(Channel::from_shared(url.to_owned()).expect("a URL"), trust, None).await
}

async fn connect_with(endpoint: Endpoint, trust: &Path, proof: Option<Proof>) -> Channel {
    let trust = Trust::from_pem(&std::fs::read(trust).expect("whom to trust")).expect("authorities");
    let server = Server::Known(trust);
    let config = client_config(&server, proof).expect("settings");
    endpoint.connect_with_connector(connector(&server, config, PATIENCE)).await.expect("it listens")
}

fn config(data_dir: &Path, authority: &Path, database: DatabaseSetting) -> Config {
    let any = "127.0.0.1:0".parse().expect("an address");
    Config {
        data_dir: data_dir.to_owned(),
        listen: any,
        executor_listen: any,
        database,
        event_days: EVENT_DAYS,
        log_retention: None,
        disk_budget: None,
        git: GitSettings::below(data_dir),
        tls: TlsSettings {
            names: Names::new(["localhost"]).expect("names"),
            public: None,
            authority: authority.to_owned(),
        },
        lifeline: false,
        guests_poll: guests::POLL,
        tunnels_look: pairings::LOOK,
        certificate_life: LEAF_LIFE,
        executor_url: None,
    }
}

impl Stack {
    async fn on(database: Arc<Fresh>, authority: Option<PathBuf>, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let authority = authority.unwrap_or_else(|| directory.path().join("authority"));
        let setting = DatabaseSetting::Url {
            service: server::shared().url(SERVICE, database.name()),
            owner: Some(server::shared().url("sculpt", database.name())),
        };
        let mut config = config(directory.path(), &authority, setting);
        change(&mut config);
        let controller = Controller::start(config, &CancellationToken::new()).await;
        let controller = controller.expect("it starts").expect("it is not told to end");
        // A replica has none: the first admin was made by the first.
        let token = std::fs::read_to_string(directory.path().join("tokens/user")).unwrap_or_default();
        let url = format!("https://{}", controller.user_address());
        let channel = connect(&url, &directory.path().join("trust.pem")).await;
        let bearer = format!("Bearer {}", token.trim()).parse().expect("a value");
        Self { controller, channel, bearer, directory, authority, database }
    }

    /// Another controller on the same database.
    pub(crate) async fn replica(&self) -> Self {
        let replica = Self::on(Arc::clone(&self.database), Some(self.authority.clone()), |_| {}).await;
        Self { bearer: self.bearer.clone(), ..replica }
    }

    /// Makes who says this an executor, by a token.
    pub(crate) async fn enrol(&self, hello: &Hello) -> Enrolled {
        self.enrol_in(hello, v1::CreateJoinTokenRequest::default()).await
    }

    /// The same where `wish` says.
    pub(crate) async fn enrol_in(&self, hello: &Hello, wish: v1::CreateJoinTokenRequest) -> Enrolled {
        let token = self.join_token(wish).await;
        let key = Key::fresh().expect("a key");
        let request = JoinRequest {
            token,
            certificate_request: key.request().expect("a request").to_vec(),
            join_id: Uuid::new_v4().to_string(),
            executor_id: hello.executor_id.clone(),
            name: hello.name.clone(),
            ..JoinRequest::default()
        };
        let joined = EnrolmentClient::new(self.stranger().await).join(request).await.expect("it joins").into_inner();
        let chain = joined.credentials.expect("credentials").chain.into_iter().map(Into::into).collect();
        Enrolled { key, chain }
    }

    /// A token for joining.
    pub(crate) async fn join_token(&self, wish: v1::CreateJoinTokenRequest) -> String {
        let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let wish = v1::CreateJoinTokenRequest { request_id: Uuid::new_v4().to_string(), ttl, ..wish };
        self.executors().create_join_token(wish).await.expect("a token").into_inner().secret
    }

    /// What an executor has after it has renewed its certificate.
    pub(crate) async fn renew(&self, executor: &Enrolled, id: Uuid) -> Result<Enrolled, Status> {
        let request = RenewRequest { renewal_id: id.to_string() };
        let answer = EnrolmentClient::new(self.executor_channel(executor).await).renew(request).await?.into_inner();
        let chain = answer.credentials.expect("credentials").chain.into_iter().map(Into::into).collect();
        Ok(Enrolled { key: Key::from_pem(&executor.key.to_pem()).expect("a key"), chain })
    }

    /// A connection of an executor.
    pub(crate) async fn executor_channel(&self, executor: &Enrolled) -> Authorised {
        let proof = Proof::new(executor.chain.clone(), &executor.key);
        let url = format!("https://{}", self.controller.executor_address());
        let endpoint = Channel::from_shared(url).expect("a URL");
        let trust = self.directory.path().join("trust.pem");
        authorised(connect_with(endpoint, &trust, Some(proof)).await, "of nobody")
    }

    /// A connection to where executors call, of one that has no certificate.
    pub(crate) async fn stranger(&self) -> Channel {
        connect(&format!("https://{}", self.executor_address()), &self.directory.path().join("trust.pem")).await
    }

    pub(crate) fn executor_address(&self) -> SocketAddr {
        self.controller.executor_address()
    }

    pub(crate) fn store(&self) -> &Store {
        self.controller.store()
    }

    /// The same database as its owner, who may change what it is made of.
    pub(crate) fn owner(&self) -> Store {
        Store::new(&self.database.database, 1)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.controller.user_address()
    }

    /// What a command on this controller's host is told.
    pub(crate) fn place(&self) -> [String; 6] {
        let url = server::shared().url(SERVICE, self.database.name());
        let (data, authority) = (self.directory.path().display().to_string(), self.authority.display().to_string());
        ["--data-dir".into(), data, "--authority-dir".into(), authority, "--database-url".into(), url]
    }

    /// Where its authority stands.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// The file of whom to trust.
    pub(crate) fn trust(&self) -> String {
        self.directory.path().join("trust.pem").display().to_string()
    }

    /// A connection of its own with the token and windows of so many bytes.
    pub(crate) async fn narrow(&self, window: u32) -> Authorised {
        let endpoint = Channel::from_shared(format!("https://{}", self.address())).expect("a URL");
        let endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(window);
        let channel = connect_with(endpoint, &self.directory.path().join("trust.pem"), None).await;
        InterceptedService::new(channel, Bearer(self.bearer.clone()))
    }

    /// A connection on which a test says what it likes.
    pub(crate) async fn raw(&self) -> TlsStream<TcpStream> {
        self.raw_at(self.address()).await
    }

    /// The same to where executors call.
    pub(crate) async fn raw_stranger(&self) -> TlsStream<TcpStream> {
        self.raw_at(self.executor_address()).await
    }

    async fn raw_at(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let trust = std::fs::read(self.directory.path().join("trust.pem")).expect("whom to trust");
        let server = Server::Known(Trust::from_pem(&trust).expect("authorities"));
        let config = client_config(&server, None).expect("settings");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let name = CONTROLLER_NAME.try_into().expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("it shakes hands")
    }

    /// A channel that shows `token`.
    pub(crate) fn showing(&self, token: &str) -> Authorised {
        authorised(self.channel.clone(), token)
    }

    /// A channel without a token.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn authorised(&self) -> Authorised {
        InterceptedService::new(self.channel.clone(), Bearer(self.bearer.clone()))
    }

    pub(crate) fn bearer(&self) -> &str {
        self.bearer.to_str().expect("it is text")
    }

    pub(crate) fn tasks(&self) -> v1::tasks_client::TasksClient<Authorised> {
        v1::tasks_client::TasksClient::new(self.authorised())
    }

    pub(crate) fn projects(&self) -> v1::projects_client::ProjectsClient<Authorised> {
        v1::projects_client::ProjectsClient::new(self.authorised())
    }

    pub(crate) fn executors(&self) -> v1::executors_client::ExecutorsClient<Authorised> {
        v1::executors_client::ExecutorsClient::new(self.authorised())
    }

    pub(crate) fn events(&self) -> v1::events_client::EventsClient<Authorised> {
        v1::events_client::EventsClient::new(self.authorised())
    }

    pub(crate) fn logs(&self) -> v1::logs_client::LogsClient<Authorised> {
        v1::logs_client::LogsClient::new(self.authorised())
    }

    pub(crate) async fn stop(self) {
        self.controller.stop().await;
    }
}
