//! What safety costs: each row beside what a person without sculpt would do, in turns in one run, so that both meet the same
//! machine in the same state.
//!
//! ```text
//! make bench                                   all rows
//! make bench BENCH="--rows start,age --scale 3 --json FILE"
//! ```
//! A ratio says how many times the reference sculpt takes (or, of rates, gives). The figures of a busy machine are worth
//! little; the ratios more. The load is printed with them. Some ratios are held to a bound: a run that breaks one fails.

mod age;
mod beside;
mod bytes;
mod copy;
mod memory;
mod report;
mod samples;
mod sshd;
mod start;
mod tasks;
mod turns;
mod way;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sculpt_tests::harness::Stack;

use self::{
    report::{Report, Row},
    way::Way,
};

/// What is asked for on the command line.
struct Wanted {
    rows: Vec<String>,
    /// How many times as many samples as usual.
    scale: usize,
    json: Option<PathBuf>,
}

const ROWS: [&str; 8] = ["start", "age", "bytes", "tasks", "memory", "attach", "echo", "copy"];

#[tokio::main]
async fn main() -> Result<()> {
    let wanted = wanted(std::env::args().skip(1))?;
    let mut report = Report::begin();
    for name in &wanted.rows {
        for way in ways(name) {
            eprintln!("bench: {name}, {way:?}");
            let began = Instant::now();
            let stack = way.stack().await.with_context(|| format!("a stack for {name}"))?;
            let rows = row(name, &stack, *way, wanted.scale).await.with_context(|| format!("measure {name}"))?;
            report.add(rows);
            eprintln!("bench: {name} took {:.0} s", began.elapsed().as_secs_f64());
            stack.finish().await.with_context(|| format!("clean up after {name}"))?;
        }
    }
    print!("{}", report.table());
    if let Some(path) = wanted.json {
        fs::write(&path, report.json()?).with_context(|| format!("write {}", path.display()))?;
        println!("as JSON: {}", path.display());
    }
    let broken = report.broken();
    ensure!(broken.is_empty(), "not what it is held to: {}", broken.join("; "));
    Ok(())
}

/// The ways to an executor that a row is about.
fn ways(name: &str) -> &'static [Way] {
    match name {
        "attach" | "echo" | "copy" => &[Way::Direct, Way::Tunnel],
        _ => &[Way::Tunnel],
    }
}

async fn row(name: &str, stack: &Stack, way: Way, scale: usize) -> Result<Vec<Row>> {
    match name {
        "start" => start::measure(stack, 15 * scale).await,
        "age" => age::measure(stack, 100 * scale).await,
        "bytes" => bytes::measure(stack, 5 * scale).await,
        "tasks" => tasks::measure(stack, 5 * scale).await,
        "memory" => memory::measure(stack).await,
        "attach" => beside::attach(stack, way, 15 * scale).await,
        "echo" => beside::echo(stack, way, 200 * scale).await,
        "copy" => copy::measure(stack, way, 5 * scale).await,
        other => bail!("there is no row {other}; there are {}", ROWS.join(", ")),
    }
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Result<Wanted> {
    let mut wanted = Wanted { rows: ROWS.map(str::to_owned).to_vec(), scale: 1, json: None };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--rows" => wanted.rows = value()?.split(',').map(str::to_owned).collect(),
            "--scale" => wanted.scale = value()?.parse().context("--scale is a number")?,
            "--json" => wanted.json = Some(value()?.into()),
            // Cargo says so to every benchmark.
            "--bench" => {}
            other => bail!("{other} is not an option; there are --rows, --scale and --json"),
        }
    }
    Ok(wanted)
}
