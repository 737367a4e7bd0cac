//! Progress on standard error, for what takes longer than a moment.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::note;

/// What a person takes for "at once".
pub(crate) const MOMENT: Duration = Duration::from_millis(700);

/// Shows nothing while it is short; a moving line on a terminal, one plain line elsewhere.
pub(crate) struct Progress {
    doing: String,
    since: Instant,
    said: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins; `doing` is like "sending the base commit".
    pub(crate) fn new(doing: impl Into<String>) -> Self {
        Self { doing: doing.into(), since: Instant::now(), said: false, bar: None }
    }

    /// Something moved; `detail` is like "3.1 MiB".
    pub(crate) fn tick(&mut self, detail: &str) {
        if self.since.elapsed() < MOMENT {
            return;
        }
        if io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
            });
            bar.set_message(format!("{} {detail}", self.doing));
            bar.tick();
        } else if !self.said {
            self.said = true;
            note(format!("{} …", self.doing));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
