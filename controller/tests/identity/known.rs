//! What the database knows of an executor, and what it believes it when it has forgotten it.

use sculpt_proto::{
    executor::v1::{JoinRequest, enrolment_client::EnrolmentClient},
    id::ExecutorId,
    v1,
};
use sculpt_tls::Key;
use tonic::Code;
use uuid::Uuid;

use super::{dial, joined, ready, recorded, renewed, run, shown, unrenewed};
use crate::{harness, sessions::executor::hello};

/// What a machine asks for besides its key.
type Wish = fn(&mut rcgen::CertificateParams);

fn label(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_belongs_where_its_token_says() {
    let stack = harness::stack().await;
    let mut who = hello("one");
    who.pool = "secrets".into();
    who.labels = [label("os", "linux"), label("trusted", "yes")].into();
    let labels = [label("os", "linux"), label("zone", "a")].into();
    let wish = v1::CreateJoinTokenRequest { pool: "build".into(), labels, ..Default::default() };
    let enrolled = stack.enrol_in(&who, wish).await;
    ready(&stack, &enrolled, &who).await;
    let seen = shown(&stack, "one").await;
    assert_eq!((seen.pool.as_str(), seen.labels), ("build", [label("os", "linux"), label("zone", "a")].into()));
    assert!(
        seen.notes.iter().any(|note| note.contains("trusted=yes") && !note.contains("os=linux")),
        "{:?}",
        seen.notes
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_restored_database_does_not_know_is_let_in_with_what_it_proves() {
    let stack = harness::stack().await;
    let mut who = hello("one");
    who.pool = "build".into();
    let first = stack.enrol(&who).await;
    let second = renewed(&stack, &first).await;
    run(&stack, "DELETE FROM joins").await;
    run(&stack, "DELETE FROM executors").await;

    // It may have been away for so long that it must renew first; an answer that is lost is no theft.
    let lost = renewed(&stack, &second).await;
    let third = renewed(&stack, &second).await;
    assert_eq!((lost.subject().generation, third.subject().generation), (3, 3));
    ready(&stack, &third, &who).await;
    assert_eq!(shown(&stack, "one").await.pool, "build", "there is nobody else to ask");
    assert_eq!(recorded(&stack, "executor.readmit").await, 1);
    let again = renewed(&stack, &third).await;
    assert_eq!(again.subject().generation, 4);
    ready(&stack, &again, &who).await;
    assert_eq!(recorded(&stack, "executor.readmit").await, 1, "it is known again");
    let refused = unrenewed(&stack, &first).await;
    assert!(refused.message().contains("both are locked"), "{refused}");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_from_before_the_last_renewals_makes_nobody_a_thief() {
    let (stack, who, first) = joined().await;
    let second = renewed(&stack, &first).await;
    let third = renewed(&stack, &second).await;
    run(&stack, "UPDATE executors SET generation = 1, renewal = NULL, certified_until = now() - interval '1 day'")
        .await;
    ready(&stack, &third, &who).await;
    let fourth = renewed(&stack, &third).await;
    assert_eq!(fourth.subject().generation, 4);
    ready(&stack, &fourth, &who).await;
    assert_eq!(recorded(&stack, "executor.lock").await, 0);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_a_certificate_for_itself_alone() {
    let stack = harness::stack().await;
    let token = stack.join_token(v1::CreateJoinTokenRequest { uses: 2, ..Default::default() }).await;
    let mut enrolment = EnrolmentClient::new(stack.stranger().await);
    let pair = rcgen::KeyPair::generate().expect("a key");
    let join = |request: &[u8], name: &str| JoinRequest {
        token: token.clone(),
        certificate_request: request.to_vec(),
        join_id: Uuid::new_v4().to_string(),
        executor_id: ExecutorId::fresh().to_string(),
        name: name.into(),
        ..JoinRequest::default()
    };
    let wishes: [(Wish, &str); 3] = [
        (|asked| asked.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained), "extension"),
        (|asked| asked.distinguished_name.push(rcgen::DnType::CommonName, "controller"), "the name \"CN=controller\""),
        (
            |asked| {
                let other = format!("sculpt://{}/executors/{}/1", Uuid::new_v4(), Uuid::new_v4());
                asked.subject_alt_names = vec![rcgen::SanType::URI(other.try_into().expect("a URI"))];
            },
            "extension",
        ),
    ];
    for (wish, refusal) in wishes {
        let mut asked = rcgen::CertificateParams::default();
        asked.distinguished_name = rcgen::DistinguishedName::new();
        wish(&mut asked);
        let request = asked.serialize_request(&pair).expect("a request");
        let refused = enrolment.join(join(request.der(), "one")).await.expect_err("it asks for too much");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(refusal), "{refused}");
    }
    let own = Key::fresh().expect("a key").request().expect("a request");
    enrolment.join(join(&own, "one")).await.expect("nothing was used up");
    // A machine that was installed anew has another key and id, and its old self stands in its way.
    let refused = enrolment.join(join(&own, "one")).await.expect_err("the name is taken");
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().contains("sculpt executor rm"), "{refused}");
    enrolment.join(join(&own, "two")).await.expect("nothing was used up");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_calls_for_no_other() {
    let stack = harness::stack().await;
    let (who, other) = (hello("one"), hello("two"));
    let (enrolled, _) = (stack.enrol(&who).await, stack.enrol(&other).await);
    let mut executor = dial(&stack, &enrolled, &other).await;
    assert_eq!(executor.message().await.expect_err("it is another").code(), Code::PermissionDenied);
    stack.stop().await;
}
