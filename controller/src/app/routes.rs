//! What is served on each listener, and where it is.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use tokio::sync::watch;
use tonic::{Status, service::Routes};
use tonic_health::{
    pb::health_server::{self, HealthServer},
    server::HealthService,
};

use super::Parts;
use crate::{
    config::Config,
    grpc::{About, Api, logs::LogsApi, pairings::PairingsApi},
    pki::Authority,
    session::{
        ExecutorApi, control,
        enrolment::EnrolmentApi,
        pairing::PairingApi,
        who::{self, Door},
    },
    web::{git_http, is_grpc},
};

/// What people and tools call.
pub(super) fn user_routes(
    parts: &Parts,
    about: About,
    look: Duration,
) -> Result<Router, tonic_reflection::server::Error> {
    let Parts { dispatch, blobs, repositories, sessions, ending, health, .. } = parts;
    let mut routes = Routes::builder();
    let api = Api::new(dispatch.clone(), repositories.clone(), sessions.clone(), about, ending.clone());
    api.routes(&mut routes);
    let (store, bus) = (dispatch.store().clone(), dispatch.bus().clone());
    let pairings = PairingsApi {
        store: store.clone(),
        bus: bus.clone(),
        sessions: sessions.clone(),
        relay: parts.relay.clone(),
        ssh: parts.ssh.clone(),
        tracker: parts.tracker.clone(),
        ending: ending.clone(),
        look,
    };
    routes.add_service(pairings.into_service());
    routes.add_service(LogsApi::new(store, bus, blobs.clone(), ending.clone()).into_service());
    routes.add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())));
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(sculpt_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        // The executors' service is served on their own listener.
        crate::grpc::SERVICES
            .into_iter()
            .chain([health_server::SERVICE_NAME])
            .fold(builder, |builder, service| builder.with_service_name(service))
    };
    routes.add_service(reflection().build_v1()?);
    // What most clients still speak.
    routes.add_service(reflection().build_v1alpha()?);
    Ok(routes.routes().into_axum_router().merge(git_http::routes(repositories.clone(), dispatch.store().clone())))
}

/// What executors call.
pub(super) fn executor_routes(parts: &Parts, authority: watch::Receiver<Arc<Authority>>, life: Duration) -> Router {
    let (store, bus, cluster) = (parts.dispatch.store().clone(), parts.dispatch.bus().clone(), parts.cluster);
    let door = Door::new(store.clone(), cluster, parts.present.clone());
    let door = middleware::from_fn_with_state(door, who::enter);
    let context = control::Context {
        book: parts.dispatch.clone(),
        sessions: parts.sessions.clone(),
        cluster: parts.cluster,
        authority: Some(authority.clone()),
        shutdown: parts.ending.clone(),
    };
    let repositories = parts.repositories.clone();
    let api = ExecutorApi::new(context, parts.blobs.clone(), repositories.clone(), parts.tracker.clone());
    let enrolment = EnrolmentApi { store: store.clone(), bus, authority, cluster, life };
    let pairing = PairingApi {
        store,
        relay: parts.relay.clone(),
        ssh: parts.ssh.clone(),
        shutdown: parts.ending.clone(),
        tracker: parts.tracker.clone(),
    };
    let services = Routes::new(api.into_service())
        .add_service(enrolment.into_service())
        .add_service(pairing.into_service())
        .into_axum_router();
    let git = git_http::routes(repositories, parts.dispatch.store().clone());
    services.merge(git).fallback(nothing_here).layer(door)
}

/// What a call to something that is not served gets: tonic would answer a browser with a success.
pub(super) async fn nothing_here(request: Request) -> Response {
    if is_grpc(request.headers()) {
        return Status::unimplemented(format!("this controller does not serve {}", request.uri().path())).into_http();
    }
    (StatusCode::NOT_FOUND, "there is nothing here\n").into_response()
}

/// Where executors dial as far as we know: what was set, else as people do.
pub(super) fn executor_url(config: &Config, bound: SocketAddr) -> String {
    config.executor_url.clone().unwrap_or_else(|| reached(config.tls.names.given(), bound))
}

/// Where people call as far as we know.
pub(super) fn user_url(config: &Config, bound: SocketAddr) -> String {
    reached(config.tls.names.given(), bound)
}

/// The first name that was `given`, else where we listen, else the name of this machine: nobody can call "any address".
fn reached(given: Option<String>, bound: SocketAddr) -> String {
    let host = match (given, bound.ip()) {
        (Some(name), ip) if !ip.is_loopback() => name,
        (_, ip) if ip.is_unspecified() => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        (_, ip) => return format!("https://{}", SocketAddr::new(ip, bound.port())),
    };
    format!("https://{host}:{}", bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_can_be_dialled() {
        let name = || Some("controller.example".to_owned());
        for (given, bound, url) in [
            (name(), "0.0.0.0:7433", "https://controller.example:7433"),
            (name(), "[::]:7433", "https://controller.example:7433"),
            (name(), "192.0.2.1:7433", "https://controller.example:7433"),
            (name(), "127.0.0.1:7433", "https://127.0.0.1:7433"),
            (None, "192.0.2.1:7433", "https://192.0.2.1:7433"),
            (None, "[2001:db8::1]:7433", "https://[2001:db8::1]:7433"),
        ] {
            assert_eq!(reached(given, bound.parse().expect("an address")), url, "{bound}");
        }
        let own = reached(None, "0.0.0.0:7433".parse().expect("an address"));
        assert!(!own.contains("0.0.0.0") && own.ends_with(":7433"), "{own}");
    }
}
