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

/// From when until when the certificates in a file are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    path: PathBuf,
    /// That of the name.
    own: Span,
    /// Those behind it, all at once. Not every client needs each of them: some know a root that others know by another alone.
    behind: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
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
        write!(f, "{} is good until {}", self.path.display(), format_rfc3339_seconds(self.own.until))
    }
}

impl Span {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        validity(certificate).map(|(from, until)| Self { from, until })
    }

    /// When both are good.
    fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    /// What there is to worry about at `now` for what `what` names.
    fn worry(&self, what: &str, now: SystemTime) -> Option<Worry> {
        const RENEW: &str = "Renew it; the files are read again when they change.";
        let (from, until) = (format_rfc3339_seconds(self.from), format_rfc3339_seconds(self.until));
        let early = EARLY.min(self.until.duration_since(self.from).unwrap_or_default() / 3);
        let (refused, text, remedy) = match self.until.duration_since(now) {
            _ if now < self.from => (
                true,
                format!("{what} is not good before {from}"),
                "See that this machine's clock is right, or put the certificate before it back until then.",
            ),
            Err(_) => (true, format!("{what} ran out at {until}"), RENEW),
            Ok(left) if left <= early => {
                let days = left.as_secs() / DAY.as_secs();
                let unit = if days == 1 { "day" } else { "days" };
                (false, format!("{what} runs out in {days} {unit}, at {until}"), RENEW)
            }
            Ok(_) => return None,
        };
        Some(Worry { refused, text, remedy })
    }
}

impl Lifetime {
    fn of(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Self, ShownError> {
        let mut spans = Vec::with_capacity(chain.len());
        for (at, certificate) in (1..).zip(chain) {
            let span = Span::of(certificate).ok_or_else(|| ShownError::Unreadable { path: path.to_owned(), at })?;
            spans.push(span);
        }
        let mut spans = spans.into_iter();
        let own = spans.next().ok_or_else(|| ShownError::Empty(path.to_owned()))?;
        Ok(Self { path: path.to_owned(), own, behind: spans.reduce(Span::and) })
    }

    /// What there is to worry about at `now`.
    pub fn worry(&self, now: SystemTime) -> Option<Worry> {
        let path = self.path.display();
        let own = self.own.worry(&format!("the public certificate in {path}"), now);
        own.or_else(|| {
            let worry = self.behind?.worry(&format!("a certificate behind the public one in {path}"), now)?;
            let remedy =
                "Put the certificates there that come with it now; clients that need this one connect no more then.";
            Some(Worry { refused: false, remedy, ..worry })
        })
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
    let lifetime = Lifetime::of(&files.certificates, &chain)?;
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
        Lifetime { path: "public.crt".into(), own: span(from, until), behind: None }
    }

    fn span(from: u64, until: u64) -> Span {
        Span { from: days(from), until: days(until) }
    }

    #[test]
    fn worries_begin_three_weeks_before_the_end_or_in_its_last_third() {
        for (from, until, now, said) in [
            (100, 190, 99, Some((true, "is not good before"))),
            (100, 190, 100, None),
            (100, 190, 168, None),
            (100, 190, 169, Some((false, "runs out in 21 days"))),
            (100, 190, 189, Some((false, "runs out in 1 day,"))),
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
    fn the_certificate_of_the_name_decides_and_those_behind_it_are_warned_of() {
        let certificate = |(from, until)| {
            let mut params = rcgen::CertificateParams::default();
            (params.not_before, params.not_after) = (days(from).into(), days(until).into());
            let key = rcgen::KeyPair::generate().expect("a key");
            params.self_signed(&key).expect("a certificate").der().clone()
        };
        for (chain, refused, words) in [
            (&[(100, 190)][..], None, ""),
            (&[(100, 190), (50, 500)], None, ""),
            (&[(100, 190), (50, 500), (1, 120)], Some(false), "behind the public one in public.crt ran out"),
            (&[(100, 190), (50, 151), (1, 500)], Some(false), "behind the public one in public.crt runs out in 1 day,"),
            (&[(100, 190), (160, 500)], Some(false), "behind the public one in public.crt is not good before"),
            (&[(100, 149), (1, 120)], Some(true), "the public certificate in public.crt ran out"),
        ] {
            let chain: Vec<_> = chain.iter().copied().map(certificate).collect();
            let worry = Lifetime::of(Path::new("public.crt"), &chain).expect("it is read").worry(days(150));
            assert_eq!(worry.as_ref().map(|worry| worry.refused), refused, "{worry:?}");
            assert!(worry.is_none_or(|worry| worry.to_string().contains(words)), "{words}");
        }
    }

    #[test]
    fn a_file_with_what_cannot_be_read_is_refused() {
        let path = Path::new("public.crt");
        let junk = CertificateDer::from(b"no certificate".to_vec());
        let key = rcgen::KeyPair::generate().expect("a key");
        let good = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate").der().clone();
        for (chain, at) in [(vec![junk.clone()], 1), (vec![good, junk], 2)] {
            let error = Lifetime::of(path, &chain).expect_err("what would it say?").to_string();
            assert!(error.contains("public.crt") && error.contains(&format!("certificate {at}")), "{error}");
        }
        assert!(matches!(Lifetime::of(path, &[]), Err(ShownError::Empty(_))));
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
