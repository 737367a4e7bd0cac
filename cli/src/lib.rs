//! The `sculpt` command: drives the controller over `sculpt.v1`, and starts a whole installation with `sculpt up`.

mod args;
mod authority;
mod client;
mod commands;
pub mod config;
mod entry;
pub mod exit;
mod failure;
mod follow;
mod git;
mod leave;
pub mod output;
mod pairing;
mod replay;
mod up;

pub use entry::main;
