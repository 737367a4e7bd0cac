//! What the listeners show of the authority and of a public certificate, made anew when a file changes and before a
//! certificate runs out. Connections that stand are not touched.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;
use sculpt_tls::{Callers, Identity, ServerError, server_config};
use tokio::{sync::watch, time::interval};
use tokio_util::sync::CancellationToken;

use super::{
    Authority, AuthorityError, Lifetime,
    issue::LEAF_LIFE,
    public::{self, Reminder},
};
use crate::config::TlsSettings;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Settings of one listener, and the newest of them.
pub type Shown = watch::Receiver<Arc<ServerConfig>>;

/// What stands behind both listeners. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pki {
    /// For people and tools.
    pub people: Shown,
    /// For executors.
    pub executors: Shown,
    /// The authority as it is.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// The public certificate that people see, if there is one.
    pub public: watch::Receiver<Option<Arc<Lifetime>>>,
}

/// Keeps [`Pki`] as the files have it.
#[derive(Debug)]
pub struct Keeper {
    settings: TlsSettings,
    people: watch::Sender<Arc<ServerConfig>>,
    executors: watch::Sender<Arc<ServerConfig>>,
    authority: watch::Sender<Arc<Authority>>,
    public: watch::Sender<Option<Arc<Lifetime>>>,
    reminder: Reminder,
    /// What the files were when they were read last, and when they could not be.
    seen: Vec<Option<Stamp>>,
    unusable: Option<Vec<Option<Stamp>>>,
    issued: SystemTime,
}

/// By which a changed file is known.
type Stamp = (SystemTime, u64);

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShownError {
    /// Our own authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The public certificate.
    #[error("the public certificate in {}: {source}", path.display())]
    Public {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// What stands in a file as a certificate and is none.
    #[error("certificate {at} in {} cannot be read; put there again what your authority has given", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        at: usize,
    },
    /// A file without what it should hold.
    #[error("{} holds no certificate in PEM form", .0.display())]
    Empty(PathBuf),
    /// Certificates, keys or callers.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl Keeper {
    /// Reads the files, and makes what is missing of the authority.
    pub fn open(settings: TlsSettings) -> Result<(Self, Pki), ShownError> {
        let now = SystemTime::now();
        // That it is made is no change of it.
        Authority::open(&settings.authority)?;
        let seen = stamps(&settings);
        let authority = Authority::open(&settings.authority)?;
        let Listeners { people, executors, public } = shown(&authority, &settings, now)?;
        let (people, people_shown) = watch::channel(people);
        let (executors, executors_shown) = watch::channel(executors);
        let (authority, current) = watch::channel(Arc::new(authority));
        let (public, public_now) = watch::channel(public);
        let pki = Pki { people: people_shown, executors: executors_shown, authority: current, public: public_now };
        let (reminder, unusable, issued) = (Reminder::default(), None, now);
        Ok((Self { settings, people, executors, authority, public, reminder, seen, unusable, issued }, pki))
    }

    /// Follows the files until `stop`. What cannot be used is said, and what was shown before stands.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {
                    let now = SystemTime::now();
                    self.look(now);
                    self.remind(now);
                }
            }
        }
    }

    fn remind(&mut self, now: SystemTime) {
        if let Some(worry) = self.reminder.due(self.public.borrow().as_deref(), now) {
            tracing::warn!(remedy = worry.remedy, "{worry}");
        }
    }

    fn look(&mut self, now: SystemTime) {
        let stamps = stamps(&self.settings);
        let age = now.duration_since(self.issued);
        // A clock that was set back makes nothing older; a certificate from the future is made anew.
        if stamps == self.seen && age.is_ok_and(|age| age < LEAF_LIFE * 2 / 3) {
            return;
        }
        let opened = Authority::open(&self.settings.authority).map_err(ShownError::from);
        match opened.and_then(|authority| Ok((shown(&authority, &self.settings, now)?, authority))) {
            Ok((Listeners { people, executors, public }, authority)) => {
                if stamps != self.seen {
                    tracing::info!(trust = ?authority.trust(), phase = ?authority.phase(), "certificates were read anew");
                }
                self.people.send_replace(people);
                self.executors.send_replace(executors);
                self.authority.send_replace(Arc::new(authority));
                self.public.send_replace(public);
                (self.seen, self.unusable, self.issued) = (stamps, None, now);
            }
            // It is tried again with every look, and said once.
            Err(_) if self.unusable.as_ref() == Some(&stamps) => {}
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "certificates cannot be read anew; those before stand"
                );
                self.unusable = Some(stamps);
            }
        }
    }
}

/// What there is to show.
struct Listeners {
    people: Arc<ServerConfig>,
    executors: Arc<ServerConfig>,
    public: Option<Arc<Lifetime>>,
}

fn shown(authority: &Authority, settings: &TlsSettings, now: SystemTime) -> Result<Listeners, ShownError> {
    let own = || authority.controller(&settings.names, now);
    let (proof, public) = settings.public.as_ref().map(public::read).transpose()?.unzip();
    let people = server_config(Identity::new(own()?, proof)?, &Callers::Anyone)?;
    let executors = Callers::Executors(authority.trust().clone());
    let executors = server_config(Identity::new(own()?, None)?, &executors)?;
    Ok(Listeners { people: Arc::new(people), executors: Arc::new(executors), public: public.map(Arc::new) })
}

fn stamps(settings: &TlsSettings) -> Vec<Option<Stamp>> {
    let public = settings.public.iter().flat_map(|files| [files.certificates.clone(), files.key.clone()]);
    let stamp = |path: PathBuf| {
        let data = fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    };
    Authority::files(&settings.authority).into_iter().chain(public).map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::{config::PublicFiles, pki::Names};

    /// A pair whose files are of another length than those of another number.
    fn pair(number: usize) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(["a.example".to_owned()]).and_then(|asked| asked.self_signed(&key));
        let line = "\n".repeat(number);
        (format!("{}{line}", certificate.expect("a certificate").pem()), format!("{}{line}", key.serialize_pem()))
    }

    #[test]
    fn a_public_certificate_is_read_again_and_one_that_does_not_fit_changes_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = PublicFiles { certificates: directory.path().join("crt"), key: directory.path().join("key") };
        let put = |path: &Path, text: &str| fs::write(path, text).expect("it is written");
        let (certificate, key) = pair(0);
        put(&files.certificates, &certificate);
        put(&files.key, &key);
        let settings = TlsSettings {
            names: Names::new(["a.example"]).expect("names"),
            public: Some(files.clone()),
            authority: directory.path().join("authority"),
        };
        let (mut keeper, pki) = Keeper::open(settings).expect("they fit");
        let now = SystemTime::now();
        let mut shown = pki.people.borrow().clone();
        let mut changed = |keeper: &mut Keeper| {
            keeper.look(now);
            let before = std::mem::replace(&mut shown, pki.people.borrow().clone());
            !Arc::ptr_eq(&before, &shown)
        };
        assert!(!changed(&mut keeper), "nothing has changed");

        let (certificate, key) = pair(1);
        put(&files.certificates, &certificate);
        assert!(!changed(&mut keeper), "the key is that of another");
        assert!(!changed(&mut keeper), "and still is");
        put(&files.key, &key);
        assert!(changed(&mut keeper), "now they fit");
        put(&files.key, "hello");
        assert!(!changed(&mut keeper), "that is no key");
        fs::remove_file(&files.key).expect("it goes");
        assert!(!changed(&mut keeper), "there is none");
        let (certificate, key) = pair(2);
        put(&files.key, &key);
        put(&files.certificates, &certificate);
        assert!(changed(&mut keeper));
        Authority::prepare(&keeper.settings.authority).expect("it is prepared");
        assert!(changed(&mut keeper), "whom to trust has changed");
        assert_eq!(pki.authority.borrow().trust().pins().len(), 2);
        assert!(!changed(&mut keeper));
    }

    #[test]
    fn what_is_shown_is_made_anew_before_it_runs_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let settings =
            TlsSettings { names: Names::new([]).expect("names"), public: None, authority: directory.path().to_owned() };
        let (mut keeper, pki) = Keeper::open(settings).expect("it is made");
        let (before, issued) = (pki.executors.borrow().clone(), keeper.issued);
        keeper.look(issued + LEAF_LIFE / 2);
        assert!(Arc::ptr_eq(&before, &pki.executors.borrow()));
        keeper.look(issued + LEAF_LIFE * 3 / 4);
        assert!(!Arc::ptr_eq(&before, &pki.executors.borrow()));
    }
}
