//! Bad input is found before anything is sent: no controller is there, and the answer is 64 all the same.

use std::{fs, os::unix::ffi::OsStrExt as _, path::Path};

use crate::sandbox::{Sandbox, fed, ran, stray_token};

/// A context whose controller does not exist.
fn nobody_there() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.context("https://127.0.0.1:1", &stray_token());
    sandbox
}

#[test]
fn prompts() {
    let sandbox = nobody_there();
    let repo = sandbox.repository("repo", 1);
    let run = |args: &[&str]| ran(sandbox.sculpt(&repo, &[&["run"], args].concat()));
    run(&[""]).refuses(64, &["the prompt is empty"]);
    run(&[" \n\t"]).refuses(64, &["the prompt is empty"]);
    run(&[]).refuses(64, &["neither a prompt nor a command"]);
    run(&["do it", "--", "true"]).refuses(64, &["both a prompt and a command"]);
    run(&["--agent", "robot", "--", "true"]).refuses(64, &["--agent is for prompts"]);
    let stdin = |bytes: &[u8]| fed(sandbox.sculpt(&repo, &["run"]), bytes);
    stdin(b"a\0b").refuses(64, &["NUL"]);
    stdin(b"\xff\xfe").refuses(64, &["UTF-8"]);
    stdin(&vec![b'x'; (1 << 20) + 1]).refuses(64, &["1 MiB"]);
    // One byte less is taken, and only then the controller is missed.
    stdin(&vec![b'x'; 1 << 20]).refuses(69, &["sculpt up"]);
}

#[test]
fn places() {
    let sandbox = nobody_there();
    let outside = sandbox.path("home");
    ran(sandbox.sculpt(&outside, &["run", "x"])).refuses(64, &["not in a git repository", "--no-repo"]);
    let empty = sandbox.repository("empty", 0);
    ran(sandbox.sculpt(&empty, &["run", "x"])).refuses(64, &["has no commit yet"]);
    ran(sandbox.sculpt(&empty, &["run", "--base", "main", "x"])).refuses(64, &["has no commit yet"]);
    let repo = sandbox.repository("repo", 2);
    ran(sandbox.sculpt(&repo, &["run", "--base", "no-such", "x"])).refuses(64, &["no-such"]);
    ran(sandbox.sculpt(&repo, &["run", "--base", "HEAD~7", "x"])).refuses(64, &["HEAD~7"]);
    ran(sandbox.sculpt(&repo, &["run", "--title", &"x".repeat(201), "x"])).refuses(64, &["200 characters"]);
    sandbox.git(&repo, &["checkout", "-q", "--detach"]);
    ran(sandbox.sculpt(&repo, &["run", "x"])).refuses(69, &["reach the controller"]);
}

#[test]
fn command_lines() {
    let sandbox = nobody_there();
    let home = sandbox.path("home");
    for args in [
        &["frobnicate"][..],
        &["run", "--no-such-flag"],
        &["run", "--no-repo", "--base", "x", "--", "true"],
        &["run", "--include-changes", "--base", "x", "--", "true"],
        &["run", "--timeout", "soon", "--", "true"],
        &["run", "--on-lost", "panic", "--", "true"],
        &["run", "--lost-after", "0s", "--", "true"],
        &["run", "--label", "novalue", "--", "true"],
        &["ls", "--state", "sleeping"],
        &["wait"],
    ] {
        assert_eq!(ran(sandbox.sculpt(&home, args)).code, 2, "{args:?}");
    }
}

#[test]
fn names_are_not_empty_and_limits_are_some() {
    let sandbox = nobody_there();
    let home = sandbox.path("home");
    for (args, why) in [
        (&["executor", "token", "--pool", ""][..], "'--pool <POOL>': it is empty, and a name is needed"),
        (&["executor", "token", "--pool", " "], "it is empty"),
        (&["executor", "token", "--label", "=x"], "is not a label key"),
        (&["executor", "token", "--ttl", "0s"], "longer than nothing"),
        (&["executor", "token", "--ttl", "99999999999999999999y"], "write it like 90s"),
        (&["executor", "token", "--uses", "0"], "from 1 to 10000"),
        (&["executor", "token", "--uses", "10001"], "from 1 to 10000"),
        (&["executor", "token", "--revoke", ""], "it is empty"),
        (&["executor", "show", ""], "it is empty"),
        (&["executor", "rm", ""], "it is empty"),
        (&["token", "create", "--user", ""], "it is empty"),
        (&["token", "create", "--name", ""], "it is empty"),
        (&["token", "create", "--scope", "viewer@"], "a project must follow the @"),
        (&["token", "create", "--ttl", "0s"], "longer than nothing"),
        (&["token", "ls", "--user", ""], "it is empty"),
        (&["token", "rm", ""], "it is empty"),
        (&["admin", "user", "add", ""], "it is empty"),
        (&["admin", "user", "grant", "", "viewer"], "it is empty"),
        (&["lock", "user", ""], "it is empty"),
        (&["lock", "user", "ben", "--ttl", "0s"], "longer than nothing"),
        (&["pool", "set", ""], "it is empty"),
        (&["pool", "set", "build", "--user", ""], "it is empty"),
        (&["audit", "--actor", ""], "it is empty"),
        (&["audit", "verify", "--head", ""], "it is empty"),
        (&["run", "--no-repo", "--pool", "", "--", "true"], "it is empty"),
        (&["run", "--project", "", "--", "true"], "it is empty"),
        (&["run", "--agent", "", "x"], "it is empty"),
        (&["run", "--require", "=x", "--", "true"], "is not a label key"),
        (&["ls", "--project", ""], "it is empty"),
    ] {
        ran(sandbox.sculpt(&home, args)).refuses(2, &[why]);
    }
}

#[test]
fn without_a_controller() {
    let sandbox = Sandbox::new();
    let home = sandbox.path("home");
    ran(sandbox.sculpt(&home, &["ls"])).refuses(69, &["no controller is known", "sculpt up"]);
    let token = sandbox.context("https://127.0.0.1:1", &stray_token());
    ran(sandbox.sculpt(&home, &["ls"])).refuses(69, &["https://127.0.0.1:1", "sculpt up"]);
    let mut plain = sandbox.sculpt(&home, &["ls"]);
    plain.env("SCULPT_URL", "http://192.0.2.1:7433");
    ran(plain).refuses(64, &["nothing is sent in the clear", "https://192.0.2.1:7433"]);
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    ran(sandbox.sculpt(&home, &["ls"])).refuses(77, &["can be read by other users", "chmod 600"]);
}

#[test]
fn advice_fits_the_verb() {
    let sandbox = nobody_there();
    let home = sandbox.path("home");
    let outside = ran(sandbox.sculpt(&home, &["fetch"]));
    outside.refuses(64, &["go to a repository"]);
    assert!(!outside.stderr.contains("--no-repo"), "{}", outside.stderr);
    ran(sandbox.sculpt(&home, &["run", "make", "test"])).refuses(2, &["sculpt run -- make test"]);
    ran(sandbox.sculpt(&home, &["executor", "adopt", "one", "17"])).refuses(64, &["not the uuid of an attempt"]);
}

#[test]
fn a_token_that_is_no_file() {
    let sandbox = Sandbox::new();
    let home = sandbox.path("home");
    let token = sandbox.context("https://127.0.0.1:1", &stray_token());
    fs::remove_file(&token).unwrap();
    fs::create_dir(&token).unwrap();
    let refused = ran(sandbox.sculpt(&home, &["ls"]));
    refused.refuses(64, &["is not a file", "token_file"]);
    assert!(!refused.stderr.contains("chmod"), "{}", refused.stderr);
}

#[test]
fn up_listens_on_loopback_only() {
    let sandbox = Sandbox::new();
    let home = sandbox.path("home");
    let data = sandbox.path("data").to_string_lossy().into_owned();
    ran(sandbox.sculpt(&home, &["up", "--data-dir", &data, "--listen", "0.0.0.0:0"])).refuses(64, &["loopback"]);
    assert!(!Path::new(&data).exists());
}

#[test]
fn names_need_not_be_text() {
    let sandbox = nobody_there();
    let repo = sandbox.repository("repo", 1);
    let odd = repo.join(std::ffi::OsStr::from_bytes(b"a \n\xff"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("x"), "x").unwrap();
    ran(sandbox.sculpt(&odd, &["run", "--include-changes", "x"])).refuses(69, &[]);
}

#[test]
fn help_and_completion() {
    let sandbox = Sandbox::new();
    let home = sandbox.path("home");
    for shell in ["bash", "zsh", "fish"] {
        let script = ran(sandbox.sculpt(&home, &["completion", shell]));
        assert_eq!(script.code, 0);
        assert!(script.stdout.contains("sculpt"), "{shell}");
    }
    assert!(ran(sandbox.sculpt(&home, &["--version"])).stdout.starts_with("sculpt "));
    assert!(!ran(sandbox.sculpt(&home, &["--help"])).stdout.contains("git-credential"));
}
