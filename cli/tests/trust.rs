//! Whom the command line believes, with what token, and what it says where it does not.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use rcgen::{SanType, date_time_ymd};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
};
use rustls::ServerConfig;
use sculpt_proto::v1::{Attempt, Task, TaskState};
use sculpt_tls::{Kind, Token};

use crate::{
    authority::{Authority, bundle},
    controller::Controller,
    sandbox::{Ran, Sandbox, ran, run, stray_token},
};

async fn start() -> (Sandbox, Controller) {
    let sandbox = Sandbox::new();
    let controller = Controller::start(&sandbox.path("store.git"), Task { number: 17, ..Task::default() }).await;
    sandbox.context(&controller.url(), &controller.script.token);
    (sandbox, controller)
}

async fn ls(sandbox: &Sandbox) -> Ran {
    run(sandbox.sculpt(&sandbox.path("home"), &["ls"])).await
}

async fn ls_with(sandbox: &Sandbox, token: &str) -> Ran {
    let mut command = sandbox.sculpt(&sandbox.path("home"), &["ls"]);
    command.env("SCULPT_TOKEN", token);
    run(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_token_that_is_not_good_is_told_from_the_others() {
    let (sandbox, controller) = start().await;
    for why in ["the token has expired", "the token was revoked", "user ada is locked (she left)"] {
        let token = controller.authority.token();
        controller.script.refused.lock().unwrap().insert(token.clone(), why);
        ls_with(&sandbox, &token).await.refuses(77, &[why, "unset SCULPT_TOKEN"]);
        sandbox.context(&controller.url(), &token);
        ls(&sandbox).await.refuses(77, &[why, &format!("sculpt login {}", controller.url())]);
    }
    let good = &controller.script.token;
    let torn = &good[..good.len() - 3];
    for (token, why) in [
        (controller.authority.token().as_str(), "not one of this controller"),
        (&stray_token(), "not the controller of the token"),
        (torn, "is damaged: it was not copied whole"),
        (&format!("{torn}AAA"), "is damaged"),
        ("ghp_0123456789", "not a token of sculpt"),
        (&Token::fresh(Kind::Join, None).reveal(), "this is a join token, and a user token is needed"),
    ] {
        let refused = ls_with(&sandbox, token).await;
        refused.refuses(77, &[why]);
        assert!(!refused.stderr.contains(&token[12.min(token.len() - 1)..]), "the token is shown: {}", refused.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_taken_for_the_controller() {
    let (sandbox, controller) = start().await;
    let other = Authority::fresh();
    controller.shown.send_replace(other.controller());
    let stranger = ["not the controller of the token", "ask its administrator for a new token"];
    ls(&sandbox).await.refuses(77, &stranger);
    assert!(!sandbox.path("home/.config/sculpt/authorities").exists(), "a stranger's authority is not kept");

    controller.shown.send_replace(controller.authority.controller());
    assert_eq!(ls(&sandbox).await.code, 0);
    controller.shown.send_replace(other.controller());
    ls(&sandbox).await.refuses(77, &["an authority that is not trusted here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_named() {
    let (sandbox, controller) = start().await;
    for (differs, why) in [
        (controller.authority.shows(|params| params.not_after = date_time_ymd(2001, 1, 1)), "has run out"),
        (controller.authority.shows(|params| params.not_before = date_time_ymd(4000, 1, 1)), "is not valid yet"),
    ] {
        controller.shown.send_replace(differs);
        ls(&sandbox).await.refuses(77, &[why, "this machine's clock", "the clocks of both machines"]);
    }
}

/// A certificate as the web's authorities give it: for the address that is dialled.
fn public(authority: &Authority) -> Arc<ServerConfig> {
    authority.shows(|params| params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_a_pin_believes_whom_the_system_does() {
    let (sandbox, controller) = start().await;
    let token = Token::fresh(Kind::User, None).reveal();
    controller.script.refused.lock().unwrap().insert(token.clone(), "the token has expired");
    controller.shown.send_replace(public(&controller.authority));
    sandbox.context(&controller.url(), &token);
    let roots = sandbox.path("roots.pem");
    let ls_trusting = async |authority: &Authority| {
        fs::write(&roots, bundle(&[authority])).unwrap();
        let mut command = sandbox.sculpt(&sandbox.path("home"), &["ls"]);
        command.env("SSL_CERT_FILE", &roots);
        run(command).await
    };
    ls_trusting(&Authority::fresh()).await.refuses(77, &["an authority that is not trusted here"]);
    // It is believed, and so it was shown the token.
    ls_trusting(&controller.authority).await.refuses(77, &["the token has expired"]);

    // A pinned token does not believe the web's authorities, whoever trusts them.
    let web = Authority::fresh();
    controller.shown.send_replace(public(&web));
    sandbox.context(&controller.url(), &controller.script.token);
    ls_trusting(&web).await.refuses(77, &["not the controller of the token"]);
}

#[test]
fn what_is_no_controller_is_out_of_reach() {
    let sandbox = Sandbox::new();
    let home = sandbox.path("home");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    sandbox.context(&url, &stray_token());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        ran(sandbox.sculpt(&home, &["ls"])).refuses(69, &[&url, "does not speak TLS"]);
    });
    // Nobody takes the connection that the kernel has.
    ran(sandbox.sculpt(&home, &["ls"])).refuses(69, &[&url, "did not answer within 5 s"]);
    drop(listener);
    ran(sandbox.sculpt(&home, &["ls"])).refuses(69, &[&url, "refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_takes_over_unnoticed() {
    let (sandbox, controller) = start().await;
    let next = Authority::fresh();
    let first = &controller.authority;
    assert_eq!(ls(&sandbox).await.code, 0);
    let authorities = fs::read_dir(sandbox.path("home/.config/sculpt/authorities")).unwrap();
    let [kept] = authorities.map(|entry| entry.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(fs::read_to_string(&kept).unwrap(), bundle(&[first]));

    // Prepared: it is not asked about again at once, and is within the hour.
    *controller.script.trust.lock().unwrap() = bundle(&[first, &next]);
    assert_eq!(ls(&sandbox).await.code, 0);
    assert_eq!(fs::read_to_string(&kept).unwrap(), bundle(&[first]));
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(3_601);
    fs::File::open(&kept).unwrap().set_modified(past).unwrap();
    assert_eq!(ls(&sandbox).await.code, 0);
    assert_eq!(fs::read_to_string(&kept).unwrap(), bundle(&[first, &next]));

    // Activated and retired: the token still names the first.
    controller.shown.send_replace(next.controller());
    *controller.script.trust.lock().unwrap() = bundle(&[&next]);
    fs::File::open(&kept).unwrap().set_modified(past).unwrap();
    assert_eq!(ls(&sandbox).await.code, 0);
    assert_eq!(fs::read_to_string(&kept).unwrap(), bundle(&[&next]));
    controller.shown.send_replace(first.controller());
    ls(&sandbox).await.refuses(77, &["an authority that is not trusted here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_vouched_for_is_learnt_of_at_once() {
    let (sandbox, controller) = start().await;
    let (first, next) = (&controller.authority, Authority::fresh());
    assert_eq!(ls(&sandbox).await.code, 0);
    let kept = kept(&sandbox);
    assert_eq!(fs::read_to_string(&kept).unwrap(), bundle(&[first]));

    // Prepared and activated within the hour.
    *controller.script.trust.lock().unwrap() = bundle(&[&next, first]);
    controller.shown.send_replace(next.vouched_by(first));
    assert_eq!(ls(&sandbox).await.code, 0);
    assert_eq!(fs::read_to_string(&kept).unwrap(), bundle(&[&next, first]));

    // What is shown is known now, and nobody asks; so whoever used their tool is not locked out.
    *controller.script.trust.lock().unwrap() = bundle(&[&next]);
    assert_eq!(ls(&sandbox).await.code, 0);
    assert_eq!(fs::read_to_string(&kept).unwrap(), bundle(&[&next, first]));
    controller.shown.send_replace(next.controller());
    assert_eq!(ls(&sandbox).await.code, 0);
}

/// Waits until these authorities are kept.
async fn learnt(kept: &Path, authorities: &[&Authority]) {
    let (kept, wanted) = (kept.to_owned(), bundle(authorities));
    let waiting = tokio::task::spawn_blocking(move || {
        let changes = inotify::init(CreateFlags::CLOEXEC).unwrap();
        // What is kept is written elsewhere, and named when it is whole.
        inotify::add_watch(&changes, kept.parent().unwrap(), WatchFlags::MOVED_TO).unwrap();
        let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
        while fs::read_to_string(&kept).unwrap() != wanted {
            let changed = poll(&mut [PollFd::new(&changes, PollFlags::IN)], Some(&limit)).unwrap();
            assert!(changed > 0, "nobody learns of them");
            rustix::io::read(&changes, &mut [0; 4096]).unwrap();
        }
    });
    waiting.await.unwrap();
}

/// The file of authorities that is kept for the one controller.
fn kept(sandbox: &Sandbox) -> PathBuf {
    let files = fs::read_dir(sandbox.path("home/.config/sculpt/authorities")).unwrap();
    let mut files =
        files.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "pem"));
    files.next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_comes_back_to_another_authority_and_to_no_stranger() {
    let (sandbox, controller) = start().await;
    let (first, next, last) = (&controller.authority, Authority::fresh(), Authority::fresh());
    let attempt = Attempt { number: 1, state: "running".into(), log_bytes: 1, ..Attempt::default() };
    let running = Task { number: 17, state: TaskState::Running.into(), attempts: vec![attempt], ..Task::default() };
    controller.script.task.send_replace(running);
    controller.script.log.lock().unwrap().extend_from_slice(b"the first line\n");
    // The log goes on for ever: each stream of it breaks after its bytes.
    controller.script.breaks.lock().unwrap().extend([1000; 1000]);
    let mut command = sandbox.sculpt(&sandbox.path("home"), &["logs", "-f", "17"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = tokio::task::spawn_blocking(move || {
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 15]).unwrap();
        child
    })
    .await
    .unwrap();
    let kept = kept(&sandbox);

    // Another command has learnt of the next one meanwhile, and it takes over.
    fs::write(&kept, bundle(&[first, &next])).unwrap();
    *controller.script.trust.lock().unwrap() = bundle(&[&next, &last]);
    controller.shown.send_replace(next.controller());
    learnt(&kept, &[&next, &last]).await;
    // Of the one after that nobody else has.
    *controller.script.trust.lock().unwrap() = bundle(&[&last]);
    controller.shown.send_replace(last.controller());
    learnt(&kept, &[&last]).await;
    assert!(child.try_wait().unwrap().is_none(), "it follows");

    let stranger = Authority::fresh();
    controller.shown.send_replace(stranger.controller());
    let ended = tokio::task::spawn_blocking(move || Ran::from(child.wait_with_output().unwrap())).await.unwrap();
    let shown = format!("it shows the authority {}, and the known one is {}", stranger.pin(), last.pin());
    ended.refuses(77, &[&shown, "another authority has taken over there", "ask its administrator for a new token"]);
    assert_eq!(fs::read_to_string(&kept).unwrap(), bundle(&[&last]), "a stranger's authority is not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_believes_a_public_certificate_when_there_is_one() {
    let (sandbox, controller) = start().await;
    let home = sandbox.path("home");
    for public in [false, true, false] {
        *controller.script.public.lock().unwrap() = public;
        assert_eq!(run(sandbox.sculpt(&home, &["whoami"])).await.code, 0);
        assert_eq!(run(sandbox.sculpt(&home, &["git-credential", "setup"])).await.code, 0);
        let mut command = sandbox.command("git", &home);
        command.args(["config", "--get-urlmatch", "http.sslCAInfo", &controller.url()]);
        let believed = run(command).await.stdout;
        assert_eq!(believed.trim().is_empty(), public, "{believed}");
        assert_eq!(fs::read_to_string(kept(&sandbox)).unwrap(), bundle(&[&controller.authority]), "we do as before");
    }
}

#[test]
fn urls_are_read_kindly_and_never_in_the_clear() {
    let sandbox = Sandbox::new();
    let home = sandbox.path("home");
    sandbox.context("https://127.0.0.1:1", &stray_token());
    let ls_at = |url: &str| {
        let mut command = sandbox.sculpt(&home, &["ls"]);
        command.env("SCULPT_URL", url);
        ran(command)
    };
    for (url, dialled) in [
        ("127.0.0.1:1", "https://127.0.0.1:1"),
        ("localhost:1", "https://localhost:1"),
        (" https://[::1]:1/ ", "https://[::1]:1"),
    ] {
        ls_at(url).refuses(69, &[dialled]);
    }
    ls_at("http://127.0.0.1:1").refuses(64, &["nothing is sent in the clear", "https://127.0.0.1:1"]);
    for url in ["ssh://host", "https://", "https://me@host", "https://host/path", "https://host?x=y"] {
        ls_at(url).refuses(64, &["is not the URL of a controller"]);
    }
}

#[test]
fn a_token_that_others_can_read_is_not_used() {
    let sandbox = Sandbox::new();
    let file = sandbox.context("https://127.0.0.1:1", &stray_token());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    ran(sandbox.sculpt(&sandbox.path("home"), &["ls"])).refuses(77, &["can be read by other users", "chmod 600"]);
}
