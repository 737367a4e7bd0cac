//! Sitting beside an agent: what a person may do there, how an OpenSSH certificate says it, and what of a certificate is
//! believed. The controller certifies, the executor checks; both mean the same by it.

mod check;
mod host;
mod pass;
mod rights;
mod role;

pub use check::{Refusal, check};
pub use host::{Host, HostError};
pub use pass::{Pass, PassError, Window, login};
pub use rights::{Profile, Right, Rights, UnknownRight};
pub use role::{Role, UnknownRole};
