//! `sculpt tunnel`: a connection of ssh through the controller, on standard input and output.

use super::{ssh::workspace, task_named};
use crate::{
    args::TunnelArgs,
    client::Client,
    exit::Exit,
    failure::Failure,
    output::note,
    pairing::{Ends, Purpose, REACH, Via, Wish, carry, forget},
};

/// ssh shows what we say in the midst of its own: so it is one line.
pub(super) async fn run(args: TunnelArgs) -> Result<Exit, Failure> {
    let mut ends = None;
    match tunnel(&args, &mut ends).await {
        Ok(()) => Ok(Exit::Done),
        Err(failure) => {
            failure.lines().iter().take(1).for_each(note);
            Err(Failure::quiet(failure.exit))
        }
    }
}

/// Carries it. Its `ends` stay open when it fails: ssh ends as soon as it hears that nothing more comes, and us with it.
async fn tunnel(args: &TunnelArgs, ends: &mut Option<Ends>) -> Result<(), Failure> {
    let attempted = match &args.task {
        Some(task) => format!("reach the executor of task {task}"),
        None => REACH.to_owned(),
    };
    let client = Client::connect().await?;
    let pairing = match (&args.pairing, &args.task) {
        (Some(pairing), _) => *pairing,
        (None, task) => {
            let task = task_named(&client, task.as_deref().unwrap_or_default(), &attempted).await?;
            let wish = Wish { purpose: Purpose::Workspace, right: None, via: Via::Tunnel };
            workspace(&client, &task, wish, &attempted).await?.grant.pairing
        }
    };
    let standard = Ends::standard().map_err(|error| Failure::new(Exit::Failed, &attempted, error.to_string()))?;
    let ends = ends.insert(standard);
    let carried = carry(&client, pairing, ends, &attempted).await;
    if carried.as_ref().is_err_and(|failure| matches!(failure.exit, Exit::Conflict | Exit::NotFound)) {
        // Taken back, or of an attempt that has ended. What stays is refused once more.
        let _stays = forget(&client.context, pairing);
    }
    carried
}
