//! The table and the JSON.

use std::{
    fmt::{self, Write as _},
    fs, thread,
    time::SystemTime,
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::samples::Samples;

/// One figure beside its reference.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ours: Samples,
    /// What the same takes without sculpt, and how.
    pub(crate) reference: Option<(&'static str, Samples)>,
    /// What the ratio is held to.
    pub(crate) bound: Option<Bound>,
}

/// What a ratio may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
        }
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().map(|(_, reference)| self.ours.median() / reference.median())
    }

    /// What it breaks, if it does.
    fn broken(&self) -> Option<Bound> {
        self.bound.filter(|bound| self.ratio().is_none_or(|ratio| !bound.holds(ratio)))
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "unit": self.unit, "ours": self.ours.json(), "ratio": self.ratio(),
            "bound": self.bound.map(|bound| bound.to_string()), "holds": self.broken().is_none(),
            "reference": self.reference.as_ref().map(|(how, samples)| json!({ "how": how, "figures": samples.json() })),
        })
    }
}

/// All rows of a run, and what the machine was like.
pub(crate) struct Report {
    rows: Vec<Row>,
    started: SystemTime,
    load_before: String,
}

impl Report {
    pub(crate) fn begin() -> Self {
        Self { rows: Vec::new(), started: SystemTime::now(), load_before: load() }
    }

    pub(crate) fn add(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// The rows that are not what they are held to.
    pub(crate) fn broken(&self) -> Vec<&'static str> {
        self.rows.iter().filter(|row| row.broken().is_some()).map(|row| row.name).collect()
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "\n{:<44} {:<6} {:>24} {:>24} {:>7}\n",
            "median (10 % to 90 %)", "unit", "sculpt", "reference", "ratio"
        );
        for row in &self.rows {
            let (how, figures) = row.reference.as_ref().map_or(("", "-".to_owned()), |(how, it)| (*how, it.text()));
            let ratio = row.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            let held = match (row.bound, row.broken()) {
                (None, _) => String::new(),
                (Some(bound), None) => format!(" ({bound})"),
                (Some(bound), Some(_)) => format!(" ({bound}: BROKEN)"),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:<44} {:<6} {:>24} {figures:>24} {ratio:>7}  {how}{held}",
                row.name,
                row.unit,
                row.ours.text()
            );
        }
        let _ = writeln!(
            text,
            "\n{} build, {} cores, load {} before and {} after",
            profile(),
            cores(),
            self.load_before,
            load()
        );
        text
    }

    pub(crate) fn json(&self) -> Result<String> {
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        Ok(serde_json::to_string_pretty(&json!({
            "started": started, "profile": profile(), "cores": cores(), "load_before": self.load_before, "load_after": load(),
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        }))?)
    }
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Of the last minute; a run on a machine that was busy with something else is told by it.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}
