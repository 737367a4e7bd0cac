//! Signing in and out, and what admins do with users, tokens and locks.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sculpt_proto::v1::{RoleBinding, Task, lock_target::Target};
use sculpt_tls::{Kind, Token};
use serde_json::Value;

use crate::{
    authority::{Authority, bundle},
    controller::Controller,
    identity,
    sandbox::{Ran, Sandbox, fed, run, stray_token},
};

async fn start() -> (Sandbox, Controller) {
    let sandbox = Sandbox::new();
    let controller = Controller::start(&sandbox.path("store.git"), Task::default()).await;
    (sandbox, controller)
}

/// One whose context is written.
pub(crate) async fn known() -> (Sandbox, Controller) {
    let (sandbox, controller) = start().await;
    sandbox.context(&controller.url(), &controller.script.token);
    (sandbox, controller)
}

pub(crate) async fn sculpt(sandbox: &Sandbox, args: &[&str]) -> Ran {
    run(sandbox.sculpt(&sandbox.path("home"), args)).await
}

/// What a command printed that must succeed.
pub(crate) async fn said(sandbox: &Sandbox, args: &[&str]) -> String {
    let done = sculpt(sandbox, args).await;
    assert_eq!(done.code, 0, "{args:?}: {}", done.stderr);
    done.stdout
}

pub(crate) async fn json(sandbox: &Sandbox, args: &[&str]) -> Value {
    serde_json::from_str(&said(sandbox, &[args, &["-o", "json"]].concat()).await).unwrap()
}

async fn login(sandbox: &Sandbox, args: &[&str], token: &str) -> Ran {
    let command = sandbox.sculpt(&sandbox.path("home"), &[&["login"], args].concat());
    let input = format!("{token}\n");
    tokio::task::spawn_blocking(move || fed(command, input.as_bytes())).await.unwrap()
}

/// All files below the home directory.
fn files(home: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { folders.push(entry) } else { found.push(entry) }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_writes_a_context_and_shows_no_token() {
    let (sandbox, controller) = start().await;
    let token = controller.script.token.clone();
    let done = login(&sandbox, &[&controller.address.to_string()], &token).await;
    assert_eq!(done.code, 0, "{}", done.stderr);
    let url = controller.url();
    for word in [&format!("ada at {url}"), "operator@website, viewer", "(in 29d 23h)", "context  127.0.0.1"] {
        assert!(done.stdout.contains(word), "{word:?} is not in {}", done.stdout);
    }
    assert!(!done.stdout.contains(&token) && !done.stderr.contains(&token));
    let kept = sandbox.path("home/.config/sculpt/tokens/127.0.0.1");
    assert_eq!(fs::read_to_string(&kept).unwrap().trim(), token);
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(kept.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let config = fs::read_to_string(sandbox.path("home/.config/sculpt/config.toml")).unwrap();
    assert!(
        config.contains("current = \"127.0.0.1\"") && config.contains(&url) && !config.contains(&token),
        "{config}"
    );

    let who = json(&sandbox, &["whoami"]).await;
    assert_eq!((who["name"].as_str(), who["context"].as_str()), (Some("ada"), Some("127.0.0.1")));
    assert_eq!(who["effective"][0]["project"].as_str(), Some("website"));
    assert!(who["token_expires_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{who}");

    // Another controller of the same host gets a context of its own, and the same one keeps its name.
    let other = Controller::start(&sandbox.path("other.git"), Task::default()).await;
    assert_eq!(login(&sandbox, &[&other.url()], &other.script.token).await.code, 0);
    assert_eq!(login(&sandbox, &[&url], &token).await.code, 0);
    let contexts = files(&sandbox.path("home/.config/sculpt/tokens"));
    assert_eq!(contexts.len(), 2, "{contexts:?}");
    assert!(
        contexts.contains(&sandbox.path(&format!("home/.config/sculpt/tokens/127.0.0.1-{}", other.address.port())))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_in_vain_leaves_nothing() {
    let (sandbox, controller) = start().await;
    let url = controller.url();
    let expired = controller.authority.token();
    controller.script.refused.lock().unwrap().insert(expired.clone(), "the token has expired");
    let torn = &expired[..expired.len() - 1];
    let join = Token::fresh(Kind::Join, None).reveal();
    for (url, token, code, why) in [
        (url.as_str(), expired.as_str(), 77, "the token has expired\n  `sculpt token create` makes one"),
        (&url, &stray_token(), 77, "not the controller of the token"),
        (&url, torn, 77, "is damaged"),
        (&url, "ghp_abc", 77, "is not a token of sculpt"),
        (&url, &join, 77, "this is a join token, and a user token is needed"),
        (&url, "", 64, "holds no token"),
        (&url.replace("https", "http"), &expired, 64, "nothing is sent in the clear"),
        ("https://127.0.0.1:1", &expired, 69, "reach the controller"),
    ] {
        login(&sandbox, &[url], token).await.refuses(code, &[why]);
    }
    login(&sandbox, &[&url], &join).await.refuses(77, &["sculpt-executor join URL", "sculpt token create"]);
    *controller.script.elsewhere.lock().unwrap() = Some("executors call here, people call at https://x.example:7433");
    let wrong = login(&sandbox, &[&url], &controller.script.token).await;
    wrong.refuses(64, &["cannot sign in: executors call here, people call at https://x.example:7433\n"]);
    assert_eq!(wrong.stderr.lines().count(), 1, "another token would not help: {}", wrong.stderr);
    *controller.script.elsewhere.lock().unwrap() = None;
    login(&sandbox, &[&url, "--context", "../x"], &expired).await.refuses(64, &["cannot be the name of a context"]);
    sculpt(&sandbox, &["login", &url, "--token-file", "/no/such"]).await.refuses(64, &["/no/such"]);
    assert_eq!(files(&sandbox.path("home")), Vec::<PathBuf>::new());
    assert_eq!(sculpt(&sandbox, &["login", &url, &expired]).await.code, 2, "a token is no argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_learns_every_authority() {
    let (sandbox, controller) = start().await;
    let next = Authority::fresh();
    *controller.script.trust.lock().unwrap() = bundle(&[&controller.authority, &next]);
    assert_eq!(login(&sandbox, &[&controller.url()], &controller.script.token).await.code, 0);
    controller.shown.send_replace(next.controller());
    said(&sandbox, &["whoami"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_forgets_the_token() {
    let (sandbox, controller) = start().await;
    sculpt(&sandbox, &["logout"]).await.refuses(69, &["no controller is known"]);
    let kept = sandbox.path("home/.config/sculpt/tokens/work");
    for revoke in [false, true] {
        let signed_in = login(&sandbox, &[&controller.url(), "--context", "work"], &controller.script.token).await;
        assert_eq!((signed_in.code, kept.exists()), (0, true), "{}", signed_in.stderr);
        let args = if revoke { &["logout", "--revoke"][..] } else { &["logout", "work"] };
        assert!(said(&sandbox, args).await.contains(&controller.url()));
        assert!(!kept.exists());
        assert_eq!(controller.script.book.pages().revoked, if revoke { vec![identity::TOKEN] } else { vec![] });
    }
    sculpt(&sandbox, &["logout", "work"]).await.refuses(6, &["no context \"work\"", "nobody is signed in here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_out_with_the_token_of_a_variable_leaves_the_contexts_alone() {
    let (sandbox, controller) = start().await;
    // The controller knows the variable's alone: it would not be told to revoke by the other one.
    let file = sandbox.context(&controller.url(), &controller.authority.token());
    let config = sandbox.path("home/.config/sculpt/config.toml");
    let before = (fs::read_to_string(&file).unwrap(), fs::read_to_string(&config).unwrap());
    let logout = async |args: &[&str]| {
        let mut command = sandbox.sculpt(&sandbox.path("home"), args);
        command.env("SCULPT_TOKEN", &controller.script.token);
        run(command).await
    };
    logout(&["logout"]).await.refuses(7, &["that of SCULPT_TOKEN", "unset SCULPT_TOKEN", "sculpt logout --revoke"]);
    assert_eq!(controller.script.book.pages().revoked, Vec::<String>::new());
    let revoked = logout(&["logout", "--revoke"]).await;
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    assert!(revoked.stdout.contains("revoked the token of SCULPT_TOKEN"), "{}", revoked.stdout);
    assert_eq!(controller.script.book.pages().revoked, [identity::TOKEN]);
    assert_eq!((fs::read_to_string(&file).unwrap(), fs::read_to_string(&config).unwrap()), before);

    // Who names a context means its own token.
    logout(&["logout", "local", "--revoke"]).await.refuses(77, &["not one of this controller"]);
    assert_eq!(logout(&["logout", "local"]).await.code, 0);
    assert!(!fs::read_to_string(&config).unwrap().contains(&controller.url()));
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_rule_users() {
    let (sandbox, _controller) = known().await;
    let role = ["--role", "viewer", "--role", "operator@website"];
    let added =
        said(&sandbox, &[&["admin", "user", "add", "ben", "--email", "ben@example.org"][..], &role].concat()).await;
    assert_eq!(added, "added user ben\n");
    assert_eq!(said(&sandbox, &["admin", "user", "grant", "ben", "pair@website"]).await, "ben is pair@website\n");
    for role_taken in ["viewer", "admin"] {
        let told = said(&sandbox, &["admin", "user", "revoke", "ben", role_taken]).await;
        assert_eq!(told, format!("ben is not {role_taken}, and has operator@website, pair@website\n"));
    }
    let table = said(&sandbox, &["admin", "user", "ls"]).await;
    assert!(table.contains("operator@website, pair@website") && table.contains("ben@example.org"), "{table}");
    let users = json(&sandbox, &["admin", "user", "ls"]).await;
    assert_eq!((users[0]["name"].as_str(), users[0]["roles"][0]["role"].as_str()), (Some("ben"), Some("operator")));
    sculpt(&sandbox, &["admin", "user", "grant", "eve", "viewer"]).await.refuses(6, &["no user eve"]);
    let wrong = sculpt(&sandbox, &["admin", "user", "grant", "ben", "king"]).await;
    assert!(wrong.code == 2 && wrong.stderr.contains("there are viewer, operator"), "{}", wrong.stderr);
    said(&sandbox, &["admin", "user", "rm", "ben"]).await;
    assert_eq!(json(&sandbox, &["admin", "user", "ls"]).await, Value::Array(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_fits_scripts() {
    let (sandbox, controller) = known().await;
    let token = &controller.script.token;
    let made =
        sculpt(&sandbox, &["token", "create", "--scope", "viewer@website", "--ttl", "30d", "--name", "board"]).await;
    assert_eq!((made.code, made.stdout), (0, format!("{token}\n")), "{}", made.stderr);
    assert!(made.stderr.contains("shown this once") && made.stderr.contains("sculpt login"), "{}", made.stderr);
    let request = controller.script.book.pages().tokens[0].clone();
    let scope = [RoleBinding { role: "viewer".into(), project: "website".into() }];
    assert_eq!((&request.scope[..], request.ttl.map(|ttl| ttl.seconds)), (&scope[..], Some(30 * 24 * 3_600)));
    let quiet = sculpt(&sandbox, &["token", "create", "-q", "--user", "ben"]).await;
    assert_eq!((quiet.stdout, quiet.stderr), (format!("{token}\n"), String::new()));
    let made = json(&sandbox, &["token", "create"]).await;
    assert_eq!(made["token"].as_str(), Some(token.as_str()));

    let listed = said(&sandbox, &["token", "ls"]).await;
    assert!(listed.contains("viewer@website") && listed.contains("in 29d 23h") && !listed.contains(token), "{listed}");
    let listed = json(&sandbox, &["token", "ls"]).await;
    assert_eq!((listed[0]["token"].as_str(), listed[1]["user"].as_str()), (None, Some("ben")));
    assert!(said(&sandbox, &["token", "rm", "0198c0de"]).await.contains("revoked token 0198c0de"));
    assert_eq!(controller.script.book.pages().revoked, ["0198c0de"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_locked_is_listed_until_it_is_not() {
    let (sandbox, controller) = known().await;
    let told = sculpt(&sandbox, &["locks"]).await;
    assert_eq!((told.stdout.as_str(), told.stderr.as_str()), ("", "nothing is locked\n"));
    said(&sandbox, &["lock", "user", "ben", "--reason", "he left"]).await;
    said(&sandbox, &["lock", "executor", "worker", "--ttl", "30d"]).await;
    said(&sandbox, &["lock", "token", "0198c0de"]).await;
    let target = controller.script.book.pages().locks[1].target.clone().unwrap().target;
    assert_eq!(target, Some(Target::Executor("worker".into())));
    let table = said(&sandbox, &["locks"]).await;
    assert!(table.contains("he left") && table.contains("in 29d 23h"), "{table}");
    let locks = json(&sandbox, &["locks"]).await;
    assert_eq!((locks[2]["kind"].as_str(), locks[2]["target"].as_str()), (Some("token"), Some("0198c0de")));
    assert_eq!(said(&sandbox, &["unlock", "user", "ben"]).await, "lifted 1 lock of user ben\n");
    assert!(sculpt(&sandbox, &["unlock", "user", "ben"]).await.stderr.contains("was not locked"));
    assert_eq!(json(&sandbox, &["locks"]).await.as_array().map(Vec::len), Some(2));
}
