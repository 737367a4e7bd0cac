//! Files to where an agent works and back: scp beside scp, both on this machine.

use std::{
    fs,
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::{Cli, Stack};

use crate::{
    report::{Bound, Row},
    samples::Samples,
    sshd::Sshd,
    turns::in_turn,
    way::Way,
};

/// What one sample copies.
const BYTES: usize = 100 << 20;

pub(crate) async fn measure(stack: &Stack, way: Way, count: usize) -> Result<Vec<Row>> {
    let scratch = stack.root().join("copy");
    fs::create_dir_all(&scratch)?;
    let mut random = Vec::new();
    fs::File::open("/dev/urandom")?.take(BYTES as u64).read_to_end(&mut random)?;
    fs::write(scratch.join("file"), &random)?;
    let sshd = Sshd::start(stack, &scratch).await?;
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "sh", "-c", "pwd; exec sleep 1d"]).await?;
    way.is_taken(stack, &task).await?;
    let place = stack.log_until(&task, "its place", |log| log.ends_with(b"\n")).await?;
    let place = String::from_utf8(place)?.trim_end().to_owned();
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path of the tests is text");
    let (file, back, settings) =
        (text(&scratch.join("file"))?, text(&scratch.join("back"))?, text(&scratch.join("settings"))?);
    stack.sculpt(["config-ssh", "--file", &settings]).run().await?.done()?;
    let token = stack.token()?;
    let ours = |from: &str, to: &str| stack.shell("scp", ["-q", "-F", &settings, from, to]).env("SCULPT_TOKEN", &token);
    let theirs = |from: &str, to: &str| sshd.program(stack, "scp", &["-q", from, to]);
    let (host, other) = (format!("sculpt.{task}:{place}/there"), format!("{}:{}/there", Sshd::HOST, text(&scratch)?));
    let (mut there, mut again) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    // The first of each fills caches.
    for number in 0..=count {
        let up = in_turn(number, async || rate(ours(&file, &host)).await, async || rate(theirs(&file, &other)?).await)
            .await?;
        let ours_back = async || {
            let rate = rate(ours(&host, &back)).await?;
            ensure!(fs::read(&back)? == random, "what came back is not what was sent");
            Ok(rate)
        };
        let down = in_turn(number, ours_back, async || rate(theirs(&other, &back)?).await).await?;
        eprintln!("bench: copy {number} of {count}: {up:.0?} MB/s there, {down:.0?} MB/s back");
        if number > 0 {
            there.0.push(up.0);
            there.1.push(up.1);
            again.0.push(down.0);
            again.1.push(down.1);
        }
    }
    stack.sculpt(["stop", &task]).run().await?.done()?;
    stack.sculpt(["wait", &task]).run().await?.exits(4)?;
    sshd.end().await?;
    let [to, from] = match way {
        Way::Direct => ["scp of 100 MB to the workspace", "scp of 100 MB from the workspace"],
        Way::Tunnel => ["the same to it, through the controller", "the same from it, through the controller"],
    };
    Ok(vec![row(to, there)?, row(from, again)?])
}

async fn rate(copy: Cli) -> Result<f64> {
    let began = Instant::now();
    copy.run().await?.done()?;
    let took: Duration = began.elapsed();
    Ok(BYTES as f64 / 1e6 / took.as_secs_f64())
}

fn row(name: &'static str, (ours, theirs): (Vec<f64>, Vec<f64>)) -> Result<Row> {
    let samples = |numbers: Vec<f64>| Samples::of(numbers).context("no sample");
    let reference = Some(("scp to localhost", samples(theirs)?));
    Ok(Row { name, unit: "MB/s", ours: samples(ours)?, reference, bound: Some(Bound::AtLeast(0.5)) })
}
