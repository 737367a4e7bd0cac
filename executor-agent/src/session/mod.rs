//! The control session: a pure machine in the middle, thin I/O around it.

mod control;
mod end;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod garbage;
mod lease;
mod machine;
mod roster;
mod wire;

pub use control::Control;
pub use end::Fatal;
pub use lease::Leases;
pub use machine::{Effect, Input, Machine, Refusal, Wanted, Wish};
pub use roster::{Damaged, Present, Roster};
pub use wire::report;
