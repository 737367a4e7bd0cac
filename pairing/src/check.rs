//! What of a certificate is believed.

use sculpt_proto::id::{AttemptId, PairingId};
use ssh_key::{Certificate, HashAlg, public::KeyData};

use super::{
    pass::{PAIRING, Pass, RIGHTS, Window, login},
    rights::{Rights, UnknownRight},
};

/// What stands before an attempt's id in the name to log in under.
const LOGIN: &str = "attempt-";

/// Why a certificate lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It certifies a host.
    #[error("the certificate is a host's, not a person's")]
    Kind,
    /// Another authority signed it, or it is altered.
    #[error("the certificate is not signed by this controller's authority for people")]
    Authority,
    /// Its time has not come, by this clock.
    #[error("the certificate begins in {seconds} s, by this host's clock; is it right?")]
    Early {
        /// Until then.
        seconds: u64,
    },
    /// Its time is over, by this clock.
    #[error("the certificate ended {seconds} s ago; ask for a new one")]
    Late {
        /// Since then.
        seconds: u64,
    },
    /// It is for somebody or something else.
    #[error("the certificate is for {principals:?}, not for {login:?}")]
    Principal {
        /// For which names it is.
        principals: Vec<String>,
        /// The name that was given.
        login: String,
    },
    /// The name to log in under is of no attempt.
    #[error("{0:?} names no attempt; log in as `attempt-<uuid>`")]
    Login(String),
    /// It demands what this server does not know, or says what it does not take.
    #[error("the certificate says {0:?}, which is not known here")]
    Unknown(String),
    /// It does not say what every pass says.
    #[error("the certificate does not say {0}")]
    Missing(&'static str),
    /// It says it in a way that cannot be read.
    #[error("the certificate says {value:?} of {option}")]
    Unreadable {
        /// Of what.
        option: &'static str,
        /// What it says.
        value: String,
    },
}

/// What `certificate` lets somebody do who has proved its key and logs in as `login`, at `now` (seconds since 1970). Who
/// calls has to look whether the pairing still stands.
pub fn check(certificate: &Certificate, authorities: &[KeyData], login: &str, now: u64) -> Result<Pass, Refusal> {
    if !certificate.cert_type().is_user() {
        return Err(Refusal::Kind);
    }
    signed(certificate, authorities)?;
    in_time(Window { since: certificate.valid_after(), until: certificate.valid_before() }, now)?;
    let attempt = attempt(certificate.valid_principals(), login)?;
    if let Some(name) = certificate.extensions().keys().next() {
        return Err(Refusal::Unknown(name.clone()));
    }
    let options = certificate.critical_options();
    if let Some(name) = options.keys().find(|name| ![PAIRING, RIGHTS].contains(&name.as_str())) {
        return Err(Refusal::Unknown(name.clone()));
    }
    let said = |option: &'static str| options.get(option).map(String::as_str).ok_or(Refusal::Missing(option));
    let (pairing, rights) = (said(PAIRING)?, said(RIGHTS)?);
    let unreadable = |option, value: &str| Refusal::Unreadable { option, value: value.to_owned() };
    let pairing: PairingId = pairing.parse().map_err(|_| unreadable(PAIRING, pairing))?;
    let rights: Rights = rights.parse().map_err(|_: UnknownRight| unreadable(RIGHTS, rights))?;
    if certificate.key_id().is_empty() {
        return Err(Refusal::Missing("whose it is"));
    }
    Ok(Pass { pairing, attempt, user: certificate.key_id().to_owned(), rights })
}

fn signed(certificate: &Certificate, authorities: &[KeyData]) -> Result<(), Refusal> {
    let print = certificate.signature_key().fingerprint(HashAlg::Sha256);
    let known = authorities.iter().any(|authority| authority.fingerprint(HashAlg::Sha256) == print);
    if known && certificate.verify_signature().is_ok() { Ok(()) } else { Err(Refusal::Authority) }
}

fn in_time(window: Window, now: u64) -> Result<(), Refusal> {
    if now < window.since {
        return Err(Refusal::Early { seconds: window.since - now });
    }
    // Of a window that ends before it begins, every second is after its end.
    if now >= window.until {
        return Err(Refusal::Late { seconds: now - window.until });
    }
    Ok(())
}

/// The attempt for which it is: the one principal, and the name that was given. None at all would be good for every name.
fn attempt(principals: &[String], name: &str) -> Result<AttemptId, Refusal> {
    let Some(attempt) = name.strip_prefix(LOGIN).and_then(|uuid| uuid.parse::<AttemptId>().ok()) else {
        return Err(Refusal::Login(name.to_owned()));
    };
    // In one spelling only.
    if name != login(attempt) || principals != [name] {
        return Err(Refusal::Principal { principals: principals.to_vec(), login: name.to_owned() });
    }
    Ok(attempt)
}
