//! Who has lost a right gives none, also when they were let in before.

use std::fmt::Display;

use futures_util::future::BoxFuture;
use sculpt_controller::{
    access::{Authority, Caller},
    bus::Bus,
    store::{
        Store,
        bearers::Standing,
        joins::NewJoinToken,
        locks::Target,
        roles::Wish,
        tokens::{For, NewToken},
        users::NewUser,
    },
};
use sculpt_core::rights::Role;
use sculpt_tls::{Kind, Token};

use super::{in_order, pools, request};
use crate::harness;

/// What both who gives and who takes rights wait for.
const GATE: &str = "SELECT pg_advisory_xact_lock(hashtext('sculpt rights'))";

/// What came of it, in words.
type Said = Result<(), String>;

/// Something that a caller does, about a user named `ben`, by a request of this number.
type Act = fn(Store, Caller, u8) -> BoxFuture<'static, Said>;

fn said<T, E: Display>(done: Result<T, E>) -> Said {
    done.map(drop).map_err(|error| error.to_string())
}

fn token(digest: [u8; 32]) -> NewToken {
    NewToken { digest, name: "late".into(), scope: vec![], ttl: None }
}

fn viewer() -> Wish {
    Wish { role: Role::Viewer, project: None }
}

fn ben() -> Target {
    Target::User("ben".into())
}

/// A user of this name who may do everything, and calls.
async fn ruler(store: &Store, name: &str) -> Caller {
    let ada = harness::admin(store).await;
    let new =
        NewUser { name: name.into(), email: String::new(), roles: vec![Wish { role: Role::Admin, project: None }] };
    store.add_user(ada.may().unwrap(), request(), new).await.unwrap();
    let shown = Token::fresh(Kind::User, None);
    let whom = For::User(ada.may().unwrap(), name.into());
    store.create_token(whom, request(), token(shown.secret.digest())).await.unwrap();
    Authority::new(store.clone(), Bus::new()).authenticate(&shown.reveal(), "192.0.2.1").await.expect("it is known")
}

/// Each thing that outlives the call, or takes from others, with what it leaves in the record.
const ACTS: [(&str, Act); 11] = [
    ("token.create", |store, by, n| {
        Box::pin(async move { said(store.create_token(For::Caller(by), request(), token([n; 32])).await) })
    }),
    ("token.create", |store, by, n| {
        let whom = For::User(by.may().unwrap(), "ben".into());
        Box::pin(async move { said(store.create_token(whom, request(), token([n; 32])).await) })
    }),
    ("user.add", |store, by, n| {
        let new = NewUser { name: format!("late{n}"), email: String::new(), roles: vec![] };
        Box::pin(async move { said(store.add_user(by.may().unwrap(), request(), new).await) })
    }),
    ("role.grant", |store, by, _| {
        Box::pin(async move { said(store.grant_role(by.may().unwrap(), request(), "ben".into(), viewer()).await) })
    }),
    ("role.revoke", |store, by, _| {
        Box::pin(async move { said(store.revoke_role(by.may().unwrap(), request(), "ben".into(), viewer()).await) })
    }),
    ("user.lock", |store, by, _| {
        Box::pin(async move { said(store.lock(by.may().unwrap(), request(), ben(), String::new(), None).await) })
    }),
    ("user.unlock", |store, by, _| {
        Box::pin(async move { said(store.unlock(by.may().unwrap(), request(), ben()).await) })
    }),
    ("join_token.create", |store, by, n| {
        let new = NewJoinToken {
            digest: [n; 32],
            pool: "build".into(),
            labels: [].into(),
            uses: 1,
            ttl: std::time::Duration::from_secs(60),
        };
        Box::pin(async move { said(store.create_join_token(by.may().unwrap(), request(), new).await) })
    }),
    ("pool.set", |store, by, _| {
        Box::pin(async move { said(store.set_pool(by.may().unwrap(), request(), pools::open("gpu")).await) })
    }),
    ("pool.remove", |store, by, _| {
        Box::pin(async move { said(store.remove_pool(by.may().unwrap(), request(), "gpu".into()).await) })
    }),
    ("user.remove", |store, by, _| {
        Box::pin(async move { said(store.remove_user(by.may().unwrap(), request(), "ben".into()).await) })
    }),
];

/// Each way to lose what `eve` may, as done by another admin, and what she is told.
const TAKINGS: [(Act, &str); 6] = [
    (
        |store, by, _| {
            Box::pin(async move {
                let sql = "SELECT t.id::text FROM tokens t JOIN users u ON u.id = t.user_id WHERE u.name LIKE 'eve%' \
                           AND t.revoked_at IS NULL AND u.removed_at IS NULL ORDER BY u.created_at DESC LIMIT 1";
                let id: String = sqlx::query_scalar(sql).fetch_one(&mut *store.read().await.unwrap()).await.unwrap();
                let whose = sculpt_controller::access::Whose::everybody(&by.may().unwrap());
                said(store.revoke_token(whose, request(), id).await)
            })
        },
        "the token was revoked",
    ),
    (
        |store, by, n| {
            let target = Target::User(format!("eve{n}"));
            Box::pin(async move { said(store.lock(by.may().unwrap(), request(), target, "lost".into(), None).await) })
        },
        "is locked (lost)",
    ),
    (
        |store, by, n| {
            Box::pin(async move { said(store.remove_user(by.may().unwrap(), request(), format!("eve{n}")).await) })
        },
        "its user was removed",
    ),
    (
        |store, _, n| Box::pin(async move { said(store.reset_admin(&format!("eve{n}"), [100 + n; 32]).await) }),
        "the token was revoked",
    ),
    (
        |store, by, n| {
            let admin = Wish { role: Role::Admin, project: None };
            let user = format!("eve{n}");
            Box::pin(async move { said(store.revoke_role(by.may().unwrap(), request(), user, admin).await) })
        },
        "what you may do here has changed",
    ),
    (
        |store, by, n| {
            Box::pin(async move {
                let sql = "SELECT id::text FROM tokens WHERE user_id = (SELECT id FROM users WHERE name = $1)";
                let mut conn = store.read().await.unwrap();
                let id: String = sqlx::query_scalar(sql).bind(format!("eve{n}")).fetch_one(&mut *conn).await.unwrap();
                drop(conn);
                let target = Target::Token(id);
                said(store.lock(by.may().unwrap(), request(), target, String::new(), None).await)
            })
        },
        "the token is locked",
    ),
];

async fn recorded(store: &Store, actor: &str) -> Vec<String> {
    let sql = "SELECT action FROM audit WHERE actor = $1 ORDER BY id";
    sqlx::query_scalar(sql).bind(actor).fetch_all(&mut *store.read().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn however_somebody_loses_a_right_they_give_none_any_more() {
    let (store, _database) = harness::store().await;
    let ada = harness::admin(&store).await;
    for (n, (taking, told)) in (0..).zip(TAKINGS) {
        let name = format!("eve{n}");
        let eve = ruler(&store, &name).await;
        let (_, act) = ACTS[0];
        let (taken, done) =
            in_order(&store, GATE, taking(store.clone(), ada.clone(), n), act(store.clone(), eve, n)).await;
        assert_eq!(taken, Ok(()));
        let refused = done.expect_err("it is lost");
        assert!(refused.contains(told), "{refused:?}, and not {told:?}");
        assert!(store.bearer(&[n; 32]).await.unwrap().is_none(), "there is no such token");
        assert_eq!(recorded(&store, &name).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn nothing_is_done_by_a_token_that_was_revoked_meanwhile_and_all_before() {
    let (store, _database) = harness::store().await;
    let ada = harness::admin(&store).await;
    let new = NewUser { name: "ben".into(), email: String::new(), roles: vec![] };
    store.add_user(ada.may().unwrap(), request(), new).await.unwrap();
    let (revoke, told) = TAKINGS[0];
    for (n, (action, act)) in (0..).zip(ACTS) {
        let late = format!("eve.late{n}");
        let eve = ruler(&store, &late).await;
        let (revoked, done) =
            in_order(&store, GATE, revoke(store.clone(), ada.clone(), n), act(store.clone(), eve, n)).await;
        assert_eq!(revoked, Ok(()));
        let refused = done.expect_err(action);
        assert!(refused.contains(told), "{action}: {refused}");
        assert_eq!(recorded(&store, &late).await, Vec::<String>::new(), "{action}");

        let early = format!("eve.early{n}");
        let eve = ruler(&store, &early).await;
        let (done, revoked) =
            in_order(&store, GATE, act(store.clone(), eve, n), revoke(store.clone(), ada.clone(), n)).await;
        assert_eq!((done, revoked), (Ok(()), Ok(())), "{action}");
        assert_eq!(recorded(&store, &early).await, [action]);
    }
}

#[tokio::test]
async fn a_token_that_is_being_made_is_revoked_with_the_others() {
    let (store, _database) = harness::store().await;
    let ada = harness::admin(&store).await;
    let (_, make) = ACTS[0];
    // Removal and reset: the two that revoke all there are.
    for (n, taking) in [(2, TAKINGS[2].0), (3, TAKINGS[3].0)] {
        let eve = ruler(&store, &format!("eve{n}")).await;
        let (made, taken) =
            in_order(&store, GATE, make(store.clone(), eve, n), taking(store.clone(), ada.clone(), n)).await;
        assert_eq!((made, taken), (Ok(()), Ok(())));
        let standing = store.bearer(&[n; 32]).await.unwrap().expect("it stays on record").standing;
        assert!(matches!(standing, Standing::Revoked | Standing::Removed), "{standing:?}");
    }
    let fresh = store.bearer(&[103; 32]).await.unwrap().expect("it is known");
    assert_eq!(fresh.standing, Standing::Good, "the one that a reset gives");
}
