//! The two ways to an agent.

use anyhow::Result;
use sculpt_tests::harness::{Options, Stack};

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
}
