//! End-to-end scenarios on the real programs, and the rules of the source tree.

mod agents;
mod api;
mod attacks;
mod checker;
mod clocks;
mod disks;
mod done_when;
mod ends;
mod executor_faults;
mod failpoints;
mod harness;
mod layering;
mod leases;
mod lying;
mod nemesis;
mod network_faults;
mod outlives;
mod places;
mod proxy;
mod queue;
mod refusals;
mod repositories;
mod shim_faults;
mod up;
