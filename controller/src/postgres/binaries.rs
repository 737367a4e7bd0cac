//! The system's Postgres programs.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::store::OLDEST_SERVER;

/// Why there are no programs to run.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// None was found.
    #[error(
        "no Postgres server is installed on this machine. Install it (`apt install postgresql`; sculpt runs its own \
         private cluster and needs no service), or give the address of a server with --database-url"
    )]
    Missing,
    /// Only old ones were found.
    #[error(
        "{directory} holds Postgres {found}, and sculpt needs {OLDEST_SERVER} or newer. Install a newer one \
         (`apt install postgresql`), or give the address of a server with --database-url"
    )]
    TooOld {
        /// Where it is.
        directory: PathBuf,
        /// Its major version.
        found: u32,
    },
}

/// The programs of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    /// The newest on this machine.
    pub async fn newest() -> Result<Self, BinariesError> {
        let newest = Self::all().await.into_iter().max_by_key(|found| found.major).ok_or(BinariesError::Missing)?;
        if newest.major < OLDEST_SERVER {
            return Err(BinariesError::TooOld { directory: newest.directory, found: newest.major });
        }
        Ok(newest)
    }

    /// Those of the major version `major`, for data that exists.
    pub async fn of(major: u32) -> Option<Self> {
        Self::all().await.into_iter().find(|found| found.major == major)
    }

    /// The version, without the part behind the point.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    async fn all() -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for directory in places().await {
            if let Some(major) = version(&directory).await
                && !found.iter().any(|known| known.major == major)
            {
                found.push(Self { directory, major });
            }
        }
        found
    }
}

/// Directories that may hold the programs; the first of one version wins.
async fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    if let Ok(told) = Command::new("pg_config").arg("--bindir").output().await {
        places.push(PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()));
    }
    for parent in ["/usr/lib/postgresql", "/usr/local/lib/postgresql", "/usr/local", "/opt"] {
        places.extend(versions_below(Path::new(parent)));
    }
    places.extend(["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    places.retain(|place| place.is_absolute() && place.join("initdb").exists() && place.join("postgres").exists());
    places
}

/// The `bin` directories of versions that stand side by side.
fn versions_below(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("bin")).collect()
}

async fn version(directory: &Path) -> Option<u32> {
    let told = Command::new(directory.join("postgres")).arg("--version").output().await.ok()?;
    major(&String::from_utf8_lossy(&told.stdout))
}

/// The major version in a line like `postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)`.
fn major(line: &str) -> Option<u32> {
    let number = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn reads_versions() {
        assert_eq!(major("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("postgres (EnterpriseDB) 14.2"), Some(14));
        assert_eq!(major("no such file"), None);
    }
}
