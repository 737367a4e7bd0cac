//! The executors' listener: a certificate and nothing else opens it, each to its own; and the people's one does not know it.

use futures_util::stream;
use prost::Message as _;
use sculpt_core::rights::Role;
use sculpt_proto::{
    executor::v1::{
        GetSpecRequest, JoinRequest, LogsHello, LogsRequest, PublishRequest, PutSpecRequest,
        enrolment_client::EnrolmentClient, logs_request, publish_request,
    },
    v1::{WhoAmIRequest, identity_client::IdentityClient},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Request, client::Grpc};
use uuid::Uuid;

use super::{World, rules::Raw};
use crate::{harness::Authorised, sessions::executor::hello};

/// Those that a machine without a certificate may call: they ask for a token, or for one that has run out.
const OPEN: [&str; 2] = ["/sculpt.executor.v1.Enrolment/Join", "/sculpt.executor.v1.Enrolment/Renew"];

/// All methods that are served to executors, as the descriptors have them.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(sculpt_proto::DESCRIPTORS).expect("descriptors");
    let files = set.file.iter().filter(|file| file.package() == "sculpt.executor.v1");
    let services = files.flat_map(|file| &file.service);
    let named = services.flat_map(|service| {
        let method = |method: &prost_types::MethodDescriptorProto| {
            format!("/sculpt.executor.v1.{}/{}", service.name(), method.name())
        };
        service.method.iter().map(method).collect::<Vec<_>>()
    });
    named.collect()
}

async fn code(channel: Authorised, path: &str, message: Vec<u8>) -> Code {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("it is there");
    let path = path.parse().expect("a path");
    match grpc.streaming(Request::new(stream::iter([message])), path, Raw).await {
        Ok(answer) => answer.into_inner().message().await.map_or_else(|status| status.code(), |_| Code::Ok),
        Err(status) => status.code(),
    }
}

/// What a call says that is made in the name of `executor`. A method without a line here is one that nobody has thought about.
fn in_the_name_of(executor: &str, method: &str) -> Option<Vec<u8>> {
    let (executor_id, attempt_id) = (executor.to_owned(), Uuid::new_v4().to_string());
    Some(match method {
        "GetSpec" => GetSpecRequest { executor_id, attempt_id, ..Default::default() }.encode_to_vec(),
        "PutSpec" => PutSpecRequest { executor_id, attempt_id, ..Default::default() }.encode_to_vec(),
        "Logs" => {
            let part = Some(logs_request::Part::Hello(LogsHello { executor_id, ..Default::default() }));
            LogsRequest { part }.encode_to_vec()
        }
        "Publish" => {
            let header =
                publish_request::Header { executor_id, attempt_id, head: "c".repeat(40), ..Default::default() };
            PublishRequest { part: Some(publish_request::Part::Header(header)) }.encode_to_vec()
        }
        // It says in its own words whom it sends away; the tests of sessions listen to it.
        "Control" => return None,
        // It names nobody: whom it is about stands in the certificate or in the token.
        "Join" | "Renew" | "CertifyHost" | "Tunnel" => return None,
        other => panic!("say what {other} is in somebody's name"),
    })
}

#[tokio::test]
async fn a_certificate_and_nothing_else_opens_it() {
    let world = World::new().await;
    let root = world.user("root.of.all", &[(Role::Admin, None)]).await;
    let one = hello("one");
    let enrolled = world.stack.enrol(&one).await;
    let stranger = || async { crate::harness::authorised(world.stack.stranger().await, &root) };
    let methods = methods();
    assert!(methods.len() >= 7, "{methods:?}");
    for method in &methods {
        let name = method.rsplit('/').next().expect("a name");
        let found = code(stranger().await, method, Vec::new()).await;
        if OPEN.contains(&method.as_str()) {
            assert!(matches!(found, Code::InvalidArgument | Code::Unauthenticated), "{method}: {found:?}");
        } else {
            assert_eq!(found, Code::Unauthenticated, "{method} by an admin's token");
        }
        // The people's listener does not know them, whoever asks.
        let people = code(world.stack.showing(&root), method, Vec::new()).await;
        assert_eq!(people, Code::Unimplemented, "{method}");
        if let Some(message) = in_the_name_of(&Uuid::new_v4().to_string(), name) {
            let channel = world.stack.executor_channel(&enrolled).await;
            assert_eq!(code(channel, method, message).await, Code::PermissionDenied, "{method} for another");
        }
    }
    // Nothing of the people's is served to a certificate.
    for (method, _) in sculpt_controller::access::RULES {
        let channel = world.stack.executor_channel(&enrolled).await;
        assert_eq!(code(channel, method, Vec::new()).await, Code::Unimplemented, "{method}");
        // Who is nobody is told where people call, and of what is served to both nothing.
        let elsewhere = method.starts_with("/sculpt.v1.");
        let refused = if elsewhere { Code::Unimplemented } else { Code::Unauthenticated };
        assert_eq!(code(stranger().await, method, Vec::new()).await, refused, "{method}");
    }
    world.stack.stop().await;
}

#[tokio::test]
async fn who_calls_the_others_listener_is_told_where_theirs_is() {
    let world = World::new().await;
    let executors = format!("executors join and call at https://{}", world.stack.executor_address());
    let people = format!("people and their tools sign in and call at https://{}", world.stack.address());
    let joined = EnrolmentClient::new(world.stack.channel()).join(JoinRequest::default()).await;
    let joined = joined.expect_err("people call there");
    assert!(joined.code() == Code::Unimplemented && joined.message().ends_with(&executors), "{joined}");
    let who = IdentityClient::new(world.stack.stranger().await).who_am_i(WhoAmIRequest {}).await;
    let who = who.expect_err("executors call there");
    assert!(who.code() == Code::Unimplemented && who.message().ends_with(&people), "{who}");
    world.stack.stop().await;
}

#[tokio::test]
async fn no_route_is_open() {
    let world = World::new().await;
    let git = format!("/git/{}.git/info/refs?service=git-upload-pack", world.web.id);
    for path in ["/", "/metrics", "/healthz", "/sculpt.v1.Tasks/ListTasks", "/git/x/info/refs", &git] {
        for (mut stream, refusal) in [(world.stack.raw().await, "401"), (world.stack.raw_stranger().await, "403")] {
            let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", world.stack.address());
            stream.write_all(head.as_bytes()).await.expect("it is taken");
            let mut said = String::new();
            stream.read_to_string(&mut said).await.expect("an answer");
            assert!(said.starts_with(&format!("HTTP/1.1 {refusal}")), "{path}: {said}");
        }
    }
    world.stack.stop().await;
}
