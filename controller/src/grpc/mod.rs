//! The public API: one file per service, one for conversions, one for statuses.

mod absent;
mod audit;
mod author;
pub(crate) mod brief;
mod convert;
mod cursor;
mod describe;
mod enrolment;
mod events;
mod executors;
mod git;
mod identity;
pub mod logs;
mod once;
pub mod pairings;
pub(crate) mod pieces;
mod projects;
pub(crate) mod spec;
pub mod status;
mod system;
mod tasks;
mod tunnel;
mod waiting;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, future::ready, stream};
use sculpt_proto::{
    FieldError,
    id::{ClusterId, RequestId},
    v1,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::{
    access::Caller, bus::Bus, dispatch::Dispatch, git::Repositories, pki, room::Room, session::Sessions, store::Store,
};

/// What is served to people, by full name.
pub const SERVICES: [&str; 10] = [
    sculpt_proto::v1::tasks_server::SERVICE_NAME,
    sculpt_proto::v1::logs_server::SERVICE_NAME,
    sculpt_proto::v1::pairings_server::SERVICE_NAME,
    sculpt_proto::v1::projects_server::SERVICE_NAME,
    sculpt_proto::v1::git_server::SERVICE_NAME,
    sculpt_proto::v1::executors_server::SERVICE_NAME,
    sculpt_proto::v1::events_server::SERVICE_NAME,
    sculpt_proto::v1::identity_server::SERVICE_NAME,
    sculpt_proto::v1::audit_server::SERVICE_NAME,
    sculpt_proto::v1::system_server::SERVICE_NAME,
];

/// How soon a lost signal is repaired.
const POLL: Duration = Duration::from_secs(5);

/// What a server stream is made of.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the controller says of itself.
#[derive(Clone, Debug)]
pub struct About {
    /// This database's history.
    pub cluster: ClusterId,
    /// Version of Postgres, and whose it is.
    pub postgres: String,
    /// Days that the journal is kept.
    pub event_days: u32,
    /// How long logs of tasks that have ended are kept; none: for ever.
    pub log_retention: Option<Duration>,
    /// How full the disk is.
    pub room: Room,
    /// Where data stands on this machine.
    pub data_dir: std::path::PathBuf,
    /// The `git` program.
    pub git: std::path::PathBuf,
    /// Who certifies us and our executors.
    pub authority: watch::Receiver<Arc<pki::Authority>>,
    /// The public certificate, if people see one and need know no authority.
    pub public: watch::Receiver<Option<Arc<pki::Lifetime>>>,
    /// Where executors dial, as far as is known.
    pub executor_url: String,
}

impl About {
    /// The authority that people's tokens name.
    fn pin_for_people(&self) -> Option<sculpt_tls::Pin> {
        if self.public.borrow().is_some() { None } else { Some(self.authority.borrow().pin()) }
    }

    /// The authority that executors' tokens name.
    fn pin_for_executors(&self) -> sculpt_tls::Pin {
        self.authority.borrow().pin()
    }
}

/// The services of tasks, projects, executors, events and the controller itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    store: Store,
    bus: Bus,
    dispatch: Dispatch,
    repositories: Repositories,
    sessions: Sessions,
    about: Arc<About>,
    /// Cancelled when streams are to end.
    ending: CancellationToken,
}

impl Api {
    /// Serves what `dispatch` moves, until `ending` is cancelled.
    pub fn new(
        dispatch: Dispatch,
        repositories: Repositories,
        sessions: Sessions,
        about: About,
        ending: CancellationToken,
    ) -> Self {
        let (store, bus) = (dispatch.store().clone(), dispatch.bus().clone());
        Self { store, bus, dispatch, repositories, sessions, about: Arc::new(about), ending }
    }

    /// Its services, added to `routes`.
    pub fn routes(&self, routes: &mut tonic::service::RoutesBuilder) {
        macro_rules! add {
            ($($service:ty),*) => {
                $(routes.add_service(
                    <$service>::new(self.clone())
                        .max_decoding_message_size(sculpt_proto::MAX_MESSAGE)
                        .max_encoding_message_size(sculpt_proto::MAX_MESSAGE),
                );)*
            };
        }
        add!(
            v1::tasks_server::TasksServer<Self>,
            v1::projects_server::ProjectsServer<Self>,
            v1::executors_server::ExecutorsServer<Self>,
            v1::git_server::GitServer<Self>,
            v1::events_server::EventsServer<Self>,
            v1::identity_server::IdentityServer<Self>,
            v1::audit_server::AuditServer<Self>,
            v1::system_server::SystemServer<Self>
        );
    }

    /// `stream` until the controller shuts down, which its reader is told.
    fn replies<T: Send + 'static>(&self, stream: impl Stream<Item = Result<T, Status>> + Send + 'static) -> Replies<T> {
        let ending = self.ending.clone();
        let last = stream::once(ready(()))
            .filter_map(move |()| ready(ending.is_cancelled().then(|| Err(status::shutting_down()))));
        Box::pin(stream.take_until(self.ending.clone().cancelled_owned()).chain(last))
    }
}

/// Who calls. Only the gate makes a [`Caller`], so a call without one never came this far.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let found = request.extensions().get::<Caller>().cloned();
    found.ok_or_else(|| Status::unauthenticated("this call needs a token: `authorization: Bearer …`"))
}

fn request_id(text: &str) -> Result<RequestId, FieldError> {
    if text.is_empty() {
        return Err(FieldError::new("request_id", "is missing; give a fresh uuid for each thing that is wanted once"));
    }
    FieldError::parse(text, "request_id")
}
