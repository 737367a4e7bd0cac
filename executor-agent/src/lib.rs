//! Runs attempts on a build host: fetches what is to be done, prepares a workspace, starts the agent under a shim,
//! reports every step from a journal, and publishes what was made.

// The executor: replaceable at any time.
pub mod config;
pub mod host;
pub mod journal;
pub mod layout;
pub mod report;
pub mod spec;

// What outlives it: the shim, its spool and its view.
pub mod cgroup;
pub mod shim;
pub mod spool;
pub mod stage;
pub mod text;
pub mod tmux;
pub mod tree;
