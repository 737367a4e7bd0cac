//! The record, read and verified.

use futures_util::stream;
use sculpt_proto::{FieldError, timestamp, v1};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{Api, POLL, Replies, caller};
use crate::{
    access::{Administer, May},
    store::audit::{Entry, Filter, hex, unhex},
};

#[tonic::async_trait]
impl v1::audit_server::Audit for Api {
    type ReadAuditStream = Replies<v1::ReadAuditResponse>;

    async fn read_audit(
        &self,
        request: Request<v1::ReadAuditRequest>,
    ) -> Result<Response<Self::ReadAuditStream>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let project = match message.project.as_str() {
            "" => None,
            name => Some(self.store.project(&caller.sees(), name).await?.id()),
        };
        let actor = Some(message.actor).filter(|actor| !actor.is_empty());
        let filter = Filter { actions: message.actions, actor, project };
        let reader = Reader {
            api: self.clone(),
            by: caller.may()?,
            at: message.from_sequence,
            filter,
            moved: message.follow.then(|| self.bus.audited()),
        };
        let replies = stream::try_unfold(reader, |mut reader| async move {
            let entries = reader.next().await?;
            Ok((!entries.is_empty()).then_some((v1::ReadAuditResponse { entries }, reader)))
        });
        Ok(Response::new(self.replies(replies)))
    }

    async fn verify_audit(
        &self,
        request: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditResponse>, Status> {
        let by = caller(&request)?.may()?;
        let verified = self.store.verify_audit(&by, head(&request.get_ref().head)?).await?;
        let (broken_at, problem) = verified.broken.unwrap_or_default();
        Ok(Response::new(v1::VerifyAuditResponse {
            entries: verified.entries,
            hash: hex(&verified.hash),
            broken_at,
            problem,
        }))
    }
}

/// A noted hash, if there is one.
fn head(text: &str) -> Result<Option<[u8; 32]>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = unhex(text).ok_or_else(|| FieldError::new("head", "is no hash: those have 64 hexadecimal digits"))?;
    Ok(Some(parsed))
}

/// One caller's way through the record.
struct Reader {
    api: Api,
    by: May<Administer>,
    at: u64,
    filter: Filter,
    /// Changes when there may be more; `None`: the end is the end.
    moved: Option<watch::Receiver<u64>>,
}

impl Reader {
    /// The next entries; none at the end.
    async fn next(&mut self) -> Result<Vec<v1::AuditEntry>, Status> {
        loop {
            if let Some(moved) = &mut self.moved {
                // Before the query: what is added meanwhile wakes the next wait.
                moved.mark_unchanged();
            }
            let (entries, next) = self.api.store.audit(&self.by, self.at, &self.filter).await?;
            let end = next <= self.at.max(1);
            self.at = next;
            if !entries.is_empty() {
                return Ok(entries.into_iter().map(shown).collect());
            }
            match &mut self.moved {
                None if end => return Ok(Vec::new()),
                Some(moved) if end => tokio::select! {
                    changed = moved.changed() => changed.map_err(|_| super::status::shutting_down())?,
                    () = tokio::time::sleep(POLL) => {}
                },
                // Nothing here passed the filter.
                _ => {}
            }
        }
    }
}

fn shown(entry: Entry) -> v1::AuditEntry {
    v1::AuditEntry {
        sequence: entry.sequence.unsigned_abs(),
        at: Some(timestamp(entry.at)),
        actor: entry.actor,
        token: entry.token,
        from: entry.address,
        action: entry.action,
        subject: entry.subject,
        project: entry.project.or(entry.project_id.map(|id| id.to_string())).unwrap_or_default(),
        details: entry.details,
        hash: hex(&entry.hash),
    }
}
