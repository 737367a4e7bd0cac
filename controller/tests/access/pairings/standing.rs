//! Which pairings stand: whom the executor is told to let in, who is listed, and how many there may be.

use sculpt_controller::store::{locks::Target, roles::Wish};
use sculpt_core::rights::Role;
use sculpt_proto::v1::PairingProfile as Profile;
use tonic::Code;

use super::{Paired, opening, reason};
use crate::{
    access::{in_order, request},
    make,
};

#[tokio::test]
async fn who_sits_there_is_listed_until_they_are_cut() {
    let paired = Paired::new().await;
    let [ben, dan] = ["ben", "dan"].map(|name| (name, [(Role::Pair, Some("web")), (Role::Viewer, Some("web"))]));
    let (ben, dan) = (paired.world.user(ben.0, &ben.1).await, paired.world.user(dan.0, &dan.1).await);
    let [closed, less] = [paired.opened(&ben, Profile::Attach).await, paired.opened(&dan, Profile::Attach).await];
    let unused = paired.opened(&ben, Profile::Observe).await;
    for pairing in [closed, less] {
        paired.sits(pairing).await;
    }
    for (pairing, there) in [(closed, 1), (unused, 0)] {
        let told = paired.close(&ben, pairing).await.expect("it is closed");
        assert!(told.closed_at.is_some() && told.sessions.len() == there, "{told:?}");
    }
    let wish = Wish { role: Role::Pair, project: Some("web".into()) };
    let may = paired.world.ada.may().unwrap();
    drop(paired.world.stack.store().revoke_role(may, request(), "dan".into(), wish).await.unwrap());
    assert!(paired.names().await.is_empty(), "their executor is told so");
    let listed = paired.list(&ben).await.expect("a list");
    let listed =
        listed.iter().map(|pairing| (pairing.uuid.as_str(), pairing.closed_at.is_some(), pairing.sessions.len()));
    assert_eq!(
        listed.collect::<Vec<_>>(),
        [(closed.to_string().as_str(), true, 1), (less.to_string().as_str(), false, 1)]
    );
    paired.run("UPDATE seats SET ended_at = now() + interval '1 second'").await;
    assert!(paired.list(&ben).await.expect("a list").is_empty());
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn who_loses_what_let_them_in_is_a_guest_no_more() {
    let paired = Paired::new().await;
    let (store, ada) = (paired.world.stack.store(), &paired.world.ada);
    let may = || ada.may().unwrap();
    for name in ["locked", "removed", "revoked", "less", "out"] {
        let token = paired.world.user(name, &[(Role::Pair, Some("web")), (Role::Viewer, None)]).await;
        let pairing = paired.opened(&token, Profile::Attach).await;
        assert_eq!(paired.names().await, [pairing], "{name}");
        let wish = Wish { role: Role::Pair, project: Some("web".into()) };
        match name {
            "locked" => {
                let target = || Target::User(name.into());
                store.lock(may(), request(), target(), String::new(), None).await.unwrap();
                assert!(paired.names().await.is_empty(), "{name}");
                store.unlock(may(), request(), target()).await.unwrap();
                assert_eq!(paired.names().await, [pairing], "a lock that is lifted leaves nothing behind");
                store.lock(may(), request(), target(), String::new(), None).await.unwrap();
            }
            "removed" => drop(store.remove_user(may(), request(), name.into()).await.unwrap()),
            "revoked" => {
                let sql = "UPDATE tokens SET revoked_at = now() WHERE user_id = (SELECT id FROM users WHERE name = 'revoked')";
                paired.run(sql).await;
            }
            "less" => drop(store.revoke_role(may(), request(), name.into(), wish).await.unwrap()),
            _ => {
                let sql =
                    "UPDATE tokens SET expires_at = now() WHERE user_id = (SELECT id FROM users WHERE name = 'out')";
                paired.run(sql).await;
            }
        }
        assert!(paired.names().await.is_empty(), "{name} is a guest still");
    }
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn a_pairing_outlives_its_time_where_somebody_sits_and_the_end_for_as_long_as_they_look_on() {
    let paired = Paired::new().await;
    let ben = paired.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    let [idle, used] = [paired.opened(&ben, Profile::Attach).await, paired.opened(&ben, Profile::Attach).await];
    paired.sits(used).await;
    let listed = paired.list(&ben).await.expect("a list");
    let sessions = listed.iter().map(|pairing| pairing.sessions.iter().map(|session| session.role.as_str()).collect());
    assert_eq!(sessions.collect::<Vec<Vec<_>>>(), [vec![], vec!["driver"]]);

    let past = "UPDATE pairings SET created_at = now() - interval '1 hour', expires_at = now() - interval '1 minute'";
    paired.run(past).await;
    let guests = paired.guests().await;
    assert!(
        guests.len() == 2 && guests.iter().all(|guest| guest.remaining.is_zero()),
        "that they sit there may be told late"
    );
    let listed = paired.list(&ben).await.expect("a list");
    assert_eq!(listed.into_iter().map(|pairing| pairing.uuid).collect::<Vec<_>>(), [used.to_string()]);
    paired
        .run("UPDATE pairings SET created_at = now() - interval '2 days', expires_at = now() - interval '1 day'")
        .await;
    assert_eq!(paired.names().await, [used], "{idle} is nobody's any more");
    let fresh = paired.opened(&ben, Profile::Observe).await;
    assert_eq!(paired.names().await, [used, fresh]);
    let left = paired.opened(&ben, Profile::Attach).await;
    paired.sits(left).await;
    // As executors do: everybody is told as gone, and then the attempt as over. One has left before that.
    paired
        .run(
            "UPDATE seats SET began_at = now() - interval '1 hour', typed_at = NULL, ended_at = now() - \
             CASE WHEN pairing_id = (SELECT id FROM pairings ORDER BY id DESC LIMIT 1) THEN interval '2 minutes' \
             ELSE interval '1 second' END",
        )
        .await;
    assert_eq!(paired.names().await, [used, fresh, left], "between the two");
    paired.run("UPDATE attempts SET state = 'ended', turn = NULL, outcome = 'completed', ended_at = now()").await;
    assert_eq!(paired.names().await, [used], "who sat there looks on at the last picture, and nobody else");
    assert!(paired.list(&ben).await.expect("a list").is_empty(), "nobody sits beside what is over");
    paired.run("UPDATE attempts SET released_at = now()").await;
    assert_eq!(paired.names().await, [used], "however soon its executor is done with it");
    paired.run("UPDATE attempts SET ended_at = now() - interval '10 minutes'").await;
    assert!(paired.names().await.is_empty(), "not for ever");
    paired.run("UPDATE attempts SET ended_at = now(), fenced_at = now()").await;
    assert!(paired.names().await.is_empty(), "where the task has gone on without it there is nothing to look at");
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn a_pairing_is_taken_back_also_where_the_clock_has_gone_back() {
    let paired = Paired::new().await;
    let ben = paired.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    let pairing = paired.opened(&ben, Profile::Attach).await;
    paired
        .run("UPDATE pairings SET created_at = now() + interval '1 hour', expires_at = now() + interval '75 minutes'")
        .await;
    let told = paired.close(&ben, pairing).await.expect("it is closed");
    assert_eq!((told.closed_at.is_some(), told.closed_at), (true, told.created_at));
    assert!(paired.names().await.is_empty());
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn what_another_version_lets_people_do_keeps_nobody_from_the_rest() {
    let paired = Paired::new().await;
    let ben = paired.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    let [newer, used] = [paired.opened(&ben, Profile::Attach).await, paired.opened(&ben, Profile::Attach).await];
    paired.sits(used).await;
    let known = paired.opened(&ben, Profile::Observe).await;
    let newer_type = sqlx::query("ALTER TYPE pair_right ADD VALUE 'dream'");
    newer_type.execute(&mut *paired.world.stack.owner().read().await.unwrap()).await.unwrap();
    paired.run("UPDATE pairings SET rights = '{observe,dream}' WHERE 'drive' = ANY (rights)").await;
    assert_eq!(paired.names().await, [known], "{newer} lets nobody in");
    let listed = paired.list(&ben).await.expect("a list");
    let listed: Vec<_> = listed.iter().map(|one| (one.uuid.as_str(), one.rights.len(), one.sessions.len())).collect();
    let [used_uuid, known_uuid] = [used, known].map(|id| id.to_string());
    assert_eq!(listed, [(used_uuid.as_str(), 0, 1), (known_uuid.as_str(), 1, 0)], "who sits there is seen");
    assert!(paired.close(&ben, used).await.expect("it is closed").closed_at.is_some());
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn nobody_fills_the_list_of_an_executor() {
    let paired = Paired::new().await;
    let ben = paired.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    paired.opened(&ben, Profile::Observe).await;
    let fill = "INSERT INTO pairings (id, attempt_id, user_id, token_id, rights, expires_at) \
                SELECT gen_random_uuid(), attempt_id, user_id, token_id, rights, expires_at FROM pairings, generate_series(2, 128)";
    paired.run(fill).await;
    let told = paired.open(&ben, Profile::Observe).await.expect_err("they have enough");
    assert_eq!((told.code(), reason(&told)), (Code::ResourceExhausted, Some("too_many")), "{told}");
    let dan = paired.world.user("dan", &[(Role::Pair, Some("web"))]).await;
    paired.opened(&dan, Profile::Observe).await;
    paired
        .run("UPDATE pairings SET closed_at = now(), closed_by = 'ben' WHERE id IN (SELECT id FROM pairings LIMIT 9)")
        .await;
    paired.opened(&ben, Profile::Observe).await;

    let store = paired.world.stack.store();
    let other = make::task_on(store, paired.world.web.id(), &"c".repeat(40)).await;
    make::running(store, other, paired.executor).await;
    let fill = "INSERT INTO pairings (id, attempt_id, user_id, token_id, rights, expires_at) \
                SELECT gen_random_uuid(), (SELECT id FROM attempts ORDER BY id DESC LIMIT 1), user_id, token_id, rights, expires_at \
                FROM (SELECT * FROM pairings WHERE user_id = (SELECT id FROM users WHERE name = 'ben') LIMIT 1) p, generate_series(1, 250)";
    paired.run(fill).await;
    let told = paired.open(&ben, Profile::Observe).await.expect_err("they have enough on all of the executor");
    assert_eq!((told.code(), reason(&told)), (Code::ResourceExhausted, Some("too_many")), "{told}");
    paired.opened(&dan, Profile::Observe).await;
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn an_executor_has_no_more_guests_than_it_can_be_told_of_at_once() {
    let paired = Paired::new().await;
    let [ben, dan] = ["ben", "dan"].map(|name| (name, [(Role::Pair, Some("web"))]));
    let (ben, dan) = (paired.world.user(ben.0, &ben.1).await, paired.world.user(dan.0, &dan.1).await);
    let eve = paired.world.user("eve", &[(Role::Pair, Some("web"))]).await;
    paired.opened(&eve, Profile::Observe).await;
    let fill = "INSERT INTO pairings (id, attempt_id, user_id, token_id, rights, expires_at) \
                SELECT gen_random_uuid(), attempt_id, user_id, token_id, rights, expires_at FROM pairings, generate_series(2, 999)";
    paired.run(fill).await;
    // Both have come before either has counted.
    let gate = "SELECT pg_advisory_xact_lock(hashtext('sculpt pairings ' || id::text)) FROM executors";
    let [ben, dan] = [ben, dan].map(|token| {
        let request = opening(paired.task.to_string(), Profile::Observe.into());
        let mut pairings = paired.pairings(&token);
        async move { pairings.open_pairing(request).await.map(drop) }
    });
    let (one, other) = in_order(paired.world.stack.store(), gate, ben, dan).await;
    let refused = one.as_ref().err().or(other.as_ref().err()).expect("there was one place");
    assert_eq!((refused.code(), reason(refused)), (Code::ResourceExhausted, Some("too_many")), "{refused}");
    assert!(refused.message().contains("1000 pairings stand on executor one"), "{refused}");
    assert!(one.is_ok() || other.is_ok(), "there was a place");
    assert_eq!(paired.guests().await.len(), 1000);
    paired.world.stack.stop().await;
}
