//! Agents that take all they can get, where accounts and where bubblewrap keep them from everything else.

mod attempts;
mod seats;
mod world;

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::{Stack, eventually};
use tokio::net::UnixStream;
use uuid::Uuid;

use self::{
    attempts::{ATTACKS, Control},
    world::{Victim, World, give_away},
};

const SEPARATED: [World; 2] = [World::Accounts, World::Bubblewrap];

async fn none_succeeds(world: World) -> Result<()> {
    let Some(stack) = world.stack("").await? else { return Ok(()) };
    let victim = Victim::start(&stack).await?;
    let succeeded = victim.attacked(&stack, &ATTACKS).await?;
    ensure!(succeeded.is_empty(), "{world:?}: {succeeded:?}");
    victim.end(&stack).await?;
    stack.finish().await
}

#[tokio::test]
async fn no_attack_succeeds_where_each_attempt_has_an_account() -> Result<()> {
    none_succeeds(World::Accounts).await
}

#[tokio::test]
async fn no_attack_succeeds_in_a_sandbox() -> Result<()> {
    none_succeeds(World::Bubblewrap).await
}

/// What cannot succeed anywhere proves nothing.
#[tokio::test]
async fn the_same_attacks_succeed_where_nothing_separates() -> Result<()> {
    let Some(stack) = World::Open.stack("").await? else { return Ok(()) };
    says_whether_it_separates(&stack, false).await?;
    let victim = Victim::start(&stack).await?;
    let succeeded: BTreeSet<String> = victim.attacked(&stack, &ATTACKS).await?.into_iter().collect();
    let able = ATTACKS.iter().filter(|attack| attack.control == Control::Succeeds).map(|attack| attack.name.to_owned());
    let able: BTreeSet<String> = able.collect();
    ensure!(succeeded == able, "differ: {:?}", succeeded.symmetric_difference(&able).collect::<Vec<_>>());
    victim.end(&stack).await?;
    stack.finish().await
}

/// What there is nowhere to be found, each where there is: after this preparation, with the script as its first argument.
const THERE: [(&str, &str); 2] = [
    ("holds_a_descriptor_beyond_the_three", r#"exec 9< /dev/null; bash -c "$1""#),
    ("finds_a_secret_among_arguments", r#"bash -c "$1" "the-$HALF""#),
];

#[test]
fn what_is_nowhere_would_be_found() -> Result<()> {
    for (name, there) in THERE {
        let attack = ATTACKS.iter().find(|attack| attack.name == name).context("an attack of that name")?;
        let directory = tempfile::tempdir()?;
        let mut command = Command::new("bash");
        command.args(["-c", there, "bash", attack.script]).env("HALF", Uuid::new_v4().to_string());
        ensure!(command.current_dir(&directory).status()?.success(), "{name} finds nothing");
    }
    Ok(())
}

/// Doubles itself until it is refused, or until there are 4,096 of it.
const BOMB: &str = r#"exec perl -e '$| = 1; for (1..12) { defined fork or $refused++; select undef, undef, undef, 0.02 }
    print "refused\n" if $refused; sleep 4242'"#;

#[tokio::test]
async fn a_fork_bomb_leaves_its_host_to_others_and_is_stopped() -> Result<()> {
    for world in SEPARATED {
        let Some(stack) = world.stack("pids_limit = 150").await? else { return Ok(()) };
        let bomb = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", BOMB]).await?;
        stack.log_until(&bomb, "it to be refused", |log| log.starts_with(b"refused")).await?;
        let neighbour = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", "seq 1 1000 | tail -n 1"]).await?;
        let shown = stack.done(&neighbour).await?;
        ensure!(shown["state"] == "completed", "{world:?}: {shown:#}");
        stack.sculpt(["stop", &bomb]).run().await?.done()?;
        stack.sculpt(["wait", &bomb]).run().await?.exits(4)?;
        let shown = stack.sculpt(["show", &bomb]).run().await?.done()?.text();
        // Where no cgroup counts, the kernel does not say that it refused.
        let says = world == World::Bubblewrap || shown.contains("more than the 150 processes");
        ensure!(says, "people see what it wanted: {shown}");
        stack.finish().await?;
    }
    Ok(())
}

/// Each leaves a process of its own that sleeps for so many seconds, and ends.
const ESCAPES: [(&str, &str); 4] = [
    ("by_a_double_fork", "(sleep 42421 &) &"),
    ("by_a_session_of_its_own", "setsid -f sleep 42422"),
    ("by_ignoring_signals", r#"trap "" HUP INT TERM; setsid -f sleep 42423"#),
    ("by_forgetting_its_name", r#"trap "" HUP TERM; env -i /usr/bin/setsid -f /bin/sleep 42424"#),
];

async fn no_process_outlives_its_attempt(stack: &Stack) -> Result<()> {
    let script: String = ESCAPES.iter().map(|(_, escape)| format!("{escape}\n")).collect();
    let script = format!("{script} until pgrep -fx '.*sleep 42424'; do :; done; echo left; cat");
    let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", &script]).await?;
    stack.log_until(&task, "all to be left", |log| log.ends_with(b"left\r\n")).await?;
    let living = || -> Vec<&str> {
        let named = |seconds: usize| format!("sleep {}", 42421 + seconds);
        let there =
            |number: &usize| stack.processes("sleep").iter().any(|found| found.command.ends_with(&named(*number)));
        (0..ESCAPES.len()).filter(there).map(|number| ESCAPES[number].0).collect()
    };
    ensure!(living().contains(&"by_ignoring_signals"), "they are there before its end: {:?}", living());
    stack.sculpt(["stop", &task]).run().await?.done()?;
    stack.sculpt(["wait", &task]).run().await?.exits(4)?;
    eventually("nothing to be left", || Ok(living().is_empty().then_some(()))).await
}

/// Takes memory until it gets no more, and is killed or says that there was enough.
const GLUTTON: &str = r#"exec perl -e 'my @all; push @all, "x" x (16 << 20) for 1..64; print "enough\n"'"#;

async fn memory_beyond_the_limit_ends_the_attempt_that_wants_it(stack: &Stack) -> Result<()> {
    let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", GLUTTON]).await?;
    stack.sculpt(["wait", &task]).run().await?.exits(1)?;
    let shown = stack.show(&task).await?;
    ensure!(shown["state"] == "failed" && shown["cause"] == "oom", "{shown:#}");
    Ok(())
}

async fn a_temporary_directory_is_filled_for_nobody_else(stack: &Stack) -> Result<()> {
    let script = "fallocate -l 64M /tmp/some && echo some; fallocate -l 3G /tmp/all || echo refused
        for place in / /dev /var /etc /usr; do (: > $place/planted) || echo closed; done";
    let task = stack.detached(stack.root(), ["--no-tty", "--no-repo", "--", "sh", "-c", script]).await?;
    stack.done(&task).await?;
    let log = String::from_utf8(stack.logs(&task).await?)?;
    let said: Vec<&str> = log.lines().filter(|line| ["some", "refused", "closed"].contains(line)).collect();
    ensure!(said == ["some", "refused", "closed", "closed", "closed", "closed", "closed"], "{log}");
    ensure!(!fs::exists("/tmp/some")?, "it was in its own");
    Ok(())
}

/// The view runs what whoever reaches its socket says, so it is where the agent is.
async fn the_view_is_as_confined_as_the_agent(stack: &Stack) -> Result<()> {
    let victim = Victim::start(stack).await?;
    let server = UnixStream::connect(&victim.view).await?.peer_cred()?.pid().context("who listens there")?;
    let panes = fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
    ensure!(!panes.trim().is_empty(), "a view shows something");
    let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).with_context(|| format!("look at {pid}"));
    let inside = space(&victim.agent.to_string())?;
    ensure!(inside != space("self")?, "the agent is on the host");
    for pid in panes.split_ascii_whitespace().chain([server.to_string().as_str()]) {
        ensure!(space(pid)? == inside, "{pid} of the view is not where the agent is");
    }
    let key = stack.executor_data().join("identity/key.pem");
    stack.shell("cat", [&key]).run().await?.done()?;
    let says = async |script: &str| {
        let all = ["-S", &victim.view, "if-shell", script, "display-message -p done", "display-message -p refused"];
        anyhow::Ok(stack.shell("tmux", all).run().await?.done()?.text())
    };
    ensure!(says("cat /proc/self/stat").await? == "done", "the view runs nothing");
    let said = says(&format!("cat '{}'", key.display())).await?;
    ensure!(said == "refused", "the view reads the executor's key: {said}");
    victim.end(stack).await
}

/// What needs no settings of its own shares a stack.
#[tokio::test]
async fn an_account_holds_what_its_attempt_takes_and_leaves() -> Result<()> {
    let Some(stack) = World::Accounts.stack("memory_limit = '128MiB'").await? else { return Ok(()) };
    says_whether_it_separates(&stack, true).await?;
    no_process_outlives_its_attempt(&stack).await.context("processes")?;
    memory_beyond_the_limit_ends_the_attempt_that_wants_it(&stack).await.context("memory")?;
    stack.finish().await
}

#[tokio::test]
async fn a_sandbox_holds_what_its_attempt_takes_and_leaves() -> Result<()> {
    let Some(stack) = World::Bubblewrap.stack("").await? else { return Ok(()) };
    says_whether_it_separates(&stack, true).await?;
    the_view_is_as_confined_as_the_agent(&stack).await.context("the view")?;
    no_process_outlives_its_attempt(&stack).await.context("processes")?;
    a_temporary_directory_is_filled_for_nobody_else(&stack).await.context("the temporary directory")?;
    stack.finish().await
}

/// What an agent can leave in its `.git` that a git which trusts it would run or follow.
const PLANTS: [(&str, &str); 9] = [
    (
        "a_hook",
        r#"for hook in pre-commit post-commit reference-transaction post-index-change; do
        printf '#!/bin/sh\necho hook >> "%s"\n' "$PWD/canary" > .git/hooks/$hook; chmod +x .git/hooks/$hook; done"#,
    ),
    ("a_hooks_path", r#"git config core.hooksPath "$PWD/.git/hooks""#),
    ("a_monitor", r#"git config core.fsmonitor "echo monitor >> '$PWD/canary'; false""#),
    (
        "a_filter",
        r#"git config filter.x.clean "echo filter >> '$PWD/canary'; cat"; echo '* filter=x' > .gitattributes"#,
    ),
    ("a_textconv", r#"git config diff.x.textconv "echo textconv >> '$PWD/canary'; cat""#),
    ("an_ssh_command", r#"git config core.sshCommand "echo ssh >> '$PWD/canary'""#),
    ("another_address", r#"git config url.ext::sh.insteadOf https"#),
    (
        "a_pager_and_an_editor",
        r#"git config core.pager "echo pager >> '$PWD/canary'"; git config core.editor "$PWD/.git/hooks/pre-commit""#,
    ),
    ("a_signer", r#"git config commit.gpgSign true; git config gpg.program "$PWD/.git/hooks/pre-commit""#),
];

#[tokio::test]
async fn what_is_planted_in_a_git_directory_is_not_run_by_the_one_who_gathers() -> Result<()> {
    for world in SEPARATED {
        let Some(stack) = world.stack("keep_workspaces = '1h'").await? else { return Ok(()) };
        let repo = stack.repo()?;
        give_away(&stack, repo.path())?;
        let plants: String = PLANTS.iter().map(|(_, plant)| format!("{plant}\n")).collect();
        let key = stack.executor_data().join("identity/key.pem");
        // It would have been run before: by the agent's own git.
        let script = format!(
            "echo work > work; ln -s '{}' leak; mkdir .git/hooks; {plants} git add work; ls canary; rm -f canary
            echo ../../other/.git > .git/commondir; echo over",
            key.display()
        );
        let all = ["--commit", "--no-tty", "--", "sh", "-c", &script];
        let task = stack.detached(repo.path(), all).await?;
        let shown = stack.done(&task).await?;
        let log = String::from_utf8(stack.logs(&task).await?)?;
        ensure!(log.starts_with("canary\n") && log.ends_with("over\n"), "{world:?}: its own git runs them: {log}");
        ensure!(shown["state"] == "needs_review", "{world:?}: what it made is gathered: {shown:#}");
        let attempts = stack.traces().attempts();
        let attempt = attempts.first().context("its attempt")?;
        let workspace = stack.executor_data().join("workspaces").join(attempt);
        ensure!(workspace.join("work").exists(), "the workspace is kept");
        let canary = fs::read_to_string(workspace.join("canary")).unwrap_or_default();
        ensure!(canary.is_empty(), "{world:?}: it ran {canary:?}");
        stack.sculpt(["fetch", &task]).dir(repo.path()).run().await?.done()?;
        let git = async |arguments: &[&str]| stack.shell("git", arguments).dir(repo.path()).run().await?.done();
        let refs = git(&["for-each-ref", "--format=%(refname)"]).await?.text();
        let branch = refs.lines().find(|name| name.contains(&format!("sculpt/{task}-"))).context("its branch")?;
        let leak = git(&["show", &format!("{branch}:leak")]).await?.text();
        ensure!(leak.trim() == key.to_string_lossy(), "{world:?}: the link and not where it leads: {leak}");
        stack.finish().await?;
    }
    Ok(())
}

/// Says which of the host's doors it gets through.
const KNOCK: &str = r#"perl -MIO::Socket::INET -MIO::Socket::UNIX -e '
    print "loopback\n" if IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $ARGV[0]);
    print "abstract\n" if IO::Socket::UNIX->new(Peer => "\0$ARGV[1]");
    print "own\n" if IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1");' "$@""#;

#[tokio::test]
async fn a_closed_network_leads_nowhere() -> Result<()> {
    for world in SEPARATED {
        let Some(stack) = world.stack("").await? else { return Ok(()) };
        let service = TcpListener::bind("127.0.0.1:0")?;
        let port = service.local_addr()?.port().to_string();
        let name = format!("door-{port}");
        let _door = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let knock = async || {
            let all = ["--no-repo", "--no-tty", "--", "sh", "-c", KNOCK, "x", &port, &name];
            let task = stack.detached(stack.root(), all).await?;
            stack.done(&task).await?;
            anyhow::Ok(String::from_utf8(stack.logs(&task).await?)?)
        };
        ensure!(knock().await? == "loopback\nabstract\nown\n", "{world:?}: both are open");
        stack.sculpt(["pool", "set", "default", "--network", "none"]).run().await?.done()?;
        let found = knock().await?;
        ensure!(found == "own\n", "{world:?}: {found}");
        stack.finish().await?;
    }
    Ok(())
}

/// In `sculpt executor show`.
async fn says_whether_it_separates(stack: &Stack, separates: bool) -> Result<()> {
    let executors = stack.sculpt(["executor", "ls", "-o", "json"]).run().await?.done()?.json()?;
    let name = executors[0]["name"].as_str().context("a name")?;
    let shown = stack.sculpt(["-o", "json", "executor", "show", name]).run().await?.done()?.json()?;
    ensure!(shown["separates"] == separates, "{shown:#}");
    Ok(())
}
