//! People beside an attempt, with OpenSSH's own programs.

mod crowd;
mod direct;
mod door;
mod enclosed;
mod flood;
mod forwards;
mod programs;
pub(crate) mod relay;
mod terminal;
mod tunnelled;
mod visit;
mod windows;
mod world;
