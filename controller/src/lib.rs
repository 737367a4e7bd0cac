//! The controller: holds tasks in Postgres, dispatches them to executors, and serves people.
//!
//! Events come in through `grpc` and `session`, are applied by `dispatch` to the pure machines of `sculpt_core`, and are
//! persisted by `store`; effects follow the commit.

pub mod access;
pub mod app;
pub mod background;
pub mod blobs;
pub mod bus;
pub mod commands;
pub mod config;
pub mod dispatch;
pub mod git;
pub mod grpc;
pub mod pki;
pub mod postgres;
pub mod relay;
pub mod room;
pub mod session;
pub mod store;
pub mod web;
