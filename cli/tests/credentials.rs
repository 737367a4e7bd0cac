//! git asks, and only our own controllers get the token.

use std::{fs, process::Command};

use crate::{
    people::{known, said, sculpt},
    sandbox::{Sandbox, fed, ran, stray_token},
};

#[tokio::test(flavor = "multi_thread")]
async fn plain_git_knows_one_controller_and_no_token() {
    let (sandbox, controller) = known().await;
    let home = sandbox.path("home");
    let config = home.join(".gitconfig");
    let mut before = String::new();
    for _ in 0..2 {
        said(&sandbox, &["git-credential", "setup"]).await;
        let after = fs::read_to_string(&config).unwrap();
        assert!(before.is_empty() || before == after, "it is set up once:\n{after}");
        before = after;
    }
    assert!(!before.contains(&controller.script.token), "{before}");
    let git = |args: &[&str], url: &str| {
        let mut command: Command = sandbox.command("git", &home);
        command.args(["config", "--get-urlmatch"]).args(args).arg(url);
        ran(command)
    };
    let ours = git(&["http.sslCAInfo"], &format!("{}/git/x.git", controller.url()));
    assert!(fs::read_to_string(ours.stdout.trim()).unwrap().starts_with("-----BEGIN CERTIFICATE"));
    assert!(git(&["credential.helper"], &controller.url()).stdout.trim().ends_with("/sculpt' git-credential"));
    for key in ["http.sslCAInfo", "credential.helper"] {
        assert_eq!(git(&[key], "https://forge.example/x.git").stdout, "", "others are asked as before");
    }
    // What git would ask is answered, by the helper that it was told.
    let question = format!("url={}/git/x.git\n\n", controller.url());
    let command = {
        let mut command = sandbox.command("git", &home);
        command.args(["credential", "fill"]);
        command
    };
    let filled = tokio::task::spawn_blocking(move || fed(command, question.as_bytes())).await.unwrap();
    assert!(filled.stdout.contains(&format!("password={}\n", controller.script.token)), "{}", filled.stderr);
    assert!(sculpt(&sandbox, &["git-credential", "--help"]).await.stdout.contains("git clone https://"));
}

#[test]
fn only_our_own_url_gets_the_token() {
    let sandbox = Sandbox::new();
    let token = stray_token();
    sandbox.context("https://127.0.0.1:7433", &token);
    let home = sandbox.path("home");
    let ask = |operation: &str, question: &str| {
        fed(sandbox.sculpt(&home, &["git-credential", operation]), question.as_bytes())
    };

    let ours = ask("get", "protocol=https\nhost=127.0.0.1:7433\n\n");
    assert_eq!((ours.code, ours.stdout), (0, format!("username=sculpt\npassword={token}\n")));
    for foreign in [
        "protocol=https\nhost=127.0.0.1:7434\n\n",
        "protocol=http\nhost=127.0.0.1:7433\n\n",
        "protocol=https\nhost=localhost:7433\n\n",
        "protocol=https\nhost=forge.example\n\n",
        "host=127.0.0.1:7433\n\n",
        "",
    ] {
        let answer = ask("get", foreign);
        assert_eq!((answer.code, answer.stdout.as_str()), (0, ""), "{foreign:?}");
    }
    for operation in ["store", "erase", "something-new"] {
        let answer = ask(operation, "protocol=https\nhost=127.0.0.1:7433\nusername=x\npassword=y\n\n");
        assert_eq!((answer.code, answer.stdout.as_str()), (0, ""), "{operation}");
    }
}
