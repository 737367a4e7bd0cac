//! The certificate is renewed while it is good, and when a host comes back after it has run out.

use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use sculpt_proto::{
    duration,
    executor::v1::{RenewRequest, enrolment_client::EnrolmentClient},
};
use sculpt_tls::Pin;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{info, warn};

use super::{
    CredentialError, Credentials, Keyring, Standing,
    schedule::{AGAIN, Schedule},
};
use crate::{
    connect::{ConnectError, Dialer},
    host::boottime,
};

/// Between tries that fail. An executor that is unlocked again is back within the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long the controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller refuses: {}", .0.message())]
    Refused(Status),
    #[error("the controller gave no answer within {PATIENCE:?}")]
    Silent,
    #[error("the controller has certified another executor than this one; nothing was changed")]
    Another,
}

/// Renews the certificate of `dialer` whenever it is due, and when the controller says to trust others than before or takes it
/// for old, until `stop`. Connections that stand are not touched.
pub async fn run(keyring: Keyring, dialer: Dialer, standing: Standing, stop: CancellationToken) {
    let mut backoff = dialer.backoff(FIRST_WAIT, LONGEST_WAIT);
    // The controller may have given an answer that never came, and lets nobody in who shows what went before it.
    let found = keyring.load().ok().filter(|_| !keyring.is_renewing());
    let mut schedule = Schedule::ByClock(found.and_then(|credentials| credentials.renewed_at()));
    let mut trusted = standing.trusted();
    loop {
        if let Some(pause) = schedule.pause(boottime(), SystemTime::now()) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => continue,
                () = standing.stale() => {
                    schedule = schedule.hurried(boottime());
                    continue;
                }
                // It is never closed: we have its other end.
                _ = trusted.changed() => if !lacks(&keyring, &trusted.borrow_and_update()) { continue },
            }
        }
        let renewed = tokio::select! {
            () = stop.cancelled() => return,
            renewed = renew(&keyring, &dialer) => renewed,
        };
        schedule = match renewed {
            Ok(after) => {
                info!(next = ?after, "the certificate was renewed");
                standing.accepted();
                // What was said of the one before.
                let _said = standing.stale().now_or_never();
                backoff.reset();
                let lags = lacks(&keyring, &trusted.borrow_and_update());
                Schedule::renewed(boottime(), if lags { after.min(AGAIN) } else { after })
            }
            Err(error) => {
                told(&standing, &error);
                let wait = backoff.next_wait();
                let cause = &error as &dyn std::error::Error;
                warn!(error = cause, ?wait, "the certificate was not renewed; trying again");
                Schedule::failed(boottime(), wait)
            }
        };
    }
}

/// Whether others are to be trusted than those in `keyring`, or another one certifies.
fn lacks(keyring: &Keyring, trusted: &[Pin]) -> bool {
    let held = || keyring.load().map(|credentials| credentials.trust.pins().collect::<Vec<_>>());
    !trusted.is_empty() && held().is_ok_and(|held| held != trusted)
}

fn told(standing: &Standing, error: &RenewError) {
    match error {
        RenewError::Refused(status) => standing.told(status),
        RenewError::Connect(error @ ConnectError::Distrust { .. }) => standing.refused(&error.to_string()),
        RenewError::Connect(_) | RenewError::Credentials(_) | RenewError::Silent | RenewError::Another => {}
    }
}

/// Returns after which time it is to be renewed again.
async fn renew(keyring: &Keyring, dialer: &Dialer) -> Result<Duration, RenewError> {
    let held = keyring.load()?.subject;
    let request = RenewRequest { renewal_id: keyring.renewal()?.to_string() };
    let mut client = EnrolmentClient::new(dialer.channel().await?);
    sculpt_failpoints::pass("renew.before_ask");
    let answer = tokio::time::timeout(PATIENCE, client.renew(request)).await.map_err(|_| RenewError::Silent)?;
    let answer = answer.map_err(RenewError::Refused)?.into_inner();
    sculpt_failpoints::pass("renew.answered");
    let wire = answer.credentials.as_ref().ok_or(CredentialError::Answer("no credentials"))?;
    let credentials = Credentials::answered(keyring.key()?, wire)?;
    if (credentials.subject.cluster, credentials.subject.executor) != (held.cluster, held.executor) {
        return Err(RenewError::Another);
    }
    keyring.keep(&credentials)?;
    keyring.renewed()?;
    dialer.prove(&credentials)?;
    let after = wire.renew_after.and_then(|span| duration(span, "credentials.renew_after").ok());
    Ok(after.unwrap_or_default())
}
