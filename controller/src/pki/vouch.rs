//! Cross-certificates (RFC 5280; NewWithOld in RFC 4210): one authority says of another that it has taken over. Who believes
//! the first, believes the second.

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyIdMethod,
    KeyUsagePurpose, SigningKey, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{
    asn1_rs::Tag,
    extensions::ParsedExtension,
    prelude::{FromDer as _, X509Certificate},
    x509::X509Name,
};

/// Why an authority cannot vouch for another, in words for who wants one to take over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VouchError {
    /// There is nobody to vouch for.
    #[error("no next authority is prepared; prepare one first")]
    NotPrepared,
    /// What was given from outside may certify the ends of a chain alone.
    #[error("its certificate forbids it (pathLenConstraint 0)")]
    Forbidden,
    /// A name that cannot be repeated byte by byte would be another one.
    #[error("the name of the next one is of a kind that cannot be repeated")]
    Name,
    /// It cannot be read, or the library refuses.
    #[error("no certificate could be made ({0})")]
    Crypto(String),
}

/// A certificate for name and key of `next`, signed by `issuer`, whose certificate is `own`. It is good until either of the
/// two runs out.
pub(super) fn vouch<S: SigningKey>(
    issuer: &Issuer<'_, S>,
    own: &CertificateDer<'_>,
    next: &CertificateDer<'_>,
) -> Result<CertificateDer<'static>, VouchError> {
    let (own, next) = (parsed(own)?, parsed(next)?);
    let constraints = own.basic_constraints().map_err(crypto)?;
    if constraints.is_some_and(|found| found.value.path_len_constraint == Some(0)) {
        return Err(VouchError::Forbidden);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = repeated(next.subject()).ok_or(VouchError::Name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    // By it the certificates that the next one signs name their authority.
    let identifier = next.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
        _ => None,
    });
    if let Some(identifier) = identifier {
        params.key_identifier_method = KeyIdMethod::PreSpecified(identifier);
    }
    let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).map_err(crypto);
    let (own, next_valid) = (own.validity(), next.validity());
    params.not_before = at(own.not_before.timestamp().max(next_valid.not_before.timestamp()))?;
    params.not_after = at(own.not_after.timestamp().min(next_valid.not_after.timestamp()))?;
    let key = SubjectPublicKeyInfo::from_der(next.public_key().raw).map_err(crypto)?;
    let vouched = params.signed_by(&key, issuer).map_err(crypto)?.der().clone();
    if parsed(&vouched)?.subject().as_raw() != next.subject().as_raw() {
        return Err(VouchError::Name);
    }
    Ok(vouched)
}

/// Whether `vouched` says of `present` that it has taken over from `previous`, and still does at `now`.
pub(super) fn is_vouched(
    vouched: &CertificateDer<'_>,
    present: &CertificateDer<'_>,
    previous: &CertificateDer<'_>,
    now: SystemTime,
) -> bool {
    let (Ok(said), Ok(present), Ok(previous)) = (parsed(vouched), parsed(present), parsed(previous)) else {
        return false;
    };
    said.public_key().raw == present.public_key().raw
        && said.subject().as_raw() == present.subject().as_raw()
        && said.issuer().as_raw() == previous.subject().as_raw()
        && said.verify_signature(Some(previous.public_key())).is_ok()
        && sculpt_tls::validity(vouched).is_some_and(|(_, until)| now < until)
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, VouchError> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(crypto)
}

fn crypto(error: impl std::fmt::Display) -> VouchError {
    VouchError::Crypto(error.to_string())
}

/// `name` once more; `None` when it has kinds of text that were rare thirty years ago already.
fn repeated(name: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut repeated = DistinguishedName::new();
    for part in name.iter_attributes() {
        let kind = DnType::CustomDnType(part.attr_type().iter()?.collect());
        let text = part.as_str().ok()?.to_owned();
        let value = match part.attr_value().header.tag() {
            Tag::Utf8String => DnValue::Utf8String(text),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().ok()?),
            _ => return None,
        };
        repeated.push(kind, value);
    }
    Some(repeated)
}

#[cfg(test)]
mod tests {
    use sculpt_tls::Key;

    use super::*;

    struct Made {
        issuer: Issuer<'static, rcgen::KeyPair>,
        certificate: CertificateDer<'static>,
    }

    fn authority(change: impl FnOnce(&mut CertificateParams)) -> Made {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = Key::fresh().expect("a key");
        let certificate = params.self_signed(key.pair()).expect("a certificate").der().clone();
        let issuer = Issuer::from_ca_cert_der(&certificate, key.into_pair()).expect("an issuer");
        Made { issuer, certificate }
    }

    fn constrained(constraints: BasicConstraints) -> Made {
        authority(|params| params.is_ca = IsCa::Ca(constraints))
    }

    #[test]
    fn one_vouches_for_another_where_its_certificate_allows_it() {
        let next = authority(|params| params.distinguished_name.push(DnType::CommonName, "next"));
        for (constraints, allowed) in [
            (BasicConstraints::Unconstrained, true),
            (BasicConstraints::Constrained(2), true),
            (BasicConstraints::Constrained(1), true),
            (BasicConstraints::Constrained(0), false),
        ] {
            let own = constrained(constraints);
            let said = vouch(&own.issuer, &own.certificate, &next.certificate);
            assert_eq!(said.is_ok(), allowed, "{constraints:?}");
            assert!(said.is_ok() || said == Err(VouchError::Forbidden), "{said:?}");
        }
    }

    #[test]
    fn names_are_repeated_byte_by_byte_or_not_at_all() {
        let own = constrained(BasicConstraints::Unconstrained);
        let name = |values: Vec<(DnType, DnValue)>| {
            authority(|params| values.into_iter().for_each(|(kind, value)| params.distinguished_name.push(kind, value)))
        };
        let printable = DnValue::PrintableString("ACME".try_into().expect("it is printable"));
        let old = DnValue::TeletexString("ACME".try_into().expect("it is of T.61"));
        for (values, repeatable) in [
            (vec![], true),
            (vec![(DnType::CommonName, "sculpt sha256:3q2-7wAA".into())], true),
            (vec![(DnType::CountryName, printable), (DnType::OrganizationName, "Ünder".into())], true),
            (vec![(DnType::OrganizationName, old)], false),
        ] {
            let said = vouch(&own.issuer, &own.certificate, &name(values.clone()).certificate);
            assert_eq!(said.as_ref().err(), (!repeatable).then_some(&VouchError::Name), "{values:?}");
        }
    }

    #[test]
    fn what_is_said_holds_for_these_two_and_until_one_of_them_runs_out() {
        let year = |year| rcgen::date_time_ymd(year, 1, 1);
        let lives = |from, until| {
            authority(|params| {
                (params.not_before, params.not_after) = (year(from), year(until));
                params.distinguished_name.push(DnType::CommonName, format!("from {from}"));
            })
        };
        let (previous, present, other) = (lives(2001, 2030), lives(2002, 2040), lives(2003, 2050));
        let said = vouch(&previous.issuer, &previous.certificate, &present.certificate).expect("it may");
        let at = |date| SystemTime::from(year(date));
        assert_eq!(sculpt_tls::validity(&said), Some((at(2002), at(2030))));
        for (certificate, present, previous, now, holds) in [
            (&said, &present, &previous, at(2026), true),
            (&said, &present, &previous, at(2031), false),
            (&said, &other, &previous, at(2026), false),
            (&said, &present, &other, at(2026), false),
            (&present.certificate, &present, &previous, at(2026), false),
        ] {
            assert_eq!(is_vouched(certificate, &present.certificate, &previous.certificate, now), holds);
        }
    }
}
