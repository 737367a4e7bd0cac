//! `make soak DURATION=10m SEED=7 STOP=60s`: random harm for a time, then the verdict; no process stands still for longer
//! than STOP (2 s). Exits 1 when anything is violated, and keeps
//! the directory of the stack.

use std::{process::ExitCode, time::SystemTime};

use anyhow::{Context as _, Result};
use sculpt_tests::harness::nemesis::Campaign;

/// Stacks are used by this many people at once: more than an executor has slots.
const PEOPLE: usize = 7;

/// Of each kind of process: fifty in ten minutes, and a little more.
const KILLS_A_MINUTE: f64 = 5.5;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let argument = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let duration = argument("DURATION").unwrap_or_else(|| "10m".to_owned());
    let duration =
        humantime::parse_duration(&duration).with_context(|| format!("DURATION={duration} is no duration"))?;
    let seed = match argument("SEED") {
        Some(seed) => seed.parse().with_context(|| format!("SEED={seed} is no number"))?,
        None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
    };
    let stop = argument("STOP").unwrap_or_else(|| "2s".to_owned());
    let stop = humantime::parse_duration(&stop).with_context(|| format!("STOP={stop} is no duration"))?;
    let kills = (duration.as_secs_f64() / 60.0 * KILLS_A_MINUTE).ceil() as usize;
    println!("seed {seed}, harm for {}", humantime::format_duration(duration));
    let report = Campaign { seed, kills, stop, duration, people: PEOPLE }.run(|line| println!("{line}")).await?;
    print!("seed {seed}\n{report}");
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
