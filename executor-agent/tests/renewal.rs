//! Certificates are renewed, and what keeps them from it is said and waited out.

use std::{fs, time::Duration};

use sculpt_executor::tree::ProcessId;
use sculpt_proto::executor::v1::{Reject, reject};

use crate::{authority::Authority, controller::Memory, git::project, host::Host, life::wait_for};

const HOUR: Duration = Duration::from_secs(3_600);

/// An executor that has joined, with a certificate of this age.
async fn aged(age: Duration) -> Host {
    let host = Host::new().await;
    host.controller.memory().enrolments.age = age;
    host.join();
    host.controller.memory().enrolments.age = Duration::ZERO;
    host
}

fn renewals(count: usize) -> impl Fn(&Memory) -> Option<()> {
    move |memory| (memory.enrolments.renewals.len() >= count).then_some(())
}

fn generation(number: u64) -> impl Fn(&Host) -> bool {
    move |host| host.status().0.contains(&format!("number {number},"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_by_itself_and_no_session_is_cut() {
    let mut host = aged(20 * HOUR).await;
    host.controller.memory().enrolments.renew_after = Duration::from_secs(1);
    host.start().await;
    host.controller.wait("two renewals", renewals(2)).await;
    host.controller.memory().enrolments.renew_after = 16 * HOUR;
    host.controller.wait("a last renewal", renewals(3)).await;
    {
        let memory = host.controller.memory();
        let shown: Vec<_> = memory.enrolments.renewals.iter().map(|(shown, lapsed, _)| (*shown, *lapsed)).collect();
        assert_eq!(shown[..3], [(1, false), (2, false), (3, false)]);
        assert_eq!(memory.hellos.len(), 1, "the session stands");
    }
    host.kill();
    host.start().await;
    assert_eq!(host.controller.memory().hellos.len(), 2, "with what it had written down");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_off_for_longer_renews_with_what_it_has() {
    let mut host = aged(48 * HOUR).await;
    let (said, _) = host.status();
    assert!(said.contains("has run out"), "{said}");
    host.start().await;
    let memory = host.controller.memory();
    let renewals: Vec<_> = memory.enrolments.renewals.iter().map(|(shown, lapsed, _)| (*shown, *lapsed)).collect();
    assert_eq!(renewals, [(1, true)]);
    drop(memory);
    assert!(generation(2)(&host));
    host.stop();
}

/// A clock that is hours behind takes a lapsed certificate for a good one.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_controller_takes_for_old_is_renewed_at_once_and_once() {
    let mut host = aged(Duration::ZERO).await;
    let pause = sculpt_proto::to_duration(Duration::from_millis(20));
    let reject =
        Reject { code: reject::Code::Renew.into(), text: "it is renewed first".into(), retry_after: Some(pause) };
    host.controller.change(|memory| memory.reject = Some(reject));
    host.executor = Some(host.command().spawn().unwrap());
    host.controller.wait("a renewal", renewals(1)).await;
    wait_for("the answer to be kept", || generation(2)(&host)).await;
    let tried = host.controller.memory().hellos.len();
    host.controller.wait("more tries", |memory| (memory.hellos.len() > tried + 5).then_some(())).await;
    assert_eq!(host.controller.memory().enrolments.renewals.len(), 1, "it has just been renewed");
    host.controller.change(|memory| memory.reject = None);
    host.controller.wait("a session", |memory| (memory.heartbeats > 0).then_some(())).await;
    let log = host.log();
    assert!(log.contains("wants a newer certificate first"), "{log}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_whose_answer_is_lost_is_asked_for_again_as_the_same() {
    let mut host = aged(20 * HOUR).await;
    host.controller.memory().enrolments.silent = true;
    host.executor = Some(host.command().spawn().unwrap());
    host.controller.wait("the question", renewals(1)).await;
    host.kill();
    host.controller.change(|memory| memory.enrolments.silent = false);
    host.start().await;
    host.controller.wait("the same question", renewals(2)).await;
    wait_for("the answer to be kept", || generation(2)(&host)).await;
    host.stop();
    let memory = host.controller.memory();
    assert_eq!(memory.enrolments.renewals[0], memory.enrolments.renewals[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_was_begun_is_ended_however_young_the_certificate_is() {
    let mut host = aged(Duration::ZERO).await;
    let begun = uuid::Uuid::new_v4().to_string();
    sculpt_tls::private::write(&host.data().join("identity/renewal"), &begun).unwrap();
    host.start().await;
    host.controller.wait("the same renewal", renewals(1)).await;
    assert_eq!(host.controller.memory().enrolments.renewals[0], (1, false, begun));
    wait_for("the answer to be kept", || generation(2)(&host)).await;
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_dies_while_it_renews_goes_on_renewing() {
    for point in ["renew.before_ask", "renew.answered", "keyring.trusts"] {
        let mut host = aged(48 * HOUR).await;
        let armed = host.root.path().join("failpoints");
        fs::create_dir(&armed).unwrap();
        fs::write(armed.join(point), "").unwrap();
        host.environment.push((sculpt_failpoints::VARIABLE, armed.clone().into()));
        let mut child = host.command().spawn().unwrap();
        wait_for("its death", || child.try_wait().unwrap().is_some()).await;
        host.start().await;
        assert!(generation(2)(&host), "{point}: {}", host.status().0);
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_said_ends_no_agent_and_is_waited_out() {
    for age in [Duration::ZERO, 48 * HOUR] {
        let mut host = aged(age).await;
        host.start().await;
        let spec = host.shell("echo begin; exec sleep 600");
        host.controller.offer(&spec);
        let pid = host.controller.wait("the start", |memory| memory.pid(&spec.attempt_id)).await;
        if age > Duration::ZERO {
            // The certificate has run out, and has to be renewed before anything else.
            host.kill();
            host.controller.memory().enrolments.barred = Some("the executor is locked");
            let child = host.command().spawn().unwrap();
            host.executor = Some(child);
        } else {
            host.controller.change(|memory| memory.enrolments.barred = Some("the executor is locked"));
        }
        wait_for("the lock to be known", || host.status().1 == 77).await;
        let (said, _) = host.status();
        assert!(said.contains("let in       no, since ") && said.contains("the executor is locked"), "{said}");
        let log = host.log();
        assert!(log.contains("does not let this executor in: the executor is locked. Agents go on"), "{log}");
        assert!(ProcessId::of(pid).is_some(), "the agent lives");
        let sessions = host.controller.memory().hellos.len();
        host.controller.change(|memory| memory.enrolments.barred = None);
        host.controller.wait("a session", |memory| (memory.hellos.len() > sessions).then_some(())).await;
        wait_for("it to be let in", || host.status().1 == 0).await;
        host.controller.want(&spec.attempt_id, sculpt_proto::executor::v1::Phase::Stop);
        host.controller.wait_ended(&spec.attempt_id).await;
        host.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_made_waits_for_a_lock_to_go() {
    let mut host = aged(Duration::ZERO).await;
    let (_, base) = project(&host.repositories(), &[(b"a.txt", "one\n")]);
    host.start().await;
    let spec = host.on_base(host.shell("echo x > x && git add x && git commit -qm x"), &base);
    // The session does not know of it yet.
    host.controller.memory().enrolments.refuses_publications = Some("the executor is locked");
    host.controller.offer(&spec);
    let note =
        |memory: &Memory| memory.notes(&spec.attempt_id).iter().any(|note| note.contains("has to wait")).then_some(());
    host.controller.wait("it to be refused", note).await;
    host.controller.memory().enrolments.refuses_publications = None;
    let ended = host.controller.wait_ended(&spec.attempt_id).await;
    assert!(!ended.head.is_empty(), "{ended:?}");
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_takes_over_from_another_and_no_session_is_cut() {
    let mut host = aged(20 * HOUR).await;
    let first = host.controller.authority();
    host.controller.memory().enrolments.renew_after = Duration::from_secs(1);
    let next = Authority::fresh();
    // Told of before it certifies anything.
    host.controller.memory().enrolments.trust.push(next.certificate.clone());
    host.start().await;
    host.controller.wait("both to be known", renewals(2)).await;
    host.controller.hand_over_to(next);
    let count = host.controller.memory().enrolments.renewals.len();
    // Each renewal is a connection of its own.
    host.controller.wait("the new one to certify", renewals(count + 2)).await;
    assert_eq!(host.controller.memory().hellos.len(), 1, "the session stands");
    let next = host.controller.authority();
    host.controller.trust_alone(&next);
    let count = host.controller.memory().enrolments.renewals.len();
    host.controller.wait("the old one to be forgotten", renewals(count + 2)).await;
    assert_eq!(host.controller.memory().hellos.len(), 1, "the session stands");
    host.kill();
    host.start().await;
    host.stop();
    let trust = fs::read(host.data().join("identity/trust.pem")).unwrap();
    let trust = sculpt_tls::Trust::from_pem(&trust).unwrap();
    assert_eq!(trust.pins().collect::<Vec<_>>(), [next.pin()]);
    assert_ne!(first.pin(), next.pin());
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_to_trust_is_learnt_from_the_session_long_before_the_certificate_runs_out() {
    let mut host = aged(Duration::ZERO).await;
    host.start().await;
    let next = Authority::fresh();
    host.controller.memory().enrolments.trust.push(next.certificate.clone());
    host.controller.wait("both to be known", renewals(1)).await;
    wait_for("the answer to be kept", || generation(2)(&host)).await;
    host.controller.hand_over_to(next);
    host.controller.wait("the new one to certify", renewals(2)).await;
    wait_for("the answer to be kept", || generation(3)(&host)).await;
    host.controller.trust_alone(&host.controller.authority());
    host.controller.wait("the old one to be forgotten", renewals(3)).await;
    wait_for("the answer to be kept", || generation(4)(&host)).await;
    let heard = host.controller.memory().heartbeats;
    host.controller.wait("to be told the same", |memory| (memory.heartbeats > heard + 1).then_some(())).await;
    {
        let memory = host.controller.memory();
        assert_eq!(memory.enrolments.renewals.len(), 3, "it has what it is told of");
        assert_eq!(memory.hellos.len(), 1, "the session stands");
    }
    host.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_not_believed_is_waited_out() {
    let mut host = aged(Duration::ZERO).await;
    let right = host.controller.authority();
    let wrong = Authority::fresh();
    host.controller.trust_alone(&std::sync::Arc::new(wrong));
    host.executor = Some(host.command().spawn().unwrap());
    wait_for("it to be said", || host.status().1 == 77).await;
    let (said, _) = host.status();
    assert!(said.contains("an authority that is not trusted here"), "{said}");
    host.controller.trust_alone(&right);
    wait_for("it to be let in", || host.status().1 == 0).await;
    host.stop();
}
