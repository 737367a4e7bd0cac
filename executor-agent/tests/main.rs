//! Tests of the executor's parts with real processes, terminals, repositories and a scripted controller.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod adopt;
mod attempt;
mod authority;
mod controller;
mod damage;
mod delegated;
mod disk;
mod durable;
mod ends;
mod enrolment;
mod git;
mod git_backend;
mod go_on;
mod harvest;
mod host;
mod hostile;
mod join;
mod kept;
mod keys;
mod late;
mod life;
mod listener;
mod many;
mod outside;
mod prepare;
mod refusals;
mod renewal;
mod restarts;
mod separate;
mod service;
mod shim;
mod space;
mod spool;
mod view;
mod workspace;
