//! A controller in this process, on loopback listeners of its own, and clients that show its token.

use std::path::Path;

use sculpt_controller::{
    app::Controller,
    config::{Config, DatabaseSetting, EVENT_DAYS},
    store::Store,
};
use sculpt_proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::interceptor::InterceptedService,
    transport::Channel,
};

use super::{Fresh, database, server};

/// A controller with its database. End it with [`Stack::stop`]; a failed test leaves it to the end of the program.
pub(crate) struct Stack {
    controller: Controller,
    channel: Channel,
    bearer: MetadataValue<Ascii>,
    _directory: tempfile::TempDir,
    _database: Fresh,
}

/// A client's channel that shows the token.
pub(crate) type Authorised = InterceptedService<Channel, Bearer>;

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
    let fresh = database().await;
    let directory = tempfile::tempdir().expect("make a directory");
    let config = config(directory.path(), server::shared().url(fresh.name()));
    let controller =
        Controller::start(config, &CancellationToken::new()).await.expect("it starts").expect("it is not told to end");
    let token = std::fs::read_to_string(directory.path().join("tokens/user")).expect("the token is there");
    let channel = Channel::from_shared(format!("http://{}", controller.user_address())).expect("a URL");
    let channel = channel.connect().await.expect("it listens");
    let bearer = format!("Bearer {}", token.trim()).parse().expect("a value");
    Stack { controller, channel, bearer, _directory: directory, _database: fresh }
}

fn config(data_dir: &Path, url: String) -> Config {
    let any = "127.0.0.1:0".parse().expect("an address");
    Config {
        data_dir: data_dir.to_owned(),
        listen: any,
        executor_listen: any,
        database: DatabaseSetting::Url(url),
        event_days: EVENT_DAYS,
        git: "git".into(),
        lifeline: false,
    }
}

impl Stack {
    pub(crate) fn store(&self) -> &Store {
        self.controller.store()
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.controller.user_address()
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

    pub(crate) async fn stop(self) {
        self.controller.stop().await;
    }
}
