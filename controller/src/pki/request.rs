//! Requests to certify a key. Of what is asked for, only the key is taken: names and rights are the controller's to give,
//! and whoever asks for some is told so.

use rcgen::SubjectPublicKeyInfo;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519},
    prelude::{FromDer as _, X509Certificate},
    x509::SubjectPublicKeyInfo as ParsedKey,
};

/// Larger than any request for one key.
const LARGEST: usize = 4 << 10;

/// A key whose owner has proved that they have the private half.
#[derive(Debug)]
pub struct PublicKey {
    pub(super) info: SubjectPublicKeyInfo,
    digest: [u8; 32],
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a request, or one with something behind it.
    #[error("it is not a certificate request in DER form of at most 4 KiB")]
    Malformed,
    /// Signed by another key than it names.
    #[error("it is not signed by the key that it asks to be certified")]
    Signature,
    /// It asks for a name.
    #[error("it asks for the name {0:?}; the controller gives names, so ask for none")]
    Name(String),
    /// It asks for extensions: names, usages, the rights of an authority.
    #[error("it asks for the extension {0}; the controller says what a certificate is good for, so ask for none")]
    Extension(String),
    /// A kind of key that is not taken.
    #[error("its key is neither on the curve P-256 nor of Ed25519")]
    Kind,
}

impl PublicKey {
    /// The key that `request`, PKCS #10 in DER form, wants certified.
    pub fn requested(request: &[u8]) -> Result<Self, RequestError> {
        if request.len() > LARGEST {
            return Err(RequestError::Malformed);
        }
        let (rest, parsed) = X509CertificationRequest::from_der(request).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let info = &parsed.certification_request_info;
        if !is_taken(&info.subject_pki) {
            return Err(RequestError::Kind);
        }
        parsed.verify_signature().map_err(|_| RequestError::Signature)?;
        if info.subject.iter().next().is_some() {
            return Err(RequestError::Name(info.subject.to_string()));
        }
        if let Some(extension) = parsed.requested_extensions().and_then(|mut extensions| extensions.next()) {
            return Err(RequestError::Extension(format!("{extension:?}").chars().take(80).collect()));
        }
        Self::of(info.subject_pki.raw)
    }

    /// The key in `certificate`, whose owner has proved in a handshake that they have the private half.
    pub fn certified(certificate: &CertificateDer<'_>) -> Result<Self, RequestError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| RequestError::Malformed)?;
        if !is_taken(parsed.public_key()) {
            return Err(RequestError::Kind);
        }
        Self::of(parsed.public_key().raw)
    }

    fn of(key: &[u8]) -> Result<Self, RequestError> {
        let info = SubjectPublicKeyInfo::from_der(key).map_err(|_| RequestError::Kind)?;
        Ok(Self { info, digest: Sha256::digest(key).into() })
    }

    /// SHA-256 of it, as a certificate's pin has it.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

fn is_taken(key: &ParsedKey<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
    key.algorithm.algorithm == OID_SIG_ED25519
        || (key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
    };
    use sculpt_tls::Key;

    use super::*;

    fn asking(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        params.serialize_request(key).expect("a request").der().to_vec()
    }

    #[test]
    fn a_key_alone_is_taken() {
        let key = Key::fresh().expect("a key");
        let request = key.request().expect("a request");
        let taken = PublicKey::requested(&request).expect("it is taken");
        assert_eq!(taken.digest(), <[u8; 32]>::from(Sha256::digest(key.public())));
        let edwards = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        PublicKey::requested(&asking(&edwards, |_| {})).expect("it is taken");
    }

    #[test]
    fn who_asks_for_more_is_told() {
        let key = KeyPair::generate().expect("a key");
        let named = asking(&key, |params| params.distinguished_name.push(DnType::CommonName, "root"));
        assert_eq!(PublicKey::requested(&named).expect_err("a name"), RequestError::Name("CN=root".to_owned()));
        let wishes: [fn(&mut CertificateParams); 4] = [
            |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            |params| {
                params.subject_alt_names =
                    vec![SanType::DnsName("controller.sculpt.internal".try_into().expect("a name"))]
            },
            |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign],
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        ];
        for wish in wishes {
            let refused = PublicKey::requested(&asking(&key, wish)).expect_err("it asks for more than a key");
            assert!(matches!(refused, RequestError::Extension(_)), "{refused:?}");
        }
    }

    #[test]
    fn rubbish_torn_and_forged_requests_are_refused() {
        let key = Key::fresh().expect("a key");
        let good = key.request().expect("a request").to_vec();
        for cut in 0..good.len() {
            assert!(PublicKey::requested(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            // How a signature is written down can change without a change to what it says.
            let taken = PublicKey::requested(&flipped).map(|key| key.digest());
            assert!(taken.is_err() || taken == Ok(Sha256::digest(key.public()).into()), "flipped at {at}");
        }
        assert_eq!(PublicKey::requested(&[&good[..], &[0]].concat()).expect_err("a tail"), RequestError::Malformed);
        assert_eq!(PublicKey::requested(&vec![0x30; LARGEST + 1]).expect_err("large"), RequestError::Malformed);
        let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        assert_eq!(PublicKey::requested(&asking(&other, |_| {})).expect_err("a kind"), RequestError::Kind);
    }
}
