//! `sculpt pair`: beside an agent, at its terminal.

mod details;

use std::{
    ffi::OsString,
    io::{self, Write as _},
};

use sculpt_proto::v1::Task;

use super::task_named;
use crate::{
    args::PairArgs,
    client::Client,
    exit::Exit,
    failure::Failure,
    follow::outcome,
    output::{Format, clean, note},
    pairing::{
        Access, Ending, Heard, Kept, Leave, Need, Parting, Purpose, Sat, Standing, Terminal, open, sit, ssh, standing,
        terminal_needed,
    },
};

/// What the other side takes for a wish to sit down.
const SEAT: &str = "sculpt-attach";
const SEAT_TO_WATCH: &str = "sculpt-attach --read-only";

pub(super) async fn run(args: PairArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let attempted = format!("sit down beside task {}", args.task);
    let task = task_named(&client, &args.task, &attempted).await?;
    let purpose = if args.read_only { Purpose::Observe } else { Purpose::Attach };
    if args.print {
        return print(&client, &task, purpose, &args, format, &attempted).await;
    }
    if let Standing::Never(why) = standing(&task, Need::Terminal) {
        return Err(never(&task, &why, &attempted));
    }
    terminal_needed(&attempted)?;
    let number = task.number;
    let kept = Kept {
        client: &client,
        purpose,
        need: Need::Terminal,
        via: args.way.via(),
        waits: !args.no_wait,
        attempted: &attempted,
    };
    let mut leave = Leave::heard(&attempted)?;
    let parting = tokio::select! {
        parting = kept.stay(task, async |access: &Access| seat(access, purpose, &attempted).await) => parting?,
        () = leave.wish() => {
            note(format!("task {number} is left as it is; `sculpt pair {number}` sits down beside it"));
            return Ok(Exit::Detached);
        }
    };
    note(match parting {
        Parting::Left => format!("task {number} goes on; `sculpt pair {number}` sits down beside it again"),
        Parting::Ended(Some(task)) => outcome(&task),
        Parting::Ended(None) => format!("`sculpt show {number}` says how task {number} stands"),
    });
    Ok(Exit::Done)
}

fn never(task: &Task, why: &str, attempted: &str) -> Failure {
    Failure::new(Exit::Conflict, attempted, why).next(format!("sculpt logs {}", task.number))
}

/// Shows what leads there, to people or to other clients.
async fn print(
    client: &Client,
    task: &Task,
    purpose: Purpose,
    args: &PairArgs,
    format: Format,
    attempted: &str,
) -> Result<Exit, Failure> {
    let attempt = match standing(task, Need::Terminal) {
        Standing::Ready(attempt) => attempt,
        Standing::Later(why) => return Err(Failure::new(Exit::Conflict, attempted, why)),
        Standing::Never(why) => return Err(never(task, &why, attempted)),
    };
    let access = open(client, (task, attempt), purpose, args.way.via(), attempted).await?;
    details::print(&access, &arguments(&access, purpose), remote(purpose), format)?;
    Ok(Exit::Done)
}

fn remote(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Observe => SEAT_TO_WATCH,
        Purpose::Attach | Purpose::Workspace => SEAT,
    }
}

/// Every key is the agent's, also those by which ssh would be steered.
fn arguments(access: &Access, purpose: Purpose) -> Vec<OsString> {
    ssh(access, &["-t", "-e", "none"], Some(remote(purpose).into()))
}

/// Sits there once.
async fn seat(access: &Access, purpose: Purpose, attempted: &str) -> Result<Sat, Failure> {
    let terminal = Terminal::remember();
    let sat = sit(&arguments(access, purpose), attempted, |heard| {
        if let Heard::Line(line) = heard
            && is_theirs(line)
        {
            // ssh has made the terminal raw: a line's end is no new line by itself.
            let _closed = write!(io::stderr(), "{}\r\n", clean(line));
        }
    })
    .await?;
    let is_clean = matches!(sat.ending, Ending::Left | Ending::Closed);
    if sat.was_in && !is_clean {
        terminal.leave_screen();
    }
    Ok(sat)
}

/// Whether that is for the person, and from the other side: of what is wrong on this one they learn when it is over.
fn is_theirs(line: &str) -> bool {
    line.starts_with("sculpt: ") && !line.starts_with("sculpt: cannot ")
}
