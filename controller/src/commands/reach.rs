//! The database of a controller that runs, or that does not run.

use crate::{
    app::{DataDir, DataDirError},
    config::{DatabaseSetting, Place},
    postgres::{Postgres, PostgresError, Settings},
    store::{Database, Store, StoreError},
};

/// Connections that a command needs.
const CONNECTIONS: u32 = 2;

/// A database that was reached. End it with [`Reached::leave`].
#[derive(Debug)]
pub struct Reached {
    /// What is in it.
    pub store: Store,
    /// Nobody else keeps it running.
    own: Option<(Postgres, DataDir)>,
}

/// Why a controller's database is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// There is none here.
    #[error(
        "there is no database in {0}; name the controller's --data-dir, or its --database-url if it uses a Postgres of yours"
    )]
    None(String),
    /// The controller has the directory, and its Postgres does not run.
    #[error("{0}; and its built-in Postgres does not run now. Try again in a moment, or stop that controller first")]
    Away(DataDirError),
    /// The data directory.
    #[error(transparent)]
    DataDir(DataDirError),
    /// The built-in Postgres.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Somebody's Postgres.
    #[error(
        "cannot use the database at {database}: {source}; see that its server runs and takes this user and password"
    )]
    Refused {
        /// Where.
        database: String,
        /// Why not.
        source: StoreError,
    },
    /// Not a URL.
    #[error("the database URL is not one: {0}")]
    Url(StoreError),
    /// Nothing of ours, or of another version.
    #[error(
        "the database holds no sculpt of this version ({0}); start the controller once, which brings it up to date"
    )]
    Strange(StoreError),
}

impl Reached {
    /// Reaches the database of the controller at `place`: beside it if it runs, else by starting its Postgres.
    pub async fn at(place: &Place) -> Result<Self, ReachError> {
        let (database, own) = match &place.database {
            DatabaseSetting::Url { service, .. } => {
                let database = Database::at_url(service).map_err(ReachError::Url)?;
                let refused = |source| ReachError::Refused { database: database.to_string(), source };
                database.version().await.map_err(refused)?;
                (database, None)
            }
            DatabaseSetting::BuiltIn => built_in(place).await?,
        };
        let reached = Self { store: Store::new(&database, CONNECTIONS), own };
        match reached.store.cluster().await {
            Ok(_) => Ok(reached),
            Err(error) => {
                reached.leave().await;
                Err(ReachError::Strange(error))
            }
        }
    }

    /// Leaves everything as it was found.
    pub async fn leave(self) {
        self.store.close().await;
        if let Some((postgres, _data_dir)) = self.own {
            postgres.stop().await;
        }
    }
}

async fn built_in(place: &Place) -> Result<(Database, Option<(Postgres, DataDir)>), ReachError> {
    let directory = place.data_dir.join("postgres");
    // A command makes no database.
    if !directory.exists() {
        return Err(ReachError::None(place.data_dir.display().to_string()));
    }
    match DataDir::take(&place.data_dir) {
        Ok(data_dir) => {
            let postgres = Postgres::start(&directory, Settings::default()).await?;
            Ok((postgres.database().clone(), Some((postgres, data_dir))))
        }
        Err(held @ DataDirError::Held { .. }) => match Postgres::beside(&directory) {
            Some(database) => Ok((database, None)),
            None => Err(ReachError::Away(held)),
        },
        Err(error) => Err(ReachError::DataDir(error)),
    }
}
