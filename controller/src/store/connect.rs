//! How to reach a database, and the few statements that are said before there is a pool.

use std::{fmt, path::Path, str::FromStr as _, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::StoreError;

/// Oldest server that the schema and the queries are written for.
pub const OLDEST_SERVER: u32 = 14;

/// Longest wait for a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of one database, with what is needed to log in to it.
#[derive(Clone)]
pub struct Database {
    options: PgConnectOptions,
}

impl Database {
    /// The database `name` behind the unix socket in `directory`.
    pub fn at_socket(directory: &Path, user: &str, name: &str) -> Self {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(directory)
            .port(5432)
            .username(user)
            .database(name)
            .ssl_mode(PgSslMode::Disable);
        Self { options: options.application_name("sculpt-controller") }
    }

    /// The database that a `postgres://` URL names.
    pub fn at_url(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?;
        Ok(Self { options: options.application_name("sculpt-controller") })
    }

    /// Another database of the same server.
    #[must_use]
    pub fn named(&self, name: &str) -> Self {
        Self { options: self.options.clone().database(name) }
    }

    /// The same database as another role, without a password.
    #[must_use]
    pub fn as_role(&self, role: &str) -> Self {
        Self { options: self.options.clone().username(role) }
    }

    /// What a pool and a listener connect with.
    pub(super) fn options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// One connection outside of any pool.
    pub(super) async fn connect(&self) -> Result<PgConnection, StoreError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.options().connect()).await {
            Ok(connection) => Ok(connection?),
            Err(_) => Err(sqlx::Error::PoolTimedOut.into()),
        }
    }

    /// The server's version, as a number like 15 and as the text of `SHOW server_version`.
    pub async fn version(&self) -> Result<(u32, String), StoreError> {
        let mut connection = self.connect().await?;
        let sql = "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_version')";
        let (major, text): (i32, String) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok((u32::try_from(major).unwrap_or_default(), text))
    }

    /// Makes the database `name` on this server unless it is there.
    pub async fn ensure(&self, name: &str) -> Result<(), StoreError> {
        let there = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
        self.unless(there, name, format!("CREATE DATABASE {}", quoted(name))).await
    }

    /// Makes a role on this server that can log in, and nothing else, unless it is there.
    pub async fn ensure_role(&self, role: &str) -> Result<(), StoreError> {
        let there = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
        self.unless(there, role, format!("CREATE ROLE {} LOGIN", quoted(role))).await
    }

    /// Runs `make` unless `there` says that there is a `name`.
    async fn unless(&self, there: &'static str, name: &str, make: String) -> Result<(), StoreError> {
        let mut connection = self.connect().await?;
        if !sqlx::query_scalar::<_, bool>(there).bind(name).fetch_one(&mut connection).await? {
            sqlx::query(AssertSqlSafe(make)).execute(&mut connection).await?;
        }
        Ok(connection.close().await?)
    }

    /// Makes the database `name` on this server as a copy of `template`, to which nobody may be connected.
    pub async fn copy(&self, template: &str, name: &str) -> Result<(), StoreError> {
        let sql = format!("CREATE DATABASE {} TEMPLATE {}", quoted(name), quoted(template));
        self.run(sql).await
    }

    /// Removes the database `name` from this server, whoever is connected to it.
    pub async fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.run(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name))).await
    }

    async fn run(&self, sql: String) -> Result<(), StoreError> {
        let mut connection = self.connect().await?;
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

impl fmt::Display for Database {
    /// Host, port and name, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options } = self;
        let name = options.get_database().unwrap_or_default();
        match options.get_socket() {
            Some(socket) => write!(f, "{}/{name}", socket.display()),
            None => write!(f, "{}:{}/{name}", options.get_host(), options.get_port()),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

/// `name` as an identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
