//! The executor protocol.
