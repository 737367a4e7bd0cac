//! Real git with an executor's certificate: it reads the projects of the attempts that it holds, and learns of no other.

use sculpt_controller::{
    bus::Bus,
    dispatch::{Actor, Dispatch},
};
use sculpt_core::{attempt::Fence, task::Event};
use sculpt_proto::{
    executor::v1::Hello,
    id::{ExecutorId, ProjectId},
    v1::{self, send_pack_request},
};
use tonic::Code;
use uuid::Uuid;

use super::repo::{Repo, try_git};
use crate::{
    harness::{self, Stack},
    make,
    sessions::executor::{Scripted, hello},
};

struct Machine {
    hello: Hello,
    session: Scripted,
    /// Where git is told whom to trust and what to show.
    home: Repo,
}

impl Machine {
    async fn new(stack: &Stack, name: &str) -> Self {
        let hello = hello(name);
        let enrolled = stack.enrol(&hello).await;
        let client = stack.executor_channel(&enrolled).await;
        let client = sculpt_proto::executor::v1::executor_service_client::ExecutorServiceClient::new(client);
        let mut session = Scripted::over(client, hello.clone()).await;
        session.welcomed().await;
        let home = Repo::new().await;
        let (key, chain) = (home.path().join("key.pem"), home.path().join("chain.pem"));
        std::fs::write(&key, enrolled.key_pem()).unwrap();
        std::fs::write(&chain, enrolled.chain_pem()).unwrap();
        home.git(&["config", "http.sslCAInfo", &stack.trust()]).await;
        home.git(&["config", "http.sslKey", &key.display().to_string()]).await;
        home.git(&["config", "http.sslCert", &chain.display().to_string()]).await;
        Self { hello, session, home }
    }

    fn id(&self) -> ExecutorId {
        self.hello.executor_id.parse().unwrap()
    }

    /// What git says when it fetches `tip`.
    async fn fetches(&self, stack: &Stack, project: Uuid, tip: &str) -> Result<(), String> {
        let url = format!("https://{}/git/{project}.git", stack.executor_address());
        try_git(self.home.path(), &["fetch", "-q", &url, tip], b"").await.map(drop)
    }
}

/// A project with a commit.
async fn project(stack: &Stack, repo: &Repo, name: &str, tip: &str) -> Uuid {
    let wish = v1::EnsureProjectRequest {
        request_id: Uuid::new_v4().to_string(),
        name: name.into(),
        root_commit: tip.into(),
        ..Default::default()
    };
    let project = stack.projects().ensure_project(wish).await.unwrap().into_inner().project.unwrap();
    let header =
        send_pack_request::Header { project: name.into(), tip: tip.into(), request_id: Uuid::new_v4().to_string() };
    let pack = repo.pack(tip, &[]).await;
    let parts = [send_pack_request::Part::Header(header), send_pack_request::Part::Data(pack.into())];
    let parts = parts.map(|part| v1::SendPackRequest { part: Some(part) });
    v1::git_client::GitClient::new(stack.authorised()).send_pack(tokio_stream::iter(parts)).await.unwrap();
    project.uuid.parse().unwrap()
}

#[tokio::test]
async fn an_executor_reads_the_projects_of_its_attempts_alone() {
    let stack = harness::stack().await;
    let (web, ops) = (Repo::new().await, Repo::new().await);
    let (of_web, of_ops) = (web.commit("a.txt", "web\n").await, ops.commit("b.txt", "ops\n").await);
    let web = project(&stack, &web, "web", &of_web).await;
    let ops = project(&stack, &ops, "ops", &of_ops).await;
    let (one, mut two) = (Machine::new(&stack, "one").await, Machine::new(&stack, "two").await);

    // Nothing before there is an attempt; what is hidden is what is not there, to the letter.
    let absent = Uuid::new_v4();
    let refused = |said: String, project: Uuid| said.replace(&project.to_string(), "…");
    let hidden = one.fetches(&stack, web, &of_web).await.expect_err("it has no attempt");
    let nothing = one.fetches(&stack, absent, &of_web).await.expect_err("there is none");
    assert_eq!(refused(hidden, web), refused(nothing, absent));

    let dispatch = Dispatch::new(stack.store().clone(), Bus::new());
    let task = make::task_on(stack.store(), ProjectId(web), &of_web).await;
    let fence = Fence { number: 1, id: Uuid::now_v7() };
    let claimed = Event::Claimed { fence, executor: one.id().0 };
    let _ = dispatch.apply(task, claimed, Actor::system()).await.unwrap();
    one.fetches(&stack, web, &of_web).await.expect("its attempt begins there");
    one.fetches(&stack, ops, &of_ops).await.expect_err("it has none there");
    two.fetches(&stack, web, &of_web).await.expect_err("the attempt is another's");

    // What it cannot read it cannot write to either.
    let (attempt, epoch) = (fence.id.to_string(), two.session.epoch);
    let published = two.session.publish(epoch, &attempt, &of_web, b"").await.expect_err("the attempt is another's");
    assert_eq!(published.code(), Code::NotFound, "{published}");
    assert_eq!(two.session.spec(&attempt).await, Err(Code::NotFound));

    // The users' listener asks for a token, whatever certificate is shown.
    let url = format!("https://{}/git/{web}.git", stack.address());
    let said = try_git(one.home.path(), &["fetch", &url, &of_web], b"").await.expect_err("it has no token");
    assert!(said.contains("could not read Username"), "{said}");
    // And the executors' one for a certificate, whatever token is shown.
    let token = stack.bearer().trim_start_matches("Bearer ");
    let url = format!("https://any:{token}@{}/git/{web}.git", stack.executor_address());
    let bare = Repo::new().await;
    bare.git(&["config", "http.sslCAInfo", &stack.trust()]).await;
    let said = try_git(bare.path(), &["fetch", &url, &of_web], b"").await.expect_err("it has no certificate");
    assert!(said.contains("403"), "{said}");
    stack.stop().await;
}
