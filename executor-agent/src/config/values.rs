//! Values of settings, as people write them.

use std::time::Duration;

use sculpt_space::ByteSize;

use super::{ConfigError, wrong};

/// `pids_limit` unless told otherwise: more than any build of ours has needed, and few enough that the host stays usable.
pub(super) const PIDS_LIMIT: u64 = 4_096;

/// Fewest processes that a limit may be: some shells between the shim and the agent, and git at the end.
const FEWEST_PIDS: u64 = 16;

/// Least memory that a limit may be.
const LEAST_MEMORY: u64 = 16 << 20;

/// `keep_workspaces` unless told otherwise.
pub(super) const KEEP_WORKSPACES: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn disk_budget(text: &str) -> Result<u64, ConfigError> {
    match size("disk_budget", text)? {
        0 => Err(wrong("disk_budget", "0 leaves no room for any work; leave it out for no limit")),
        bytes => Ok(bytes),
    }
}

pub(super) fn memory_limit(text: &str) -> Result<u64, ConfigError> {
    match size("memory_limit", text)? {
        bytes if bytes < LEAST_MEMORY => {
            Err(wrong("memory_limit", format!("no agent runs in {text:?}; leave it out for no limit")))
        }
        bytes => Ok(bytes),
    }
}

pub(super) fn cpu_limit(processors: f64) -> Result<u64, ConfigError> {
    // The least that the kernel hands out in a tenth of a second, and more than any host has.
    if !(0.01..=100_000.0).contains(&processors) {
        let text = format!("{processors} is no number of processors; write it like 1.5, or leave it out for no limit");
        return Err(wrong("cpu_limit", text));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 10 and 100,000,000")]
    Ok((processors * 1_000.0).round() as u64)
}

pub(super) fn pids_limit(number: Option<u64>) -> Result<Option<u64>, ConfigError> {
    match number.unwrap_or(PIDS_LIMIT) {
        0 => Ok(None),
        few if few < FEWEST_PIDS => {
            let text = format!("no agent runs with {few}; at least {FEWEST_PIDS}, or 0 for any number");
            Err(wrong("pids_limit", text))
        }
        number => Ok(Some(number)),
    }
}

fn size(name: &str, text: &str) -> Result<u64, ConfigError> {
    let parsed = text.parse().map(|ByteSize(bytes)| bytes);
    parsed.map_err(|_| wrong(name, format!("{text:?} is not a size; write it like \"50GiB\"")))
}

pub(super) fn span(text: &str) -> Result<Duration, ConfigError> {
    let problem =
        || wrong("keep_workspaces", format!("{text:?} is not a duration; write it like \"24h\" or \"7days\""));
    humantime::parse_duration(text).map_err(|_| problem())
}
