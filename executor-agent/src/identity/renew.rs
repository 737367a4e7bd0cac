//! The certificate is renewed while it is good, and when a host comes back after it has run out.

use std::time::{Duration, SystemTime};

use sculpt_proto::executor::v1::{RenewRequest, enrolment_client::EnrolmentClient};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{CredentialError, Keyring};
use crate::connect::{ConnectError, Dialer};

/// Between tries that fail: a day has room for many.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller refuses: {}", .0.message())]
    Refused(tonic::Status),
}

/// Renews the certificate of `dialer` whenever it is due, until `stop`. Connections that stand are not touched.
pub async fn run(keyring: Keyring, dialer: Dialer, stop: CancellationToken) {
    let mut backoff = dialer.backoff(FIRST_WAIT, LONGEST_WAIT);
    let mut due = match keyring.load() {
        Ok(credentials) => credentials.renew_in(SystemTime::now()),
        Err(_) => Duration::ZERO,
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(due) => {}
        }
        due = match renew(&keyring, &dialer).await {
            Ok(next) => {
                info!("the certificate was renewed");
                backoff.reset();
                next
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "the certificate was not renewed; trying again");
                backoff.next_wait()
            }
        };
    }
}

async fn renew(keyring: &Keyring, dialer: &Dialer) -> Result<Duration, RenewError> {
    let request = RenewRequest { renewal_id: keyring.pending()?.to_string() };
    let channel = dialer.channel().await?;
    let answer = EnrolmentClient::new(channel).renew(request).await.map_err(RenewError::Refused)?.into_inner();
    let credentials = answer.credentials.as_ref().ok_or(CredentialError::Answer("no credentials"))?;
    let kept = keyring.keep(credentials)?;
    keyring.answered()?;
    dialer.prove(&kept)?;
    Ok(kept.renew_in(SystemTime::now()))
}
