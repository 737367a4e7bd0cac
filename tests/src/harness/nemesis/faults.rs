//! What was done so far, counted.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{Harm, PARTS, Part};

/// How many faults of each kind.
#[derive(Clone, Debug, Default)]
pub struct Faults(BTreeMap<String, usize>);

impl Faults {
    /// One more.
    pub fn add(&mut self, harm: Harm) {
        *self.0.entry(harm.kind()).or_default() += 1;
    }

    /// How many in all.
    pub fn all(&self) -> usize {
        self.0.values().sum()
    }

    /// How many processes of this kind were killed; an immediate stop ends Postgres as well.
    pub fn kills(&self, part: Part) -> usize {
        let stops = if part == Part::Postmaster { self.of(&Harm::StopPostgres) } else { 0 };
        stops + self.of(&Harm::Kill(part, Duration::ZERO))
    }

    /// How many processes of this kind stood still for a while.
    pub fn stops(&self, part: Part) -> usize {
        self.of(&Harm::Pause(part, Duration::ZERO))
    }

    /// The kind of process that was killed least, if that is less than `due`.
    pub fn behind(&self, due: usize) -> Option<Part> {
        PARTS.into_iter().min_by_key(|part| self.kills(*part)).filter(|part| self.kills(*part) < due)
    }

    fn of(&self, harm: &Harm) -> usize {
        self.0.get(&harm.kind()).copied().unwrap_or(0)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(kind, count)| writeln!(f, "  {kind:<24} {count:>5}"))?;
        writeln!(f, "  {:<12} {:>8} {:>8}", "process", "killed", "stopped")?;
        PARTS.into_iter().try_for_each(|part| {
            let name = format!("{part:?}").to_lowercase();
            writeln!(f, "  {name:<12} {:>8} {:>8}", self.kills(part), self.stops(part))
        })
    }
}
