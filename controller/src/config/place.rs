//! Where a controller keeps what is its own, for commands that tend it from its host.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigError, DatabaseSetting, data_dir, file::File, variable};

/// Where a controller keeps what is its own, as `serve` is told it.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Data directory of the controller [default: as for `serve`]
    #[arg(long, value_name = "DIR", env = "SCULPT_CONTROLLER_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Directory of its authorities [default: authority in the data directory]
    #[arg(long, value_name = "DIR", env = "SCULPT_CONTROLLER_AUTHORITY_DIR", global = true)]
    authority_dir: Option<PathBuf>,
    /// Its Postgres, when it has not one of its own; DATABASE_URL is honoured too
    #[arg(long, env = "SCULPT_CONTROLLER_DATABASE_URL", hide_env_values = true, global = true)]
    database_url: Option<String>,
    /// Its TOML file, which may name any of these
    #[arg(long, value_name = "FILE", env = "SCULPT_CONTROLLER_CONFIG", global = true)]
    config: Option<PathBuf>,
}

/// Where a controller keeps what is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Directory of everything that is kept; absolute.
    pub data_dir: PathBuf,
    /// Directory of the authorities.
    pub authority: PathBuf,
    /// The database.
    pub database: DatabaseSetting,
}

impl PlaceArgs {
    /// The place of these arguments, the environment and the file.
    pub fn resolve(self) -> Result<Place, ConfigError> {
        let file = self.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let data_dir = data_dir(self.data_dir.or(file.data_dir))?;
        let url = self.database_url.or_else(|| variable("DATABASE_URL")).or(file.database_url);
        Ok(Place {
            authority: self.authority_dir.or(file.authority_dir).unwrap_or_else(|| data_dir.join("authority")),
            database: url
                .filter(|url| !url.is_empty())
                .map_or(DatabaseSetting::BuiltIn, |service| DatabaseSetting::Url { service, owner: None }),
            data_dir,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Asked {
        #[command(flatten)]
        place: PlaceArgs,
    }

    fn place(arguments: &[&str]) -> Result<Place, ConfigError> {
        let asked = Asked::try_parse_from(["x"].iter().chain(arguments)).expect("arguments are right");
        asked.place.resolve()
    }

    #[test]
    fn is_that_of_the_controller_with_the_same_settings() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("controller.toml");
        fs::write(&path, "data_dir = \"/d\"\nnames = [\"a.example\"]\ndatabase_url = \"postgres://x\"\n")
            .expect("write");
        let file = path.display().to_string();
        let found = place(&["--config", &file]).expect("a place");
        assert_eq!((found.data_dir.as_path(), found.authority.as_path()), (Path::new("/d"), Path::new("/d/authority")));
        assert_eq!(found.database, DatabaseSetting::Url { service: "postgres://x".into(), owner: None });
        let other = place(&["--config", &file, "--data-dir", "/e", "--authority-dir", "/a"]).expect("a place");
        assert_eq!((other.data_dir.as_path(), other.authority.as_path()), (Path::new("/e"), Path::new("/a")));
    }
}
