//! Values of columns that the machines know by name or number.

use crate::store::StoreError;

/// `what` holds a value that this version does not know.
pub(super) fn unreadable(what: &'static str, value: &str) -> StoreError {
    StoreError::Unreadable { what, value: value.to_owned() }
}

/// What the column of a state must hold.
pub(super) fn present<T>(value: Option<T>, what: &'static str) -> Result<T, StoreError> {
    value.ok_or_else(|| unreadable(what, "nothing"))
}

/// A count as the database's integer; counts never come near its limit.
pub(super) fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A count or an offset as the database's integer.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
