//! What a certificate says about the executor that holds it.

use std::str::FromStr as _;

use rustls::pki_types::CertificateDer;
use sculpt_proto::id::{ClusterId, ExecutorId};
use url::Url;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// An executor as its certificate names it: one URI in the alternative names, like
/// `sculpt://<cluster>/executors/<executor>/<generation>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Whose executor it is.
    pub cluster: ClusterId,
    /// Which one.
    pub executor: ExecutorId,
    /// How many certificates it had, counted from 1. Of two copies of a key only one can have the newest.
    pub generation: u64,
}

/// Why a certificate names no executor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Not an X.509 certificate.
    #[error("it is not a certificate")]
    Certificate,
    /// It has no name, another kind of name, or several.
    #[error("it does not name exactly one executor")]
    Names,
    /// The one name is not that of an executor.
    #[error("{0:?} does not name an executor")]
    Name(String),
}

const SCHEME: &str = "sculpt";
const COLLECTION: &str = "executors";

impl Subject {
    /// The name to be certified.
    pub fn uri(&self) -> String {
        format!("{SCHEME}://{}/{COLLECTION}/{}/{}", self.cluster, self.executor, self.generation)
    }

    /// Whom `certificate` names. Says nothing about who signed it.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, SubjectError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| SubjectError::Certificate)?;
        let names = parsed.subject_alternative_name().map_err(|_| SubjectError::Names)?;
        match names.map(|names| names.value.general_names.as_slice()) {
            Some([GeneralName::URI(uri)]) => Self::parse(uri).ok_or_else(|| SubjectError::Name((*uri).to_owned())),
            _ => Err(SubjectError::Names),
        }
    }

    fn parse(uri: &str) -> Option<Self> {
        let url = Url::parse(uri).ok()?;
        let [collection, executor, generation] = url.path_segments()?.collect::<Vec<_>>().try_into().ok()?;
        let subject = Self {
            cluster: ClusterId::from_str(url.host_str()?).ok()?,
            executor: ExecutorId::from_str(executor).ok()?,
            generation: generation.parse().ok()?,
        };
        // One way to write it: no user, port, query or fragment, no other spelling of a number.
        (collection == COLLECTION && subject.uri() == uri).then_some(subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_and_nothing_else_passes() {
        let subject = Subject { cluster: ClusterId::fresh(), executor: ExecutorId::fresh(), generation: 7 };
        let uri = subject.uri();
        assert_eq!(Subject::parse(&uri), Some(subject));
        for wrong in [
            uri.replace("sculpt:", "https:"),
            uri.replace("executors", "users"),
            uri.replace("/7", "/07"),
            uri.replace("/7", "/-7"),
            uri.replace("/7", ""),
            format!("{uri}/8"),
            format!("{uri}?x"),
            uri.replace("//", "//me@"),
            uri.to_uppercase(),
            String::new(),
        ] {
            assert_eq!(Subject::parse(&wrong), None, "{wrong}");
        }
    }
}
