//! Plain ssh: what `sculpt config-ssh` writes, as ssh reads it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use tonic::Status;

use super::{run, running, sculpt};
use crate::{
    controller::Controller,
    sandbox::{Ran, Sandbox},
};

const THEIRS: &str = "# mine\nPort 2200\nHost *\n  User me\n  ProxyJump bastion\n";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What ssh makes of a host.
async fn resolved(sandbox: &Sandbox, host: &str) -> Ran {
    let mut ssh = sandbox.command("ssh", &sandbox.path("home"));
    ssh.arg("-G").arg("-F").arg(sandbox.path("home/.ssh/config")).args(["--", host]);
    run(ssh).await
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_and_go_and_nothing_else_changes() {
    let (sandbox, _controller) = Controller::known(running()).await;
    let file = sandbox.path("home/.ssh/config");
    let shown = sculpt(&sandbox, &["config-ssh", "--dry-run"]).await;
    assert!(shown.code == 0 && shown.stdout.contains("Match originalhost") && !file.exists(), "{}", shown.stderr);
    assert_eq!(sculpt(&sandbox, &["config-ssh"]).await.code, 0);
    assert_eq!((mode(file.parent().unwrap()), mode(&file)), (0o700, 0o600));
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(written.trim_end(), shown.stdout.trim_end());
    assert!(!written.contains("sculpt_user_"), "a token stands in {written}");
    let again = sculpt(&sandbox, &["config-ssh"]).await;
    assert!(again.stdout.contains("as it should be"), "{}", again.stdout);
    assert_eq!(sculpt(&sandbox, &["config-ssh", "--remove"]).await.code, 0);
    assert_eq!(fs::read(&file).unwrap(), b"");

    // A link stays one, and a mode stays as it was.
    let real = sandbox.path("home/dotfiles");
    fs::write(&real, THEIRS).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(&file).unwrap();
    symlink(&real, &file).unwrap();
    assert_eq!(sculpt(&sandbox, &["config-ssh"]).await.code, 0);
    assert!(file.is_symlink() && mode(&real) == 0o644);
    assert!(fs::read_to_string(&real).unwrap().ends_with(THEIRS));
    assert_eq!(sculpt(&sandbox, &["config-ssh", "--remove"]).await.code, 0);
    assert_eq!(fs::read_to_string(&real).unwrap(), THEIRS);

    fs::write(&real, "# >>> sculpt\n").unwrap();
    sculpt(&sandbox, &["config-ssh"]).await.refuses(7, &["line 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_plain_file_is_left_alone() {
    let (sandbox, _controller) = Controller::known(running()).await;
    let at = |name: &str| sandbox.path("home").join(name);
    symlink(at("nowhere"), at("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    fs::write(at("kept"), "Host a\n").unwrap();
    fs::set_permissions(at("kept"), fs::Permissions::from_mode(0o400)).unwrap();
    for (name, why) in [
        ("link", "leads nowhere"),
        ("pipe", "is no file"),
        ("kept", "may not be written"),
        ("none/config", "in no directory"),
    ] {
        let file = at(name);
        let args = ["config-ssh", "--file", file.to_str().unwrap()];
        sculpt(&sandbox, &args).await.refuses(7, &[why, "--file names another"]);
    }
    assert!(at("link").is_symlink() && !at("none").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_has_the_certificate_before_it_asks_for_anything() {
    let (sandbox, controller) = Controller::known(running()).await;
    let file = sandbox.path("home/.ssh/config");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, THEIRS).unwrap();
    assert_eq!(sculpt(&sandbox, &["config-ssh"]).await.code, 0);
    let all: Vec<_> = (0..8).map(|_| resolved(&sandbox, "sculpt.17")).collect();
    for found in futures_util::future::join_all(all).await {
        assert!(found.code == 0 && !found.stderr.contains("sculpt"), "{}", found.stderr);
        let certificate = found.stdout.lines().find_map(|line| line.strip_prefix("certificatefile ")).unwrap();
        assert!(Path::new(certificate).is_absolute() && Path::new(certificate).exists(), "{certificate}");
        assert!(found.stdout.contains("\nproxycommand env SCULPT_CONTEXT=local /"), "{}", found.stdout);
        assert!(found.stdout.contains("\nloglevel INFO\n"), "{}", found.stdout);
        assert!(!found.stdout.contains("bastion") && !found.stdout.contains("user me"), "{}", found.stdout);
    }
    assert_eq!(controller.script.desk.opened.lock().unwrap().len(), 1, "eight at once share one pairing");

    let other = resolved(&sandbox, "other").await.stdout;
    assert!(other.contains("user me") && other.contains("port 2200") && other.contains("proxyjump bastion"), "{other}");
    let task = running().uuid;
    assert!(resolved(&sandbox, &format!("sculpt.{task}")).await.stdout.contains("hostkeyalias executor-"));
}

/// Neither a name nor a failure leads ssh to anybody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_no_task_is_nobody() {
    let (sandbox, controller) = Controller::known(running()).await;
    assert_eq!(sculpt(&sandbox, &["config-ssh"]).await.code, 0);
    let mark = sandbox.path("home/mark");
    for host in ["sculpt.99", "sculpt.", "sculpt.x", "sculpt.017", "sculpt.+17", "sculpt.17.example", "sculpt.0198c0de"]
    {
        let found = resolved(&sandbox, host).await;
        assert!(found.stderr.contains("sculpt: cannot reach"), "{host}: {}", found.stderr);
        assert!(found.stdout.contains("\nproxycommand false\n"), "{host}: {}", found.stdout);
        // It was said why, and nothing else is; by this name ssh tells of QUIET.
        assert!(found.stdout.contains("\nloglevel SILENT\n"), "{host}: {}", found.stdout);
    }
    for host in [format!("sculpt.'; touch {}; '", mark.display()), format!("sculpt.$(touch {})", mark.display())] {
        resolved(&sandbox, &host).await;
        assert!(!mark.exists(), "{host} was run");
    }
    *controller.script.desk.refusal.lock().unwrap() = Some(Status::permission_denied("You may not."));
    let refused = resolved(&sandbox, "sculpt.17").await;
    assert!(
        refused.stderr.contains("You may not") && refused.stdout.contains("proxycommand false"),
        "{}",
        refused.stderr
    );
}
