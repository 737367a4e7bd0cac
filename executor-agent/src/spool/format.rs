//! The bytes of a segment.
