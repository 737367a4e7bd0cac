//! Repeated measurements of one thing.

use std::time::Duration;

use serde_json::{Value, json};

/// At least one number, in order.
#[derive(Clone, Debug)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// None of nothing.
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        (!numbers.is_empty()).then_some(Self(numbers))
    }

    /// In milliseconds.
    pub(crate) fn of_times(times: impl IntoIterator<Item = Duration>) -> Option<Self> {
        Self::of(times.into_iter().map(|time| time.as_secs_f64() * 1e3))
    }

    /// The smallest sample that at least `percent` of all do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).clamp(1, self.0.len());
        self.0[rank - 1]
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "median": self.median(), "p10": self.percentile(10), "p90": self.percentile(90), "p99": self.percentile(99),
            "samples": self.0.len(),
        })
    }

    /// Median and spread for people.
    pub(crate) fn text(&self) -> String {
        format!("{:.1} ({:.1} to {:.1})", self.median(), self.percentile(10), self.percentile(90))
    }
}
