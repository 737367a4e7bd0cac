//! A tunnel, from a person's call to the one that their executor makes for it.

use sculpt_proto::{
    executor::v1::{self as executor, executor_service_client::ExecutorServiceClient, pairing_client::PairingClient},
    v1::{self, pairings_client::PairingsClient},
};
use ssh_key::{PrivateKey, private::Ed25519Keypair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{command, create, fresh};
use crate::{
    harness::{self, Authorised, Enrolled, Stack},
    sessions::executor::{Scripted, hello},
};

type Said = mpsc::Sender<v1::TunnelRequest>;

/// Returns when the executor is told that who has `pairing` is to be let in, or is not.
async fn invited(executor: &mut Scripted, pairing: &str, wanted: bool) {
    let told =
        async { while executor.guests().await.guests.iter().any(|guest| guest.pairing_id == pairing) != wanted {} };
    harness::in_time("the executor to be told", told).await;
}

/// An executor that lets people in, with an agent that runs; the task.
async fn ready(stack: &Stack) -> (Scripted, Enrolled, String) {
    let who = executor::Hello { ssh_address: Some(String::new()), ..hello("one") };
    let enrolled = stack.enrol(&who).await;
    let client = ExecutorServiceClient::new(stack.executor_channel(&enrolled).await);
    let mut one = Scripted::over(client, who).await;
    one.welcomed().await;
    one.observe(vec![]).await;
    assert!(one.desired().await.full);
    let made = stack.tasks().create_task(create(command(&["true"]))).await.expect("it is made").into_inner();
    one.run_one().await;
    (one, enrolled, made.task.expect("a task").uuid)
}

async fn open(stack: &Stack, task: &str) -> String {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&rand::random()));
    let public_key = key.public_key().to_openssh().expect("a line");
    let profile = v1::PairingProfile::Workspace.into();
    let request = v1::OpenPairingRequest { request_id: fresh(), task: task.to_owned(), public_key, profile };
    let opened = PairingsClient::new(stack.authorised()).open_pairing(request).await.expect("it is opened");
    opened.into_inner().pairing.expect("a pairing").uuid
}

async fn close(stack: &Stack, pairing: &str) {
    let request = v1::ClosePairingRequest { request_id: fresh(), pairing: pairing.to_owned() };
    PairingsClient::new(stack.authorised()).close_pairing(request).await.expect("it is closed");
}

/// What a person says, and what comes of it.
fn call(
    channel: Authorised,
    pairing: &str,
) -> (Said, impl Future<Output = Result<Streaming<v1::TunnelResponse>, Status>> + Send + use<>) {
    let (said, stream) = mpsc::channel(8);
    let part = Some(v1::tunnel_request::Part::Pairing(pairing.to_owned()));
    said.try_send(v1::TunnelRequest { part }).expect("there is room");
    let calling = async move {
        let called = PairingsClient::new(channel).tunnel(ReceiverStream::new(stream)).await?;
        Ok(called.into_inner())
    };
    (said, calling)
}

/// How a call ended that came to nothing.
async fn refused(channel: Authorised, pairing: &str) -> (Code, Option<String>) {
    let (_said, calling) = call(channel, pairing);
    let status = calling.await.expect_err("it is refused");
    let reason = status.metadata().get("sculpt-reason").map(|word| word.to_str().expect("a word").to_owned());
    (status.code(), reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_and_an_executor_meet_and_are_cut_when_the_pairing_is_taken_back() {
    let stack = harness::stack().await;
    let (mut one, enrolled, task) = ready(&stack).await;
    let pairing = open(&stack, &task).await;
    invited(&mut one, &pairing, true).await;

    let (said, calling) = call(stack.authorised(), &pairing);
    let calling = tokio::spawn(calling);
    let dial = one.dialled().await;
    assert_eq!(dial.pairing_id, pairing);
    let (far, stream) = mpsc::channel(8);
    let say = async |part| far.send(executor::TunnelRequest { part: Some(part) }).await.expect("it is sent");
    say(executor::tunnel_request::Part::TunnelId(dial.tunnel_id)).await;
    say(executor::tunnel_request::Part::Data("SSH-2.0-one".into())).await;
    let mut pairings = PairingClient::new(stack.executor_channel(&enrolled).await);
    let mut heard = pairings.tunnel(ReceiverStream::new(stream)).await.expect("they meet").into_inner();

    use v1::tunnel_response::Part as Told;
    let mut calling = calling.await.expect("it goes on").expect("they meet");
    let mut next = async || calling.message().await.map(|message| message.expect("it goes on").part.expect("a part"));
    assert_eq!(next().await.expect("a message"), Told::Open(v1::TunnelOpen {}));
    assert_eq!(next().await.expect("a message"), Told::Data("SSH-2.0-one".into()));
    let data = Some(v1::tunnel_request::Part::Data("SSH-2.0-person".into()));
    said.send(v1::TunnelRequest { part: data }).await.expect("it is sent");
    let first = heard.message().await.expect("a message").expect("it goes on").part;
    assert_eq!(first, Some(executor::tunnel_response::Part::Data("SSH-2.0-person".into())));

    close(&stack, &pairing).await;
    assert_eq!(next().await.expect_err("it is cut").code(), Code::FailedPrecondition);
    assert_eq!(heard.message().await.expect_err("nobody is there").code(), Code::Unavailable);
    invited(&mut one, &pairing, false).await;
    let closed = (Code::FailedPrecondition, Some("closed".to_owned()));
    assert_eq!(refused(stack.authorised(), &pairing).await, closed);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_ones_own_pairing_leads_anywhere_and_only_where_the_executor_is() {
    let stack = harness::stack().await;
    let replica = stack.replica().await;
    let (one, _enrolled, task) = ready(&stack).await;
    let pairing = open(&stack, &task).await;
    let elsewhere = || (Code::Unavailable, Some("elsewhere".to_owned()));
    assert_eq!(refused(replica.authorised(), &pairing).await, elsewhere());

    let secret = sculpt_tls::Token::fresh(sculpt_tls::Kind::User, None);
    stack.store().reset_admin("eve", secret.secret.digest()).await.expect("another admin");
    let not_found = (Code::NotFound, None);
    assert_eq!(refused(stack.showing(&secret.reveal()), &pairing).await, not_found);
    assert_eq!(refused(stack.authorised(), &fresh()).await, not_found);
    assert_eq!(refused(stack.authorised(), "hello").await, (Code::InvalidArgument, None));

    drop(one);
    let gone = async || (refused(stack.authorised(), &pairing).await == elsewhere()).then_some(());
    harness::eventually("the executor to be gone", gone).await;
    replica.stop().await;
    stack.stop().await;
}
