//! The command line against real repositories and a scripted controller.

#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod authority;
mod controller;
mod credentials;
mod executors;
mod follow;
mod identity;
mod pairing;
mod people;
mod refusals;
mod replay;
mod sandbox;
mod tables;
mod terminal;
mod trust;
mod up;
