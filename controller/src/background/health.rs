//! The standard health service: this replica serves while its database answers.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{grpc, store::Store};

/// How often the database is asked.
const PERIOD: Duration = Duration::from_secs(5);

/// Reports until `stop`, and then that nothing is served any more.
pub async fn run(store: Store, reporter: HealthReporter, stop: CancellationToken) {
    loop {
        let status = match store.cluster().await {
            Ok(_) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        report(&reporter, status).await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    report(&reporter, ServingStatus::NotServing).await;
}

/// The empty name stands for the whole server.
async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in [""].into_iter().chain(grpc::SERVICES) {
        reporter.set_service_status(service, status).await;
    }
}
