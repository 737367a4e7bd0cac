//! What the service may do in its database: what it wants with the rows of its tables, and nothing but add acts to the record.
//! Their chain is made by the role that owns it: who could add a link could put one there that the notary goes on from.
//!
//! The schema belongs to another role. Who gets hold of the service's connections can neither change what was recorded nor
//! switch off what guards it, and cannot become that other role, because nobody made it a member of it.

use sqlx::{AssertSqlSafe, Connection as _};

use super::{Database, SchemaError, Store, StoreError, connect::quoted};

/// Tables of which the service may not have everything.
const SPECIAL: &str = "('audit', 'audit_chain', '_sqlx_migrations')";

/// Its own tables. Days of a partitioned one are reached through it.
const TABLES: &str = "relkind IN ('r', 'p') AND NOT relispartition";

/// Why the role that asks could change or remove what stands in the record; NULL: it cannot.
const POWER: &str = "SELECT CASE \
    WHEN me.rolsuper THEN 'is a superuser' \
    WHEN me.rolcreaterole THEN 'may make roles, and so give itself those of others' \
    WHEN pg_has_role(session_user, db.datdba, 'MEMBER') THEN 'owns the database' \
    WHEN pg_has_role(session_user, ns.nspowner, 'MEMBER') THEN 'owns the schema' \
    WHEN own.owns THEN 'owns the record' \
    WHEN own.changes THEN 'may change the record' \
    WHEN own.links THEN 'may forge the chain of the record' END \
    FROM pg_roles me, pg_database db, pg_namespace ns, \
    LATERAL (SELECT bool_or(pg_has_role(session_user, relowner, 'MEMBER')) AS owns, \
        bool_or(has_table_privilege(session_user, oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER') \
            OR has_any_column_privilege(session_user, oid, 'UPDATE')) AS changes, \
        bool_or(oid = 'audit_chain'::regclass AND has_any_column_privilege(session_user, oid, 'INSERT')) AS links \
        FROM pg_class WHERE oid IN ('audit'::regclass, 'audit_chain'::regclass)) own \
    WHERE me.rolname = session_user AND db.datname = current_database() \
    AND ns.oid = (SELECT relnamespace FROM pg_class WHERE oid = 'audit'::regclass)";

/// Lets the role of `service` use what the role of `owner` has made. Nothing changes when they are one.
pub async fn let_serve(owner: &Database, service: &Database) -> Result<(), SchemaError> {
    let role = who(service).await?;
    if role == who(owner).await? {
        return Ok(());
    }
    let failed = |source: StoreError| match source {
        away @ StoreError::Unavailable(_) => SchemaError::Store(away),
        source => SchemaError::Rights { role: role.clone(), source },
    };
    grant(owner, &role).await.map_err(failed)?;
    if cluster(service).await.map_err(failed)? != cluster(owner).await.map_err(failed)? {
        return Err(SchemaError::Two { service: service.to_string(), owner: owner.to_string() });
    }
    Ok(())
}

async fn who(database: &Database) -> Result<String, StoreError> {
    let mut connection = database.connect().await?;
    let role = sqlx::query_scalar("SELECT session_user::text").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(role)
}

async fn cluster(database: &Database) -> Result<uuid::Uuid, StoreError> {
    let mut connection = database.connect().await?;
    let id = sqlx::query_scalar("SELECT id FROM cluster").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(id)
}

async fn grant(owner: &Database, role: &str) -> Result<(), StoreError> {
    let mut connection = owner.connect().await?;
    let mut transaction = connection.begin().await?;
    // Who makes partitions changes the same rows of the catalogue.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtext('sculpt partitions'))").execute(&mut *transaction).await?;
    let mut list = async |kind: &str| -> Result<String, StoreError> {
        let sql = format!(
            "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE {kind} AND pg_has_role(relowner, 'USAGE') \
             AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'audit'::regclass)"
        );
        Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *transaction).await?)
    };
    let tables = list(&format!("{TABLES} AND relname NOT IN {SPECIAL}")).await?;
    let sequences = list("relkind = 'S' AND relname <> 'audit_id_seq'").await?;
    let schema: String =
        sqlx::query_scalar("SELECT quote_ident(current_schema())").fetch_one(&mut *transaction).await?;
    let role = quoted(role);
    // When it was done and in which order is not for the service to say.
    let statements = format!(
        "GRANT USAGE ON SCHEMA {schema} TO {role}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}; \
         GRANT SELECT, USAGE, UPDATE ON SEQUENCE {sequences} TO {role}; \
         REVOKE ALL ON audit, audit_chain, _sqlx_migrations FROM {role}; \
         REVOKE ALL ON SEQUENCE audit_id_seq FROM {role}; \
         GRANT SELECT ON audit, audit_chain TO {role}; \
         GRANT SELECT ON SEQUENCE audit_id_seq TO {role}; \
         GRANT INSERT (actor, token, address, action, subject, project_id, details) ON audit TO {role};"
    );
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(connection.close().await?)
}

impl Store {
    /// Why this store's role could change or remove what stands in the record; `None`: it can only add to it.
    pub async fn power_over_record(&self) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar(POWER).fetch_one(&mut *self.read().await?).await?)
    }
}
