//! Who may sit beside an agent, and what their certificate says.

mod standing;

use std::{fs, process::Command, time::Duration};

use sculpt_controller::store::{
    pairings::Guest,
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

use super::World;
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
pub(super) fn reason(told: &Status) -> Option<&str> {
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
    let narrow = paired.world.token("ben", &[(Role::Viewer, Some("web")), (Role::Driver, Some("web"))]).await;
    let told = open(&narrow, &request).await.expect_err("it is of a token that may more");
    assert_eq!(told.code(), Code::AlreadyExists, "{told}");
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
