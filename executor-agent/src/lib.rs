//! Runs attempts on a build host: fetches what is to be done, prepares a workspace, starts the agent under a shim,
//! reports every step from a journal, and publishes what was made.

// The executor: replaceable at any time.
pub mod accounts;
pub mod adapters;
pub mod app;
pub mod attempts;
pub mod blocking;
pub mod commands;
pub mod config;
pub mod connect;
mod damage;
pub mod descriptors;
pub mod disk;
pub mod gc;
pub mod harvest;
pub mod host;
pub mod identity;
pub mod init;
pub mod journal;
pub mod layout;
pub mod logs;
pub mod report;
pub mod session;
pub mod space;
pub mod spec;
pub mod ssh;
pub mod workspace;

// What outlives it: the shim, its spool and its view.
mod answers;
pub mod cgroup;
mod pty;
pub mod sandbox;
pub mod shim;
pub mod spool;
pub mod stage;
pub mod text;
pub mod tmux;
pub mod tree;
