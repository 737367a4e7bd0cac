//! What the controller grants, checked: each of its values becomes part of a file that tells ssh what to run and whom to
//! believe.

use std::str::FromStr;

use sculpt_proto::{
    FieldError,
    id::{AttemptId, PairingId},
    v1::OpenPairingResponse,
};
use serde::{Deserialize, Serialize};

use super::route::Address;

/// A pairing, as ssh needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// By which it is taken back.
    pub(crate) pairing: PairingId,
    /// For which attempt.
    pub(crate) attempt: AttemptId,
    /// What the person may do.
    pub(crate) rights: Vec<String>,
    /// The name to log in under.
    pub(crate) login: String,
    /// What the host proves to be.
    pub(crate) host: String,
    /// Lines of a known-hosts file.
    pub(crate) known_hosts: Vec<String>,
    /// Where the executor itself listens, if it does.
    pub(crate) address: Option<Address>,
    /// How many seconds its certificate is good.
    pub(crate) lifetime: u64,
}

/// The grant, and the line of its certificate.
pub(super) fn checked(answer: OpenPairingResponse) -> Result<(Grant, String), FieldError> {
    let pairing = answer.pairing.ok_or_else(|| FieldError::new("pairing", "is missing"))?;
    let lifetime = answer.lifetime.ok_or_else(|| FieldError::new("lifetime", "is missing"))?;
    let address = (!answer.address.is_empty()).then(|| answer.address.parse()).transpose();
    let grant = Grant {
        pairing: uuid(&pairing.uuid, "pairing.uuid")?,
        attempt: uuid(&pairing.attempt_id, "pairing.attempt_id")?,
        rights: pairing.rights,
        login: word(&answer.login, "login")?,
        host: word(&answer.host, "host")?,
        known_hosts: answer.known_hosts.iter().map(|text| line(text, "known_hosts")).collect::<Result<_, _>>()?,
        address: address.map_err(|_| FieldError::new("address", "is not HOST:PORT"))?,
        lifetime: sculpt_proto::duration(lifetime, "lifetime")?.as_secs(),
    };
    Ok((grant, line(&answer.certificate, "certificate")?))
}

/// An id, whose spelling is harmless everywhere.
pub(super) fn uuid<Id: FromStr>(text: &str, field: &'static str) -> Result<Id, FieldError> {
    text.parse().map_err(|_| FieldError::new(field, "is not a uuid"))
}

/// One word of letters, digits, dots and dashes.
fn word(text: &str, field: &'static str) -> Result<String, FieldError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let sound = !text.is_empty() && !text.starts_with('-') && text.bytes().all(plain);
    if sound { Ok(text.to_owned()) } else { Err(FieldError::new(field, "is not a plain word")) }
}

/// One line of printable ASCII.
fn line(text: &str, field: &'static str) -> Result<String, FieldError> {
    let text = text.trim_end_matches('\n');
    let sound = !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if sound { Ok(text.to_owned()) } else { Err(FieldError::new(field, "is not one line")) }
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::Pairing;
    use uuid::Uuid;

    use super::*;

    fn answer() -> OpenPairingResponse {
        let pairing = Pairing { uuid: Uuid::nil().into(), attempt_id: Uuid::max().into(), ..Pairing::default() };
        OpenPairingResponse {
            pairing: Some(pairing),
            certificate: "ssh-ed25519-cert-v01@openssh.com AAAA\n".into(),
            login: "attempt-1".into(),
            host: "executor-1".into(),
            known_hosts: vec!["@cert-authority executor-1 ssh-ed25519 AAAA".into()],
            address: "host.example:2222".into(),
            lifetime: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        }
    }

    #[test]
    fn what_is_sound_is_taken() {
        let (grant, certificate) = checked(answer()).unwrap();
        assert_eq!(certificate, "ssh-ed25519-cert-v01@openssh.com AAAA");
        assert_eq!((grant.lifetime, grant.address.unwrap().to_string()), (600, "host.example:2222".to_owned()));
        let tunnelled = checked(OpenPairingResponse { address: String::new(), ..answer() }).unwrap();
        assert_eq!(tunnelled.0.address, None);
    }

    #[test]
    fn nothing_becomes_a_second_line() {
        type Spoil = fn(&mut OpenPairingResponse);
        let spoils: [(&str, Spoil); 10] = [
            ("login", |answer| answer.login = "a\nProxyCommand id".into()),
            ("login", |answer| answer.login = String::new()),
            ("host", |answer| answer.host = "a b".into()),
            ("host", |answer| answer.host = "-oProxyCommand=id".into()),
            ("address", |answer| answer.address = "a\nb:1".into()),
            ("known_hosts", |answer| answer.known_hosts.push("a\n* ssh-ed25519 AAAA".into())),
            ("certificate", |answer| answer.certificate = "a\rb".into()),
            ("lifetime", |answer| answer.lifetime = None),
            ("pairing.uuid", |answer| answer.pairing.get_or_insert_default().uuid = "../..".into()),
            ("pairing", |answer| answer.pairing = None),
        ];
        for (field, spoil) in spoils {
            let mut spoilt = answer();
            spoil(&mut spoilt);
            assert_eq!(checked(spoilt).unwrap_err().field, field);
        }
    }
}
