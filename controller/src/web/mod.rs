//! Listeners and what stands before every call: limits, Host and Origin, tokens, deadlines.

pub mod auth;
pub mod deadline;
pub mod git_http;
pub mod listen;
mod newcomers;
mod patience;
pub mod tokens;

pub use auth::Person;
