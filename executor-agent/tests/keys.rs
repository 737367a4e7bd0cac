//! The kernel's keys: an attempt finds neither those of whoever started the executor, nor those that its account was left.

use sculpt_proto::executor::v1::ended::Outcome;

use crate::{
    delegated::ordinary,
    go_on::run,
    host::{Account, Host},
};

/// Begins a session with a key in it, as a person's login or a service has one.
const BEGIN: [&str; 3] = [
    "perl",
    "-e",
    r#"my ($add, $ctl) = `uname -m` =~ /x86_64/ ? (248, 250) : (217, 219);
    my ($kind, $name, $key) = ("user", "of-the-executor", "secret");
    syscall($ctl, 1, 0) >= 0 && syscall($add, $kind, $name, $key, 6, -3) >= 0 or $ENV{NO_KEYS} = 1;
    exec @ARGV"#,
];

/// Says whether its session, or its account, has the executor's key or that of another attempt; then it leaves its own.
const LOOK: &str = r#"id -un; perl -e 'my ($add, $ctl) = `uname -m` =~ /x86_64/ ? (248, 250) : (217, 219);
    my ($kind, $name, $left, $key) = ("user", "of-the-executor", "of-an-attempt", "secret");
    print syscall($ctl, 10, -3, $kind, $name, 0) >= 0 ? "found" : "nothing";
    my $kept = syscall($ctl, 22, -1, -3);
    for my $ring (-4, -5, $kept) { print syscall($ctl, 10, $ring, $kind, $left, 0) >= 0 ? " left" : " empty" }
    syscall($add, $kind, $left, $key, 6, $_) for -4, -5, $kept; print "\n"'"#;

/// Whether a process here may have keys at all: containers often forbid it.
fn has_keys() -> bool {
    let ask = "exit(syscall(`uname -m` =~ /x86_64/ ? 250 : 219, 1, 0) >= 0 ? 0 : 1)";
    std::process::Command::new("perl").args(["-e", ask]).status().is_ok_and(|status| status.success())
}

/// What two attempts say, one after the other.
async fn look(mut host: Host, by: &str) -> [String; 2] {
    host.via.extend(BEGIN);
    host.start().await;
    assert_eq!(host.controller.memory().hellos.last().unwrap().separated_by, by);
    let mut said = [String::new(), String::new()];
    let mut accounts = Vec::new();
    for said in &mut said {
        let (ended, log) = run(&host, &host.shell(LOOK)).await;
        assert_eq!(ended.outcome(), Outcome::Completed, "{ended:?}");
        let (name, found) = log.split_once('\n').unwrap();
        accounts.extend(name.starts_with("sculpt-a").then(|| Account(name.to_owned())));
        *said = found.trim().to_owned();
    }
    assert!(accounts.windows(2).all(|pair| pair[0].0 == pair[1].0), "one has the other's account");
    host.stop();
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_executor_and_of_earlier_attempts_are_out_of_reach() {
    if !has_keys() {
        eprintln!("skipped: the kernel, or a container, lets nobody here have keys");
        return;
    }
    let nothing = ["nothing empty empty empty"; 2];
    let Some(accounts) = Host::separated("").await else { return };
    assert_eq!(look(accounts, "account").await, nothing);
    let Some(sandbox) = ordinary("", &["--separate"], "").await else { return };
    assert_eq!(look(sandbox, "bubblewrap").await, nothing);
    let Some(open) = ordinary("", &[], "").await else { return };
    assert!(look(open, "").await[0].starts_with("found"));
}
