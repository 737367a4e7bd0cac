//! What is said while a task's executor stays away.

use sculpt_proto::v1::{Task, TaskState};

use crate::{exit::Exit, output::tasks::current};

/// Says that the executor is away, again when something else will come of it, and once that it is back.
#[derive(Default)]
pub(crate) struct Absence {
    /// Number of the attempt, and what was said of it.
    away: Option<(u32, String)>,
}

impl Absence {
    /// What there is to say, now that the task stands like this.
    pub(crate) fn news(&mut self, task: &Task) -> Option<String> {
        let attempt = current(task).map_or(0, |attempt| attempt.number);
        if !task.unreachable {
            let before = self.away.take()?;
            let back = before.0 == attempt && Exit::of_state(task.state()).is_none();
            return back.then(|| format!("task {}: its executor is back", task.number));
        }
        let why = task.waiting.as_ref().map(|waiting| waiting.text.as_str()).filter(|text| !text.is_empty());
        let why = why.unwrap_or("its executor has not been heard of for a while");
        let lost = if task.state() == TaskState::Lost { " is lost" } else { "" };
        let text = format!("task {}{lost}: {why}", task.number);
        let news = self.away.as_ref().is_none_or(|(_, said)| *said != text);
        self.away = Some((attempt, text.clone()));
        news.then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::{Attempt, Waiting};

    use super::*;

    fn task(state: TaskState, unreachable: bool, why: &str) -> Task {
        let waiting = (!why.is_empty()).then(|| Waiting { text: why.to_owned(), ..Waiting::default() });
        let attempts = vec![Attempt { number: 1, ..Attempt::default() }];
        Task { number: 7, state: state.into(), unreachable, waiting, attempts, ..Task::default() }
    }

    #[test]
    fn each_change_is_said_once() {
        let mut absence = Absence::default();
        for (state, unreachable, why, news) in [
            (TaskState::Running, false, "", None),
            (TaskState::Running, true, "it is lost soon", Some("task 7: it is lost soon")),
            (TaskState::Running, true, "it is lost soon", None),
            (TaskState::Lost, true, "it goes on", Some("task 7 is lost: it goes on")),
            (TaskState::Lost, true, "it goes on", None),
            (TaskState::Running, false, "", Some("task 7: its executor is back")),
            (TaskState::Running, false, "", None),
            (TaskState::Running, true, "", Some("task 7: its executor has not been heard of for a while")),
            (TaskState::Completed, false, "", None),
        ] {
            assert_eq!(absence.news(&task(state, unreachable, why)).as_deref(), news, "{state:?} {unreachable} {why}");
        }
    }

    #[test]
    fn an_attempt_that_was_replaced_does_not_come_back() {
        let mut absence = Absence::default();
        assert!(absence.news(&task(TaskState::Lost, true, "it starts anew")).is_some());
        let mut next = task(TaskState::Running, false, "");
        next.attempts.push(Attempt { number: 2, ..Attempt::default() });
        assert_eq!(absence.news(&next), None);
    }
}
