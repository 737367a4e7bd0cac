//! `sculpt port-forward`: ports of this machine that lead to what an agent's own programs listen on.

use std::{collections::HashSet, ffi::OsString, io, net::TcpListener};

use sculpt_pairing::Right;

use super::task_named;
use crate::{
    args::{Forward, PortForwardArgs},
    client::Client,
    exit::Exit,
    failure::Failure,
    leave::Leave,
    output::{line, note},
    pairing::{Access, Heard, Kept, Need, Parting, Purpose, Sat, Wish, sit, ssh},
};

pub(super) async fn run(args: PortForwardArgs) -> Result<Exit, Failure> {
    let attempted = format!("reach ports of task {}", args.task);
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
    let mut leads = Vec::new();
    let sit = async |access: &Access| {
        if leads.is_empty() {
            leads = args.ports.iter().map(|forward| Lead::of(*forward, &attempted)).collect::<Result<_, _>>()?;
        }
        forward(access, &leads, &attempted).await
    };
    let parting = tokio::select! {
        parting = kept.stay(task, sit) => parting?,
        () = leave.wish() => return Ok(Exit::Detached),
    };
    if let Parting::Ended(_) = parting {
        note(format!("task {number} has ended, and nothing listens there any more"));
    }
    Ok(Exit::Done)
}

/// A port of this machine that nobody else has, and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lead {
    here: u16,
    there: u16,
}

impl Lead {
    fn of(Forward { here, there }: Forward, attempted: &str) -> Result<Self, Failure> {
        let refuse = |exit, why: String| {
            Err(Failure::new(exit, attempted, why).next(format!("write 0:{there} for a port that is free")))
        };
        let wanted = here.unwrap_or(there);
        let free = match (free(wanted), here) {
            // The agent may run on this very machine and have it itself.
            (Err(_), None) => free(0),
            (free, _) => free,
        };
        match free {
            Ok(here) => Ok(Self { here, there }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                refuse(Exit::Conflict, format!("port {wanted} of this machine is taken"))
            }
            Err(error) => {
                let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
                let exit = if forbidden { Exit::NotAllowed } else { Exit::Failed };
                refuse(exit, format!("port {wanted} of this machine: {error}"))
            }
        }
    }
}

/// The port, or with 0 any, if nobody listens there.
fn free(port: u16) -> io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.local_addr().map(|address| address.port())
}

/// Forwards over one connection.
async fn forward(access: &Access, leads: &[Lead], attempted: &str) -> Result<Sat, Failure> {
    let mut told = HashSet::new();
    sit(&arguments(access, leads), attempted, |heard| match heard {
        Heard::IsIn => {
            // Who cannot be told where it listens may still use it.
            leads.iter().for_each(|Lead { here, there }| {
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

fn arguments(access: &Access, leads: &[Lead]) -> Vec<OsString> {
    let leads = leads.iter().map(|Lead { here, there }| format!("127.0.0.1:{here}:localhost:{there}"));
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
    fn a_port_that_was_named_is_that_or_none() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let lead = |here, there| Lead::of(Forward { here, there }, "reach ports");
        let refusal = lead(Some(port), 3000).unwrap_err();
        assert_eq!(refusal.exit, Exit::Conflict);
        assert!(refusal.mentions(&port.to_string()), "{:?}", refusal.lines());
        for here in [None, Some(0)] {
            let lead = lead(here, port).unwrap();
            assert!(lead.here != 0 && lead.here != port && lead.there == port, "{lead:?}");
        }
    }
}
