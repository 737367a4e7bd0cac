//! Users and tokens: made once, shown once, limited, revoked.

use sculpt_controller::{
    access::{Authority, first_admin},
    bus::Bus,
    store::bearers::Standing,
};
use sculpt_core::rights::Role;
use sculpt_proto::v1::{self, identity_client::IdentityClient};
use sculpt_tls::{Kind, Token};
use tonic::Code;
use uuid::Uuid;

use super::World;
use crate::harness::{self, Authorised};

fn fresh() -> String {
    Uuid::new_v4().to_string()
}

fn identity(world: &World, token: &str) -> IdentityClient<Authorised> {
    IdentityClient::new(world.stack.showing(token))
}

fn binding(role: &str, project: &str) -> v1::RoleBinding {
    v1::RoleBinding { role: role.into(), project: project.into() }
}

#[tokio::test]
async fn the_first_admin_is_made_once_and_can_be_replaced() {
    let (store, _database) = harness::store().await;
    assert!(store.ensure_first_admin("root", [1; 32]).await.unwrap());
    assert!(!store.ensure_first_admin("eve", [2; 32]).await.unwrap(), "there was one before");
    assert!(store.bearer(&[2; 32]).await.unwrap().is_none());
    let bearer = store.bearer(&[1; 32]).await.unwrap().expect("it is known");
    assert_eq!((bearer.name.as_str(), bearer.roles), ("root", vec![(None, Role::Admin)]));
    store.reset_admin("root", [3; 32]).await.unwrap();
    assert_eq!(store.bearer(&[1; 32]).await.unwrap().expect("it stays on record").standing, Standing::Revoked);
    assert_eq!(store.bearer(&[3; 32]).await.unwrap().expect("it is known").standing, Standing::Good);
}

#[tokio::test]
async fn a_token_that_nobody_knows_does_not_stay_on_the_disk() {
    let (store, _database) = harness::store().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens/user");
    first_admin(&store, &path, None, "root").await.unwrap();
    let good = std::fs::read(&path).unwrap();
    first_admin(&store, &path, None, "root").await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), good, "somebody is known by it");
    // Written by a start that ended before it had found that there were users.
    sculpt_tls::private::write(&path, &Token::fresh(Kind::User, None).reveal()).unwrap();
    first_admin(&store, &path, None, "root").await.unwrap();
    assert!(!path.exists(), "it is good for nothing");
    first_admin(&store, &path, None, "root").await.unwrap();
    assert!(!path.exists(), "nor is a fresh one");
}

#[tokio::test]
async fn a_secret_is_shown_once_and_stored_nowhere() {
    let world = World::new().await;
    let ben = world.user("ben", &[(Role::Operator, Some("web"))]).await;
    let mut ben = identity(&world, &ben);
    let request = v1::CreateTokenRequest { request_id: fresh(), name: "laptop".into(), ..Default::default() };
    let made = ben.create_token(request.clone()).await.expect("it is made").into_inner();
    let parsed = Token::parse(&made.secret, Kind::User).expect("a token");
    assert!(parsed.pin.is_some(), "it says whom to trust");
    let token = made.token.expect("a token");
    assert_eq!((token.user.as_str(), token.name.as_str(), token.expires_at), ("ben", "laptop", None));

    let again = ben.create_token(request).await.expect_err("it is not kept");
    assert_eq!(again.code(), Code::AlreadyExists);
    assert!(again.message().contains("not kept") && again.message().contains(&token.uuid), "{again}");

    let mut mine = identity(&world, &made.secret);
    let me = mine.who_am_i(v1::WhoAmIRequest {}).await.expect("it is known").into_inner();
    assert_eq!(me.user.expect("a user").name, "ben");
    assert_eq!(me.roles, [binding("operator", "web")]);
    assert!(me.trust.contains("BEGIN CERTIFICATE"));

    // Not in any row of any table.
    let inside = made.secret.trim_start_matches("sculpt_user_")[..40].to_owned();
    let mut conn = world.stack.store().read().await.unwrap();
    for table in ["tokens", "requests", "audit", "events", "users"] {
        let sql = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%' || $1 || '%'");
        let found: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(&inside).fetch_one(&mut *conn).await.unwrap();
        assert_eq!(found, 0, "{table}");
    }
    drop(conn);
    world.stack.stop().await;
}

#[tokio::test]
async fn a_limited_token_does_less_and_makes_none() {
    let world = World::new().await;
    world.user("eve", &[(Role::Admin, None)]).await;
    let limited = world.token("eve", &[(Role::Viewer, Some("web"))]).await;
    let mut eve = identity(&world, &limited);
    let refused = eve.list_users(v1::ListUsersRequest {}).await.expect_err("it is limited");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("this token is limited"), "{refused}");
    let wider = v1::CreateTokenRequest { request_id: fresh(), ..Default::default() };
    assert_eq!(eve.create_token(wider).await.expect_err("it would be wider").code(), Code::PermissionDenied);
    let me = eve.who_am_i(v1::WhoAmIRequest {}).await.expect("it is known").into_inner();
    assert_eq!(me.roles, [binding("viewer", "web")]);
    assert_eq!(me.user.expect("a user").roles, me.roles, "not what she could do by another token");
    // Nor does it take any away but itself.
    let own = me.token.expect("a token").uuid;
    let listed = eve.list_tokens(v1::ListTokensRequest::default()).await.expect("a list").into_inner().tokens;
    let other = listed.into_iter().find(|token| token.uuid != own).expect("another one of hers").uuid;
    let revoke = |token: String| v1::RevokeTokenRequest { request_id: fresh(), token };
    let refused = eve.revoke_token(revoke(other)).await.expect_err("it is limited");
    assert_eq!(refused.code(), Code::PermissionDenied);
    eve.revoke_token(revoke(own)).await.expect("itself");
    world.stack.stop().await;
}

#[tokio::test]
async fn each_refusal_says_which_it_is() {
    let world = World::new().await;
    let stack = &world.stack;
    let run = async |sql: &'static str| {
        sqlx::query(sql).execute(&mut *stack.store().read().await.unwrap()).await.unwrap();
    };
    let ask = async |token: &str| {
        let error = identity(&world, token).who_am_i(v1::WhoAmIRequest {}).await.expect_err("it is refused");
        assert_eq!(error.code(), Code::Unauthenticated);
        error.message().to_owned()
    };
    let expired = world.user("ben", &[]).await;
    run("UPDATE tokens SET expires_at = now() - interval '1 s' WHERE user_id = (SELECT id FROM users WHERE name = 'ben')")
        .await;
    assert!(ask(&expired).await.contains("has expired"));
    let revoked = world.token("ben", &[]).await;
    run("UPDATE tokens SET revoked_at = now() WHERE expires_at IS NULL AND user_id = (SELECT id FROM users WHERE name = 'ben')")
        .await;
    assert!(ask(&revoked).await.contains("was revoked"));
    assert!(ask(&Token::fresh(Kind::User, None).reveal()).await.contains("not one of this controller"));
    assert!(ask(&Token::fresh(Kind::Join, None).reveal()).await.contains("a user token is needed"));
    assert!(ask(&revoked[..30]).await.contains("damaged"));
    assert!(ask("hunter2").await.contains("not a token of sculpt"));
    world.stack.stop().await;
}

#[tokio::test]
async fn users_are_named_once_and_somebody_always_rules() {
    let world = World::new().await;
    let admin = world.user("zoe", &[(Role::Admin, None)]).await;
    let mut zoe = identity(&world, &admin);
    let add = |name: &str| v1::AddUserRequest { request_id: fresh(), name: name.into(), ..Default::default() };
    let once = add("ben");
    assert_eq!(zoe.add_user(once.clone()).await.unwrap().into_inner(), zoe.add_user(once).await.unwrap().into_inner());
    assert_eq!(zoe.add_user(add("ben")).await.expect_err("taken").code(), Code::AlreadyExists);
    for name in ["Ben Bo", "host", "controller"] {
        assert_eq!(zoe.add_user(add(name)).await.expect_err("no name").code(), Code::InvalidArgument, "{name}");
    }
    let remove = |name: &str| v1::RemoveUserRequest { request_id: fresh(), name: name.into() };
    zoe.remove_user(remove("ben")).await.expect("it is removed");
    assert_eq!(zoe.add_user(add("ben")).await.expect_err("its deeds keep it").code(), Code::AlreadyExists);
    assert_eq!(zoe.remove_user(remove("ben")).await.expect_err("gone").code(), Code::NotFound);

    let mine = |project: &str| v1::GrantRoleRequest {
        request_id: fresh(),
        user: "zoe".into(),
        role: Some(binding("viewer", project)),
    };
    let user = zoe.grant_role(mine("web")).await.unwrap().into_inner().user.unwrap();
    assert_eq!(user.roles, [binding("admin", ""), binding("viewer", "web")]);
    assert_eq!(zoe.grant_role(mine("none")).await.expect_err("no project").code(), Code::NotFound);
    for name in [
        "ada",
        &sqlx::query_scalar::<_, String>("SELECT name FROM users ORDER BY created_at LIMIT 1")
            .fetch_one(&mut *world.stack.store().read().await.unwrap())
            .await
            .unwrap(),
    ] {
        zoe.remove_user(remove(name)).await.expect("zoe is left");
    }
    assert_eq!(zoe.remove_user(remove("zoe")).await.expect_err("nobody is left").code(), Code::FailedPrecondition);
    // Who is locked cannot rule.
    world.stack.store().reset_admin("max", [4; 32]).await.expect("another admin");
    let target = || Some(v1::LockTarget { target: Some(v1::lock_target::Target::User("max".into())) });
    let lock = v1::LockRequest { request_id: fresh(), target: target(), ..Default::default() };
    zoe.lock(lock).await.expect("zoe is left");
    assert_eq!(zoe.remove_user(remove("zoe")).await.expect_err("nobody is left").code(), Code::FailedPrecondition);
    zoe.unlock(v1::UnlockRequest { request_id: fresh(), target: target() }).await.expect("it is lifted");
    zoe.remove_user(remove("zoe")).await.expect("max is left");
    world.stack.stop().await;
}

#[tokio::test]
async fn when_a_token_was_used_is_known_to_the_minute() {
    let world = World::new().await;
    let token = world.user("ben", &[]).await;
    let authority = Authority::new(world.stack.store().clone(), Bus::new());
    let ben = authority.authenticate(&token, "192.0.2.9").await.expect("it is known");
    let used = async || world.stack.store().token(&ben).await.expect("it is there");
    assert!(used().await.last_used_at.is_none(), "a call writes nothing");
    authority.note_use().await.expect("it is written");
    let token = used().await;
    assert_eq!(token.last_used_from, "192.0.2.9");
    assert_eq!(token.last_used_at.expect("it was used").timestamp() % 60, 0);
    world.stack.stop().await;
}

#[tokio::test]
async fn a_use_that_cannot_be_written_is_written_the_next_time() {
    let (store, _database) = harness::store().await;
    let token = Token::fresh(Kind::User, None);
    store.reset_admin("ada", token.secret.digest()).await.unwrap();
    let authority = Authority::new(store.clone(), Bus::new());
    let ada = authority.authenticate(&token.reveal(), "192.0.2.9").await.expect("it is known");
    let run = async |sql: &'static str| sqlx::query(sql).execute(&mut *store.read().await.unwrap()).await.unwrap();
    run("ALTER TABLE tokens ADD CONSTRAINT unused CHECK (last_used_at IS NULL)").await;
    authority.note_use().await.expect_err("it is not taken");
    run("ALTER TABLE tokens DROP CONSTRAINT unused").await;
    authority.note_use().await.expect("it is written");
    assert_eq!(store.token(&ada).await.unwrap().last_used_from, "192.0.2.9");
}

#[tokio::test]
async fn no_token_is_limited_to_more_than_its_owner_has() {
    let world = World::new().await;
    let ben = world.user("ben", &[(Role::Operator, Some("web"))]).await;
    let zoe = world.user("zoe", &[(Role::Admin, None)]).await;
    let (mut ben, mut zoe) = (identity(&world, &ben), identity(&world, &zoe));
    let limited = |user: &str, scope: Vec<v1::RoleBinding>| v1::CreateTokenRequest {
        request_id: fresh(),
        user: user.into(),
        scope,
        ..Default::default()
    };
    for (scope, asked) in [
        (vec![binding("maintainer", "web")], "maintainer in web"),
        (vec![binding("viewer", "web"), binding("operator", "")], "operator everywhere"),
        (vec![binding("admin", "web"), binding("pair", "web")], "admin in web, pair in web"),
    ] {
        for maker in [&mut ben, &mut zoe] {
            let refused = maker.create_token(limited("ben", scope.clone())).await.expect_err("ben has less");
            assert_eq!(refused.code(), Code::PermissionDenied);
            let (has, wants) = ("ben has operator in web", format!("the token would have {asked};"));
            assert!(refused.message().contains(has) && refused.message().contains(&wants), "{refused}");
        }
    }
    let listed = ben.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!(listed.len(), 1, "nothing is left of what was refused");
    for role in ["operator", "viewer"] {
        ben.create_token(limited("", vec![binding(role, "web")])).await.expect("as much as they have, or less");
    }
    world.stack.stop().await;
}

#[tokio::test]
async fn another_replica_hears_of_a_revocation() {
    let world = World::new().await;
    let other = world.stack.replica().await;
    let ben = world.user("ben", &[]).await;
    let ask = async || IdentityClient::new(other.showing(&ben)).who_am_i(v1::WhoAmIRequest {}).await.map(drop);
    ask().await.expect("it is known there, too");
    let mut own = identity(&world, &ben);
    let uuid = own.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner().token.unwrap().uuid;
    own.revoke_token(v1::RevokeTokenRequest { request_id: fresh(), token: uuid }).await.expect("it is revoked");
    let refused = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        loop {
            if let Err(status) = ask().await {
                return status.code();
            }
        }
    });
    assert_eq!(refused.await.expect("within 10 s"), Code::Unauthenticated);
    other.stop().await;
    world.stack.stop().await;
}
