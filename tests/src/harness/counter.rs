//! An agent that prints numbered lines until it is told to stop, and keeps its own account of them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::eventually;

const SCRIPT: &str = r#"
echo $$ > "$1/pid"
n=0
while [ ! -e "$1/stop" ]; do
    n=$((n + 1))
    echo "line $n"
    echo "line $n" >> "$2/$SCULPT_ATTEMPT"
    echo $n > "$1/count"
    sleep 0.01
done
"#;

/// The agent's side, seen from outside of every part of ours.
#[derive(Debug)]
pub struct Counter {
    directory: PathBuf,
    witness: PathBuf,
}

impl Counter {
    pub(super) fn new(directory: PathBuf, witness: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory).context("make the counter's directory")?;
        // Its agent may run under an account of its own.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).context("open the counter's directory")?;
        Ok(Self { directory, witness })
    }

    /// The command to run.
    pub fn command(&self) -> [String; 6] {
        let (directory, witness) = (self.directory.to_string_lossy(), self.witness.to_string_lossy());
        ["sh", "-c", SCRIPT, "counter", &directory, &witness].map(str::to_owned)
    }

    /// Number of the agent's process, once it runs.
    pub async fn pid(&self) -> Result<i32> {
        eventually("the counter's process", || Ok(self.number("pid").map(|pid| pid as i32))).await
    }

    /// Waits until it has printed `more` further lines, and gives their number so far.
    pub async fn prints(&self, more: u64) -> Result<u64> {
        let start = self.number("count").unwrap_or(0);
        let what = format!("the agent to print {more} lines after line {start}");
        eventually(&what, || Ok(self.number("count").filter(|count| *count >= start + more))).await
    }

    /// Tells it to end.
    pub fn stop(&self) -> Result<()> {
        fs::write(self.directory.join("stop"), "").context("stop the counter")
    }

    /// Fails unless `log` holds every line once, in order, and as many as were printed.
    pub fn check(&self, log: &[u8]) -> Result<()> {
        let printed = self.number("count").context("the counter has counted")?;
        let text = String::from_utf8_lossy(log);
        let mut lines = 0;
        for (index, line) in text.lines().enumerate() {
            lines += 1;
            let expected = format!("line {}", index + 1);
            ensure!(line.trim_end_matches('\r') == expected, "line {} of the log is {line:?}", index + 1);
        }
        ensure!(lines == printed, "{printed} lines were printed, the log holds {lines}");
        Ok(())
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.directory.join(file)).ok()?.trim().parse().ok()
    }
}
