//! A machine becomes an executor, or is told why not and keeps nothing of it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::{Output, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sculpt_tls::{Kind, Token};
use tonic::Status;

use crate::{authority::Authority, host::Host};

/// The exit code and what was said.
fn told(output: &Output) -> (i32, String) {
    assert!(output.stdout.is_empty() || output.status.success());
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn keyring(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.data().join("identity")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const WHOLE: [&str; 3] = ["certificate.pem", "key.pem", "trust.pem"];

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_no_good_is_named_and_nothing_stays() {
    let host = Host::new().await;
    let good = host.controller.token();
    let unknown = {
        let token = host.controller.token();
        host.controller.memory().enrolments.tokens.remove(&token);
        token
    };
    let other = Host::new().await.controller.token();
    let user = Token::fresh(Kind::User, None).reveal();
    let unpinned = Token::fresh(Kind::Join, None).reveal();
    for (token, words) in [
        (host.controller.token_that(Err("the join token has expired")), "has expired"),
        (host.controller.token_that(Err("the join token was revoked")), "was revoked"),
        (host.controller.token_that(Ok(0)), "is used up"),
        (unknown, "not one of this controller"),
        (other, "not the controller of the token"),
        (user, "this is a user token, and a join token is needed; `sculpt login` takes that one"),
        (unpinned, "names no authority"),
        (good[..50].to_owned(), "is damaged"),
        (format!("{good}x"), "is damaged"),
        ("ghp_something".to_owned(), "not a token of sculpt"),
        (String::new(), "is empty"),
    ] {
        let (code, said) = told(&host.join_with(&token, &host.controller.url(), &[]));
        assert_eq!(code, 77, "{said}");
        assert!(said.contains(words) && !said.contains(&good), "{said}");
        assert_eq!(keyring(&host), [""; 0], "{words}");
    }
    assert_eq!(host.controller.memory().enrolments.joins.len(), 4, "others were not shown to it");
    host.join();
    assert_eq!(keyring(&host), WHOLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_controller_is_named_and_nothing_is_made() {
    let host = Host::new().await;
    let token = host.controller.token();
    // What is done with each connection; then it is closed.
    let answers = |answer: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _hello = stream.read(&mut [0; 512]);
                let _gone = stream.write_all(answer);
            }
        });
        format!("https://{address}")
    };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clear = host.controller.url().replace("https", "http");
    for (url, code, words) in [
        (answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"), 69, "does not speak TLS"),
        (answers(b""), 69, "it closed the connection"),
        (format!("https://{}", silent.local_addr().unwrap()), 69, "it did not answer within 5s"),
        (format!("https://{closed}"), 69, "Connection refused"),
        (clear, 64, "nothing is sent in the clear"),
        ("controller.example".to_owned(), 64, "is not a URL"),
        (format!("{}/path", host.controller.url()), 64, "more than a host and a port"),
    ] {
        let (exit, said) = told(&host.join_with(&token, &url, &[]));
        assert_eq!(exit, code, "{said}");
        assert!(said.contains(words) && said.contains(&url), "{words}: {said}");
        assert!(!host.data().exists(), "{words}");
    }
    let (exit, said) = told(&host.program("join").args(["https://x", "--token-file", "/absent"]).output().unwrap());
    assert!(exit == 64 && said.contains("/absent"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_told_from_a_wrong_controller() {
    let host = Host::new().await;
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3_600));
    for (good, words) in [(now + day..now + 2 * day, "not valid yet"), (now - 2 * day..now - day, "has run out")] {
        host.controller.prove(good);
        let (code, said) = told(&host.join_with(&host.controller.token(), &host.controller.url(), &[]));
        assert_eq!(code, 77, "{said}");
        assert!(said.contains(words) && said.contains("the clocks of both machines"), "{said}");
    }
    assert!(!host.data().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_joined_stays_where_it_is_unless_told_otherwise() {
    let host = Host::new().await;
    let mut command = host.program("join");
    command.args([&host.controller.url(), "--token-file", "-", "--name", "till"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{}\n", host.controller.token()).as_bytes()).unwrap();
    let joined = child.wait_with_output().unwrap();
    assert!(joined.status.success(), "{joined:?}");
    assert!(String::from_utf8_lossy(&joined.stdout).starts_with("till has joined cluster "), "{joined:?}");
    let directory = fs::metadata(host.data().join("identity")).unwrap();
    assert_eq!(directory.mode() & 0o777, 0o700);
    for name in WHOLE {
        let file = fs::metadata(host.data().join("identity").join(name)).unwrap();
        assert_eq!(file.mode() & 0o777, 0o600, "{name}");
    }
    let asked = |host: &Host| host.controller.memory().enrolments.joins.len();

    let token = host.controller.token();
    let (code, said) = told(&host.join_with(&token, &host.controller.url(), &[]));
    assert_eq!((code, asked(&host)), (7, 1), "{said}");
    assert!(said.contains("has joined this controller before") && said.contains("--again"), "{said}");
    let other = Host::new().await;
    let elsewhere = other.controller.token();
    for (again, words) in [(&[][..], "does not know the authority"), (&["--again"], "belongs to another cluster")] {
        let (code, said) = told(&host.join_with(&elsewhere, &other.controller.url(), again));
        assert_eq!((code, asked(&other)), (7, 0), "{said}");
        assert!(said.contains(words) && said.contains("rebind"), "{said}");
    }
    assert_eq!(other.controller.memory().enrolments.tokens[&elsewhere], Ok(1), "it is not used up");
    let again = host.join_with(&token, &host.controller.url(), &["--again", "--name", "till"]);
    assert!(again.status.success(), "{again:?}");
    let (said, code) = host.status();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("till") && said.contains("number 2") && said.contains("let in       yes"), "{said}");

    assert!(host.program("rebind").output().unwrap().status.success());
    let moved = host.join_with(&elsewhere, &other.controller.url(), &[]);
    assert!(moved.status.success(), "{moved:?}");
    assert!(host.status().0.contains(&other.controller.url()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_took_over_while_it_was_away_is_learnt_with_a_token() {
    let mut host = Host::new().await;
    host.join();
    let before = fs::read(host.data().join("identity/key.pem")).unwrap();
    host.controller.trust_alone(&Arc::new(Authority::fresh()));
    let token = host.controller.token();
    let (code, said) = told(&host.join_with(&token, &host.controller.url(), &[]));
    assert!(code == 7 && said.contains("--again"), "{said}");
    let again = host.join_with(&token, &host.controller.url(), &["--again"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(fs::read(host.data().join("identity/key.pem")).unwrap(), before, "it is the same executor");
    host.start().await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_runs_where_and_as_whom_it_has_joined() {
    let mut host = Host::new().await;
    let joined = host.join_with(&host.controller.token(), &host.controller.url(), &["--name", "till"]);
    assert!(joined.status.success(), "{joined:?}");
    // What a controller whose database was set back believes must not be what somebody types.
    let other = ["--name", "desk", "--pool", "release", "--label", "arch=amd64"];
    host.executor =
        Some(host.program("run").args(other).arg("--separate=false").stderr(Stdio::null()).spawn().unwrap());
    let hello = host.controller.wait("a session", |memory| memory.hellos.first().cloned()).await;
    assert_eq!((hello.name.as_str(), hello.pool.as_str()), ("till", "build"));
    assert_eq!(hello.labels, [("arch".to_owned(), "arm64".to_owned())].into());
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_whose_answer_is_lost_is_repeated_and_uses_no_token_twice() {
    let host = Host::new().await;
    let token = host.controller.token();
    host.controller.change(|memory| memory.enrolments.silent = true);
    let mut child = host.joining(&token, &host.controller.url()).spawn().unwrap();
    host.controller.wait("the question", |memory| (memory.enrolments.joins.len() == 1).then_some(())).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(keyring(&host), ["key.pem"], "that of the certificate that was made");
    host.controller.change(|memory| memory.enrolments.silent = false);
    let again = host.join_with(&token, &host.controller.url(), &[]);
    assert!(again.status.success(), "{again:?}");
    let memory = host.controller.memory();
    assert_eq!(memory.enrolments.tokens[&token], Ok(0));
    assert_eq!(memory.enrolments.joins[0].join_id, memory.enrolments.joins[1].join_id);
}

/// A machine that asked to join and got no answer, with its token and what it said then; the controller is back.
async fn cut_off() -> (Host, String, (i32, String)) {
    let mut host = Host::new().await;
    let token = host.controller.token();
    host.controller.change(|memory| memory.enrolments.silent = true);
    let child = host.joining(&token, &host.controller.url()).spawn().unwrap();
    host.controller.wait("the question", |memory| (memory.enrolments.joins.len() == 1).then_some(())).await;
    host.controller.go_away().await;
    let said = told(&child.wait_with_output().unwrap());
    host.controller.memory().enrolments.silent = false;
    host.controller.come_back().await;
    (host, token, said)
}

/// The answer that was lost may have certified its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_outlives_an_answer_that_says_nothing_of_its_token() {
    let (host, token, (code, said)) = cut_off().await;
    assert_eq!(code, 69, "{said}");
    for (status, expected) in [
        (Status::resource_exhausted("too many calls\u{1b}[2J"), 1),
        (Status::unimplemented("not here"), 64),
        (Status::not_found("not here"), 1),
        (Status::out_of_range("too long"), 1),
    ] {
        host.controller.memory().enrolments.turned_away = Some(status);
        let (code, said) = told(&host.join_with(&token, &host.controller.url(), &[]));
        assert!(code == expected && !said.contains('\u{1b}'), "{code}: {said}");
        assert_eq!(keyring(&host), ["key.pem"], "{said}");
    }
    host.controller.memory().enrolments.turned_away = None;
    let again = host.join_with(&token, &host.controller.url(), &[]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(host.controller.memory().enrolments.tokens[&token], Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_leaves_what_it_takes_to_ask_again() {
    let (host, token, (code, said)) = cut_off().await;
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("Run the same command with the same token again"), "{said}");
    let again = host.join_with(&token, &host.controller.url(), &[]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(host.controller.memory().enrolments.tokens[&token], Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_dies_anywhere_is_repeated() {
    for point in ["join.before_ask", "join.answered", "keyring.trusts"] {
        let mut host = Host::new().await;
        let armed = host.root.path().join("failpoints");
        fs::create_dir(&armed).unwrap();
        fs::write(armed.join(point), "").unwrap();
        host.environment.push((sculpt_failpoints::VARIABLE, armed.clone().into()));
        let token = host.controller.token();
        let died = host.join_with(&token, &host.controller.url(), &[]);
        assert_eq!(died.status.code(), None, "{point}: {died:?}");
        let again = host.join_with(&token, &host.controller.url(), &[]);
        assert!(again.status.success(), "{point}: {again:?}");
        assert_eq!(host.controller.memory().enrolments.tokens[&token], Ok(0), "{point}");
        assert_eq!(keyring(&host), WHOLE, "{point}");
        host.start().await;
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_can_read_is_not_used() {
    let host = Host::new().await;
    host.join();
    let directory = host.data().join("identity");
    let change = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (path, open, closed) in [(directory.join("key.pem"), 0o640, 0o600), (directory.clone(), 0o750, 0o700)] {
        change(&path, open);
        let run = host.program("run").args(["--separate=false"]).output().unwrap();
        let (code, said) = told(&run);
        assert!(code == 1 && said.contains(&format!("chmod {closed:o}")), "{said}");
        assert!(said.contains(path.to_str().unwrap()), "{said}");
        change(&path, closed);
    }
    fs::remove_file(directory.join("key.pem")).unwrap();
    let (said, code) = host.status();
    assert!(code == 1 && said.contains("key.pem is gone"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_somebody_else_is_not_kept() {
    let host = Host::new().await;
    host.controller.memory().enrolments.certifies_others = true;
    let (code, said) = told(&host.join_with(&host.controller.token(), &host.controller.url(), &[]));
    assert!(code == 7 && said.contains("certified executor"), "{said}");
    assert!(!keyring(&host).contains(&"certificate.pem".to_owned()));
}
