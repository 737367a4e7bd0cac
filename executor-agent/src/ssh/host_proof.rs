//! What proves to people which executor this is: a key that stays here, and what the controller says of it for a day.

use std::{path::Path, time::Duration};

use russh::keys::ssh_key::{Algorithm, Certificate, LineEnding, PrivateKey};
use sculpt_proto::{
    FieldError, duration,
    executor::v1::{CertifyHostRequest, CertifyHostResponse, pairing_client::PairingClient},
};
use sculpt_tls::private::{self, PrivateError};
use tokio::time::timeout;

use crate::connect::{ConnectError, Dialer};

/// Name of the key's file, beside what else proves who this executor is.
pub(super) const FILE: &str = "ssh_host_ed25519_key";

/// How long the controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// No controller is asked more often.
const SOONEST: Duration = Duration::from_secs(10);

/// A key with its certificate.
#[derive(Clone, Debug)]
pub struct HostProof {
    /// The key.
    pub key: PrivateKey,
    /// What the controller says of it.
    pub certificate: Certificate,
}

/// Why this executor cannot prove itself to people.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProofError {
    #[error(transparent)]
    File(#[from] PrivateError),
    #[error("the key of this host for ssh cannot be read: {0}; remove the file, and another one is made")]
    Key(russh::keys::ssh_key::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller certifies no host for ssh: {}", .0.message())]
    Refused(Box<tonic::Status>),
    #[error("the controller gave no answer within {PATIENCE:?}")]
    Silent,
    #[error("the controller's certificate for ssh cannot be read: {0}")]
    Certificate(russh::keys::ssh_key::Error),
    #[error("the controller has certified another key, or no host")]
    Another,
    #[error("the controller's answer cannot be understood: {0}")]
    Answer(#[from] FieldError),
}

/// The key in `directory`; made when there is none.
pub(super) fn key(directory: &Path) -> Result<PrivateKey, ProofError> {
    let file = directory.join(FILE);
    if let Some(text) = private::read(&file)? {
        return PrivateKey::from_openssh(text.as_bytes()).map_err(ProofError::Key);
    }
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map_err(ProofError::Key)?;
    let text = key.to_openssh(LineEnding::LF).map_err(ProofError::Key)?;
    private::write(&file, &text)?;
    Ok(key)
}

/// Has the controller certify `key`. Also: how long until it is to be asked again.
pub(super) async fn certify(key: &PrivateKey, dialer: &Dialer) -> Result<(HostProof, Duration), ProofError> {
    let public_key = key.public_key().to_openssh().map_err(ProofError::Key)?;
    let asking = async {
        let mut client = PairingClient::new(dialer.channel().await?);
        let answer = client.certify_host(CertifyHostRequest { public_key }).await;
        answer.map_err(|status| ProofError::Refused(Box::new(status)))
    };
    let answer = timeout(PATIENCE, asking).await.map_err(|_| ProofError::Silent)??;
    read(key, answer.into_inner())
}

fn read(key: &PrivateKey, answer: CertifyHostResponse) -> Result<(HostProof, Duration), ProofError> {
    let certificate = Certificate::from_openssh(&answer.certificate).map_err(ProofError::Certificate)?;
    if !certificate.cert_type().is_host() || certificate.public_key() != key.public_key().key_data() {
        return Err(ProofError::Another);
    }
    let told = duration(sculpt_proto::required(answer.renew_after, "renew_after")?, "renew_after")?;
    let life = certificate.valid_before().saturating_sub(certificate.valid_after());
    Ok((HostProof { key: key.clone(), certificate }, renewal(told, Duration::from_secs(life))))
}

/// When to ask again: as told, but never after two thirds of the certificate's life, nor all the time.
fn renewal(told: Duration, life: Duration) -> Duration {
    told.min(life * 2 / 3).max(SOONEST)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sculpt_pairing::{Host, Window};
    use sculpt_proto::id::ExecutorId;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let first = key(directory.path()).unwrap();
        assert_eq!(key(directory.path()).unwrap().public_key(), first.public_key());
        let mode = std::fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(directory.path().join(FILE), "nonsense").unwrap();
        assert!(matches!(key(directory.path()), Err(ProofError::Key(_))));
    }

    #[test]
    fn a_certificate_is_renewed_before_it_is_over() {
        let [second, hour] = [1, 3_600].map(Duration::from_secs);
        assert_eq!(renewal(2 * hour, 24 * hour), 2 * hour);
        assert_eq!(renewal(30 * hour, 24 * hour), 16 * hour);
        assert_eq!(renewal(Duration::ZERO, 24 * hour), 10 * second);
        assert_eq!(renewal(hour, Duration::ZERO), 10 * second);
    }

    #[test]
    fn only_a_certificate_for_this_key_is_taken() {
        let fresh = || PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let (own, other, authority) = (fresh(), fresh(), fresh());
        let answer = |of: &PrivateKey, after: Option<i64>| {
            let window = Window { since: 0, until: 4_000_000_000 };
            let certificate = Host(ExecutorId::fresh()).certify(of.public_key(), window, &authority).unwrap();
            let renew_after = after.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
            CertifyHostResponse { certificate: certificate.to_openssh().unwrap(), renew_after }
        };
        let (_, after) = read(&own, answer(&own, Some(60))).unwrap();
        assert_eq!(after, Duration::from_secs(60));
        assert!(matches!(read(&own, answer(&other, Some(60))), Err(ProofError::Another)));
        assert!(matches!(read(&own, answer(&own, None)), Err(ProofError::Answer(_))));
        let nothing = CertifyHostResponse::default();
        assert!(matches!(read(&own, nothing), Err(ProofError::Certificate(_))));
    }
}
