//! Checked conversions from the wire: what passes here cannot be wrong inside.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};

/// A field of a message that cannot be what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Path of the field as the .proto names it.
    pub field: &'static str,
    /// What is wrong with it, for people.
    pub problem: String,
}

impl FieldError {
    /// An error about `field`.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    /// `text` as a `T`, or an error that names the field and quotes the text.
    pub fn parse<T: std::str::FromStr>(text: &str, field: &'static str) -> Result<T, FieldError>
    where
        T::Err: std::fmt::Display,
    {
        text.parse().map_err(|error| Self::new(field, format!("{text:?}: {error}")))
    }
}

impl From<FieldError> for tonic::Status {
    fn from(error: FieldError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// The value of a message field that must be present.
pub fn required<T>(value: Option<T>, field: &'static str) -> Result<T, FieldError> {
    value.ok_or_else(|| FieldError::new(field, "is missing"))
}

/// A full commit id: 40 or 64 lower-case hexadecimal digits.
pub fn commit_id(text: &str, field: &'static str) -> Result<String, FieldError> {
    let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex && (text.len() == 40 || text.len() == 64) {
        Ok(text.to_owned())
    } else {
        Err(FieldError::new(field, format!("{text:?} is not a full commit id")))
    }
}

/// A span of time that is not negative and below 100 years.
pub fn duration(value: prost_types::Duration, field: &'static str) -> Result<Duration, FieldError> {
    let span = Duration::try_from(value).map_err(|_| FieldError::new(field, "is negative"))?;
    if span.as_secs() > 100 * 366 * 86_400 {
        return Err(FieldError::new(field, "is over 100 years"));
    }
    Ok(span)
}

/// A span of time for the wire; saturates at 10,000 years.
pub fn to_duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX).min(315_576_000_000),
        nanos: span.subsec_nanos() as i32,
    }
}

/// A point in time for the wire.
pub fn timestamp(at: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.timestamp(), nanos: at.timestamp_subsec_nanos() as i32 }
}

/// Labels: at most 64, keys of 1 to 63 characters from `[A-Za-z0-9._/-]`, values of at most 255 characters without controls.
pub fn labels(
    map: impl IntoIterator<Item = (String, String)>,
    field: &'static str,
) -> Result<BTreeMap<String, String>, FieldError> {
    let map: BTreeMap<_, _> = map.into_iter().collect();
    if map.len() > 64 {
        return Err(FieldError::new(field, format!("{} labels; at most 64 are taken", map.len())));
    }
    for (key, value) in &map {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
        if key.is_empty() || key.len() > 63 || !key.chars().all(plain) {
            return Err(FieldError::new(field, format!("{key:?} is not a label key")));
        }
        if value.chars().count() > 255 || value.chars().any(char::is_control) {
            return Err(FieldError::new(
                field,
                format!("the value of {key:?} is too long or holds control characters"),
            ));
        }
    }
    Ok(map)
}
