//! People beside an attempt, with OpenSSH's own programs.

mod door;
mod enclosed;
mod forwards;
mod programs;
mod terminal;
mod tunnelled;
mod world;
