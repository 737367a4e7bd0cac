//! The two ways to an agent.

use anyhow::{Result, ensure};
use sculpt_tests::harness::{Options, Stack};
use serde_json::Value;

/// By which people come to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Straight to the executor's own port, as with `sculpt up`.
    Direct,
    /// Through the controller, as with a fleet.
    Tunnel,
}

impl Way {
    /// A stack whose people go that way.
    pub(crate) async fn stack(self) -> Result<Stack> {
        let options = Options::default().slots(8);
        match self {
            Self::Direct => options.up().await,
            Self::Tunnel => options.parts().await,
        }
    }
    /// Fails where people come to the task another way: what is measured would not be what it is called.
    pub(crate) async fn is_taken(self, stack: &Stack, task: &str) -> Result<()> {
        let printed = stack.sculpt(["-o", "json", "pair", "--print", task]).run().await?.done()?;
        let printed: Value = serde_json::from_slice(&printed.stdout)?;
        let name = match self {
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
        };
        ensure!(printed["route"] == name, "people were to come by the way {name}: {printed:#}");
        Ok(())
    }
}
