//! What a failed handshake means to a person.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use crate::verify::Stranger;

/// What stands between two who do not come to trust each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matter {
    /// Somebody else answers than the one who is to be believed.
    Authority,
    /// A certificate is out of its time, or a clock is wrong.
    Clock,
    /// What answers is no controller.
    Address,
    /// What we show is not taken.
    Own,
}

/// Why a connection did not come about, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is about.
    pub matter: Matter,
    /// In words that need no knowledge of TLS.
    pub why: String,
    /// What mends it.
    pub next: &'static str,
}

impl Problem {
    fn new(matter: Matter, why: impl Into<String>) -> Self {
        let next = match matter {
            Matter::Authority => OTHER_AUTHORITY,
            Matter::Clock => CLOCK,
            Matter::Address => ADDRESS,
            Matter::Own => OWN,
        };
        Self { matter, why: why.into(), next }
    }
}

/// Finds TLS among the causes of `error`; `None` when something else failed.
pub fn explain(error: &(dyn Error + 'static)) -> Option<Problem> {
    causes(error).find_map(|cause| cause.downcast_ref()).map(problem)
}

/// `error`, what it came from, and so on to the first cause.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        // An I/O error hides the error that it was made of from `source`, and gives the one behind it.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

const OTHER_AUTHORITY: &str = "see that the address is the right one. If it is, another authority has taken over there and \
                               the one before was retired, or the controller was set up anew: ask its administrator for \
                               a new token (`sculpt-controller authority show` on its host says who certifies)";
const CLOCK: &str =
    "see that the clocks of both machines are right; else the controller's certificate has to be renewed";
const ADDRESS: &str = "see that host and port are those of the controller's TLS listener";
const OWN: &str = "see with the administrator whether this executor was removed or locked, or whether it belongs to \
                   another controller; a new join token enrols it again";

fn problem(error: &rustls::Error) -> Problem {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Problem::new(Matter::Address, "what answers there does not speak TLS")
        }
        rustls::Error::AlertReceived(alert) => alerted(*alert),
        rustls::Error::PeerIncompatible(what) => {
            Problem::new(Matter::Address, format!("what answers there does not speak TLS 1.3 ({what:?})"))
        }
        other => Problem::new(Matter::Address, format!("no TLS connection came about: {other}")),
    }
}

fn certificate(error: &CertificateError) -> Problem {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Problem::new(Matter::Authority, "what answers there is certified by an authority that is not trusted here")
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<Stranger>() {
            Some(stranger) => Problem::new(Matter::Authority, unknown(stranger)),
            None => Problem::new(Matter::Authority, format!("its certificate was refused: {other}")),
        },
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Problem::new(Matter::Clock, "its certificate has run out, as this machine's clock has it")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Problem::new(Matter::Clock, "its certificate is not valid yet, as this machine's clock has it")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Problem::new(Matter::Address, "its certificate is for another name")
        }
        other => Problem::new(Matter::Authority, format!("its certificate was refused: {other}")),
    }
}

fn unknown(stranger: &Stranger) -> String {
    let who = if stranger.pinned {
        "what answers there is not the controller of the token"
    } else {
        "what answers there is certified by an authority that is not trusted here"
    };
    format!("{who}: {stranger}")
}

fn alerted(alert: AlertDescription) -> Problem {
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied => Problem::new(
            Matter::Own,
            format!("the controller does not take the certificate of this machine ({alert:?})"),
        ),
        AlertDescription::ProtocolVersion => Problem::new(Matter::Address, "what answers there does not speak TLS 1.3"),
        other => Problem::new(Matter::Address, format!("the other side broke the handshake off ({other:?})")),
    }
}
