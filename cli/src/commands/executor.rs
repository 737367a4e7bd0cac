//! `sculpt executor`.

mod adopt;
mod gc;
mod token;

pub(crate) use token::{RmArgs, TokenArgs};

use std::path::Path;

use sculpt_proto::v1::{Counters, Executor, GetExecutorRequest, ListExecutorsRequest};
use sculpt_space::Space;

use crate::{
    args::ExecutorVerb,
    client::Client,
    config::Context,
    exit::Exit,
    failure::Failure,
    output::{
        Format, clean,
        executors::ExecutorJson,
        json, line, note, paint, shell_quoted,
        table::Grid,
        time::{age, local},
    },
    up::{data_of, start_command},
};

pub(super) async fn run(verb: ExecutorVerb, format: Format) -> Result<Exit, Failure> {
    match verb {
        ExecutorVerb::Ls => ls(format).await,
        ExecutorVerb::Show { executor } => show(&executor, format).await,
        ExecutorVerb::Adopt { executor, attempts } => adopt::run(executor, attempts, format).await,
        ExecutorVerb::Gc(arguments) => gc::run(arguments, format).await,
        ExecutorVerb::Token(arguments) => token::token(arguments, format).await,
        ExecutorVerb::Rm(arguments) => token::rm(arguments, format).await,
    }
}

async fn ls(format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let executors =
        client.read("list executors", client.executors().list_executors(ListExecutorsRequest {})).await?.executors;
    match format {
        Format::Json => json(&executors.iter().map(ExecutorJson::from).collect::<Vec<_>>())?,
        Format::Text if executors.is_empty() => note(format!("no executors; {}", another(&client.context))),
        Format::Text => {
            let mut grid = Grid::new(&["NAME", "STATE", "POOL-", "SLOTS", "DISK-", "LABELS-", "AGENTS*", "SEEN-"]);
            for executor in &executors {
                grid.row([
                    executor.name.clone(),
                    state(executor),
                    executor.pool.clone(),
                    format!("{}/{}", executor.slots_used, executor.slots),
                    disk(executor).map(|disk| format!("{} %", disk.percent())).unwrap_or_default(),
                    labels(executor),
                    agents(executor),
                    age(executor.last_seen.as_ref()),
                ]);
            }
            line(grid.render())?;
        }
    }
    Ok(Exit::Done)
}

async fn show(name: &str, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let attempted = format!("show executor {name}");
    let request = GetExecutorRequest { executor: name.to_owned() };
    let answer = client.read(&attempted, client.executors().get_executor(request)).await.map_err(|failure| {
        match failure.exit {
            Exit::NotFound if !failure.mentions("executor ls") => {
                failure.next("`sculpt executor ls` shows those there are")
            }
            _ => failure,
        }
    })?;
    let executor = answer
        .executor
        .ok_or_else(|| Failure::new(Exit::Failed, attempted, "the controller's answer holds no executor"))?;
    match format {
        Format::Json => json(&ExecutorJson::from(&executor))?,
        Format::Text => line(page(&executor))?,
    }
    Ok(Exit::Done)
}

fn page(executor: &Executor) -> String {
    let mut lines = vec![format!("executor {}", clean(&executor.name))];
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {name:<12}{value}"));
        }
    };
    let colour = match standing(executor) {
        "connected" => "32",
        "unreachable" => "33",
        _ => "31",
    };
    field("state", paint(&clean(&state(executor)), colour));
    if executor.locked {
        let name = shell_quoted(&clean(&executor.name));
        field(
            "locked",
            format!("its calls are refused, and its agents go on; `sculpt unlock executor {name}` lets it in"),
        );
    }
    field("closed", clean(&executor.closed_reason));
    field("machine", clean(&executor.hostname));
    field("pool", clean(&executor.pool));
    field("slots", format!("{} of {} in use", executor.slots_used, executor.slots));
    field("disk", disk(executor).map(|disk| disk.to_string()).unwrap_or_default());
    field("labels", clean(&labels(executor)));
    field("agents", clean(&agents(executor)));
    field("separates", separation(executor));
    field("ssh", clean(&ssh(executor)));
    field("limits", executor.counters.as_ref().map(counters).unwrap_or_default());
    field("unlimited", unmet(executor).map(|text| paint(&clean(&text), "33")).unwrap_or_default());
    field("owner", clean(&executor.owner));
    field("certified", local(executor.certified_until.as_ref()).map(|at| format!("until {at}")).unwrap_or_default());
    field("connected", local(executor.connected_at.as_ref()).unwrap_or_default());
    field("last seen", local(executor.last_seen.as_ref()).unwrap_or_default());
    field("version", clean(&executor.version));
    field("uuid", executor.uuid.clone());
    field("tasks", executor.tasks.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
    for attempt in &executor.unknown_attempts {
        field("unknown", format!("attempt {} is there, but this controller does not know it", clean(attempt)));
    }
    if !executor.unknown_attempts.is_empty() {
        field("next", format!("sculpt executor adopt {}   take them over", shell_quoted(&clean(&executor.name))));
    }
    for remark in &executor.notes {
        field("note", clean(remark));
    }
    lines.join("\n")
}

fn state(executor: &Executor) -> String {
    let closed = !executor.locked && !executor.draining && !executor.closed_reason.is_empty();
    let marks = [(executor.draining, "draining"), (closed, "closed")];
    let words = marks.into_iter().filter_map(|(holds, word)| holds.then_some(word));
    [standing(executor)].into_iter().chain(words).collect::<Vec<_>>().join(", ")
}

/// How the controller stands to it. One that is locked is refused at once, whenever it was heard of last.
fn standing(executor: &Executor) -> &str {
    if executor.locked { "locked" } else { &executor.liveness }
}

/// Whether it can be given something to do now.
pub(super) fn is_in(executor: &Executor) -> bool {
    standing(executor) == "connected"
}

/// How the controller of `context` gets an executor: `sculpt up` serves its own alone.
pub(super) fn another(context: &Context) -> String {
    let token = Path::new(&context.token_source);
    if data_of(token).is_some() {
        return format!("`{}` starts one on this machine", start_command(token));
    }
    "`sculpt executor token` makes a token, and says how a machine becomes one with it: `sculpt-executor join`"
        .to_owned()
}

/// Which ways lead people there.
fn ssh(executor: &Executor) -> String {
    match executor.ssh_address.as_deref() {
        None => String::new(),
        Some("") => "through the controller".to_owned(),
        Some(address) => format!("at {address}, or through the controller"),
    }
}

/// Whether agents are kept apart, and what follows.
fn separation(executor: &Executor) -> String {
    if executor.separates {
        let network = if executor.closes_network { "; it can close the network to them" } else { "" };
        let by = match executor.separated_by.as_str() {
            "" => String::new(),
            "account" => ", by an account for each".to_owned(),
            means => format!(", by {}", clean(means)),
        };
        return format!("yes{by}: attempts reach neither the executor nor each other{network}");
    }
    let why = match executor.unseparated.as_str() {
        "" => "attempts run as the executor's own account".to_owned(),
        why => clean(why),
    };
    let follows = if executor.owner.is_empty() { "" } else { "; so it runs its owner's tasks alone" };
    format!("no: {why}{follows}")
}

/// By what attempts are held to limits there, those that one thing counts together.
fn counters(counters: &Counters) -> String {
    let mut by: Vec<(&str, Vec<&str>)> = Vec::new();
    for (what, means) in [("memory", &counters.memory), ("processes", &counters.processes), ("cpu", &counters.cpu)] {
        match by.iter_mut().find(|(known, _)| known == means) {
            Some((_, all)) => all.push(what),
            None => by.push((means, vec![what])),
        }
    }
    let told = by.into_iter().map(|(means, all)| match means {
        "" => format!("{} by nothing: {}", all.join(" and "), clean(&counters.lacking)),
        means => format!("{} by {}", all.join(" and "), clean(means)),
    });
    told.collect::<Vec<_>>().join("; ")
}

/// What its pool limits and it does not.
pub(super) fn unmet(executor: &Executor) -> Option<String> {
    let limits = executor.unmet.join(" and ");
    (!limits.is_empty()).then(|| {
        format!("pool {} limits {limits}, and nothing counts that here: its attempts run without", executor.pool)
    })
}

/// How full it is, once it has said so.
fn disk(executor: &Executor) -> Option<Space> {
    let space = Space { used: executor.disk_used, budget: executor.disk_budget };
    (space.budget > 0).then_some(space)
}

fn labels(executor: &Executor) -> String {
    let mut labels: Vec<_> = executor.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    labels.join(" ")
}

fn agents(executor: &Executor) -> String {
    let name = |agent: &sculpt_proto::v1::ExecutorAgent| {
        if agent.is_default { format!("{}*", agent.name) } else { agent.name.clone() }
    };
    executor.agents.iter().map(name).collect::<Vec<_>>().join(" ")
}
