//! The commands of the controller's host, beside a controller that runs.

use std::time::{Duration, SystemTime};

use clap::Parser as _;
use rcgen::CertificateParams;
use sculpt_controller::{
    commands::{CommandError, Told},
    config::{Cli, Command, PublicFiles},
    pki::{Authority, Phase},
};
use sculpt_proto::{
    executor::v1::{Heartbeat, control_request, control_response},
    v1::{self, identity_client::IdentityClient, system_client::SystemClient},
};
use sculpt_tls::Key;
use tonic::Code;
use uuid::Uuid;

use super::{given, ready, recorded, shown};
use crate::{
    harness::{self, Enrolled, Stack},
    sessions::executor::{Scripted, hello},
};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

async fn command(stack: &Stack, words: &[&str]) -> Result<Told, CommandError> {
    let place = stack.place();
    let all = ["sculpt-controller"].into_iter().chain(words.iter().copied()).chain(place.iter().map(String::as_str));
    match Cli::try_parse_from(all).expect("arguments are right").command {
        Command::Admin(arguments) => arguments.run().await,
        Command::Authority(arguments) => arguments.run().await,
        other => panic!("{other:?}"),
    }
}

async fn me(stack: &Stack, token: &str) -> Result<v1::WhoAmIResponse, Code> {
    let answer = IdentityClient::new(stack.showing(token)).who_am_i(v1::WhoAmIRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_admin_is_replaced_while_the_controller_runs() {
    let stack = harness::stack().await;
    let lost = stack.bearer().strip_prefix("Bearer ").expect("a token").to_owned();
    me(&stack, &lost).await.expect("it is known");
    let told = command(&stack, &["admin", "reset"]).await.expect("it is reset");
    let kept = std::fs::read_to_string(stack.place()[1].clone() + "/tokens/user").expect("it is kept");
    assert_eq!(kept.trim(), told.answer, "for the tools of this account");
    assert!(told.note.contains("tokens/user") && !told.note.contains(&told.answer), "{told:?}");
    let me_now = me(&stack, &told.answer).await.expect("it is known");
    assert!(me_now.roles.iter().any(|role| role.role == "admin" && role.project.is_empty()), "{me_now:?}");
    let ended = async || (me(&stack, &lost).await == Err(Code::Unauthenticated)).then_some(());
    harness::eventually("the lost token to be good no more", ended).await;
    assert_eq!(recorded(&stack, "user.reset").await, 1);

    // Somebody else, whose token is theirs to keep.
    let zoe = command(&stack, &["admin", "reset", "--user", "zoe"]).await.expect("it is reset");
    assert!(me(&stack, &zoe.answer).await.is_ok() && me(&stack, &told.answer).await.is_ok());
    assert!(!zoe.note.contains("tokens/user"), "{zoe:?}");
    let refused = command(&stack, &["admin", "reset", "--user", "No Name"]).await.expect_err("it is no name");
    assert!(refused.to_string().contains("No Name"), "{refused}");
    stack.stop().await;
}

/// Waits until who asks the controller whom to trust is told of so many.
async fn learnt(stack: &Stack, many: usize) {
    let mut identity = IdentityClient::new(stack.authorised());
    harness::eventually("the controller to see the change", async || {
        let told = identity.who_am_i(v1::WhoAmIRequest {}).await.expect("an answer").into_inner().trust;
        let kept = std::fs::read_to_string(stack.trust()).expect("it is there");
        (told == kept && told.matches("BEGIN CERTIFICATE").count() == many).then_some(())
    })
    .await;
}

/// Waits until an executor that has a session is told to trust these, in this order.
async fn told_of(executor: &mut Scripted, authority: &Authority) {
    let mut sequence = 0;
    harness::eventually("the session to tell of the change", async || {
        sequence += 1;
        executor.send(control_request::Part::Heartbeat(Heartbeat { sequence, ..Heartbeat::default() })).await;
        loop {
            if let control_response::Part::HeartbeatAck(ack) = executor.next().await {
                let told = ack.trusted == authority.trusted();
                if told || ack.sequence == sequence {
                    return told.then_some(());
                }
            }
        }
    })
    .await;
}

/// Renews until the certificate is one of the authority that certifies now; the controller sees the change by itself.
async fn renewed_by(stack: &Stack, mut enrolled: Enrolled, authority: &Authority) -> Enrolled {
    harness::eventually("the controller to see the change", async || {
        enrolled = stack.renew(&enrolled, Uuid::new_v4()).await.expect("it is renewed");
        (stack.store().certified_by(authority.pin().bytes()).await.expect("names") == ["one"]).then_some(())
    })
    .await;
    enrolled
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_takes_over_from_another_and_no_session_is_cut() {
    let stack = harness::stack_with(|config| given(&config.tls.authority)).await;
    let who = hello("one");
    let enrolled = stack.enrol(&who).await;
    let mut executor = ready(&stack, &enrolled, &who).await;
    told_of(&mut executor, &Authority::open(stack.authority()).expect("it is there")).await;

    command(&stack, &["authority", "prepare"]).await.expect("it is prepared");
    learnt(&stack, 2).await;
    let refused = command(&stack, &["authority", "activate"]).await.expect_err("somebody would be cut off").to_string();
    assert!(refused.contains("cannot vouch for the next one"), "{refused}");
    assert!(refused.contains("one (connected: within a minute)") && refused.contains("--force"), "{refused}");
    let prepared = Authority::open(stack.authority()).expect("it is there");
    assert_eq!(prepared.phase(), Phase::Prepared, "nothing has happened");
    told_of(&mut executor, &prepared).await;
    let enrolled = stack.renew(&enrolled, Uuid::new_v4()).await.expect("it is renewed");
    command(&stack, &["authority", "activate"]).await.expect("everybody knows the next one");
    let refused = command(&stack, &["authority", "retire"]).await.expect_err("somebody needs it").to_string();
    assert!(refused.contains("join again: one;") && refused.contains("--force"), "{refused}");

    let next = Authority::open(stack.authority()).expect("it is there");
    told_of(&mut executor, &next).await;
    let renewed = renewed_by(&stack, enrolled, &next).await;
    let told = command(&stack, &["authority", "retire"]).await.expect("nobody needs it");
    assert_eq!(told.answer.lines().filter(|line| line.contains("sha256:")).count(), 1, "{told:?}");
    assert_eq!(shown(&stack, "one").await.epoch, executor.epoch, "its session has never ended");
    learnt(&stack, 1).await;
    ready(&stack, &renewed, &who).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn executors_are_told_where_to_dial() {
    let of = async |url: Option<&str>| {
        let stack = harness::stack_with(|config| config.executor_url = url.map(str::to_owned)).await;
        let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let wish = v1::CreateJoinTokenRequest { request_id: Uuid::new_v4().to_string(), ttl, ..Default::default() };
        let told = stack.executors().create_join_token(wish).await.expect("a token").into_inner().executor_url;
        let listens = stack.executor_address();
        stack.stop().await;
        (told, listens)
    };
    let (told, listens) = of(None).await;
    assert_eq!(told, format!("https://{listens}"), "with the port that was found");
    assert_eq!(of(Some("https://sculpt.example:7434")).await.0, "https://sculpt.example:7434");
}

/// A client that has pinned our authority goes on by it, whatever browsers are shown, and must learn when it changes.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_public_certificate_whom_to_trust_is_told_all_the_same() {
    for (left, said) in [(YEAR / 730, "runs out in 0 days"), (YEAR, "is good until")] {
        let directory = tempfile::tempdir().expect("a directory");
        let files = PublicFiles { certificates: directory.path().join("crt"), key: directory.path().join("key") };
        let key = Key::fresh().expect("a key");
        let mut params = CertificateParams::new(["sculpt.example".to_owned()]).expect("names");
        params.not_before = (SystemTime::now() - YEAR).into();
        params.not_after = (SystemTime::now() + left).into();
        let certificate = params.self_signed(key.pair()).expect("a certificate").pem();
        std::fs::write(&files.certificates, certificate).expect("it is written");
        std::fs::write(&files.key, key.to_pem()).expect("it is written");
        let stack = harness::stack_with(|config| config.tls.public = Some(files)).await;
        let mut identity = IdentityClient::new(stack.authorised());
        let who = identity.who_am_i(v1::WhoAmIRequest {}).await.expect("an answer").into_inner();
        assert!(who.public && who.trust == std::fs::read_to_string(stack.trust()).expect("it is there"), "{who:?}");
        let mut system = SystemClient::new(stack.authorised());
        let info = system.get_info(v1::GetInfoRequest {}).await.expect("an answer").into_inner();
        let check = info.checks.iter().find(|check| check.name == "certificate").expect("it is looked at");
        assert!(check.ok && check.text.contains(said), "{check:?}");
        assert_eq!(check.remedy.is_empty(), left == YEAR, "{check:?}");
        stack.stop().await;
    }
}
