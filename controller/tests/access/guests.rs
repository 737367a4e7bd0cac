//! Whom executors are told to let in, over real listeners: at once where there is a signal, else at the next look.

use std::time::Duration;

use sculpt_core::rights::Role;
use sculpt_proto::{
    executor::v1::{Guests, Hello, executor_service_client::ExecutorServiceClient},
    id::TaskId,
    v1::{self, identity_client::IdentityClient, lock_target::Target, pairings_client::PairingsClient},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{World, pairings::opening};
use crate::{
    harness::{self, Authorised, Enrolled},
    make,
    sessions::executor::{Scripted, accepted, completed, finalizing, hello, preparing, running},
};

/// What a change may take until the executor knows.
const SOON: Duration = Duration::from_secs(10);

/// Nobody looks before a test is over: what is told meanwhile is told by a signal.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A world with a connected executor, on which an agent runs for the project `web`.
pub(super) struct House {
    pub(super) world: World,
    pub(super) executor: Scripted,
    pub(super) enrolled: Enrolled,
    pub(super) hello: Hello,
    pub(super) task: TaskId,
    pub(super) attempt: String,
}

impl House {
    pub(super) async fn new() -> Self {
        Self::looking(NEVER).await
    }

    /// The same where it is looked so often whether there is more to tell, or somebody to cut.
    pub(super) async fn looking(poll: Duration) -> Self {
        let world = World::with(|config| (config.guests_poll, config.tunnels_look) = (poll, poll)).await;
        let hello = Hello { ssh_address: Some("one.example:7022".into()), ..hello("one") };
        let enrolled = world.stack.enrol(&hello).await;
        let task = make::task_on(world.stack.store(), world.web.id(), &"c".repeat(40)).await;
        let mut executor = dial(&world, &enrolled, &hello).await;
        executor.observe(vec![]).await;
        let attempt = loop {
            if let Some(wanted) = executor.desired().await.attempts.pop() {
                break wanted.attempt_id;
            }
        };
        executor.spec(&attempt).await.expect("a spec");
        for (sequence, step) in (1..).zip([accepted(), preparing(), running()]) {
            assert_eq!(executor.answer(&attempt, sequence, step).await.through, sequence);
        }
        Self { world, executor, enrolled, hello, task, attempt }
    }

    /// Opens a pairing for who shows `token`; its uuid.
    pub(super) async fn open(&self, token: &str) -> String {
        let request = opening(self.task.to_string(), v1::PairingProfile::Attach.into());
        let opened = self.people(token).open_pairing(request).await.expect("it is opened").into_inner();
        assert_eq!(opened.address, "one.example:7022");
        opened.pairing.expect("a pairing").uuid
    }

    pub(super) fn people(&self, token: &str) -> PairingsClient<Authorised> {
        PairingsClient::new(self.world.stack.showing(token))
    }

    /// What the executor is told next, as pairings.
    async fn told(&mut self) -> Vec<String> {
        let guests = timeout(SOON, self.executor.guests()).await.expect("within 10 s");
        assert_eq!(guests.authorities.len(), 1);
        assert!(guests.authorities[0].starts_with("ssh-ed25519 "), "{guests:?}");
        uuids(&guests)
    }
}

pub(super) async fn dial(world: &World, enrolled: &Enrolled, hello: &Hello) -> Scripted {
    let client = ExecutorServiceClient::new(world.stack.executor_channel(enrolled).await);
    let mut executor = Scripted::over(client, hello.clone()).await;
    executor.welcomed().await;
    executor
}

fn uuids(guests: &Guests) -> Vec<String> {
    guests.guests.iter().map(|guest| guest.pairing_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_is_told_at_once_whom_to_let_in_and_whom_no_more() {
    let mut house = House::new().await;
    assert!(house.told().await.is_empty(), "that there is nobody is told, too");
    let [ben, dan] = ["ben", "dan"].map(|name| (name, [(Role::Pair, Some("web")), (Role::Viewer, None)]));
    let (ben, dan) = (house.world.user(ben.0, &ben.1).await, house.world.user(dan.0, &dan.1).await);
    let one = house.open(&ben).await;
    let guests = timeout(SOON, house.executor.guests()).await.expect("within 10 s");
    let guest = &guests.guests[0];
    assert_eq!((guest.pairing_id.as_str(), guest.attempt_id.as_str()), (one.as_str(), house.attempt.as_str()));
    assert_eq!((guest.user.as_str(), guest.rights.join(",").as_str()), ("ben", "observe,drive"));
    assert!((1..=900).contains(&guest.remaining.expect("for how long").seconds));
    let two = house.open(&dan).await;
    assert_eq!(house.told().await, [one.clone(), two.clone()]);

    let zoe = house.world.user("zoe", &[(Role::Admin, None)]).await;
    let mut admin = IdentityClient::new(house.world.stack.showing(&zoe));
    let request_id = || Uuid::new_v4().to_string();
    let target = || Some(v1::LockTarget { target: Some(Target::User("ben".into())) });
    admin.lock(v1::LockRequest { request_id: request_id(), target: target(), ..Default::default() }).await.unwrap();
    assert_eq!(house.told().await, std::slice::from_ref(&two), "a lock");
    admin.unlock(v1::UnlockRequest { request_id: request_id(), target: target() }).await.unwrap();
    assert_eq!(house.told().await, [one.clone(), two.clone()], "that is lifted");
    let role = Some(v1::RoleBinding { role: "pair".into(), project: "web".into() });
    let revoke = v1::RevokeRoleRequest { request_id: request_id(), user: "ben".into(), role: role.clone() };
    admin.revoke_role(revoke).await.unwrap();
    assert_eq!(house.told().await, std::slice::from_ref(&two), "a role");
    admin.grant_role(v1::GrantRoleRequest { request_id: request_id(), user: "ben".into(), role }).await.unwrap();
    assert_eq!(house.told().await, [one.clone(), two.clone()]);
    let tokens = admin.list_tokens(v1::ListTokensRequest { user: "ben".into(), revoked_too: false }).await.unwrap();
    let token = tokens.into_inner().tokens.remove(0).uuid;
    admin.revoke_token(v1::RevokeTokenRequest { request_id: request_id(), token }).await.unwrap();
    assert_eq!(house.told().await, std::slice::from_ref(&two), "a token");
    let close = v1::ClosePairingRequest { request_id: request_id(), pairing: two };
    house.people(&dan).close_pairing(close).await.expect("it is closed");
    assert!(house.told().await.is_empty(), "a pairing");
    house.world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_signal_tells_of_is_found_by_looking() {
    let mut house = House::looking(Duration::from_millis(50)).await;
    let [ben, dan] = ["ben", "dan"].map(|name| (name, [(Role::Pair, Some("web"))]));
    let (ben, dan) = (house.world.user(ben.0, &ben.1).await, house.world.user(dan.0, &dan.1).await);
    assert!(house.told().await.is_empty());
    let stays = house.open(&ben).await;
    assert_eq!(house.told().await, std::slice::from_ref(&stays));
    let goes = house.open(&dan).await;
    assert_eq!(house.told().await, [stays.clone(), goes]);
    let sql = "UPDATE tokens SET expires_at = now() WHERE user_id = (SELECT id FROM users WHERE name = 'dan')";
    sqlx::query(sql).execute(&mut *house.world.stack.store().read().await.unwrap()).await.unwrap();
    assert_eq!(house.told().await, [stays], "a token that has run out");
    for (sequence, step) in (4..).zip([finalizing(0), completed(0)]) {
        assert_eq!(house.executor.answer(&house.attempt, sequence, step).await.through, sequence);
    }
    let released = async { while house.executor.desired().await.released.is_empty() {} };
    harness::in_time("the attempt to be released", released).await;
    assert!(house.told().await.is_empty(), "an end, of which its executor knows first");
    house.world.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_begins_is_told_everything_at_once() {
    let mut house = House::new().await;
    let ben = house.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    assert!(house.told().await.is_empty());
    let pairing = house.open(&ben).await;
    assert_eq!(house.told().await, std::slice::from_ref(&pairing));
    house.executor = dial(&house.world, &house.enrolled, &house.hello).await;
    assert_eq!(house.told().await, [pairing], "before the executor has said what it has");
    house.world.stack.stop().await;
}
