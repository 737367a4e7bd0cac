//! `sculpt port-forward`: ports of this machine that lead to what an agent's own programs listen on.

use std::{collections::HashSet, ffi::OsString, io, net::TcpListener};

use sculpt_pairing::Right;

use super::task_named;
use crate::{
    args::{Forward, PortForwardArgs},
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{line, note},
    pairing::{Access, Heard, Kept, Leave, Need, Parting, Purpose, Sat, Wish, sit, ssh},
};

pub(super) async fn run(args: PortForwardArgs) -> Result<Exit, Failure> {
    let attempted = format!("reach ports of task {}", args.task);
    let forwards = args.ports.iter().map(|forward| free(*forward, &attempted)).collect::<Result<Vec<_>, _>>()?;
    let client = Client::connect().await?;
    let task = task_named(&client, &args.task, &attempted).await?;
    let number = task.number;
    let kept = Kept {
        client: &client,
        wish: Wish { purpose: Purpose::Workspace, right: Some(Right::Forward), via: args.way.via() },
        need: Need::Workspace,
        waits: true,
        attempted: &attempted,
    };
    let mut leave = Leave::heard(&attempted)?;
    let parting = tokio::select! {
        parting = kept.stay(task, async |access: &Access| forward(access, &forwards, &attempted).await) => parting?,
        () = leave.wish() => return Ok(Exit::Detached),
    };
    if let Parting::Ended(_) = parting {
        note(format!("task {number} has ended, and nothing listens there any more"));
    }
    Ok(Exit::Done)
}

/// The forward with a port of this machine that nobody else has.
fn free(forward: Forward, attempted: &str) -> Result<Forward, Failure> {
    let refuse = |exit, why: String, next: String| Failure::new(exit, attempted, why).next(next);
    let Forward { here, there } = forward;
    let bound = TcpListener::bind(("127.0.0.1", here)).and_then(|listener| listener.local_addr());
    match bound {
        Ok(address) => Ok(Forward { here: address.port(), there }),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let why = format!("port {here} of this machine is taken");
            Err(refuse(Exit::Conflict, why, format!("write 0:{there} for a port that is free")))
        }
        Err(error) => {
            let exit = if error.kind() == io::ErrorKind::PermissionDenied { Exit::NotAllowed } else { Exit::Failed };
            let why = format!("port {here} of this machine: {error}");
            Err(refuse(exit, why, format!("write 0:{there} for a port that is free")))
        }
    }
}

/// Forwards over one connection.
async fn forward(access: &Access, forwards: &[Forward], attempted: &str) -> Result<Sat, Failure> {
    let mut told = HashSet::new();
    sit(&arguments(access, forwards), attempted, |heard| match heard {
        Heard::IsIn => {
            // Who cannot be told where it listens may still use it.
            forwards.iter().for_each(|Forward { here, there }| {
                let _closed = line(format!("http://127.0.0.1:{here} leads to port {there} of task {}", access.number));
            });
        }
        Heard::Line(said) => {
            if let Some(why) = unopened(said).filter(|why| told.insert((*why).to_owned())) {
                note(format!("a connection was refused: {why}"));
            }
        }
    })
    .await
}

fn arguments(access: &Access, forwards: &[Forward]) -> Vec<OsString> {
    let leads = forwards.iter().map(|Forward { here, there }| format!("127.0.0.1:{here}:localhost:{there}"));
    let leads: Vec<String> = leads.collect();
    let flags = leads.iter().flat_map(|lead| ["-L", lead]);
    // Over one that has stopped nothing would ever come; the terminal is for Ctrl-C.
    let options: Vec<&str> = ["-N", "-n", "-o", "ExitOnForwardFailure=yes"].into_iter().chain(flags).collect();
    ssh(access, &options, None)
}

/// Why a channel could not be opened, of what ssh says.
fn unopened(said: &str) -> Option<&str> {
    let (_, why) = said.strip_prefix("channel ")?.split_once(": open failed: ")?;
    Some(why.split_once(": ").map_or(why, |(_, why)| why).trim_end_matches(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        for (said, why) in [
            (
                "channel 2: open failed: connect failed: nobody listens on port 3000",
                Some("nobody listens on port 3000"),
            ),
            ("channel 12: open failed: administratively prohibited: you may not", Some("you may not")),
            ("channel 2: open failed: connect failed: ", Some("")),
            ("Connection to sculpt.17 closed.", None),
        ] {
            assert_eq!(unopened(said), why, "{said}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_told_before_anything_is_done() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = taken.local_addr().unwrap().port();
        let refusal = free(Forward { here, there: 3000 }, "reach ports").unwrap_err();
        assert_eq!(refusal.exit, Exit::Conflict);
        assert!(refusal.mentions(&here.to_string()), "{:?}", refusal.lines());
        let any = free(Forward { here: 0, there: 3000 }, "reach ports").unwrap();
        assert!(any.here != 0 && any.there == 3000);
    }
}
