//! What a task is for and how far it has come, as people say.

use sculpt_proto::{
    FieldError,
    id::{ExecutorId, TaskId},
    v1,
};
use tonic::Status;

use super::{Api, once::once_of};
use crate::{
    access::{Caller, Denied, Drive, Steer},
    dispatch::DispatchError,
    store::{
        milestones::{self, MAX_INTENT, MAX_MILESTONE, NewMilestone},
        requests::{Taken, take_request},
        task_state,
        tasks::Located,
    },
};

/// What is said, checked.
struct Words {
    /// Present: to be the intent; within, none: what the title says.
    intent: Option<Option<String>>,
    milestone: Option<String>,
}

impl TryFrom<&v1::DescribeTaskRequest> for Words {
    type Error = FieldError;

    fn try_from(message: &v1::DescribeTaskRequest) -> Result<Self, FieldError> {
        let intent = message.intent.as_deref().map(|text| line(text, MAX_INTENT, "intent")).transpose()?;
        let milestone = line(&message.milestone, MAX_MILESTONE, "milestone")?;
        if intent.is_none() && milestone.is_none() {
            return Err(FieldError::new("milestone", "is missing; say how far the task has come, or what it is for"));
        }
        Ok(Self { intent, milestone })
    }
}

/// One line without what would do more than stand there; none when it is blank.
pub(super) fn line(text: &str, longest: usize, field: &'static str) -> Result<Option<String>, FieldError> {
    let text = text.trim();
    if text.chars().count() > longest || text.chars().any(char::is_control) {
        let problem = format!("has more than {longest} characters, or control characters such as a line end");
        return Err(FieldError::new(field, problem));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

impl Api {
    /// Writes down what `message` says, once.
    pub(super) async fn describe_once(
        &self,
        caller: &Caller,
        message: v1::DescribeTaskRequest,
    ) -> Result<v1::Task, Status> {
        let words = Words::try_from(&message)?;
        let request = once_of(&message, "DescribeTask", |message| &mut message.request_id)?;
        let located = self.store.find_task(&caller.sees(), &message.task).await?;
        let (task, user) = (may_say(caller, &located)?, caller.name().to_owned());
        let executor = self
            .store
            .write(move |conn| {
                Box::pin(async move {
                    if let Taken::Done(_) = take_request(conn, &request, task.0).await? {
                        return Ok(None);
                    }
                    let locked = task_state::lock(conn, task).await?.ok_or(DispatchError::NotFound(task))?;
                    if let Some(intent) = &words.intent {
                        milestones::set_intent(conn, &locked, &user, intent.as_deref()).await?;
                    }
                    if let Some(text) = words.milestone {
                        let at = locked.ago(std::time::Duration::ZERO);
                        let new = NewMilestone { attempt: None, user, at, text };
                        milestones::add(conn, &locked, &new).await?;
                    }
                    Ok::<_, super::tasks::MoveError>(locked.task.attempt().map(|attempt| ExecutorId(attempt.executor)))
                })
            })
            .await?;
        self.bus.journal();
        if let Some(executor) = executor {
            // Whoever looks at the agent's screen reads it there.
            self.bus.tell(executor);
        }
        self.shown(&caller.on(&located)?).await
    }
}

/// Who steers a task may say what it is for and how far it has come, and so may who types at its agent's terminal.
fn may_say(caller: &Caller, located: &Located) -> Result<TaskId, Denied> {
    let steers = caller.on::<Steer>(located).map(|may| may.task());
    steers.or_else(|denied| caller.on::<Drive>(located).map(|may| may.task()).map_err(|_| denied))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_one_line_of_a_bounded_length() {
        let words = |intent: Option<&str>, milestone: &str| {
            let message = v1::DescribeTaskRequest {
                intent: intent.map(str::to_owned),
                milestone: milestone.to_owned(),
                ..v1::DescribeTaskRequest::default()
            };
            Words::try_from(&message).map(|words| (words.intent, words.milestone)).map_err(|error| error.field)
        };
        assert_eq!(words(None, " halfway "), Ok((None, Some("halfway".to_owned()))));
        assert_eq!(words(Some(" "), ""), Ok((Some(None), None)));
        assert_eq!(words(Some("ship"), "x"), Ok((Some(Some("ship".to_owned())), Some("x".to_owned()))));
        assert_eq!(words(None, " \n"), Err("milestone"));
        assert_eq!(words(None, "two\nlines"), Err("milestone"));
        assert_eq!(words(None, &"ä".repeat(501)), Err("milestone"));
        assert!(words(None, &"ä".repeat(500)).is_ok());
        assert_eq!(words(Some(&"ä".repeat(201)), "x"), Err("intent"));
    }
}
