//! An authority as a controller has one, with every date to be chosen.

use std::{ops::Range, time::SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, PublicKeyData as _, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sculpt_tls::{CONTROLLER_NAME, Key, Pin, Proof, Subject};

/// From when until when a certificate is good.
pub(crate) type Validity = Range<SystemTime>;

pub(crate) struct Authority {
    key: Key,
    params: CertificateParams,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn fresh() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = Key::fresh().unwrap();
        let certificate = params.self_signed(key.pair()).unwrap().der().clone();
        Self { key, params, certificate }
    }

    pub(crate) fn pin(&self) -> Pin {
        Pin::of(&self.certificate).unwrap()
    }

    /// What a controller shows.
    pub(crate) fn controller(&self, good: Validity) -> Proof {
        let mut params = leaf(good);
        params.subject_alt_names = vec![SanType::DnsName(CONTROLLER_NAME.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = Key::fresh().unwrap();
        let own = params.signed_by(key.pair(), &self.issuer()).unwrap().der().clone();
        Proof::new(vec![own, self.certificate.clone()], &key)
    }

    /// What an executor shows that has made `request`.
    pub(crate) fn executor(&self, request: &[u8], subject: Subject, good: Validity) -> CertificateDer<'static> {
        let mut params = leaf(good);
        params.subject_alt_names = vec![SanType::URI(subject.uri().try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&requested(request), &self.issuer()).unwrap().der().clone()
    }

    fn issuer(&self) -> Issuer<'_, &rcgen::KeyPair> {
        Issuer::from_params(&self.params, self.key.pair())
    }
}

/// The key that a request is for. The request itself differs each time it is signed.
pub(crate) fn public(request: &[u8]) -> Vec<u8> {
    requested(request).subject_public_key_info()
}

fn requested(request: &[u8]) -> rcgen::PublicKey {
    let request = CertificateSigningRequestDer::from(request);
    CertificateSigningRequestParams::from_der(&request).unwrap().public_key
}

fn leaf(good: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = good.start.into();
    params.not_after = good.end.into();
    params
}
