//! What is done to a running stack.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::World;
use crate::harness::{Dice, Fault, Stack, eventually, processes};

/// A process of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `sculpt-executor run`.
    Executor,
    /// `sculpt-controller`.
    Controller,
    /// The first process of Postgres.
    Postmaster,
    /// A process of Postgres that serves one connection.
    Backend,
    /// The tmux server of an attempt.
    Tmux,
    /// The shim of an attempt.
    Shim,
    /// The main process of an attempt.
    Agent,
}

/// Every kind of process.
pub const PARTS: [Part; 7] =
    [Part::Executor, Part::Controller, Part::Postmaster, Part::Backend, Part::Tmux, Part::Shim, Part::Agent];

/// A connection through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// From the executor to the controller.
    Executor,
    /// From people to the controller.
    People,
}

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Harm {
    /// kill -9; who does not come back alone is started again after a while.
    Kill(Part, Duration),
    /// SIGSTOP, and SIGCONT after a while.
    Pause(Part, Duration),
    /// SIGQUIT to the postmaster: an immediate stop.
    StopPostgres,
    /// The line is like this for a while.
    Break(Line, Fault, Duration),
    /// The line is cut and mended this often.
    Flap(Line, u32, Duration),
}

impl Harm {
    /// The next one, by the dice; no process stands still for longer than `stop`.
    pub fn random(dice: &mut Dice, stop: Duration) -> Self {
        use Part::{Agent, Backend, Controller, Executor, Postmaster, Shim, Tmux};
        let line = if dice.chance(0.7) { Line::Executor } else { Line::People };
        match dice.between(0, 100) {
            0..9 => Self::Kill(Executor, dice.pause(0, 800)),
            9..18 => Self::Kill(Controller, dice.pause(0, 800)),
            18..22 => Self::Kill(Postmaster, Duration::ZERO),
            22..26 => Self::Kill(Backend, Duration::ZERO),
            26..31 => Self::StopPostgres,
            31..41 => Self::Kill(Tmux, Duration::ZERO),
            41..50 => Self::Kill(Shim, Duration::ZERO),
            50..60 => Self::Kill(Agent, Duration::ZERO),
            60..74 => {
                let part = dice.pick(&PARTS).copied().unwrap_or(Executor);
                Self::Pause(part, dice.pause(100, stop.as_millis() as u64))
            }
            74..78 => Self::Flap(line, dice.between(3, 10) as u32, dice.pause(20, 200)),
            _ => {
                let delay = Fault::Delay(dice.pause(20, 300));
                let faults = [
                    Fault::Cut,
                    Fault::HalfOpen,
                    Fault::BlackholeUp,
                    Fault::BlackholeDown,
                    delay,
                    Fault::Throttle(8000),
                ];
                let fault = dice.pick(&faults).copied().unwrap_or(Fault::Cut);
                Self::Break(line, fault, dice.pause(100, 2000))
            }
        }
    }

    /// kill -9 of this kind of process, back after a time by the dice.
    pub fn kill(part: Part, dice: &mut Dice) -> Self {
        Self::Kill(part, dice.pause(0, 800))
    }

    /// What kind it is, for counting.
    pub fn kind(&self) -> String {
        match self {
            Self::Kill(part, _) => format!("kill {part:?}").to_lowercase(),
            Self::Pause(part, _) => format!("pause {part:?}").to_lowercase(),
            Self::StopPostgres => "stop postgres".to_owned(),
            Self::Break(line, fault, _) => {
                let fault = format!("{fault:?}");
                format!("{} {line:?}", fault.split('(').next().unwrap_or_default()).to_lowercase()
            }
            Self::Flap(line, ..) => format!("flap {line:?}").to_lowercase(),
        }
    }
}

impl World {
    /// Does it and mends it; what it was done to, or none when there was nothing to harm.
    pub(super) async fn inflict(&self, harm: Harm, dice: &mut Dice) -> Result<Option<String>> {
        match harm {
            Harm::Kill(Part::Executor, pause) => {
                self.stack.lock().await.executor()?.kill().await?;
                tokio::time::sleep(pause).await;
                self.stack.lock().await.start_executor().await?;
                Ok(Some(format!("back after {pause:?}")))
            }
            Harm::Kill(Part::Controller, pause) => {
                self.stack.lock().await.controller()?.kill().await?;
                tokio::time::sleep(pause).await;
                self.stack.lock().await.start_controller().await?;
                Ok(Some(format!("back after {pause:?}")))
            }
            Harm::Kill(part, _) => self.kill(part, dice).await,
            Harm::Pause(part, time) => self.pause(part, time, dice).await,
            Harm::StopPostgres => {
                let Some(found) = self.one_of(Part::Postmaster, dice).await else { return Ok(None) };
                found.signal(Signal::QUIT);
                Ok(Some(format!("{found:?}")))
            }
            Harm::Break(line, fault, time) => {
                self.line(line).set(fault);
                tokio::time::sleep(time).await;
                self.line(line).set(Fault::None);
                Ok(Some(format!("{fault:?} for {time:?}")))
            }
            Harm::Flap(line, times, period) => {
                for _ in 0..times {
                    self.line(line).set(Fault::Cut);
                    tokio::time::sleep(period).await;
                    self.line(line).set(Fault::None);
                    tokio::time::sleep(period).await;
                }
                Ok(Some(format!("{times} times every {period:?}")))
            }
        }
    }

    async fn kill(&self, part: Part, dice: &mut Dice) -> Result<Option<String>> {
        let Some(found) = self.one_of(part, dice).await else { return Ok(None) };
        let attempt = self.attempt_of(&found).await;
        if let (Part::Agent, Some(attempt)) = (part, &attempt) {
            self.deed(|deeds| deeds.agents.insert(attempt.clone()));
        }
        found.signal(Signal::KILL);
        if let (Part::Shim, Some(attempt)) = (part, &attempt) {
            let gone = || Ok((processes::alive(found.pid) != Some(found.started)).then_some(()));
            eventually("a killed shim to be gone", gone).await?;
            // What it had recorded before counts.
            let record = self.executor_data.join("attempts").join(attempt).join("exit.json");
            if !is_written(&record) {
                self.deed(|deeds| deeds.shims.insert(attempt.clone()));
            }
        }
        // A script has lines; who is told gets one.
        let told = format!("{found:?}").split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Some(told.chars().take(160).collect()))
    }

    async fn pause(&self, part: Part, time: Duration, dice: &mut Dice) -> Result<Option<String>> {
        let Some(found) = self.one_of(part, dice).await else { return Ok(None) };
        found.signal(Signal::STOP);
        tokio::time::sleep(time).await;
        found.signal(Signal::CONT);
        Ok(Some(format!("{} ({}) for {time:?}", found.pid, found.name)))
    }

    /// One of the living processes of this kind.
    async fn one_of(&self, part: Part, dice: &mut Dice) -> Option<processes::Found> {
        let all = candidates(&*self.stack.lock().await, part);
        dice.pick(&all).cloned()
    }

    async fn attempt_of(&self, found: &processes::Found) -> Option<String> {
        let all = self.stack.lock().await.traces().of_attempts();
        all.into_iter().find(|(_, other)| other == found).map(|(attempt, _)| attempt)
    }
}

/// A record has its room reserved before it is written.
fn is_written(record: &Path) -> bool {
    std::fs::read(record).is_ok_and(|content| content.starts_with(b"{"))
}

/// The living processes of this kind.
pub fn candidates(stack: &Stack, part: Part) -> Vec<processes::Found> {
    let all = stack.traces().processes();
    let postgres = |found: &processes::Found| found.name == "postgres";
    let is_child = |found: &processes::Found| all.iter().any(|other| postgres(other) && other.pid == found.parent);
    let is_shim = |found: &processes::Found| found.command.contains("shim run ");
    let wanted = |found: &&processes::Found| match part {
        Part::Executor => found.command.contains("sculpt-executor run "),
        Part::Controller => found.command.contains("sculpt-controller serve "),
        Part::Postmaster => postgres(found) && !is_child(found),
        Part::Backend => postgres(found) && is_child(found) && found.command.contains(" sculpt "),
        Part::Tmux => found.name.starts_with("tmux: server"),
        Part::Shim => is_shim(found),
        Part::Agent => all.iter().any(|other| is_shim(other) && other.pid == found.parent) && found.name == "sh",
    };
    all.iter().filter(wanted).cloned().collect()
}

/// The postmaster, once one accepts connections again.
pub async fn postmaster(stack: &Stack) -> Result<processes::Found> {
    eventually("a postmaster", || Ok(candidates(stack, Part::Postmaster).into_iter().next()))
        .await
        .context("look for Postgres")
}
