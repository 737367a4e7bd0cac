//! The controller against a real Postgres, over real listeners.
#![cfg(test)]

mod harness;

mod postgres;
mod schema;
