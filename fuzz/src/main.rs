//! One program for all fuzz targets: `FUZZ_TARGET` names the one that runs. `make fuzz` builds and runs it.
//!
//! A target is a function of bytes that stands beside what it tests, in a module `fuzz` of its crate. There it is also an
//! ordinary test over the inputs that are kept in `fuzz/corpus` and `fuzz/artifacts`.

#![no_main]

use std::sync::LazyLock;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 9] = [
    ("control", sculpt_controller::session::fuzz::control),
    ("bulk", sculpt_controller::session::fuzz::bulk),
    ("names", sculpt_controller::git::fuzz::names),
    ("executor_session", sculpt_executor::session::fuzz::executor_session),
    ("spec", sculpt_executor::spec::fuzz::spec),
    ("spool", sculpt_executor::spool::fuzz::spool),
    ("terminal", sculpt_executor::shim::fuzz::terminal),
    ("records", sculpt_executor::shim::fuzz::records),
    ("screen", sculpt::output::fuzz::screen),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(target, _)| *target == name).map(|(_, run)| *run);
    found.unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("FUZZ_TARGET={name:?} is no fuzz target; there are {}", names.join(", "));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
