//! The way from a person to an executor through the controller, over real listeners.

use std::time::Duration;

use bytes::Bytes;
use sculpt_core::rights::Role;
use sculpt_pairing::Host;
use sculpt_proto::{
    executor::v1::{
        self as wire, CertifyHostRequest, pairing_client::PairingClient, tunnel_request as to_executor,
        tunnel_response as from_person,
    },
    id::TunnelId,
    v1::{self, pairings_client::PairingsClient, tunnel_request, tunnel_response},
};
use ssh_key::{Certificate, HashAlg, PublicKey};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{
    guests::{House, dial},
    pairings::{key, reason},
};
use crate::{harness::Authorised, sessions::executor::hello};

/// How soon somebody is to know that the other end has gone.
const SOON: Duration = Duration::from_secs(5);

/// A person's end.
struct Person {
    says: mpsc::Sender<v1::TunnelRequest>,
    hears: Streaming<v1::TunnelResponse>,
}

/// An executor's end.
struct Dialled {
    says: mpsc::Sender<wire::TunnelRequest>,
    hears: Streaming<wire::TunnelResponse>,
}

impl Person {
    async fn call(mut people: PairingsClient<Authorised>, pairing: &str) -> Result<Self, Status> {
        let (says, requests) = mpsc::channel(4);
        let part = Some(tunnel_request::Part::Pairing(pairing.to_owned()));
        says.send(v1::TunnelRequest { part }).await.unwrap();
        let hears = people.tunnel(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self { says, hears })
    }

    async fn say(&self, part: tunnel_request::Part) {
        self.says.send(v1::TunnelRequest { part: Some(part) }).await.expect("it is taken");
    }

    async fn hear(&mut self) -> Result<Option<tunnel_response::Part>, Status> {
        let heard = timeout(SOON, self.hears.message()).await.expect("in time")?;
        Ok(heard.map(|message| message.part.expect("it says something")))
    }
}

impl Dialled {
    async fn dial(channel: Authorised, tunnel: &str) -> Result<Self, Status> {
        let (says, requests) = mpsc::channel(4);
        let part = Some(to_executor::Part::TunnelId(tunnel.to_owned()));
        says.send(wire::TunnelRequest { part }).await.unwrap();
        let mut client = PairingClient::new(channel);
        let hears = client.tunnel(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self { says, hears })
    }

    async fn say(&self, part: to_executor::Part) {
        self.says.send(wire::TunnelRequest { part: Some(part) }).await.expect("it is taken");
    }

    async fn hear(&mut self) -> Result<Option<from_person::Part>, Status> {
        let heard = timeout(SOON, self.hears.message()).await.expect("in time")?;
        Ok(heard.map(|message| message.part.expect("it says something")))
    }
}

/// Two ends that have met.
async fn met(house: &mut House, token: &str, pairing: &str) -> (Person, Dialled) {
    let calling = Person::call(house.people(token), pairing);
    let answering = async {
        let dial = house.executor.dialled().await;
        assert_eq!(dial.pairing_id, pairing);
        let channel = house.world.stack.executor_channel(&house.enrolled).await;
        Dialled::dial(channel, &dial.tunnel_id).await
    };
    let (person, dialled) = tokio::join!(calling, answering);
    let mut person = person.expect("it is answered");
    assert_eq!(person.hear().await.unwrap(), Some(tunnel_response::Part::Open(v1::TunnelOpen {})));
    (person, dialled.expect("it is taken"))
}

fn data(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn house() -> (House, String, String) {
    opened(House::new().await).await
}

/// A house in which ben may sit.
async fn opened(house: House) -> (House, String, String) {
    let ben = house.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    let pairing = house.open(&ben).await;
    (house, ben, pairing)
}

#[tokio::test(flavor = "multi_thread")]
async fn they_meet_and_each_ends_for_itself() {
    let (mut house, ben, pairing) = house().await;
    let (mut person, mut executor) = met(&mut house, &ben, &pairing).await;
    person.say(tunnel_request::Part::Data(data("SSH-2.0-person"))).await;
    assert_eq!(executor.hear().await.unwrap(), Some(from_person::Part::Data(data("SSH-2.0-person"))));
    person.say(tunnel_request::Part::End(v1::TunnelEnd {})).await;
    assert_eq!(executor.hear().await.unwrap(), Some(from_person::Part::End(wire::TunnelEnd {})));
    executor.say(to_executor::Part::Data(data("SSH-2.0-executor"))).await;
    executor.say(to_executor::Part::End(wire::TunnelEnd {})).await;
    assert_eq!(person.hear().await.unwrap(), Some(tunnel_response::Part::Data(data("SSH-2.0-executor"))));
    assert_eq!(person.hear().await.unwrap(), Some(tunnel_response::Part::End(v1::TunnelEnd {})));
    assert_eq!((person.hear().await.unwrap(), executor.hear().await.unwrap()), (None, None));
    house.world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_executor_that_is_called_takes_a_tunnel_and_once() {
    let (mut house, ben, pairing) = house().await;
    let other = house.world.stack.enrol(&hello("other")).await;
    let (people, stack) = (house.people(&ben), &house.world.stack);
    let calling = Person::call(people, &pairing);
    let answering = async {
        let dial = house.executor.dialled().await;
        let refused = |dialled: Result<Dialled, Status>| dialled.err().map(|status| status.code());
        let stranger = Dialled::dial(stack.executor_channel(&other).await, &dial.tunnel_id).await;
        assert_eq!(refused(stranger), Some(Code::NotFound), "it is another's");
        let own = || stack.executor_channel(&house.enrolled);
        let unknown = Dialled::dial(own().await, &TunnelId::fresh().to_string()).await;
        assert_eq!(refused(unknown), Some(Code::NotFound));
        assert_eq!(refused(Dialled::dial(own().await, "x").await), Some(Code::InvalidArgument));
        let taken = Dialled::dial(own().await, &dial.tunnel_id).await.expect("it is its own");
        let again = Dialled::dial(own().await, &dial.tunnel_id).await;
        assert_eq!(refused(again), Some(Code::NotFound), "it is taken");
        taken
    };
    let (person, _taken) = tokio::join!(calling, answering);
    assert!(person.is_ok());
    house.world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_not_there_is_waited_for_by_nobody() {
    let (mut house, ben, pairing) = house().await;
    // Another session takes its place, and goes.
    let session = dial(&house.world, &house.enrolled, &house.hello).await;
    assert_eq!(house.executor.rejected().await.code(), wire::reject::Code::Superseded);
    drop(session);
    let told = crate::harness::eventually("the session to be over", async || {
        Person::call(house.people(&ben), &pairing).await.err().filter(|status| !status.message().contains("dial back"))
    });
    assert_eq!(told.await.code(), Code::Unavailable);
    house.world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_off_is_missed_at_once() {
    let (mut house, ben, pairing) = house().await;
    let (person, mut executor) = met(&mut house, &ben, &pairing).await;
    drop(person);
    assert_eq!(executor.hear().await.expect_err("the person has gone").code(), Code::Unavailable);
    let (mut person, executor) = met(&mut house, &ben, &pairing).await;
    drop(executor);
    let told = person.hear().await.expect_err("the executor has gone");
    assert!(told.code() == Code::Unavailable && told.message().contains("connect again"), "{told}");
    house.world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pairing_that_is_taken_back_without_a_word_cuts_who_is_there_all_the_same() {
    for (sql, word) in
        [("UPDATE pairings SET closed_at = created_at, closed_by = 'ada'", "closed"), ("DELETE FROM pairings", "over")]
    {
        let (mut house, ben, pairing) = opened(House::looking(Duration::from_millis(50)).await).await;
        let (mut person, mut executor) = met(&mut house, &ben, &pairing).await;
        sqlx::query(sql).execute(&mut *house.world.stack.store().read().await.unwrap()).await.unwrap();
        let told = person.hear().await.expect_err(sql);
        assert_eq!((told.code(), reason(&told)), (Code::FailedPrecondition, Some(word)), "{told}");
        assert_eq!(executor.hear().await.expect_err(sql).code(), Code::Unavailable);
        house.world.stack.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_ends_says_so_at_once() {
    let (mut house, ben, pairing) = house().await;
    let (mut person, mut executor) = met(&mut house, &ben, &pairing).await;
    let stopping = house.world.stack.stop();
    let (_stopped, person, executor) = tokio::join!(timeout(SOON, stopping), person.hear(), executor.hear());
    for told in [person.map(drop), executor.map(drop)] {
        let told = told.expect_err("it ends");
        assert!(told.code() == Code::Unavailable && told.message().contains("shutting down"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_dial_hears_that_the_controller_ends() {
    let (mut house, ben, pairing) = house().await;
    let calling = Person::call(house.people(&ben), &pairing);
    let ending = async {
        assert_eq!(house.executor.dialled().await.pairing_id, pairing);
        house.world.stack.stop().await;
    };
    let (told, ()) = tokio::join!(calling, ending);
    let told = told.err().expect("nobody has dialled");
    assert!(told.code() == Code::Unavailable && told.message().contains("shutting down"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn much_goes_through_whole_and_too_much_at_once_does_not() {
    let (mut house, ben, pairing) = house().await;
    let (mut person, executor) = met(&mut house, &ben, &pairing).await;
    let piece = |number: u8| Bytes::from(vec![number; 64 << 10]);
    let sending = tokio::spawn(async move {
        for number in 0..=255 {
            executor.say(to_executor::Part::Data(piece(number))).await;
        }
        executor.say(to_executor::Part::End(wire::TunnelEnd {})).await;
        executor
    });
    for number in 0..=255 {
        assert!(person.hear().await.unwrap() == Some(tunnel_response::Part::Data(piece(number))), "piece {number}");
    }
    assert_eq!(person.hear().await.unwrap(), Some(tunnel_response::Part::End(v1::TunnelEnd {})));
    let _executor = sending.await.unwrap();
    person.say(tunnel_request::Part::Data(vec![0; (64 << 10) + 1].into())).await;
    assert_eq!(person.hear().await.expect_err("it is too large").code(), Code::InvalidArgument);
    house.world.stack.stop().await;
}

#[tokio::test]
async fn an_executor_is_certified_as_itself_and_for_a_key_that_ssh_knows_it_by() {
    let (house, ben, _) = house().await;
    let mut client = PairingClient::new(house.world.stack.executor_channel(&house.enrolled).await);
    let (private, public_key) = key();
    let another = || CertifyHostRequest { public_key: key().1 };
    for request in [another(), another(), CertifyHostRequest { public_key: public_key.clone() }] {
        client.certify_host(request).await.expect("it is certified");
    }
    let told = client.certify_host(CertifyHostRequest { public_key }).await.expect("it is certified").into_inner();
    let sql = "SELECT actor, subject, details->>'key' FROM audit WHERE action = 'executor.certify_host' ORDER BY id";
    let record: Vec<(String, String, String)> =
        sqlx::query_as(sql).fetch_all(&mut *house.world.stack.store().read().await.unwrap()).await.unwrap();
    let last = ("executor:one".to_owned(), "executor:one".to_owned(), private.fingerprint(HashAlg::Sha256).to_string());
    assert_eq!((record.len(), record.last()), (3, Some(&last)), "the record has each key once: {record:?}");
    assert_eq!(told.renew_after.expect("when").seconds, 16 * 3600);
    let certificate = Certificate::from_openssh(&told.certificate).expect("a certificate");
    let host = Host(house.hello.executor_id.parse().expect("a uuid")).to_string();
    assert!(certificate.cert_type().is_host());
    assert_eq!(certificate.valid_principals(), [host.as_str()]);
    assert_eq!(certificate.public_key(), private.public_key().key_data());
    assert_eq!(certificate.valid_before() - certificate.valid_after(), 24 * 3600 + 60);
    let request = super::pairings::opening(house.task.to_string(), 1);
    let known = house.people(&ben).open_pairing(request).await.expect("it is opened").into_inner().known_hosts;
    let authority = PublicKey::from(certificate.signature_key().clone()).to_openssh().expect("a line");
    assert!(known.iter().any(|line| line.starts_with(&format!("@cert-authority {host} {authority}"))), "{known:?}");

    let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
    for wrong in ["", "hello", ecdsa] {
        let refused = client.certify_host(CertifyHostRequest { public_key: wrong.into() }).await;
        let refused = refused.expect_err("it is no key of a host");
        assert!(refused.code() == Code::InvalidArgument && refused.message().starts_with("public_key"), "{refused}");
    }
    house.world.stack.stop().await;
}
