//! The spec of an attempt: fetched once, checked against its digest, on disk before the attempt is accepted.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prost::Message as _;
use sculpt_proto::{
    FieldError,
    executor::v1::{AttemptSpec, GetSpecRequest},
};
use tonic::Code;

use super::{Context, Handle, Link, files};
use crate::{
    connect::{Backoff, ConnectError},
    disk::write_durably,
    journal::JournalError,
    report::{Cause, Ended, Exit, Failure, Outcome, Step},
    spec::{Spec, digest},
};

/// A spec that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpecError {
    /// It could not be written or read.
    #[error("could not {attempt} {path}: {source}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The controller does not give it.
    #[error("the controller did not give the spec: {0}")]
    Refused(tonic::Status),
    /// What came is not what was announced.
    #[error("the spec does not have the digest that was announced with it")]
    Digest,
    /// It is not a spec.
    #[error("the spec makes no sense: {0}")]
    Decode(#[from] prost::DecodeError),
    /// It holds something that cannot be.
    #[error("the spec makes no sense: {0}")]
    Field(#[from] FieldError),
    /// The journal beside it cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The spec in an attempt's directory; none when there is none.
pub(super) fn read(dir: &Path) -> Result<Option<Spec>, SpecError> {
    let path = dir.join(files::SPEC);
    match fs::read(&path) {
        Ok(encoded) => {
            check(dir, &encoded)?;
            Ok(Some(AttemptSpec::decode(encoded.as_slice())?.try_into()?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SpecError::Io { attempt: "read", path, source }),
    }
}

/// Compares a spec with the digest beside it, which an older build did not write.
fn check(dir: &Path, encoded: &[u8]) -> Result<(), SpecError> {
    let path = dir.join(files::DIGEST);
    match fs::read(&path) {
        Ok(expected) if expected == digest(encoded) => Ok(()),
        Ok(_) => Err(SpecError::Digest),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SpecError::Io { attempt: "read", path, source }),
    }
}

/// Fetches the spec, writes it, and opens the journal.
pub(super) async fn fetch(context: &Arc<Context>, handle: &Arc<Handle>, expected: &[u8]) -> Result<(), SpecError> {
    let encoded = get(context, handle).await?;
    if digest(&encoded) != expected {
        return Err(SpecError::Digest);
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&handle.dir);
    made.map_err(|source| SpecError::Io { attempt: "make the directory", path: handle.dir.clone(), source })?;
    let path = handle.dir.join(files::DIGEST);
    write_durably(&path, expected).map_err(|source| SpecError::Io { attempt: "write", path, source })?;
    let path = handle.dir.join(files::SPEC);
    sculpt_failpoints::pass("spec.before_write");
    write_durably(&path, &encoded).map_err(|source| SpecError::Io { attempt: "write", path, source })?;
    sculpt_failpoints::pass("spec.written");
    let spec = AttemptSpec::decode(encoded.as_slice()).map_err(SpecError::from);
    match spec.and_then(|wire| Spec::try_from(wire).map_err(SpecError::from)) {
        Ok(spec) if spec.attempt == handle.id => Ok(handle.install(spec, &context.boot)?),
        Ok(_) => Err(SpecError::Field(FieldError::new("attempt_id", "is another attempt's"))),
        Err(error) => refuse(context, handle, error).await,
    }
}

/// A spec that nobody can carry out ends its attempt, which would else stand as offered for ever.
async fn refuse(context: &Arc<Context>, handle: &Arc<Handle>, error: SpecError) -> Result<(), SpecError> {
    let journal = crate::journal::Journal::open(&handle.dir.join(files::JOURNAL), &context.boot)?;
    let _same = handle.journal.set(journal);
    let outcome = Outcome::Failed(Failure::new(Cause::Internal, error.to_string()));
    let ended = Ended { outcome, exit: Exit::default(), log_length: 0, head: None };
    handle.record(context, Step::Ended(ended)).await?;
    // Its task has nothing more to do; the session sends the report from the journal.
    context.cancel.cancelled().await;
    Err(error)
}

/// Whether asking again would bring the same answer.
fn refuses(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition)
}

async fn get(context: &Context, handle: &Handle) -> Result<Vec<u8>, SpecError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let Link { epoch, .. } = context.session().await;
        let request =
            GetSpecRequest { executor_id: context.executor.to_string(), epoch, attempt_id: handle.id.to_string() };
        let answer = match context.dialer.dial().await {
            Ok(mut client) => client.get_spec(request).await,
            Err(ConnectError::Dial { .. }) => Err(tonic::Status::unavailable("the controller is away")),
            Err(error) => Err(tonic::Status::internal(error.to_string())),
        };
        match answer {
            Ok(response) => return Ok(response.into_inner().spec),
            Err(status) if refuses(status.code()) => {
                return Err(SpecError::Refused(status));
            }
            Err(status) => {
                tracing::debug!(attempt = %handle.id, %status, "no spec yet");
                backoff.wait().await;
            }
        }
    }
}
