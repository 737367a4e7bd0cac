//! Every method × everybody: who gets through, and what the others are told.

use std::{collections::BTreeSet, future::poll_fn, time::Duration};

use bytes::{Buf as _, BufMut as _};
use futures_util::stream;
use http::{Method, StatusCode};
use prost::Message;
use sculpt_controller::{
    access::{RULES, rule},
    grpc::SERVICES,
    store::{
        joins::NewJoinToken,
        pairings::Opening,
        tokens::{For, NewToken},
        users::NewUser,
    },
    web::git_http,
};
use sculpt_core::rights::Role;
use sculpt_pairing::Profile;
use sculpt_proto::{id::TaskId, v1};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tower::Service as _;
use uuid::Uuid;

use super::{World, request};
use crate::{harness::Authorised, make};

/// Services of others that are served, too.
const FOREIGN: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Messages as bytes.
#[derive(Clone, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length).to_vec()))
    }
}

/// All methods that are served to people, as the descriptors have them.
pub(super) fn methods() -> BTreeSet<String> {
    let sets = [
        sculpt_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.iter().flat_map(|set| prost_types::FileDescriptorSet::decode(*set).expect("descriptors").file);
    let mut methods = BTreeSet::new();
    for file in files {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if file.package() == "sculpt.v1" {
                assert!(SERVICES.contains(&name.as_str()), "{name} is not served");
            } else if !FOREIGN.contains(&name.as_str()) {
                continue;
            }
            methods.extend(service.method.iter().map(|method| format!("/{name}/{}", method.name())));
        }
    }
    methods
}

#[test]
fn each_method_has_one_rule() {
    let methods = methods();
    assert!(methods.len() > 40, "{methods:?}");
    for method in &methods {
        assert!(rule(method).is_some(), "{method} has no rule: say in access/rules.rs who may call it");
    }
    let ruled: BTreeSet<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(ruled, methods, "a rule for what is not there");
    assert_eq!(ruled.len(), RULES.len(), "two rules for one method");
}

/// What all calls are about: tasks of the project `web`, and an executor.
pub(super) struct Things {
    pub(super) world: World,
    /// It is stopped and tried again.
    moved: TaskId,
    /// Its agent runs.
    running: TaskId,
    number: u32,
}

impl Things {
    pub(super) async fn new() -> Self {
        let world = World::new().await;
        let store = world.stack.store();
        let moved = make::task_on(store, world.web.id(), &"c".repeat(40)).await;
        // One that does not end keeps the project.
        let running = make::task_on(store, world.web.id(), &"c".repeat(40)).await;
        let executor = make::executor(store, "one").await.executor;
        make::running(store, running, executor).await;
        sqlx::query("UPDATE executors SET ssh_address = ''").execute(&mut *store.read().await.unwrap()).await.unwrap();
        let new = NewUser { name: "victim".into(), email: String::new(), roles: vec![] };
        store.add_user(world.ada.may().unwrap(), request(), new).await.unwrap();
        Self { world, moved, running, number: 0 }
    }

    /// What is sent to the method at `path`. A method without a line here is one that nobody has thought about.
    pub(super) async fn message(&mut self, path: &str) -> Vec<u8> {
        self.number += 1;

        let (task, request_id) = (self.moved.to_string(), Uuid::new_v4().to_string());
        let project = || "web".to_owned();
        let fresh = format!("fresh-{}", self.number);
        let role = || Some(v1::RoleBinding { role: "viewer".into(), project: "web".into() });
        let victim = || Some(v1::LockTarget { target: Some(v1::lock_target::Target::User("victim".into())) });
        let store = self.world.stack.store();
        let ada = &self.world.ada;
        let span = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let (service, method) = path[1..].split_once('/').expect("a path");
        if FOREIGN.contains(&service) {
            return Vec::new();
        }
        match method {
            "CreateTask" => {
                let argv = vec![b"true".to_vec()];
                let work = Some(v1::task_spec::Work::Command(v1::Command { argv }));
                let spec = v1::TaskSpec { work, project: project(), base: "c".repeat(40), ..Default::default() };
                v1::CreateTaskRequest { request_id, spec: Some(spec) }.encode_to_vec()
            }
            "GetTask" => v1::GetTaskRequest { task }.encode_to_vec(),
            "ListTasks" => v1::ListTasksRequest { project: project(), ..Default::default() }.encode_to_vec(),
            "WatchTask" => v1::WatchTaskRequest { task }.encode_to_vec(),
            "StopTask" => v1::StopTaskRequest { request_id, task, ..Default::default() }.encode_to_vec(),
            "RetryTask" => v1::RetryTaskRequest { request_id, task, ..Default::default() }.encode_to_vec(),
            "DescribeTask" => {
                let milestone = "halfway".to_owned();
                v1::DescribeTaskRequest { request_id, task, milestone, ..Default::default() }.encode_to_vec()
            }
            "ReadLog" => v1::ReadLogRequest { task, ..Default::default() }.encode_to_vec(),
            "EnsureProject" => v1::EnsureProjectRequest {
                request_id,
                name: project(),
                root_commit: "a".repeat(40),
                ..Default::default()
            }
            .encode_to_vec(),
            "ListProjects" => v1::ListProjectsRequest::default().encode_to_vec(),
            "RemoveProject" => {
                v1::RemoveProjectRequest { request_id, project: project(), force: false }.encode_to_vec()
            }
            "FindCommits" => v1::FindCommitsRequest { project: project(), commits: vec![] }.encode_to_vec(),
            "SendPack" => {
                let header = v1::send_pack_request::Header { project: project(), tip: "c".repeat(40), request_id };
                v1::SendPackRequest { part: Some(v1::send_pack_request::Part::Header(header)) }.encode_to_vec()
            }
            "Diff" => v1::DiffRequest { task, attempt: 0 }.encode_to_vec(),
            "WatchEvents" => v1::WatchEventsRequest { task, ..Default::default() }.encode_to_vec(),
            "ListExecutors" => Vec::new(),
            "GetExecutor" => v1::GetExecutorRequest { executor: "one".into() }.encode_to_vec(),
            "AdoptAttempts" => {
                v1::AdoptAttemptsRequest { request_id, executor: "one".into(), attempts: vec![] }.encode_to_vec()
            }
            "CollectGarbage" => {
                v1::CollectGarbageRequest { executor: "one".into(), dry_run: true, all: false }.encode_to_vec()
            }
            "CreateJoinToken" => {
                v1::CreateJoinTokenRequest { request_id, ttl: span, ..Default::default() }.encode_to_vec()
            }
            "RevokeJoinToken" => {
                let new = NewJoinToken {
                    digest: rand::random(),
                    pool: "default".into(),
                    labels: Default::default(),
                    uses: 1,
                    ttl: Duration::from_secs(60),
                };
                let token = store.create_join_token(ada.may().unwrap(), request(), new).await.unwrap().id.to_string();
                v1::RevokeJoinTokenRequest { request_id, token }.encode_to_vec()
            }
            "RemoveExecutor" => {
                make::executor(store, &fresh).await;
                v1::RemoveExecutorRequest { request_id, executor: fresh, force: false }.encode_to_vec()
            }
            "SetPool" => {
                let pool = Some(v1::Pool { name: "default".into(), ..Default::default() });
                v1::SetPoolRequest { request_id, pool }.encode_to_vec()
            }
            "RemovePool" => {
                let pool = super::pools::open(&fresh);
                store.set_pool(ada.may().unwrap(), request(), pool).await.unwrap();
                v1::RemovePoolRequest { request_id, pool: fresh }.encode_to_vec()
            }
            "AddUser" => v1::AddUserRequest { request_id, name: fresh, ..Default::default() }.encode_to_vec(),
            "RemoveUser" => {
                let new = NewUser { name: fresh.clone(), email: String::new(), roles: vec![] };
                store.add_user(ada.may().unwrap(), request(), new).await.unwrap();
                v1::RemoveUserRequest { request_id, name: fresh }.encode_to_vec()
            }
            "GrantRole" => v1::GrantRoleRequest { request_id, user: "victim".into(), role: role() }.encode_to_vec(),
            "RevokeRole" => v1::RevokeRoleRequest { request_id, user: "victim".into(), role: role() }.encode_to_vec(),
            "CreateToken" => v1::CreateTokenRequest { request_id, ..Default::default() }.encode_to_vec(),
            "RevokeToken" => {
                // Somebody else's.
                let new = NewToken { digest: rand::random(), name: String::new(), scope: vec![], ttl: None };
                let whom = For::User(ada.may().unwrap(), "victim".into());
                let token = store.create_token(whom, request(), new).await.unwrap().id.to_string();
                v1::RevokeTokenRequest { request_id, token }.encode_to_vec()
            }
            "Lock" => v1::LockRequest { request_id, target: victim(), ..Default::default() }.encode_to_vec(),
            "Unlock" => v1::UnlockRequest { request_id, target: victim() }.encode_to_vec(),
            "OpenPairing" => {
                super::pairings::opening(self.running.to_string(), v1::PairingProfile::Attach.into()).encode_to_vec()
            }
            "ListPairings" => v1::ListPairingsRequest { task }.encode_to_vec(),
            // Somebody else's.
            "ClosePairing" => v1::ClosePairingRequest { request_id, pairing: self.pairing().await }.encode_to_vec(),
            "Tunnel" => {
                let part = Some(v1::tunnel_request::Part::Pairing(self.pairing().await));
                v1::TunnelRequest { part }.encode_to_vec()
            }
            "ListJoinTokens" | "ListPools" | "WhoAmI" | "ListUsers" | "ListTokens" | "ListLocks" | "ReadAudit"
            | "VerifyAudit" | "GetInfo" => Vec::new(),
            other => panic!("say what is sent to {other}, and look at the table"),
        }
    }
}

impl Things {
    /// A pairing of ada's.
    async fn pairing(&self) -> String {
        let (store, ada) = (self.world.stack.store(), &self.world.ada);
        let task = store.find_task(&ada.sees(), &self.running.to_string()).await.unwrap();
        let beside = ada.beside(&task, Profile::Observe).unwrap();
        let opening = Opening { by: beside, life: Duration::from_secs(60), key: String::new() };
        store.open_pairing(request(), opening).await.unwrap().pairing.id.to_string()
    }
}

/// What a caller is told, in two letters.
pub(super) async fn told(channel: Authorised, path: &str, message: Vec<u8>) -> &'static str {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("it is there");
    let path = path.parse().expect("a path");
    let answer = match grpc.streaming(Request::new(stream::iter([message])), path, Raw).await {
        Ok(answer) => answer.into_inner().message().await.map(drop),
        Err(status) => Err(status),
    };
    match answer.map_err(|status| status.code()) {
        Err(Code::Unauthenticated) => "??",
        Err(Code::PermissionDenied) => "no",
        Err(Code::NotFound) => "--",
        Err(code @ (Code::Unimplemented | Code::Internal | Code::Unknown)) => panic!("{code:?}"),
        // Whatever else is said, it came from beyond the gate and the proofs.
        Ok(()) | Err(_) => "ok",
    }
}

/// The same of a route of git, at `path`. A method without a line here is one that nobody has thought about.
async fn told_git(mut channel: Authorised, path: &str) -> &'static str {
    let (method, query) = match path.rsplit('/').next() {
        Some("refs") => (Method::GET, "?service=git-upload-pack"),
        Some("git-upload-pack" | "git-receive-pack") => (Method::POST, ""),
        other => panic!("say how {other:?} is called, and look at the table"),
    };
    let call = http::Request::builder().method(method).uri(format!("http://any{path}{query}"));
    let call = call.header("content-type", "application/x-git-upload-pack-request");
    let call = call.body(tonic::body::Body::empty()).expect("a request");
    poll_fn(|context| channel.poll_ready(context)).await.expect("it is there");
    match channel.call(call).await.expect("an answer").status() {
        StatusCode::UNAUTHORIZED => "??",
        StatusCode::FORBIDDEN => "no",
        StatusCode::NOT_FOUND => "--",
        StatusCode::OK => "ok",
        other => panic!("{path}: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_through_is_as_it_is_written_down() {
    let mut things = Things::new().await;
    let mut people = Vec::new();
    for role in Role::ALL {
        people.push((format!("{role}"), things.world.user(&format!("{role}.all"), &[(role, None)]).await));
    }
    for role in Role::ALL {
        let token = things.world.user(&format!("{role}.web"), &[(role, Some("web"))]).await;
        people.push((format!("{role} of web"), token));
    }
    let other = things.world.user("ops", &[(Role::Admin, Some("ops"))]).await;
    people.push(("admin of ops".into(), other));
    let narrowed = things.world.token("admin.all", &[(Role::Viewer, Some("web"))]).await;
    people.push(("admin, by a token for looking at web".into(), narrowed));
    people.push(("nothing".into(), things.world.user("nobody", &[]).await));
    people.push(("unknown".into(), sculpt_tls::Token::fresh(sculpt_tls::Kind::User, None).reveal()));
    people.push(("no token".into(), String::new()));

    let mut table = String::new();
    for (at, (who, _)) in people.iter().enumerate() {
        table += &format!("{:>2} {who}\n", at + 1);
    }
    table += &format!("\n{:62}", "");
    (1..=people.len()).for_each(|at| table += &format!(" {at:>2}"));
    for method in methods() {
        table += &format!("\n{:62}", method.trim_start_matches("/sculpt.v1.").trim_start_matches('/'));
        for (_, token) in &people {
            let message = things.message(&method).await;
            let channel = things.world.stack.showing(token);
            table += &format!(" {}", told(channel, &method, message).await);
        }
    }
    for route in git_http::ROUTES {
        let path = route.replace("{repository}", &format!("{}.git", things.world.web.id()));
        table += &format!("\n{:62}", route.trim_start_matches('/'));
        for (_, token) in &people {
            table += &format!(" {}", told_git(things.world.stack.showing(token), &path).await);
        }
    }
    table += "\n";
    let written = include_str!("table.txt");
    assert!(table == written, "who gets through is not what stands in tests/access/table.txt:\n{table}");
    things.world.stack.stop().await;
}
