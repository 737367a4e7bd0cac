//! Sitting beside an agent: `sculpt pair` beside `ssh HOST tmux attach`, both of a terminal that shows the same.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::{Desk, Distance, Stack, Terminal};

use crate::{
    report::{Bound, Row},
    samples::Samples,
    sshd::Sshd,
    turns::in_turn,
    way::Way,
};

/// Says something to see, and then only echoes: what is typed is the terminal's own business.
const AGENT: &str = "stty raw echo; printf 'something to see'; exec cat > /dev/null";
const SEEN: &str = "something to see";

/// Keys that nothing else on the screen contains: one for who is near, one for who is far, as a new picture shows what was typed.
const NEAR_KEY: &str = "Q";
const FAR_KEY: &str = "Z";

/// What the echo of a key is held to on this machine.
const LOOPBACK: Bound = Bound::AtMost(2.5);

/// One way, of somebody far away.
const FAR: Duration = Duration::from_millis(50);

/// The two terminals.
struct Pair<'a> {
    stack: &'a Stack,
    task: String,
    sshd: Sshd,
    socket: String,
    scratch: PathBuf,
}

impl<'a> Pair<'a> {
    async fn start(stack: &'a Stack, way: Way, name: &str) -> Result<Self> {
        let scratch = stack.root().join(name);
        fs::create_dir_all(&scratch)?;
        let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", AGENT]).await?;
        let shown = |log: &[u8]| String::from_utf8_lossy(log).contains(SEEN);
        stack.log_until(&task, "something to see", shown).await?;
        way.is_taken(stack, &task).await?;
        let socket = scratch.join("tmux").to_str().context("a path of the tests is text")?.to_owned();
        let session =
            ["-S", &socket, "-f", "/dev/null", "new-session", "-d", "-x", "200", "-y", "50", "sh", "-c", AGENT];
        stack.shell("tmux", session).run().await?.done()?;
        let sshd = Sshd::start(stack, &scratch).await?;
        Ok(Self { stack, task, sshd, socket, scratch })
    }

    /// As somebody comes who was never here: nothing of an earlier time is at hand.
    fn ours(&self, number: usize) -> Desk {
        let state = self.scratch.join(format!("state-{number}"));
        self.stack.desk("sculpt", ["pair", &self.task]).env("XDG_STATE_HOME", state)
    }

    fn theirs(&self, settings: &str) -> Desk {
        let words = ["-F", settings, "-tt", Sshd::HOST, "tmux", "-S", &self.socket, "attach"];
        self.stack.desk("ssh", words)
    }

    async fn end(self) -> Result<()> {
        self.stack.shell("tmux", ["-S", &self.socket, "kill-server"]).run().await?.done()?;
        self.sshd.end().await?;
        self.stack.sculpt(["stop", &self.task]).run().await?.done()?;
        self.stack.sculpt(["wait", &self.task]).run().await?.exits(4)?;
        // The server's socket is left, as it is whenever it is told to go.
        let _gone = fs::remove_file(&self.socket);
        Ok(())
    }
}

async fn seen(desk: Desk) -> Result<(Terminal, Duration)> {
    let began = Instant::now();
    let seat = desk.sit()?;
    seat.shows(SEEN).await?;
    Ok((seat, began.elapsed()))
}

async fn looked(desk: Desk) -> Result<Duration> {
    let (seat, took) = seen(desk).await?;
    leave(seat).await?;
    Ok(took)
}

async fn leave(seat: Terminal) -> Result<()> {
    ensure!(seat.leaves().await? == 0, "it was left badly");
    Ok(())
}

/// Until the terminal of somebody who comes for the first time is shown.
pub(crate) async fn attach(stack: &Stack, way: Way, count: usize) -> Result<Vec<Row>> {
    let pair = Pair::start(stack, way, "attach").await?;
    let settings = pair.sshd.settings(pair.sshd.port())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first of each fills caches.
    for number in 0..=count {
        let ours_now = async || looked(pair.ours(number)).await;
        let theirs_now = async || looked(pair.theirs(&settings)).await;
        let (took, reference) = in_turn(number, ours_now, theirs_now).await?;
        eprintln!("bench: attach {number} of {count}: {took:.1?}, by ssh {reference:.1?}");
        if number > 0 {
            ours.push(took);
            theirs.push(reference);
        }
    }
    pair.end().await?;
    let name = match way {
        Way::Direct => "first attach until the terminal is shown",
        Way::Tunnel => "first attach, through the controller",
    };
    Ok(vec![row(name, Bound::AtMost(1.5), ours, theirs)?])
}

/// From a key to its echo on the screen.
pub(crate) async fn echo(stack: &Stack, way: Way, count: usize) -> Result<Vec<Row>> {
    let pair = Pair::start(stack, way, "echo").await?;
    let settings = pair.sshd.settings(pair.sshd.port())?;
    let mut near = (seen(pair.ours(0)).await?.0, seen(pair.theirs(&settings)).await?.0);
    let (ours, theirs) = pressed(&mut near, NEAR_KEY, count).await?;
    leave(near.0).await?;
    leave(near.1).await?;
    let rows = match way {
        Way::Direct => vec![row("a key until its echo is shown", LOOPBACK, ours, theirs)?],
        Way::Tunnel => {
            let here = row("a key, through the controller", LOOPBACK, ours, theirs)?;
            vec![here, echo_far_away(&pair, count / 4).await?]
        }
    };
    pair.end().await?;
    Ok(rows)
}

/// The controller is far away, and so is the server of reference.
async fn echo_far_away(pair: &Pair<'_>, count: usize) -> Result<Row> {
    let to_controller = Distance::start(pair.stack.user_address()?, FAR).await?;
    let to_sshd = Distance::start(format!("127.0.0.1:{}", pair.sshd.port()), FAR).await?;
    let ours = pair.ours(1).env("SCULPT_URL", format!("https://{}", to_controller.address()));
    let settings = pair.sshd.settings(to_sshd.address().port())?;
    let mut far = (seen(ours).await?.0, seen(pair.theirs(&settings)).await?.0);
    let (ours, theirs) = pressed(&mut far, FAR_KEY, count).await?;
    leave(far.0).await?;
    leave(far.1).await?;
    let nearest = ours.iter().chain(&theirs).min();
    ensure!(nearest.is_some_and(|&took| took >= 2 * FAR), "an echo came in {nearest:?}: not from far away");
    row("a key, with 50 ms of network each way", Bound::AtMost(1.15), ours, theirs)
}

/// A key in each of them in turn, so many times.
async fn pressed(
    (us, them): &mut (Terminal, Terminal),
    key: &str,
    count: usize,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first of each finds nothing ready.
    for number in 0..=count {
        let (took, reference) = in_turn(number, async || press(us, key).await, async || press(them, key).await).await?;
        if number > 0 {
            ours.push(took);
            theirs.push(reference);
        }
    }
    Ok((ours, theirs))
}

async fn press(seat: &mut Terminal, key: &str) -> Result<Duration> {
    seat.forgets();
    let began = Instant::now();
    seat.types(key)?;
    seat.shows(key).await?;
    Ok(began.elapsed())
}

fn row(name: &'static str, bound: Bound, ours: Vec<Duration>, theirs: Vec<Duration>) -> Result<Row> {
    let samples = |times: Vec<Duration>| Samples::of_times(times).context("no sample");
    let reference = Some(("ssh localhost tmux attach", samples(theirs)?));
    Ok(Row { name, unit: "ms", ours: samples(ours)?, reference, bound: Some(bound) })
}
