//! What is open ends when its caller loses the right to it.

use std::time::Duration;

use futures_util::StreamExt as _;
use sculpt_core::rights::Role;
use sculpt_proto::v1::{self, identity_client::IdentityClient, lock_target::Target};
use tokio::time::timeout;
use tonic::Code;
use uuid::Uuid;

use super::World;

/// What a lock may take.
const SOON: Duration = Duration::from_secs(10);

async fn follow(world: &World, token: &str) -> tonic::Streaming<v1::WatchEventsResponse> {
    let mut events = v1::events_client::EventsClient::new(world.stack.showing(token));
    let request = v1::WatchEventsRequest { cursor: "now".into(), follow: true, ..Default::default() };
    let mut stream = events.watch_events(request).await.expect("a stream").into_inner();
    stream.message().await.expect("its place").expect("it goes on");
    stream
}

/// What a stream ends with.
async fn end(stream: &mut tonic::Streaming<v1::WatchEventsResponse>) -> Code {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended as if all had been said"),
            Err(status) => return status.code(),
        }
    }
}

#[tokio::test]
async fn a_lock_a_revocation_and_a_lost_role_end_open_streams() {
    let world = World::new().await;
    let zoe = world.user("zoe", &[(Role::Admin, None)]).await;
    let mut admin = IdentityClient::new(world.stack.showing(&zoe));
    let ben = world.user("ben", &[(Role::Viewer, Some("web")), (Role::Viewer, Some("ops"))]).await;
    let request_id = || Uuid::new_v4().to_string();

    let mut stream = follow(&world, &ben).await;
    let mut other = follow(&world, &zoe).await;
    let target = || Some(v1::LockTarget { target: Some(Target::User("ben".into())) });
    let lock = v1::LockRequest { request_id: request_id(), target: target(), reason: "lost laptop".into(), ttl: None };
    admin.lock(lock).await.expect("it is locked");
    assert_eq!(timeout(SOON, end(&mut stream)).await.expect("within 10 s"), Code::Unauthenticated);
    let me = IdentityClient::new(world.stack.showing(&ben)).who_am_i(v1::WhoAmIRequest {}).await.expect_err("locked");
    assert!(me.message().contains("user ben is locked (lost laptop)"), "{me}");

    let lifted = admin.unlock(v1::UnlockRequest { request_id: request_id(), target: target() }).await.unwrap();
    assert_eq!(lifted.into_inner().locks.len(), 1);
    let mut stream = follow(&world, &ben).await;
    let role = Some(v1::RoleBinding { role: "viewer".into(), project: "ops".into() });
    let revoke = v1::RevokeRoleRequest { request_id: request_id(), user: "ben".into(), role };
    admin.revoke_role(revoke).await.expect("it is revoked");
    assert_eq!(timeout(SOON, end(&mut stream)).await.expect("within 10 s"), Code::Unavailable, "to be called again");

    let mut stream = follow(&world, &ben).await;
    let tokens = admin.list_tokens(v1::ListTokensRequest { user: "ben".into(), revoked_too: false }).await.unwrap();
    let token = tokens.into_inner().tokens.remove(0).uuid;
    admin.revoke_token(v1::RevokeTokenRequest { request_id: request_id(), token }).await.expect("it is revoked");
    assert_eq!(timeout(SOON, end(&mut stream)).await.expect("within 10 s"), Code::Unauthenticated);

    // Told to nobody: found by looking.
    sqlx::query("UPDATE tokens SET revoked_at = now() WHERE user_id = (SELECT id FROM users WHERE name = 'zoe')")
        .execute(&mut *world.stack.store().read().await.unwrap())
        .await
        .unwrap();
    assert_eq!(timeout(SOON, end(&mut other)).await.expect("within 10 s"), Code::Unauthenticated);
    world.stack.stop().await;
}

#[tokio::test]
async fn who_revokes_the_token_at_hand_is_answered() {
    let world = World::new().await;
    let ben = world.user("ben", &[(Role::Viewer, Some("web"))]).await;
    let mut identity = IdentityClient::new(world.stack.showing(&ben));
    let token = identity.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner().token.unwrap().uuid;
    let request = v1::RevokeTokenRequest { request_id: Uuid::new_v4().to_string(), token };
    let revoked = identity.revoke_token(request).await.expect("an answer").into_inner().token.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(identity.who_am_i(v1::WhoAmIRequest {}).await.expect_err("it is over").code(), Code::Unauthenticated);
    world.stack.stop().await;
}

#[tokio::test]
async fn a_call_that_is_still_being_sent_ends_with_the_right_to_it() {
    let world = World::new().await;
    let ben = world.user("ben", &[(Role::Operator, Some("web"))]).await;
    let mut git = v1::git_client::GitClient::new(world.stack.showing(&ben));
    let header = v1::send_pack_request::Header {
        project: "web".into(),
        tip: "c".repeat(40),
        request_id: Uuid::new_v4().to_string(),
    };
    let first = v1::SendPackRequest { part: Some(v1::send_pack_request::Part::Header(header)) };
    // The rest is never sent.
    let parts = futures_util::stream::iter([first]).chain(futures_util::stream::pending());
    let sending = tokio::spawn(async move { git.send_pack(parts).await.map(drop).map_err(|status| status.code()) });
    let zoe = world.user("zoe", &[(Role::Admin, None)]).await;
    let remove = v1::RemoveUserRequest { request_id: Uuid::new_v4().to_string(), name: "ben".into() };
    IdentityClient::new(world.stack.showing(&zoe)).remove_user(remove).await.expect("ben is removed");
    let ended = timeout(SOON, sending).await.expect("within 10 s").expect("it ends");
    assert_eq!(ended, Err(Code::Unauthenticated));
    world.stack.stop().await;
}
