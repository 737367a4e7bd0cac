//! Who may sit beside an agent, what their certificate says, and whom the executor is told.

use std::{fs, process::Command, time::Duration};

use sculpt_controller::store::{
    locks::Target,
    pairings::Guest,
    roles::Wish,
    seats::{self, NewSeat},
};
use sculpt_core::rights::Role;
use sculpt_pairing::{Rights, check};
use sculpt_proto::{
    id::{AttemptId, ExecutorId, PairingId, SeatId, TaskId},
    v1::{self, PairingProfile as Profile, pairings_client::PairingsClient},
};
use ssh_key::{Algorithm, Certificate, HashAlg, PrivateKey, PublicKey, private::Ed25519Keypair, public::KeyData};
use tonic::{Code, Status};
use uuid::Uuid;

use super::{World, request};
use crate::{harness::Authorised, make};

/// A key of somebody, and its public half as a line.
pub(super) fn key() -> (PrivateKey, String) {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&rand::random()));
    let line = key.public_key().to_openssh().expect("a line");
    (key, line)
}

/// A wish to sit beside a task, with a key of its own.
pub(super) fn opening(task: String, profile: i32) -> v1::OpenPairingRequest {
    v1::OpenPairingRequest { request_id: Uuid::new_v4().to_string(), task, public_key: key().1, profile }
}

/// A world in which an agent runs, for the project `web`.
struct Paired {
    world: World,
    task: TaskId,
    attempt: AttemptId,
    executor: ExecutorId,
}

impl Paired {
    async fn new() -> Self {
        let world = World::new().await;
        let store = world.stack.store();
        let task = make::task_on(store, world.web.id(), &"c".repeat(40)).await;
        let executor = make::executor(store, "one").await.executor;
        let attempt = make::running(store, task, executor).await;
        let paired = Self { world, task, attempt, executor };
        paired.run("UPDATE executors SET ssh_address = 'one.example:7434'").await;
        paired
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut *self.world.stack.store().read().await.unwrap()).await.unwrap();
    }

    fn pairings(&self, token: &str) -> PairingsClient<Authorised> {
        PairingsClient::new(self.world.stack.showing(token))
    }

    async fn open(&self, token: &str, profile: Profile) -> Result<v1::OpenPairingResponse, Status> {
        let request = opening(self.task.to_string(), profile.into());
        self.pairings(token).open_pairing(request).await.map(tonic::Response::into_inner)
    }

    /// The uuid of a pairing that is opened.
    async fn opened(&self, token: &str, profile: Profile) -> PairingId {
        self.open(token, profile).await.expect("it is opened").pairing.expect("a pairing").uuid.parse().expect("a uuid")
    }

    async fn close(&self, token: &str, pairing: PairingId) -> Result<v1::Pairing, Status> {
        let (request_id, pairing) = (Uuid::new_v4().to_string(), pairing.to_string());
        let closed = self.pairings(token).close_pairing(v1::ClosePairingRequest { request_id, pairing }).await?;
        Ok(closed.into_inner().pairing.expect("a pairing"))
    }

    async fn list(&self, token: &str) -> Result<Vec<v1::Pairing>, Status> {
        let request = v1::ListPairingsRequest { task: self.task.to_string() };
        Ok(self.pairings(token).list_pairings(request).await?.into_inner().pairings)
    }

    /// Somebody sits down by `pairing`, at the terminal.
    async fn sits(&self, pairing: PairingId) {
        let (role, began_at) = (sculpt_pairing::Role::Driver, chrono::Utc::now());
        let seat = NewSeat { id: SeatId::fresh(), pairing, attempt: self.attempt, role, began_at };
        let mut conn = self.world.stack.store().read().await.unwrap();
        seats::take(&mut conn, &seat).await.unwrap().expect("it is taken");
    }

    /// Whom the executor is to let in.
    async fn guests(&self) -> Vec<Guest> {
        let mut all = self.world.stack.store().guests(&[self.executor, ExecutorId::fresh()]).await.unwrap();
        let guests = all.remove(&self.executor).unwrap_or_default();
        assert!(all.is_empty(), "{all:?}");
        guests
    }

    async fn names(&self) -> Vec<PairingId> {
        self.guests().await.into_iter().map(|guest| guest.pairing).collect()
    }

    /// The authorities for people, as the controller keeps them.
    fn authorities(&self) -> Vec<KeyData> {
        let file = self.world.stack.authority().join("ssh-users.key");
        let text = fs::read_to_string(file).expect("it is there");
        vec![PrivateKey::from_openssh(&text).expect("a key").public_key().key_data().clone()]
    }
}

/// `told`, with what a program is told beside it.
fn reason(told: &Status) -> Option<&str> {
    told.metadata().get("sculpt-reason").map(|word| word.to_str().expect("a word"))
}

#[tokio::test]
async fn each_gets_what_they_came_for_as_far_as_their_rights_go() {
    let paired = Paired::new().await;
    let (all, no) = ("observe,drive,shell,forward", Err(Code::PermissionDenied));
    let table = [
        //                 to observe,     to attach,             to work
        (Role::Viewer, [Ok("observe"), no, no]),
        (Role::Operator, [Ok("observe"), no, no]),
        (Role::Driver, [Ok("observe"), Ok("observe,drive"), no]),
        (Role::Shell, [Ok("observe"), no, Ok("observe,shell")]),
        (Role::Forwarder, [Ok("observe"), no, Ok("observe,forward")]),
        (Role::Pair, [Ok("observe"), Ok("observe,drive"), Ok(all)]),
        (Role::Maintainer, [Ok("observe"), Ok("observe,drive"), Ok(all)]),
        (Role::Admin, [Ok("observe"), Ok("observe,drive"), Ok(all)]),
    ];
    assert_eq!(table.map(|(role, _)| role), Role::ALL);
    paired.world.user("wide", &[(Role::Admin, None)]).await;
    for (role, row) in table {
        let own = paired.world.user(&format!("{role}.web"), &[(role, Some("web"))]).await;
        // The same, by a token that lets somebody do no more than that.
        let narrowed = paired.world.token("wide", &[(role, Some("web"))]).await;
        for token in [own, narrowed] {
            for (profile, said) in [Profile::Observe, Profile::Attach, Profile::Workspace].into_iter().zip(row) {
                let told = paired.open(&token, profile).await;
                let rights = told.as_ref().map(|told| told.pairing.clone().expect("a pairing").rights.join(","));
                let rights = rights.as_ref().map(String::as_str).map_err(|status| status.code());
                assert_eq!(rights, said, "{role} to {profile:?}");
                if let Err(status) = told {
                    assert!(status.message().contains("--read-only"), "{status}");
                }
            }
        }
    }
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn a_certificate_says_what_the_pairing_lets_one_do_and_openssh_reads_it() {
    let paired = Paired::new().await;
    let ben = paired.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    let (private, public_key) = key();
    let request = v1::OpenPairingRequest { public_key, ..opening("1".into(), Profile::Workspace.into()) };
    let told = paired.pairings(&ben).open_pairing(request).await.expect("it is opened").into_inner();
    let pairing = told.pairing.expect("a pairing");
    let (attempt, executor) = (paired.attempt, paired.executor);
    assert_eq!((told.login.clone(), told.host.clone()), (format!("attempt-{attempt}"), format!("executor-{executor}")));
    assert_eq!(told.address, "one.example:7434");
    assert_eq!((pairing.user.as_str(), pairing.attempt_id), ("ben", attempt.to_string()));
    assert_eq!(told.lifetime.expect("a lifetime").seconds, 15 * 60);

    let certificate = Certificate::from_openssh(&told.certificate).expect("a certificate");
    assert_eq!(certificate.public_key(), private.public_key().key_data());
    let now = certificate.valid_after() + 61;
    let pass = check(&certificate, &paired.authorities(), &told.login, now).expect("it is believed");
    assert_eq!((pass.pairing.to_string(), pass.attempt, pass.user), (pairing.uuid.clone(), attempt, "ben".to_owned()));
    assert_eq!(pass.rights, "observe,drive,shell,forward".parse::<Rights>().expect("rights"));
    let guests = paired.guests().await;
    assert_eq!((guests.len(), guests[0].pairing, guests[0].rights), (1, pass.pairing, pass.rights));
    assert_eq!((guests[0].attempt, guests[0].user.as_str()), (attempt, "ben"));
    let sql = "SELECT details->>'key' FROM audit WHERE action = 'pairing.open'";
    let mut conn = paired.world.stack.store().read().await.unwrap();
    let written: String = sqlx::query_scalar(sql).fetch_one(&mut *conn).await.unwrap();
    assert_eq!(written, private.fingerprint(HashAlg::Sha256).to_string(), "the record names the key");
    drop(conn);
    assert!((Duration::from_secs(800)..=Duration::from_secs(900)).contains(&guests[0].remaining), "{guests:?}");

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("id-cert.pub");
    fs::write(&file, &told.certificate).expect("it is written");
    let said = Command::new("ssh-keygen").arg("-L").arg("-f").arg(&file).output().expect("OpenSSH is installed");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    for part in ["ssh-ed25519-cert-v01@openssh.com user certificate", "Key ID: \"ben\"", &told.login] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    // The lines of known hosts are about this host alone.
    let known = told.known_hosts;
    assert!(!known.is_empty() && known.iter().all(|line| line.starts_with(&format!("@cert-authority {} ", told.host))));
    let authority = known[0].split_once(&format!("{} ", told.host)).expect("a key").1;
    assert_eq!(PublicKey::from_openssh(authority).expect("a key").algorithm(), Algorithm::Ed25519);
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn a_call_that_is_repeated_opens_nothing_more() {
    let paired = Paired::new().await;
    let [ben, dan] = ["ben", "dan"].map(|name| (name, [(Role::Pair, Some("web"))]));
    let (ben, dan) = (paired.world.user(ben.0, &ben.1).await, paired.world.user(dan.0, &dan.1).await);
    let request = opening(paired.task.to_string(), Profile::Attach.into());
    let open = async |token: &str, request: &v1::OpenPairingRequest| {
        paired.pairings(token).open_pairing(request.clone()).await.map(tonic::Response::into_inner)
    };
    let first = open(&ben, &request).await.expect("it is opened");
    paired.run("UPDATE pairings SET expires_at = now() + interval '100 seconds'").await;
    let again = open(&ben, &request).await.expect("it is the same");
    let pairing = |told: &v1::OpenPairingResponse| told.pairing.as_ref().expect("a pairing").uuid.clone();
    assert_eq!((pairing(&again), &again.login, &again.address), (pairing(&first), &first.login, &first.address));
    assert!((90..=100).contains(&again.lifetime.expect("a lifetime").seconds), "no longer than the pairing: {again:?}");
    let certificate = |told: &v1::OpenPairingResponse| Certificate::from_openssh(&told.certificate).expect("it is one");
    assert_eq!(certificate(&again).public_key(), certificate(&first).public_key());
    let life = certificate(&again).valid_before() - certificate(&again).valid_after();
    assert!((150..=160).contains(&life), "{life} s");
    let other_key = v1::OpenPairingRequest { public_key: key().1, ..request.clone() };
    assert_eq!(open(&ben, &other_key).await.expect_err("it is another wish").code(), Code::AlreadyExists);
    assert_eq!(open(&dan, &request).await.expect_err("it is ben's").code(), Code::AlreadyExists);
    let nameless = v1::OpenPairingRequest { request_id: String::new(), ..request.clone() };
    assert_eq!(open(&ben, &nameless).await.expect_err("it has no id").code(), Code::InvalidArgument);
    assert_eq!(paired.guests().await.len(), 1);
    let acts = "SELECT count(*) FROM audit WHERE action = 'pairing.open'";
    let acts: i64 =
        sqlx::query_scalar(acts).fetch_one(&mut *paired.world.stack.store().read().await.unwrap()).await.unwrap();
    assert_eq!(acts, 1);
    paired.close(&ben, pairing(&first).parse().expect("a uuid")).await.expect("it is closed");
    let told = open(&ben, &request).await.expect_err("it lets nobody in any more");
    assert_eq!((told.code(), reason(&told)), (Code::FailedPrecondition, Some("closed")), "{told}");
    paired.world.stack.stop().await;
}

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
    for pairing in [closed, unused] {
        assert!(paired.close(&ben, pairing).await.expect("it is closed").closed_at.is_some());
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
async fn where_nobody_can_sit_programs_are_told_why() {
    let paired = Paired::new().await;
    let ben = paired.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    for (sql, code, word) in [
        ("UPDATE executors SET ssh_address = NULL", Code::FailedPrecondition, "no_ssh"),
        ("UPDATE attempts SET tmux_socket = ''", Code::FailedPrecondition, "no_ssh"),
        ("UPDATE executors SET ssh_address = ''", Code::FailedPrecondition, "no_terminal"),
        ("UPDATE attempts SET liveness = 'unreachable', silent_since = now()", Code::Unavailable, "unreachable"),
        ("UPDATE attempts SET turn = 'parked'", Code::FailedPrecondition, "parked"),
        ("UPDATE attempts SET turn = NULL, state = 'preparing'", Code::FailedPrecondition, "not_started"),
        ("UPDATE attempts SET state = 'finalizing'", Code::FailedPrecondition, "over"),
    ] {
        paired.run(sql).await;
        let told = paired.open(&ben, Profile::Attach).await.expect_err(sql);
        assert_eq!((told.code(), reason(&told)), (code, Some(word)), "{sql}: {told}");
    }
    let queued = make::task_on(paired.world.stack.store(), paired.world.web.id(), &"c".repeat(40)).await;
    let mut pairings = paired.pairings(&ben);
    let mut open = async |task: String, public_key: String, profile: i32| {
        let request = v1::OpenPairingRequest { public_key, ..opening(task, profile) };
        pairings.open_pairing(request).await.expect_err("not now")
    };
    let told = open(queued.to_string(), key().1, Profile::Attach.into()).await;
    assert_eq!((told.code(), reason(&told)), (Code::FailedPrecondition, Some("not_started")), "{told}");
    let told = open(queued.to_string(), "hello".into(), Profile::Attach.into()).await;
    assert!(told.code() == Code::InvalidArgument && told.message().starts_with("public_key"), "{told}");
    let told = open(queued.to_string(), key().1, 0).await;
    assert!(told.code() == Code::InvalidArgument && told.message().starts_with("profile"), "{told}");
    assert_eq!(open("99".into(), key().1, 1).await.code(), Code::NotFound);
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn without_a_terminal_the_workspace_is_there_all_the_same() {
    let paired = Paired::new().await;
    paired.run("UPDATE attempts SET tmux_socket = ''").await;
    let ben = paired.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    let told = paired.open(&ben, Profile::Workspace).await.expect("it is opened");
    assert_eq!(told.pairing.expect("a pairing").rights, ["shell", "forward"]);
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn other_projects_people_learn_nothing() {
    let paired = Paired::new().await;
    let ben = paired.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    let eve = paired.world.user("eve", &[(Role::Admin, Some("ops"))]).await;
    let (pairing, absent) = (paired.opened(&ben, Profile::Attach).await, PairingId::fresh());
    assert_eq!(paired.open(&eve, Profile::Observe).await.expect_err("not seen").code(), Code::NotFound);
    assert_eq!(paired.list(&eve).await.expect_err("not seen").code(), Code::NotFound);
    let told = |status: Status, id: PairingId| (status.code(), status.message().replace(&id.to_string(), "…"));
    let hidden = told(paired.close(&eve, pairing).await.expect_err("not seen"), pairing);
    assert_eq!(hidden, told(paired.close(&eve, absent).await.expect_err("not there"), absent));
    assert_eq!(hidden.0, Code::NotFound);
    assert_eq!(paired.names().await, [pairing]);
    paired.world.stack.stop().await;
}

#[tokio::test]
async fn who_takes_a_pairing_back_stands_in_the_record_as_who_opened_it_does() {
    let paired = Paired::new().await;
    let ben = paired.world.user("ben", &[(Role::Pair, Some("web"))]).await;
    let dan = paired.world.user("dan", &[(Role::Pair, Some("web"))]).await;
    let max = paired.world.user("max", &[(Role::Maintainer, Some("web"))]).await;
    let own = paired.opened(&ben, Profile::Attach).await;
    let other = paired.opened(&ben, Profile::Workspace).await;
    let listed = paired.list(&dan).await.expect("who reads the task sees who may sit there");
    assert_eq!(
        listed.iter().map(|pairing| pairing.uuid.clone()).collect::<Vec<_>>(),
        [own, other].map(|id| id.to_string())
    );
    assert!(listed.iter().all(|pairing| pairing.user == "ben" && pairing.sessions.is_empty()), "{listed:?}");
    assert_eq!(paired.close(&dan, own).await.expect_err("it is ben's").code(), Code::PermissionDenied);
    for (token, pairing) in [(&ben, own), (&max, other), (&max, other)] {
        assert_eq!(paired.close(token, pairing).await.expect("it is closed").uuid, pairing.to_string());
    }
    assert!(paired.names().await.is_empty() && paired.list(&dan).await.expect("a list").is_empty());

    let sql = "SELECT action, actor, subject, details->>'pairing' FROM audit WHERE action LIKE 'pairing.%' ORDER BY id";
    let record: Vec<(String, String, String, String)> =
        sqlx::query_as(sql).fetch_all(&mut *paired.world.stack.store().read().await.unwrap()).await.unwrap();
    let act = |action: &str, actor: &str, pairing: PairingId| {
        (action.to_owned(), actor.to_owned(), "task:1".to_owned(), pairing.to_string())
    };
    let written = [
        act("pairing.open", "ben", own),
        act("pairing.open", "ben", other),
        act("pairing.close", "ben", own),
        act("pairing.close", "max", other),
    ];
    assert_eq!(record, written);
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
    let (one, other) = tokio::join!(paired.open(&ben, Profile::Observe), paired.open(&dan, Profile::Observe));
    let refused = one.as_ref().err().or(other.as_ref().err()).expect("there was one place");
    assert_eq!((refused.code(), reason(refused)), (Code::ResourceExhausted, Some("too_many")), "{refused}");
    assert!(refused.message().contains("1000 pairings stand on executor one"), "{refused}");
    assert!(one.is_ok() || other.is_ok(), "there was a place");
    assert_eq!(paired.guests().await.len(), 1000);
    paired.world.stack.stop().await;
}
