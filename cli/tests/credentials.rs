//! git asks, and only our own controllers get the token.

use crate::sandbox::{Sandbox, fed, stray_token};

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
