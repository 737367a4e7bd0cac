//! The machines, walked from end to end.
//!
//! The tables stand as text under `tables/`; `notation` reads them. Whatever is an enum in the machines is named once in
//! `notation` by an exhaustive match, so a new variant fails to compile there and then fails every table that lacks its row.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attempt;
mod enrolment;
mod laws;
mod liveness;
mod naming;
mod notation;
mod placement;
mod races;
mod reachable;
mod review;
mod rights;
mod sequences;
mod shown;
mod states;
mod task;
mod turn;
mod wire;
