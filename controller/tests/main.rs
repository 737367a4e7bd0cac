//! The controller against a real Postgres, over real listeners.
#![cfg(test)]

mod harness;

mod access;
mod api;
mod dispatch;
mod git;
mod identity;
mod journal;
mod listen;
mod make;
mod postgres;
mod process;
mod replicas;
mod schema;
mod sessions;
