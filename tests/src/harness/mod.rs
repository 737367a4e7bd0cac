//! Whole stacks in one line.
//!
//! ```ignore
//! let stack = Stack::up().await?;                    // `sculpt up`, as a person starts it
//! let stack = Stack::parts().await?;                 // controller and executor as processes of their own, to be killed
//! let task = stack.detached(&repo, ["--", "make"]).await?;
//! stack.ended(&task).await?;
//! stack.finish().await                               // fails when anything is left over
//! ```
//!
//! Nothing here sleeps for an effect: conditions are awaited on the streams of the API, on `/proc` or on files, each
//! with a deadline that only a fault reaches.

mod api;
pub mod checker;
mod checks;
mod cli;
mod counter;
mod counting;
mod database;
mod dice;
mod disk;
mod distance;
mod enrolment;
mod following;
pub mod nemesis;
pub mod netns;
mod network;
mod options;
pub mod peer;
mod postgres;
pub mod processes;
mod proxy;
mod repo;
mod service;
mod shell;
mod stack;
mod terminal;

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};

pub use api::{Api, Authorized};
pub use cli::{Cli, Follow, Output};
pub use counter::Counter;
pub use counting::Counting;
pub use dice::Dice;
pub use disk::{BadDisk, Disk};
pub use distance::Distance;
pub use following::Following;
pub use netns::{Cable, Way};
pub use network::{Network, Via};
pub use options::{Options, programs};
pub use peer::Peer;
pub use postgres::Cluster;
pub use proxy::{Fault, Proxy};
pub use repo::Repo;
pub use service::Service;
pub use stack::Stack;
pub use terminal::{Desk, Terminal};

/// How long a condition may take before the test fails: far above what a loaded machine of two cores needs.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// `future`, or an error that names what was awaited.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result,
        Err(_) => bail!("waited {limit:?} in vain for: {what}"),
    }
}

/// Looks again and again until `look` gives something; for conditions that nothing announces, such as `/proc`.
pub async fn eventually<T>(what: &str, look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    soon(DEADLINE, what, look).await
}

/// The same with a deadline of its own.
async fn soon<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    again(limit, what, async || look()).await
}

/// The same where a look takes a while; what it waits for is better awaited than looked for again.
pub async fn again<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    within(limit, what, async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}
