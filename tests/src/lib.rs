//! What the end-to-end scenarios stand on: whole stacks in one line, faults between their parts, and the rules of the
//! source tree. The scenarios themselves are in `tests/`.

pub mod harness;
pub mod layering;
