//! What a failed handshake means to a person.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use crate::client::NotPinned;

/// Why a connection did not come about, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In words that need no knowledge of TLS.
    pub why: String,
    /// What mends it.
    pub next: &'static str,
}

impl Problem {
    fn new(why: impl Into<String>, next: &'static str) -> Self {
        Self { why: why.into(), next }
    }
}

/// Finds TLS among the causes of `error`; `None` when something else failed.
pub fn explain(error: &(dyn Error + 'static)) -> Option<Problem> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(problem(tls));
        }
        // An I/O error hides the error that it was made of from `source`, and gives the one behind it.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

const OTHER_AUTHORITY: &str = "see that the address is the right one; if the controller was set up anew, ask its \
                               administrator for a new token";
const CLOCK: &str =
    "see that the clocks of both machines are right; else the controller's certificate has to be renewed";
const ADDRESS: &str = "see that host and port are those of the controller's TLS listener";
const OWN: &str = "see with the administrator whether this executor was removed or locked, or whether it belongs to \
                   another controller; a new join token enrols it again";

fn problem(error: &rustls::Error) -> Problem {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Problem::new("what answers there does not speak TLS", ADDRESS)
        }
        rustls::Error::AlertReceived(alert) => alerted(*alert),
        rustls::Error::PeerIncompatible(what) => {
            Problem::new(format!("what answers there does not speak TLS 1.3 ({what:?})"), ADDRESS)
        }
        other => Problem::new(format!("no TLS connection came about: {other}"), ADDRESS),
    }
}

fn certificate(error: &CertificateError) -> Problem {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Problem::new("what answers there is certified by an authority that is not trusted here", OTHER_AUTHORITY)
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<NotPinned>() {
            Some(not) => {
                Problem::new(format!("what answers there is not the controller of the token: {not}"), OTHER_AUTHORITY)
            }
            None => Problem::new(format!("its certificate was refused: {other}"), OTHER_AUTHORITY),
        },
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Problem::new("its certificate has run out, as this machine's clock has it", CLOCK)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Problem::new("its certificate is not valid yet, as this machine's clock has it", CLOCK)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Problem::new("its certificate is for another name", ADDRESS)
        }
        other => Problem::new(format!("its certificate was refused: {other}"), OTHER_AUTHORITY),
    }
}

fn alerted(alert: AlertDescription) -> Problem {
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied => {
            Problem::new(format!("the controller does not take the certificate of this machine ({alert:?})"), OWN)
        }
        AlertDescription::ProtocolVersion => Problem::new("what answers there does not speak TLS 1.3", ADDRESS),
        other => Problem::new(format!("the other side broke the handshake off ({other:?})"), ADDRESS),
    }
}
