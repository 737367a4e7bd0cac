//! Sitting beside an agent, from a person's own ssh to the agent's terminal, with OpenSSH's own programs.

mod away;
mod config;
mod copies;
mod cuts;
mod editors;
mod forwards;
mod milestones;
mod ports;
mod refusals;
mod restarts;
mod seats;
mod world;
