//! The Git service and git itself, through the listener that people use.

use sculpt_proto::v1::{
    self, diff_response,
    git_client::GitClient,
    send_pack_request::{Header, Part},
};
use tonic::{Code, Status};
use uuid::Uuid;

use super::repo::{Repo, try_git};
use crate::harness::{self, Authorised, Stack};

struct Service {
    stack: Stack,
    git: GitClient<Authorised>,
    repo: Repo,
    tip: String,
    project: v1::Project,
}

impl Service {
    async fn new() -> Self {
        let stack = harness::stack().await;
        let repo = Repo::new().await;
        let tip = repo.commit("a.txt", "one\n").await;
        let wish = v1::EnsureProjectRequest {
            request_id: Uuid::new_v4().to_string(),
            name: "demo".to_owned(),
            root_commit: tip.clone(),
            ..v1::EnsureProjectRequest::default()
        };
        let project = stack.projects().ensure_project(wish).await.unwrap().into_inner().project.unwrap();
        let git = GitClient::new(stack.authorised());
        Self { stack, git, repo, tip, project }
    }

    async fn send(&mut self, tip: &str, pack: &[u8]) -> Result<u64, Status> {
        let header =
            Header { project: self.project.name.clone(), tip: tip.to_owned(), request_id: Uuid::new_v4().to_string() };
        let mut parts = vec![Part::Header(header)];
        parts.extend(pack.chunks(1000).map(|piece| Part::Data(piece.to_vec().into())));
        self.send_parts(parts).await
    }

    async fn send_parts(&mut self, parts: Vec<Part>) -> Result<u64, Status> {
        let messages = parts.into_iter().map(|part| v1::SendPackRequest { part: Some(part) }).collect::<Vec<_>>();
        Ok(self.git.send_pack(tokio_stream::iter(messages)).await?.into_inner().objects)
    }

    async fn found(&mut self, commits: &[&str]) -> Result<Vec<String>, Status> {
        let commits = commits.iter().map(ToString::to_string).collect();
        let request = v1::FindCommitsRequest { project: self.project.uuid.clone(), commits };
        Ok(self.git.find_commits(request).await?.into_inner().present)
    }

    async fn task(&self, project: &str) -> v1::Task {
        let command = v1::Command { argv: vec![b"true".to_vec()] };
        let spec = v1::TaskSpec {
            work: Some(v1::task_spec::Work::Command(command)),
            project: project.to_owned(),
            base: if project.is_empty() { String::new() } else { self.tip.clone() },
            ..v1::TaskSpec::default()
        };
        let request = v1::CreateTaskRequest { request_id: Uuid::new_v4().to_string(), spec: Some(spec) };
        self.stack.tasks().create_task(request).await.unwrap().into_inner().task.unwrap()
    }

    async fn diff(&mut self, task: &str, attempt: u32) -> Result<Vec<diff_response::Part>, Status> {
        let request = v1::DiffRequest { task: task.to_owned(), attempt };
        let mut replies = self.git.diff(request).await?.into_inner();
        let mut parts = Vec::new();
        while let Some(reply) = replies.message().await? {
            parts.push(reply.part.unwrap());
        }
        Ok(parts)
    }
}

#[tokio::test]
async fn a_base_goes_in_and_comes_out_with_the_token_alone() {
    let mut service = Service::new().await;
    let (tip, pack) = (service.tip.clone(), service.repo.pack(&service.tip, &[]).await);
    assert_eq!(service.found(&[&tip]).await.unwrap(), Vec::<String>::new());
    assert_eq!(service.send(&tip, &pack).await.unwrap(), 3);
    assert_eq!(service.found(&[&tip, &"a".repeat(40)]).await.unwrap(), std::slice::from_ref(&tip));

    let url = format!("https://{}{}", service.stack.address(), service.project.git_path);
    let home = Repo::new().await;
    let stranger = try_git(home.path(), &["fetch", &url, &tip], b"").await.unwrap_err();
    assert!(stranger.contains("certificate"), "git trusts nobody whom it was not told of: {stranger}");
    home.git(&["config", "http.sslCAInfo", &service.stack.trust()]).await;
    let error = try_git(home.path(), &["fetch", &url, &tip], b"").await.unwrap_err();
    assert!(error.contains("could not read Username"), "git did not ask for a password: {error}");
    let token = service.stack.bearer().trim_start_matches("Bearer ");
    let with_password = url.replace("https://", &format!("https://anybody:{token}@"));
    home.git(&["fetch", "-q", &with_password, &tip]).await;
    assert_eq!(home.git(&["rev-parse", "FETCH_HEAD"]).await, tip);
    service.stack.stop().await;
}

#[tokio::test]
async fn what_cannot_be_taken_in_is_refused_by_its_field() {
    let mut service = Service::new().await;
    let (tip, pack) = (service.tip.clone(), service.repo.pack(&service.tip, &[]).await);
    let code = |result: Result<u64, Status>| result.unwrap_err().code();
    assert_eq!(code(service.send(&"c".repeat(64), &pack).await), Code::InvalidArgument);
    assert_eq!(code(service.send("main", &pack).await), Code::InvalidArgument);
    assert_eq!(code(service.send(&tip, &pack[..50]).await), Code::InvalidArgument);
    assert_eq!(code(service.send_parts(vec![Part::Data(pack.into())]).await), Code::InvalidArgument);
    service.project.name = "nobody".to_owned();
    assert_eq!(code(service.send(&tip, b"").await), Code::NotFound);
    let many = vec!["a".repeat(40); 5000];
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(service.found(&many).await.unwrap_err().code(), Code::InvalidArgument);
    service.stack.stop().await;
}

#[tokio::test]
async fn a_task_without_commits_has_no_diff_and_says_why() {
    let mut service = Service::new().await;
    let (tip, pack) = (service.tip.clone(), service.repo.pack(&service.tip, &[]).await);
    service.send(&tip, &pack).await.unwrap();
    let task = service.task("demo").await;
    let error = service.diff(&task.number.to_string(), 0).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("published no commits"), "{error}");
    assert_eq!(service.diff(&task.uuid, 7).await.unwrap_err().code(), Code::NotFound);
    let bare = service.task("").await;
    let error = service.diff(&bare.uuid, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("no repository"), "{error}");
    assert_eq!(service.diff("4711", 0).await.unwrap_err().code(), Code::NotFound);
    service.stack.stop().await;
}
