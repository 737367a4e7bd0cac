//! The file of settings.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::ConfigError;

/// Settings in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) data_dir: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) executor_listen: Option<SocketAddr>,
    pub(super) executor_url: Option<String>,
    #[serde(default)]
    pub(super) names: Vec<String>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) authority_dir: Option<PathBuf>,
    pub(super) certificate_life: Option<String>,
    pub(super) database_url: Option<String>,
    pub(super) maintenance_database_url: Option<String>,
    pub(super) event_days: Option<u32>,
    pub(super) log_retention: Option<String>,
    pub(super) disk_budget: Option<String>,
    pub(super) git: Option<PathBuf>,
    pub(super) git_max_pack_mib: Option<u64>,
    pub(super) git_writers: Option<usize>,
    pub(super) git_readers: Option<usize>,
}

impl File {
    /// The settings in the file at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }
}
