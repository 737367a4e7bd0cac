//! `sculpt pair`: beside an agent, at its terminal.

mod details;
mod recap;

use std::{ffi::OsString, time::Duration};

use sculpt_pairing::Right;
use sculpt_proto::v1::Task;
use tokio::time::timeout;

use self::recap::Recap;
use super::task_named;
use crate::{
    args::PairArgs,
    client::Client,
    exit::Exit,
    failure::Failure,
    follow::outcome,
    leave::Leave,
    output::{Format, note},
    pairing::{
        Access, Ending, Heard, Kept, Need, Parting, Purpose, Sat, Standing, Terminal, Wish, afterwards, open, sit, ssh,
        standing, terminal_needed,
    },
};

/// How long somebody who leaves waits to learn how the task stands.
const SOON: Duration = Duration::from_secs(1);

/// What the other side takes for a wish to sit down.
const SEAT: &str = "sculpt-attach";
const SEAT_TO_WATCH: &str = "sculpt-attach --read-only";

pub(super) async fn run(args: PairArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let attempted = format!("sit down beside task {}", args.task);
    let task = task_named(&client, &args.task, &attempted).await?;
    let (purpose, right) = match args.read_only {
        true => (Purpose::Observe, Right::Observe),
        false => (Purpose::Workspace, Right::Drive),
    };
    let wish = Wish { purpose, right: Some(right), via: args.way.via() };
    if args.print {
        return print(&client, &task, wish, format, &attempted).await;
    }
    if let Standing::Never(why) = standing(&task, Need::Terminal) {
        return Err(never(&task, &why, &attempted));
    }
    terminal_needed(&attempted)?;
    let number = task.number;
    let kept = Kept { client: &client, wish, need: Need::Terminal, waits: !args.no_wait, attempted: &attempted };
    let mut leave = Leave::heard(&attempted)?;
    let mut recap = Recap::begin(&client, &task);
    let mut was_in = false;
    let sit = async |access: &Access| {
        if let Some(recap) = recap.take() {
            recap.tell().await;
        }
        let sat = seat(access, purpose, was_in, &attempted).await?;
        was_in |= sat.was_in;
        Ok(sat)
    };
    let parting = tokio::select! {
        parting = kept.stay(task, sit) => parting?,
        () = leave.wish() => {
            note(format!("task {number} is left as it is; `sculpt pair {number}` sits down beside it"));
            return Ok(Exit::Detached);
        }
    };
    note(match parting {
        Parting::Left => match ended(&client, number).await {
            Some(task) => outcome(&task),
            None => format!("task {number} goes on; `sculpt pair {number}` sits down beside it again"),
        },
        Parting::Ended(Some(task)) => outcome(&task),
        Parting::Ended(None) => format!("`sculpt show {number}` says how task {number} stands"),
    });
    Ok(Exit::Done)
}

/// The task, if its agent has ended: its last picture stays until its people have left.
async fn ended(client: &Client, number: u64) -> Option<Task> {
    let task = timeout(SOON, task_named(client, &number.to_string(), "look at the task")).await.ok()?.ok()?;
    (!task.live && Exit::of_state(task.state()).is_some()).then_some(task)
}

fn never(task: &Task, why: &str, attempted: &str) -> Failure {
    Failure::new(Exit::Conflict, attempted, why).advised(afterwards(task))
}

/// Shows what leads there, to people or to other clients.
async fn print(client: &Client, task: &Task, wish: Wish, format: Format, attempted: &str) -> Result<Exit, Failure> {
    let attempt = match standing(task, Need::Terminal) {
        Standing::Ready(attempt) => attempt,
        Standing::Later(why) => return Err(Failure::new(Exit::Conflict, attempted, why)),
        Standing::Never(why) => return Err(never(task, &why, attempted)),
    };
    let access = open(client, (task, attempt), wish, attempted).await?;
    details::print(&access, &arguments(&access, wish.purpose), remote(wish.purpose), format)?;
    Ok(Exit::Done)
}

fn remote(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Observe => SEAT_TO_WATCH,
        Purpose::Workspace => SEAT,
    }
}

/// Every key is the agent's, also those by which ssh would be steered.
fn arguments(access: &Access, purpose: Purpose) -> Vec<OsString> {
    ssh(access, &["-t", "-e", "none"], Some(remote(purpose).into()))
}

/// Sits there once, or `again` after a connection that broke.
async fn seat(access: &Access, purpose: Purpose, again: bool, attempted: &str) -> Result<Sat, Failure> {
    let terminal = Terminal::remember();
    let mut words = Words::default();
    let sat = sit(&arguments(access, purpose), attempted, |heard| match heard {
        Heard::IsIn => {
            if again {
                terminal.forget_typed();
            }
            terminal.taken();
        }
        Heard::Line(line) => words.hear(line),
    })
    .await?;
    if matches!(sat.ending, Ending::Left | Ending::Closed) {
        terminal.left();
    }
    drop(terminal);
    words.beside(&sat.ending).for_each(note);
    Ok(sat)
}

/// What the other side has said to the person. They read it afterwards: before, the terminal is not theirs to write on.
#[derive(Debug, Default)]
struct Words(Vec<String>);

impl Words {
    /// The most that is kept.
    const LINES: usize = 8;

    /// Takes a line of ssh's that is from the other side: of what is wrong on this one they learn as a failure.
    fn hear(&mut self, line: &str) {
        let is_theirs = line.starts_with("sculpt: ") && !line.starts_with("sculpt: cannot ");
        if is_theirs && self.0.len() < Self::LINES {
            self.0.push(line.to_owned());
        }
    }

    /// What is not said by how it ended.
    fn beside(&self, ending: &Ending) -> impl Iterator<Item = &String> {
        let told = match ending {
            Ending::Left | Ending::Closed => None,
            Ending::Refused(_, why) | Ending::Broken(why) => Some(why.clone()),
        };
        self.0.iter().filter(move |line| told.as_ref().is_none_or(|why| !line.contains(&**why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_told_once() {
        let mut words = Words::default();
        for line in ["sculpt: no terminal called x here.", "sculpt: you may not.", "sculpt: cannot go", "debug1: x"] {
            words.hear(line);
        }
        let told = |ending| words.beside(&ending).map(String::as_str).collect::<Vec<_>>();
        let [first, second] = ["sculpt: no terminal called x here.", "sculpt: you may not."];
        assert_eq!(told(Ending::Left), [first, second]);
        assert_eq!(told(Ending::Closed), [first, second]);
        assert_eq!(told(Ending::Refused(Exit::NotAllowed, "you may not".into())), [first]);
        assert_eq!(told(Ending::Broken("no terminal called x here".into())), [second]);
    }
}
