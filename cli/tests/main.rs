//! The command line against real repositories and a scripted controller.

mod controller;
mod credentials;
mod follow;
mod refusals;
mod sandbox;
mod tables;
mod up;
