//! Packs: immutable blobs with a row each, and the blobs that no row names any more.
//!
//! A blob's name is first written down as dead ([`promise`]), then the blob is uploaded, then the transaction that names it
//! takes that entry away ([`insert`]). So what a crash leaves behind is found and deleted like any other dead blob.

use std::time::Duration;

use sculpt_proto::id::ProjectId;
use uuid::Uuid;

use crate::{
    blobs::{BlobError, BlobKey, Blobs},
    store::{Connection, Store, StoreError, refs::Ref},
};

/// A pack that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Of the row.
    pub id: Uuid,
    /// Name of the blob.
    pub blob: String,
    /// The checksum at the pack's end, which git names it by.
    pub checksum: String,
    /// Length.
    pub bytes: u64,
    /// How many it holds.
    pub objects: u64,
}

/// What a project's repository is made of, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Raised with every change.
    pub revision: i64,
    /// All refs, hidden ones too.
    pub refs: Vec<Ref>,
    /// All packs.
    pub packs: Vec<Pack>,
    /// The branch that moved last.
    pub newest_branch: Option<String>,
}

/// Why a pack's row was not written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The blob waited so long for its row that it was deleted.
    #[error("the upload of the pack took too long and was given up; send it again")]
    Expired,
    /// Another replica has replaced some of the packs.
    #[error("the packs were replaced meanwhile")]
    Replaced,
    /// The database did not take it.
    #[error("write a pack's row")]
    Store(#[from] StoreError),
}

/// The project's git revision. `None`: there is no such project, or it was removed.
pub async fn revision(store: &Store, project: ProjectId) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT git_revision FROM projects WHERE id = $1 AND removed_at IS NULL";
    Ok(sqlx::query_scalar(sql).bind(project.0).fetch_optional(&mut *store.read().await?).await?)
}

/// All refs and packs as of one moment. `None`: there is no such project, or it was removed.
pub async fn snapshot(store: &Store, project: ProjectId) -> Result<Option<Snapshot>, StoreError> {
    store.write(move |conn| Box::pin(read_snapshot(conn, project))).await
}

async fn read_snapshot(conn: &mut Connection, project: ProjectId) -> Result<Option<Snapshot>, StoreError> {
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *conn).await?;
    let sql = "SELECT git_revision FROM projects WHERE id = $1 AND removed_at IS NULL";
    let Some(revision) = sqlx::query_scalar(sql).bind(project.0).fetch_optional(&mut *conn).await? else {
        return Ok(None);
    };
    let sql = "SELECT name, target FROM refs WHERE project_id = $1";
    let refs: Vec<(String, String)> = sqlx::query_as(sql).bind(project.0).fetch_all(&mut *conn).await?;
    let sql = "SELECT name FROM refs WHERE project_id = $1 AND starts_with(name, 'refs/heads/') \
               ORDER BY moved_at DESC, name LIMIT 1";
    let newest_branch = sqlx::query_scalar(sql).bind(project.0).fetch_optional(&mut *conn).await?;
    let refs = refs.into_iter().map(|(name, target)| Ref { name, target }).collect();
    Ok(Some(Snapshot { revision, refs, packs: packs_of(conn, project).await?, newest_branch }))
}

async fn packs_of(conn: &mut Connection, project: ProjectId) -> Result<Vec<Pack>, StoreError> {
    let sql = "SELECT id, blob, checksum, bytes, objects FROM packs WHERE project_id = $1";
    let rows: Vec<(Uuid, String, String, i64, i64)> = sqlx::query_as(sql).bind(project.0).fetch_all(conn).await?;
    let pack = |(id, blob, checksum, bytes, objects): (_, _, _, i64, i64)| Pack {
        id,
        blob,
        checksum,
        bytes: bytes.unsigned_abs(),
        objects: objects.unsigned_abs(),
    };
    Ok(rows.into_iter().map(pack).collect())
}

/// Writes down that `blob` is about to be uploaded and that nothing names it yet.
pub async fn promise(store: &Store, blob: &BlobKey) -> Result<(), StoreError> {
    let sql = "INSERT INTO dead_blobs (blob) VALUES ($1) ON CONFLICT (blob) DO UPDATE SET since = now()";
    sqlx::query(sql).bind(blob.as_str()).execute(&mut *store.read().await?).await?;
    Ok(())
}

/// Names an uploaded blob as a pack of the project. Under the project's lock.
pub async fn insert(conn: &mut Connection, project: ProjectId, pack: &Pack) -> Result<(), PackError> {
    let sql = "DELETE FROM dead_blobs WHERE blob = $1";
    let kept = sqlx::query(sql).bind(&pack.blob).execute(&mut *conn).await.map_err(StoreError::from)?;
    if kept.rows_affected() != 1 {
        return Err(PackError::Expired);
    }
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let sql = "INSERT INTO packs (id, project_id, blob, checksum, bytes, objects) VALUES ($1, $2, $3, $4, $5, $6)";
    sqlx::query(sql)
        .bind(pack.id)
        .bind(project.0)
        .bind(&pack.blob)
        .bind(&pack.checksum)
        .bind(signed(pack.bytes))
        .bind(signed(pack.objects))
        .execute(conn)
        .await
        .map_err(StoreError::from)?;
    Ok(())
}

/// Puts `new` in the place of the packs `old`, all of which must still be there. Under the project's lock.
pub async fn replace(conn: &mut Connection, project: ProjectId, old: &[Uuid], new: &Pack) -> Result<(), PackError> {
    let sql = "DELETE FROM packs WHERE project_id = $1 AND id = ANY($2) RETURNING blob";
    let query = sqlx::query_scalar(sql).bind(project.0).bind(old);
    let blobs: Vec<String> = query.fetch_all(&mut *conn).await.map_err(StoreError::from)?;
    if blobs.len() != old.len() {
        return Err(PackError::Replaced);
    }
    let sql = "INSERT INTO dead_blobs (blob) SELECT unnest($1::text[]) ON CONFLICT (blob) DO UPDATE SET since = now()";
    sqlx::query(sql).bind(blobs).execute(&mut *conn).await.map_err(StoreError::from)?;
    insert(conn, project, new).await
}

/// Projects with more than `packs` packs, the worst first.
pub async fn crowded(store: &Store, packs: u32) -> Result<Vec<ProjectId>, StoreError> {
    let sql = "SELECT project_id FROM packs JOIN projects ON projects.id = project_id WHERE removed_at IS NULL \
               GROUP BY project_id HAVING count(*) > $1 ORDER BY count(*) DESC LIMIT 100";
    let ids: Vec<Uuid> = sqlx::query_scalar(sql).bind(i64::from(packs)).fetch_all(&mut *store.read().await?).await?;
    Ok(ids.into_iter().map(ProjectId).collect())
}

/// Deletes one blob that has been dead for `grace`; returns its name, `None` when there is none. Its entry is locked
/// meanwhile, so that nothing can name the blob while it goes.
pub async fn bury(store: &Store, blobs: &Blobs, grace: Duration) -> Result<Option<String>, BuryError> {
    let blobs = blobs.clone();
    store.write(move |conn| Box::pin(bury_in(conn, blobs, grace))).await
}

/// Why a dead blob was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum BuryError {
    /// The blob store did not do it.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

async fn bury_in(conn: &mut Connection, blobs: Blobs, grace: Duration) -> Result<Option<String>, BuryError> {
    let sql = "SELECT blob FROM dead_blobs WHERE since < now() - make_interval(secs => $1) \
               ORDER BY since LIMIT 1 FOR UPDATE SKIP LOCKED";
    let query = sqlx::query_scalar(sql).bind(grace.as_secs_f64());
    let found: Option<String> = query.fetch_optional(&mut *conn).await.map_err(StoreError::from)?;
    let Some(blob) = found else { return Ok(None) };
    blobs.delete(&blob.parse()?).await?;
    let sql = "DELETE FROM dead_blobs WHERE blob = $1";
    sqlx::query(sql).bind(&blob).execute(conn).await.map_err(StoreError::from)?;
    Ok(Some(blob))
}
