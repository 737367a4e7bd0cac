//! People beside an attempt, with OpenSSH's own programs.

mod door;
mod forwards;
mod programs;
mod terminal;
mod world;
