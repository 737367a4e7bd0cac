//! The public API, one file per service.
