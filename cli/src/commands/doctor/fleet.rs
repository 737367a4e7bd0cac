//! Executors and pools: who is away or locked, what is not kept apart, and which limits nothing holds.

use std::path::Path;

use sculpt_proto::v1::{Executor, ListExecutorsRequest, ListPoolsRequest, Pool};

use super::{Finding, Verdict};
use crate::{
    client::Client,
    commands::executor::{another, is_in, unmet},
    config::Context,
    exit::Exit,
    output::{counted, shell_quoted},
    up::{data_of, running},
};

pub(super) async fn check(client: &Client, findings: &mut Vec<Finding>) {
    let list = match client.read("list executors", client.executors().list_executors(ListExecutorsRequest {})).await {
        Ok(list) => list.executors,
        Err(failure) => return findings.push(Finding::failure("executors", &failure)),
    };
    let here = data_of(Path::new(&client.context.token_source)).is_some();
    findings.push(connected(&list, || absent(&client.context, list.is_empty())));
    findings.extend(list.iter().flat_map(|executor| remarks(executor, here)));
    match client.read("list pools", client.executors().list_pools(ListPoolsRequest {})).await {
        Ok(pools) => findings.extend(pools.pools.iter().flat_map(|pool| unserved(pool, &list))),
        // Pools are an admin's business, and nothing is wrong with who is none.
        Err(failure) if failure.exit == Exit::NotAllowed => {}
        Err(failure) => findings.push(Finding::failure("pools", &failure)),
    }
}

fn connected(list: &[Executor], absent: impl FnOnce() -> String) -> Finding {
    let connected = list.iter().filter(|executor| is_in(executor)).count();
    let text = format!("{connected} of {} connected", list.len());
    match connected {
        0 => Finding::bad(Verdict::Fail, "executors", text, absent()),
        some if some < list.len() => Finding::bad(
            Verdict::Warn,
            "executors",
            text,
            "`sculpt executor ls` shows which are away or locked; their agents go on",
        ),
        _ => Finding::ok("executors", text),
    }
}

/// What is to be known of one; `here`: it is that of the `sculpt up` that we talk to, which works with its user's own tools.
fn remarks(executor: &Executor, here: bool) -> Vec<Finding> {
    let name = format!("executor {}", executor.name);
    let quoted = shell_quoted(&executor.name);
    let warn = |text: String, remedy: String| Finding::bad(Verdict::Warn, &name, text, remedy);
    let mut findings = Vec::new();
    if executor.locked {
        let remedy = format!("`sculpt locks` says why; `sculpt unlock executor {quoted}` lets it in");
        findings.push(warn("is locked, and refused".to_owned(), remedy));
    }
    if !executor.locked && !executor.closed_reason.is_empty() {
        let text = format!("takes no new work: {}", executor.closed_reason);
        findings.push(warn(text, format!("`sculpt executor gc {quoted} --dry-run` shows what can go")));
    }
    if is_in(executor) && !executor.separates {
        let text = unseparated(executor);
        findings.push(if here {
            Finding::ok(&name, text)
        } else {
            let remedy = "run it as root, or install bubblewrap there; its log says what is missing";
            warn(text, remedy.to_owned())
        });
    }
    if let Some(text) = unmet(executor) {
        let lacking = executor.counters.as_ref().map(|counters| counters.lacking.clone()).unwrap_or_default();
        let remedy = if lacking.is_empty() { format!("sculpt executor show {quoted}") } else { lacking };
        findings.push(warn(text, remedy));
    }
    findings.extend(executor.notes.iter().map(|note| warn(note.clone(), format!("sculpt executor show {quoted}"))));
    findings
}

fn unseparated(executor: &Executor) -> String {
    let why = match executor.unseparated.as_str() {
        "" => String::new(),
        why => format!(" ({why})"),
    };
    let whose = match executor.owner.as_str() {
        "" => "nobody's tasks, as nobody owns it".to_owned(),
        owner => format!("the tasks of {owner} alone"),
    };
    format!("does not keep attempts apart from itself{why}, so it runs {whose}")
}

/// What the rules of a pool keep from being run.
fn unserved(pool: &Pool, executors: &[Executor]) -> Vec<Finding> {
    let name = format!("pool {}", pool.name);
    let quoted = shell_quoted(&pool.name);
    let mut findings = Vec::new();
    let open = executors.iter().filter(|executor| executor.pool == pool.name && !executor.closes_network);
    let open: Vec<&str> = open.map(|executor| executor.name.as_str()).collect();
    if pool.network == "none" && !open.is_empty() {
        let text = format!("allows no network, and gets nothing done on {}, which cannot close it", open.join(", "));
        let remedy = "install bubblewrap there, or let them join with a token for another pool";
        findings.push(Finding::bad(Verdict::Warn, &name, text, remedy));
    }
    if pool.waiting > 0 && pool.executors.is_empty() {
        let count = usize::try_from(pool.waiting).unwrap_or(usize::MAX);
        let waiting = if count == 1 { "1 task waits".to_owned() } else { format!("{} wait", counted(count, "task")) };
        let text = format!("{waiting} for it, and it has no executor");
        let remedy = format!("`sculpt executor token --pool {quoted}` makes a token for one");
        findings.push(Finding::bad(Verdict::Warn, &name, text, remedy));
    }
    findings
}

/// What to do when no executor is connected; the one of a running `sculpt up` is being seen to.
fn absent(context: &Context, none: bool) -> String {
    let data = data_of(Path::new(&context.token_source));
    match data.and_then(|data| running(&data).map(|pid| (data, pid))) {
        Some((data, pid)) => {
            let log = data.join("logs/executor.log");
            format!(
                "`sculpt up` runs (pid {pid}) and keeps one here: {} says why it is away; its agents go on",
                log.display()
            )
        }
        None if none || data_of(Path::new(&context.token_source)).is_some() => {
            format!("{}; queued tasks wait for one", another(context))
        }
        None => {
            "`sculpt executor ls` shows which are away or locked; their agents go on, and queued tasks wait".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use sculpt_proto::v1::Counters;

    use super::*;

    fn executor() -> Executor {
        Executor {
            name: "worker".to_owned(),
            pool: "build".to_owned(),
            liveness: "connected".to_owned(),
            separates: true,
            closes_network: true,
            ..Executor::default()
        }
    }

    fn said(findings: &[Finding]) -> Vec<(Verdict, String)> {
        let said = |finding: &Finding| {
            let remedy = finding.remedy.as_deref().unwrap_or_default();
            (finding.verdict, format!("{}: {} > {remedy}", finding.name, finding.text))
        };
        findings.iter().map(said).collect()
    }

    #[test]
    fn what_holds_an_executor_back_is_found() {
        let open = Executor {
            separates: false,
            unseparated: "no bubblewrap".to_owned(),
            owner: "ada".to_owned(),
            ..executor()
        };
        let lacking = Counters { lacking: "delegate cgroups to it".to_owned(), ..Counters::default() };
        let uncounted =
            Executor { unmet: vec!["memory".to_owned(), "cpu".to_owned()], counters: Some(lacking), ..executor() };
        let cases = [
            (executor(), false, None),
            (
                Executor { locked: true, closed_reason: "locked".to_owned(), ..executor() },
                false,
                Some((Verdict::Warn, "unlock executor worker")),
            ),
            (open.clone(), false, Some((Verdict::Warn, "(no bubblewrap), so it runs the tasks of ada alone"))),
            (open.clone(), true, Some((Verdict::Ok, "the tasks of ada alone"))),
            (Executor { liveness: "lost".to_owned(), ..open }, false, None),
            (uncounted, true, Some((Verdict::Warn, "without > delegate cgroups"))),
            (
                Executor { closed_reason: "its disk is full".to_owned(), ..executor() },
                true,
                Some((Verdict::Warn, "its disk is full > `sculpt executor gc worker")),
            ),
        ];
        for (executor, here, expected) in cases {
            let found = said(&remarks(&executor, here));
            assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
            if let Some((verdict, words)) = expected {
                assert!(found[0].0 == verdict && found[0].1.contains(words), "{words:?} is not in {found:?}");
            }
        }
    }

    #[test]
    fn who_is_locked_is_not_counted() {
        let locked = Executor { locked: true, ..executor() };
        for (list, verdict, text) in [
            (vec![executor()], Verdict::Ok, "1 of 1"),
            (vec![executor(), locked.clone()], Verdict::Warn, "1 of 2"),
            (vec![locked], Verdict::Fail, "0 of 1"),
            (vec![], Verdict::Fail, "0 of 0"),
        ] {
            let finding = connected(&list, || "start one".to_owned());
            assert!(finding.verdict == verdict && finding.text.starts_with(text), "{finding:?}");
        }
    }

    #[test]
    fn pools_whose_rules_nobody_keeps_are_found() {
        let closed = Pool { name: "build".to_owned(), network: "none".to_owned(), ..Pool::default() };
        let open = Executor { closes_network: false, ..executor() };
        assert!(said(&unserved(&closed, &[executor()])).is_empty());
        assert!(said(&unserved(&closed, std::slice::from_ref(&open)))[0].1.contains("nothing done on worker"));
        let elsewhere = Executor { pool: "other".to_owned(), ..open };
        assert!(said(&unserved(&closed, &[elsewhere])).is_empty());
        let waiting = Pool { waiting: 2, network: "host".to_owned(), ..closed };
        assert!(said(&unserved(&waiting, &[]))[0].1.contains("2 tasks wait for it, and it has no executor"));
    }
}
