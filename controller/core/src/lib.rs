//! The pure machines of a task's life.
//!
//! Nothing here does I/O, reads a clock or draws a random number: every function is a table that tests walk from end to end.

pub mod attempt;
pub mod enrolment;
pub mod liveness;
pub mod naming;
pub mod outcome;
pub mod placement;
pub mod review;
pub mod rights;
pub mod shown;
pub mod task;
pub mod turn;
