//! What the authority certifies: the controller itself, and executors.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    PublicKeyData, SanType, SigningKey,
};
use rustls::pki_types::CertificateDer;
use sculpt_tls::{CONTROLLER_NAME, Subject};
use time::OffsetDateTime;

use super::PublicKey;

/// How long a certificate is good. Renewed at two thirds of it.
pub const LEAF_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// How far behind another machine's clock may be and still find a fresh certificate valid.
const SKEW: Duration = Duration::from_secs(3_600);

/// Names and addresses of the machine itself.
const OWN: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Names and addresses under which people reach the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<Name>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Host(String),
    Address(IpAddr),
}

/// Why nothing was certified.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Not a name of a host.
    #[error("{0:?} is neither an address nor the name of a host")]
    Name(String),
    /// The library refuses.
    #[error("cannot make a certificate: {0}")]
    Crypto(#[from] rcgen::Error),
}

impl Names {
    /// Reads each as an address or a host's name; this machine's own are always among them.
    pub fn new<'a>(given: impl IntoIterator<Item = &'a str>) -> Result<Self, IssueError> {
        let mut names = Vec::new();
        for text in OWN.into_iter().chain(given) {
            let name = match text.parse::<IpAddr>() {
                Ok(address) => Name::Address(address),
                Err(_) if is_host(text) => Name::Host(text.to_ascii_lowercase()),
                Err(_) => return Err(IssueError::Name(text.to_owned())),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(Self(names))
    }

    /// The first that was given besides this machine's own, as it stands in a URL.
    pub fn given(&self) -> Option<String> {
        self.0.get(OWN.len()).map(|name| match name {
            Name::Host(host) => host.clone(),
            Name::Address(IpAddr::V4(address)) => address.to_string(),
            Name::Address(IpAddr::V6(address)) => format!("[{address}]"),
        })
    }

    fn alternative(&self) -> Result<Vec<SanType>, IssueError> {
        let mut names = vec![SanType::DnsName(CONTROLLER_NAME.try_into()?)];
        for name in &self.0 {
            names.push(match name {
                Name::Host(host) => SanType::DnsName(host.as_str().try_into()?),
                Name::Address(address) => SanType::IpAddress(*address),
            });
        }
        Ok(names)
    }
}

/// Letters, digits and hyphens between dots, as RFC 1123 has it; no wildcard.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// A certificate for the controller itself.
pub(super) fn controller<S: SigningKey>(
    issuer: &Issuer<'_, S>,
    key: &impl PublicKeyData,
    names: &Names,
    now: SystemTime,
) -> Result<CertificateDer<'static>, IssueError> {
    let mut params = leaf(ExtendedKeyUsagePurpose::ServerAuth, now, LEAF_LIFE);
    params.distinguished_name.push(DnType::CommonName, CONTROLLER_NAME);
    params.subject_alt_names = names.alternative()?;
    Ok(params.signed_by(key, issuer)?.der().clone())
}

/// A certificate that says that who has `key` is `subject`.
pub(super) fn executor<S: SigningKey>(
    issuer: &Issuer<'_, S>,
    key: &PublicKey,
    subject: &Subject,
    now: SystemTime,
    life: Duration,
) -> Result<CertificateDer<'static>, IssueError> {
    let mut params = leaf(ExtendedKeyUsagePurpose::ClientAuth, now, life);
    params.subject_alt_names = vec![SanType::URI(subject.uri().try_into()?)];
    Ok(params.signed_by(&key.info, issuer)?.der().clone())
}

fn leaf(usage: ExtendedKeyUsagePurpose, now: SystemTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params.not_before = OffsetDateTime::from(now - SKEW);
    params.not_after = OffsetDateTime::from(now + life);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_and_addresses() {
        let names = Names::new(["Build.Example", "10.0.0.1", "localhost", "fd00::1"]).expect("names");
        assert_eq!(names.0.len(), 6, "each once: {names:?}");
        for wrong in ["", "a b", "*.example", "-a", "a-", "a..b", "a/b", "http://a", &"a".repeat(64)] {
            assert!(matches!(Names::new([wrong]), Err(IssueError::Name(_))), "{wrong}");
        }
    }
}
