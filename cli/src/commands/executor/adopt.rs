//! `sculpt executor adopt`.

use sculpt_proto::v1::{AdoptAttemptsRequest, AdoptedAttempt};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{Format, clean, counted, json, line, note},
};

/// What became of an attempt, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct AdoptedJson {
    attempt_uuid: String,
    /// The task that has it; absent when it was refused.
    task: Option<u64>,
    refusal: Option<String>,
}

impl From<AdoptedAttempt> for AdoptedJson {
    fn from(adopted: AdoptedAttempt) -> Self {
        Self {
            attempt_uuid: adopted.attempt_id,
            task: Some(adopted.task_number).filter(|number| *number > 0),
            refusal: Some(adopted.refusal).filter(|text| !text.is_empty()),
        }
    }
}

pub(super) async fn run(executor: String, attempts: Vec<String>, format: Format) -> Result<Exit, Failure> {
    let attempted = format!("adopt attempts of executor {executor}");
    if let Some(other) = attempts.iter().find(|attempt| Uuid::parse_str(attempt).is_err()) {
        let why = format!("{other:?} is not the uuid of an attempt; a task that is not known here has no number");
        let next = format!("`sculpt executor show {executor}` names the attempts that are not known");
        return Err(Failure::new(Exit::BadInput, attempted, why).next(next));
    }
    let client = Client::connect().await?;
    let request = AdoptAttemptsRequest { request_id: Uuid::new_v4().to_string(), executor: executor.clone(), attempts };
    let answer = client.change(&attempted, async || client.executors().adopt_attempts(request.clone()).await).await?;
    let found: Vec<AdoptedJson> = answer.attempts.into_iter().map(AdoptedJson::from).collect();
    match format {
        Format::Json => json(&found)?,
        Format::Text if found.is_empty() => {
            note(format!("executor {executor} has no attempt that this controller does not know"));
        }
        Format::Text => show(&found)?,
    }
    Ok(if found.iter().any(|adopted| adopted.task.is_none()) { Exit::Conflict } else { Exit::Done })
}

fn show(found: &[AdoptedJson]) -> Result<(), Failure> {
    for adopted in found {
        match (adopted.task, &adopted.refusal) {
            (Some(task), _) => line(format!("attempt {}: adopted as task {task}", clean(&adopted.attempt_uuid)))?,
            (None, refusal) => {
                let why = refusal.as_deref().unwrap_or("the controller gave no reason");
                line(format!("attempt {}: refused: {}", clean(&adopted.attempt_uuid), clean(why)))?;
            }
        }
    }
    let refused = found.iter().filter(|adopted| adopted.task.is_none()).count();
    if refused > 0 {
        note(format!(
            "{} not adopted; what is refused goes on by itself, and can be asked for again",
            counted(refused, "attempt")
        ));
    }
    Ok(())
}
