//! The schema: brought up to date at start, under a lock, and never touched when it is newer than this program.

use sqlx::migrate::{MigrateError, Migrator};

use super::{Database, OLDEST_SERVER, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Why the database cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The server is too old.
    #[error(
        "the database server is Postgres {found}, and sculpt needs {OLDEST_SERVER} or newer. Upgrade it, or leave \
         --database-url out to let sculpt run its own"
    )]
    Server {
        /// Its version.
        found: String,
    },
    /// A newer program has been here.
    #[error(
        "the database has migration {version}, which this sculpt does not know (it knows up to {known}): a newer \
         sculpt has been here. Start that one, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The migration.
        version: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The database was made by another build.
    #[error(
        "migration {version} of the database is not the one of this sculpt: it was made by a development build. Start \
         that build, or use a fresh database"
    )]
    Other {
        /// The migration.
        version: i64,
    },
    /// It failed.
    #[error("cannot bring the database up to date: {0}")]
    Failed(#[source] MigrateError),
    /// The role of the service cannot use it.
    #[error(
        "cannot let the role {role} of --database-url use the tables: {source}. See that both URLs name the same database, \
         and that the role of --maintenance-database-url owns its tables"
    )]
    Rights {
        /// The role.
        role: String,
        /// Why not.
        source: StoreError,
    },
    /// Two databases.
    #[error(
        "--database-url and --maintenance-database-url name two databases, {service} and {owner}; give one in both"
    )]
    Two {
        /// That of the service.
        service: String,
        /// That of the owner.
        owner: String,
    },
    /// The database did not answer.
    #[error("cannot reach the database to bring it up to date: {0}")]
    Store(#[from] StoreError),
}

/// Brings `database` up to date. Whoever comes second, on this or another machine, waits for the first.
pub async fn migrate(database: &Database) -> Result<(), SchemaError> {
    let (major, found) = database.version().await?;
    if major < OLDEST_SERVER {
        return Err(SchemaError::Server { found });
    }
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    let mut connection = database.connect().await?;
    MIGRATIONS.run(&mut connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) if version > known => SchemaError::Newer { version, known },
        MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
            SchemaError::Other { version }
        }
        other => SchemaError::Failed(other),
    })
}
