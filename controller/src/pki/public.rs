//! The public certificate: what the web's authorities have given for a name, and until when it is good.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use humantime::format_rfc3339_seconds;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use sculpt_tls::{Proof, validity};

use super::ShownError;
use crate::config::PublicFiles;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long before the end it is said that it comes; of certificates that are meant to be short-lived, in their last third.
const EARLY: Duration = Duration::from_secs(21 * 24 * 3_600);

/// From when until when all the certificates in a file are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    path: PathBuf,
    from: SystemTime,
    until: SystemTime,
}

/// What there is to worry about in a [`Lifetime`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worry {
    /// Who connects is refused already.
    pub refused: bool,
    text: String,
    /// What mends it.
    pub remedy: &'static str,
}

impl fmt::Display for Worry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is good until {}", self.path.display(), format_rfc3339_seconds(self.until))
    }
}

impl Lifetime {
    fn of(path: &Path, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let each = chain.iter().filter_map(validity);
        let (from, until) = each.reduce(|all, one| (all.0.max(one.0), all.1.min(one.1)))?;
        Some(Self { path: path.to_owned(), from, until })
    }

    /// What there is to worry about at `now`.
    pub fn worry(&self, now: SystemTime) -> Option<Worry> {
        const RENEW: &str = "Renew it; the files are read again when they change.";
        let (path, from, until) =
            (self.path.display(), format_rfc3339_seconds(self.from), format_rfc3339_seconds(self.until));
        let early = EARLY.min(self.until.duration_since(self.from).unwrap_or_default() / 3);
        let (refused, text, remedy) = match self.until.duration_since(now) {
            _ if now < self.from => (
                true,
                format!("the public certificate in {path} is not good before {from}"),
                "See that this machine's clock is right, or put the certificate before it back until then.",
            ),
            Err(_) => (true, format!("the public certificate in {path} ran out at {until}"), RENEW),
            Ok(left) if left <= early => {
                let days = left.as_secs() / DAY.as_secs();
                (false, format!("the public certificate in {path} runs out in {days} days, at {until}"), RENEW)
            }
            Ok(_) => return None,
        };
        Some(Worry { refused, text, remedy })
    }
}

/// Says once a day what there is to worry about, and at once when the certificate is another one.
#[derive(Debug, Default)]
pub(super) struct Reminder {
    said: Option<(SystemTime, Lifetime)>,
}

impl Reminder {
    /// What to say at `now`.
    pub(super) fn due(&mut self, lifetime: Option<&Lifetime>, now: SystemTime) -> Option<Worry> {
        let lifetime = lifetime?;
        if let Some((at, of)) = &self.said
            && of == lifetime
            && now.duration_since(*at).is_ok_and(|since| since < DAY)
        {
            return None;
        }
        self.said = Some((now, lifetime.clone()));
        lifetime.worry(now)
    }
}

/// The certificate and its key in `files`.
pub(super) fn read(files: &PublicFiles) -> Result<(Proof, Lifetime), ShownError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ShownError::Public { path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.certificates)
        .and_then(Iterator::collect)
        .map_err(failed(&files.certificates))?;
    let lifetime =
        Lifetime::of(&files.certificates, &chain).ok_or_else(|| ShownError::Empty(files.certificates.clone()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(&files.key))?;
    Ok((Proof { chain, key }, lifetime))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * u32::try_from(days).expect("not that many")
    }

    fn lifetime(from: u64, until: u64) -> Lifetime {
        Lifetime { path: "public.crt".into(), from: days(from), until: days(until) }
    }

    #[test]
    fn worries_begin_three_weeks_before_the_end_or_in_its_last_third() {
        for (from, until, now, said) in [
            (100, 190, 99, Some((true, "is not good before"))),
            (100, 190, 100, None),
            (100, 190, 168, None),
            (100, 190, 169, Some((false, "runs out in 21 days"))),
            (100, 190, 189, Some((false, "runs out in 1 days"))),
            (100, 190, 190, Some((false, "runs out in 0 days"))),
            (100, 190, 191, Some((true, "ran out at"))),
            // Some are renewed every few days.
            (100, 106, 103, None),
            (100, 106, 104, Some((false, "runs out in 2 days"))),
        ] {
            let worry = lifetime(from, until).worry(days(now));
            assert_eq!(worry.as_ref().map(|worry| worry.refused), said.map(|(refused, _)| refused), "{now}: {worry:?}");
            let text = worry.map(|worry| worry.to_string()).unwrap_or_default();
            assert!(said.is_none_or(|(_, words)| text.contains(words) && text.contains("public.crt")), "{now}: {text}");
        }
    }

    #[test]
    fn a_chain_is_good_while_all_of_it_is() {
        let certificate = |from, until| {
            let mut params = rcgen::CertificateParams::default();
            (params.not_before, params.not_after) = (days(from).into(), days(until).into());
            let key = rcgen::KeyPair::generate().expect("a key");
            params.self_signed(&key).expect("a certificate").der().clone()
        };
        let found = Lifetime::of(Path::new("public.crt"), &[certificate(100, 190), certificate(50, 180)]);
        assert_eq!(found, Some(lifetime(100, 180)));
        assert_eq!(Lifetime::of(Path::new("public.crt"), &[]), None);
    }

    #[test]
    fn a_worry_is_said_once_a_day_and_of_another_certificate_at_once() {
        let mut reminder = Reminder::default();
        let (ending, renewed, early) = (lifetime(0, 90), lifetime(60, 150), lifetime(90, 180));
        let hour = DAY / 24;
        for (of, now, said) in [
            (None, days(80), false),
            (Some(&ending), days(80), true),
            (Some(&ending), days(80) + hour, false),
            (Some(&ending), days(81), true),
            (Some(&renewed), days(81) + hour, false),
            (Some(&early), days(81) + hour, true),
            (Some(&early), days(81) + hour * 2, false),
            // A clock that was set back hides nothing.
            (Some(&early), days(80), true),
        ] {
            assert_eq!(reminder.due(of, now).is_some(), said, "{of:?} {now:?}");
        }
    }
}
