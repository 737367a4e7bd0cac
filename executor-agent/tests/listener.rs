//! The scripted controller's listener: TLS with client certificates, and who may call what.

use std::{sync::Arc, time::SystemTime};

use axum::{
    body::Body,
    extract::{Request as HttpRequest, State as Shared},
    middleware::{Next, from_fn_with_state},
    response::Response as HttpResponse,
    routing::any,
};
use rustls::{ServerConfig, pki_types::UnixTime};
use sculpt_proto::executor::v1::{
    enrolment_server::EnrolmentServer, executor_service_server::ExecutorServiceServer, pairing_server::PairingServer,
};
use sculpt_tls::{Caller, Callers, Identity, Proof, Trust, server_config};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tonic::Status;

use crate::{controller::Inner, git_backend};

/// Settings that show `proof`, and believe executors of `trust`.
pub(crate) fn settings(proof: Proof, trust: Trust) -> Arc<ServerConfig> {
    Arc::new(server_config(Identity::new(proof, None).unwrap(), &Callers::Executors(trust)).unwrap())
}

/// Connections live in a set of their own, so that they end with the server.
pub(crate) async fn serve(listener: TcpListener, inner: Inner) {
    let router = tonic::service::Routes::new(ExecutorServiceServer::new(inner.clone()))
        .add_service(EnrolmentServer::new(inner.clone()))
        .add_service(PairingServer::new(inner.relay.clone()))
        .into_axum_router()
        .route("/git/{*path}", any(git).with_state(inner.clone()))
        .layer(from_fn_with_state(inner.clone(), enter));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let acceptor = TlsAcceptor::from(Arc::clone(&inner.tls.borrow()));
        connections.spawn(connection(stream, acceptor, router.clone()));
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: axum::Router) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let caller = shown.map(|shown| Caller::of(shown, UnixTime::since_unix_epoch(now)).unwrap());
    let router = match caller {
        Some(caller) => router.layer(axum::Extension(caller)),
        None => router,
    };
    let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
    let service = hyper_util::service::TowerToHyperService::new(router);
    let _cut = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
}

/// Everything but joining and renewing is for executors that are let in; a session says itself why not.
async fn enter(Shared(inner): Shared<Inner>, request: HttpRequest, next: Next) -> HttpResponse {
    let path = request.uri().path();
    if path.starts_with("/sculpt.executor.v1.Enrolment/") || path == "/sculpt.executor.v1.ExecutorService/Control" {
        return next.run(request).await;
    }
    let judged = {
        let enrolments = &inner.memory.lock().unwrap().enrolments;
        let refused = enrolments.refuses_publications.filter(|_| path.ends_with("/Publish"));
        let judged = enrolments.judge(request.extensions().get()).map_err(|away| away.status());
        judged.and(refused.map_or(Ok(()), |why| Err(Status::permission_denied(why))))
    };
    match judged {
        Ok(()) => next.run(request).await,
        Err(_) if path.starts_with("/git/") => HttpResponse::builder().status(503).body(Body::empty()).unwrap(),
        Err(status) => status.into_http(),
    }
}

async fn git(Shared(inner): Shared<Inner>, request: HttpRequest) -> HttpResponse {
    git_backend::serve(&inner.repositories, request).await
}
