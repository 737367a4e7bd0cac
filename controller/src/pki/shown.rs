//! What the listeners show of the authority and of a public certificate, made anew when a file changes and before a
//! certificate runs out. Connections that stand are not touched.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sculpt_tls::{Callers, Identity, Proof, ServerError, server_config};
use tokio::{sync::watch, time::interval};
use tokio_util::sync::CancellationToken;

use super::{Authority, AuthorityError, issue::LEAF_LIFE};
use crate::config::{PublicFiles, TlsSettings};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(10);

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
}

/// Keeps [`Pki`] as the files have it.
#[derive(Debug)]
pub struct Keeper {
    settings: TlsSettings,
    people: watch::Sender<Arc<ServerConfig>>,
    executors: watch::Sender<Arc<ServerConfig>>,
    authority: watch::Sender<Arc<Authority>>,
    seen: Vec<Option<Stamp>>,
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
        let seen = stamps(&settings);
        let authority = Authority::open(&settings.authority)?;
        let [people, executors] = shown(&authority, &settings, now)?;
        let (people, people_shown) = watch::channel(people);
        let (executors, executors_shown) = watch::channel(executors);
        let (authority, current) = watch::channel(Arc::new(authority));
        let pki = Pki { people: people_shown, executors: executors_shown, authority: current };
        Ok((Self { settings, people, executors, authority, seen, issued: now }, pki))
    }

    /// Follows the files until `stop`. What cannot be used is said, and what was shown before stands.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => self.look(SystemTime::now()),
            }
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
            Ok(([people, executors], authority)) => {
                if stamps != self.seen {
                    tracing::info!(trust = ?authority.trust(), phase = ?authority.phase(), "certificates were read anew");
                }
                self.people.send_replace(people);
                self.executors.send_replace(executors);
                self.authority.send_replace(Arc::new(authority));
                self.issued = now;
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "certificates cannot be read anew; those before stand"
                );
            }
        }
        self.seen = stamps;
    }
}

fn shown(authority: &Authority, settings: &TlsSettings, now: SystemTime) -> Result<[Arc<ServerConfig>; 2], ShownError> {
    let own = || authority.controller(&settings.names, now);
    let public = settings.public.as_ref().map(public).transpose()?;
    let people = server_config(Identity::new(own()?, public)?, &Callers::Anyone)?;
    let executors = Callers::Executors(authority.trust().clone());
    let executors = server_config(Identity::new(own()?, None)?, &executors)?;
    Ok([Arc::new(people), Arc::new(executors)])
}

fn public(files: &PublicFiles) -> Result<Proof, ShownError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ShownError::Public { path, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.certificates)
        .and_then(Iterator::collect)
        .map_err(failed(&files.certificates))?;
    if chain.is_empty() {
        return Err(ShownError::Empty(files.certificates.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(&files.key))?;
    Ok(Proof { chain, key })
}

fn stamps(settings: &TlsSettings) -> Vec<Option<Stamp>> {
    let public = settings.public.iter().flat_map(|files| [files.certificates.clone(), files.key.clone()]);
    let stamp = |path: PathBuf| {
        let data = fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    };
    Authority::files(&settings.authority).into_iter().chain(public).map(stamp).collect()
}
