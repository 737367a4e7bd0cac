//! The wiring: build, spawn, drain.
