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

/// Says what the kernel answers to each call for keys, whether it lists one of the executor's session, and whether its
/// account's own keyring can be filled and locked, which it tries where nothing was answered.
const LOOK: &str = r#"id -un; perl -e 'my ($add, $request, $ctl) = `uname -m` =~ /x86_64/ ? (248, 249, 250) : (217, 218, 219);
    my ($kind, $name, $none, $key) = ("user", "of-the-executor", "", "secret");
    sub say_it { $answered += $_[0] >= 0; print $_[0] >= 0 ? "answered " : "$_[1] " }
    for my $ring (-3, -4, -5) {
        say_it(syscall($ctl, 10, $ring, $kind, $name, 0), $! + 0);
        say_it(syscall($add, $kind, $name, $key, 6, $ring), $! + 0);
    }
    say_it(syscall($request, $kind, $name, $none, -3), $! + 0);
    say_it(syscall($ctl, 1, 0), $! + 0);
    say_it(syscall($ctl, 22, -1, -3), $! + 0);
    exit if $answered;
    my $took = grep { my $of = "of-an-attempt-$_"; syscall($add, $kind, $of, $key, 6, -4) >= 0 } 1..250;
    say_it(syscall($ctl, 5, -4, 0x1b1b0000), $! + 0);
    open my $all, "<", "/proc/keys"; print "took $took, ", (grep(/of-the-executor/, <$all>) ? "listed" : "unlisted"), "\n"'"#;

/// Takes all the keys that an account may have, for a minute, and locks its keyring against everybody; or finds that done.
const FILL: &str = r#"my ($add, $ctl) = `uname -m` =~ /x86_64/ ? (248, 250) : (217, 219);
    my ($kind, $key, $took, $last) = ("user", "secret", 0, -1);
    while ($took < 100000) {
        my $name = "left-$took";
        $last = syscall($add, $kind, $name, $key, 6, -4);
        last if $last < 0;
        syscall($ctl, 15, $last, 60);
        $took++;
    }
    exit 0 if $!{EACCES} || $!{EKEYEXPIRED};
    $!{EDQUOT} && syscall($ctl, 15, -4, 60) >= 0 && syscall($ctl, 5, -4, 0x1b1b0000) >= 0 or die $!"#;

/// Whether a process here may have keys at all: containers often forbid it.
fn has_keys() -> bool {
    let ask = "exit(syscall(`uname -m` =~ /x86_64/ ? 250 : 219, 1, 0) >= 0 ? 0 : 1)";
    std::process::Command::new("perl").args(["-e", ask]).status().is_ok_and(|status| status.success())
}

/// What an attempt says, and its account.
async fn look(host: &Host) -> (String, Option<Account>) {
    let (ended, log) = run(host, &host.shell(LOOK)).await;
    assert_eq!(ended.outcome(), Outcome::Completed, "{ended:?}");
    let (name, found) = log.split_once('\n').unwrap();
    (found.trim().to_owned(), name.starts_with("sculpt-a").then(|| Account(name.to_owned())))
}

async fn begin(mut host: Host, by: &str) -> Host {
    host.via.extend(BEGIN);
    host.start().await;
    assert_eq!(host.controller.memory().hellos.last().unwrap().separated_by, by);
    host
}

/// As the account's own, by somebody whom nothing holds back.
fn fill(account: &Account) {
    let id = std::process::Command::new("id").args(["-u", &account.0]).output().unwrap();
    let uid = String::from_utf8(id.stdout).unwrap();
    let mut filler = std::process::Command::new("setpriv");
    filler.arg(format!("--reuid={}", uid.trim())).args(["--clear-groups", "perl", "-MErrno", "-e", FILL]);
    assert!(filler.status().unwrap().success(), "the account {} has no key left to take", account.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_has_no_keys_for_attempts_and_what_an_account_was_left_fails_none() {
    if !has_keys() {
        eprintln!("skipped: the kernel, or a container, lets nobody here have keys");
        return;
    }
    let refused = format!("{}took 0, ", "38 ".repeat(10));
    let Some(host) = Host::separated("").await else { return };
    let mut host = begin(host, "account").await;
    let (said, account) = look(&host).await;
    assert_eq!(said, format!("{refused}unlisted"));
    let account = account.unwrap();
    fill(&account);
    let (said, next) = look(&host).await;
    assert_eq!(said, format!("{refused}unlisted"));
    assert_eq!(next.unwrap().0, account.0, "one has the other's account");
    host.stop();

    let Some(host) = ordinary("", &["--separate"], "").await else { return };
    let mut host = begin(host, "bubblewrap").await;
    for _ in 0..2 {
        let (said, _) = look(&host).await;
        assert!(said.starts_with(&refused), "{said}");
    }
    host.stop();

    let Some(host) = ordinary("", &[], "").await else { return };
    let mut host = begin(host, "").await;
    let (said, _) = look(&host).await;
    assert!(said.starts_with("answered answered"), "who is not kept apart has the executor's keys: {said}");
    host.stop();
}
