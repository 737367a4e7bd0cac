//! The scripted controller's executors and pools, and what is said of them and to them.

use std::pin::Pin;

use sculpt_proto::v1::{executors_server::Executors, *};
use serde_json::Value;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::{
    controller::{Answer, Script},
    identity::soon,
    people::{json, known, said, sculpt},
};

pub(crate) const JOIN_SECRET: &str = "sculpt_join_for-one-machine";

fn executor() -> Executor {
    Executor {
        uuid: "0198c0de-0000-7000-8000-0000000000e1".into(),
        name: "worker".into(),
        pool: "build".into(),
        liveness: "connected".into(),
        slots: 2,
        ..Executor::default()
    }
}

fn token(request: &CreateJoinTokenRequest) -> JoinToken {
    JoinToken {
        uuid: "0198c0de-0000-7000-8000-0000000000d0".into(),
        pool: request.pool.clone(),
        labels: request.labels.clone(),
        uses: request.uses,
        created_by: "ada".into(),
        expires_at: soon(),
        ..JoinToken::default()
    }
}

#[tonic::async_trait]
impl Executors for Script {
    type CollectGarbageStream = Pin<Box<dyn Stream<Item = Result<CollectGarbageResponse, Status>> + Send>>;

    async fn list_executors(&self, _: Request<ListExecutorsRequest>) -> Answer<ListExecutorsResponse> {
        Ok(Response::new(ListExecutorsResponse { executors: self.book.pages().executors.clone() }))
    }

    async fn get_executor(&self, request: Request<GetExecutorRequest>) -> Answer<GetExecutorResponse> {
        let name = request.into_inner().executor;
        let executor = self.book.pages().executors.iter().find(|executor| executor.name == name).cloned();
        let executor = executor.ok_or_else(|| Status::not_found(format!("There is no executor {name}.")))?;
        Ok(Response::new(GetExecutorResponse { executor: Some(executor) }))
    }

    async fn adopt_attempts(&self, _: Request<AdoptAttemptsRequest>) -> Answer<AdoptAttemptsResponse> {
        Err(Status::failed_precondition("It has none."))
    }

    async fn collect_garbage(&self, _: Request<CollectGarbageRequest>) -> Answer<Self::CollectGarbageStream> {
        Err(Status::failed_precondition("It is away."))
    }

    async fn create_join_token(&self, request: Request<CreateJoinTokenRequest>) -> Answer<CreateJoinTokenResponse> {
        let request = request.into_inner();
        let token = Some(token(&request));
        self.book.pages().join_tokens.push(request);
        let executor_url = "https://controller.example:7434".to_owned();
        Ok(Response::new(CreateJoinTokenResponse { token, secret: JOIN_SECRET.to_owned(), executor_url }))
    }

    async fn list_join_tokens(&self, _: Request<ListJoinTokensRequest>) -> Answer<ListJoinTokensResponse> {
        let tokens = self.book.pages().join_tokens.iter().map(token).collect();
        Ok(Response::new(ListJoinTokensResponse { tokens }))
    }

    async fn revoke_join_token(&self, request: Request<RevokeJoinTokenRequest>) -> Answer<RevokeJoinTokenResponse> {
        self.book.pages().revoked.push(request.into_inner().token);
        Ok(Response::new(RevokeJoinTokenResponse::default()))
    }

    async fn remove_executor(&self, request: Request<RemoveExecutorRequest>) -> Answer<RemoveExecutorResponse> {
        let RemoveExecutorRequest { executor, force, .. } = request.into_inner();
        if !force {
            return Err(Status::failed_precondition(format!("{executor} holds attempts; --force gives them up")));
        }
        self.book.pages().executors.retain(|known| known.name != executor);
        Ok(Response::new(RemoveExecutorResponse::default()))
    }

    async fn list_pools(&self, _: Request<ListPoolsRequest>) -> Answer<ListPoolsResponse> {
        Ok(Response::new(ListPoolsResponse { pools: self.book.pages().pools.clone() }))
    }

    async fn set_pool(&self, request: Request<SetPoolRequest>) -> Answer<SetPoolResponse> {
        let pool = request.into_inner().pool;
        self.book.pages().pools.extend(pool.clone());
        Ok(Response::new(SetPoolResponse { pool }))
    }

    async fn remove_pool(&self, request: Request<RemovePoolRequest>) -> Answer<RemovePoolResponse> {
        let name = request.into_inner().pool;
        self.book.pages().pools.retain(|pool| pool.name != name);
        Ok(Response::new(RemovePoolResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_is_shown_once_with_what_to_do_there() {
    let (sandbox, controller) = known().await;
    let args = ["executor", "token", "--pool", "build", "--label", "arch=amd64", "--ttl", "15m", "--uses", "3"];
    let made = sculpt(&sandbox, &args).await;
    assert_eq!((made.code, made.stdout), (0, format!("{JOIN_SECRET}\n")), "{}", made.stderr);
    for word in ["shown this once", "3 machines", "sculpt-executor join https://controller.example:7434 --token-file -"]
    {
        assert!(made.stderr.contains(word), "{word:?} is not in {}", made.stderr);
    }
    let request = controller.script.book.pages().join_tokens[0].clone();
    assert_eq!((request.pool.as_str(), request.uses, request.ttl.map(|ttl| ttl.seconds)), ("build", 3, Some(900)));
    assert_eq!(request.labels.get("arch").map(String::as_str), Some("amd64"));

    let quiet = sculpt(&sandbox, &["executor", "token", "-q"]).await;
    assert_eq!((quiet.stdout, quiet.stderr), (format!("{JOIN_SECRET}\n"), String::new()));
    assert_eq!(controller.script.book.pages().join_tokens[1].uses, 1, "one machine unless said otherwise");
    let made = json(&sandbox, &["executor", "token"]).await;
    assert_eq!(made["executor_url"].as_str(), Some("https://controller.example:7434"));
    let listed = said(&sandbox, &["executor", "token", "--ls"]).await;
    assert!(listed.contains("arch=amd64") && listed.contains("0/3") && !listed.contains(JOIN_SECRET), "{listed}");
    said(&sandbox, &["executor", "token", "--revoke", "0198"]).await;
    assert_eq!(controller.script.book.pages().revoked, ["0198"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_executor_keeps_apart_is_said() {
    let (sandbox, controller) = known().await;
    let open = Executor {
        unseparated: "bubblewrap is not installed".into(),
        owner: "ada".into(),
        locked: true,
        closed_reason: "locked (lost laptop)".into(),
        certified_until: soon(),
        ..executor()
    };
    let apart = Executor {
        name: "apart".into(),
        separates: true,
        closes_network: true,
        separated_by: "bubblewrap".into(),
        ssh_address: Some("build.example:7022".into()),
        counters: Some(Counters {
            processes: "the sandbox's own count of its account".into(),
            lacking: "it can make no cgroups".into(),
            ..Counters::default()
        }),
        unmet: vec!["memory".into(), "cpu".into()],
        ..executor()
    };
    controller.script.book.pages().executors = vec![open, apart];
    let page = said(&sandbox, &["executor", "show", "worker"]).await;
    for word in [
        "state       locked\n",
        "its calls are refused",
        "sculpt unlock executor worker",
        "no: bubblewrap is not installed; so it runs its owner's tasks alone",
        "owner       ada",
        "certified   until",
        "(in 29d 23h)",
    ] {
        assert!(page.contains(word), "{word:?} is not in {page}");
    }
    let table = said(&sandbox, &["executor", "ls"]).await;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!([words[1][1], words[2][1]], ["locked", "connected"], "{table}");
    let page = said(&sandbox, &["executor", "show", "apart"]).await;
    for words in [
        "yes, by bubblewrap: attempts reach neither the executor nor each other; it can close the network",
        "limits      memory and cpu by nothing: it can make no cgroups; processes by the sandbox's own count",
        "unlimited   pool build limits memory and cpu, and nothing counts that here: its attempts run without",
        "ssh         at build.example:7022, or through the controller",
    ] {
        assert!(page.contains(words), "{words:?} is not in {page}");
    }
    let shown = json(&sandbox, &["executor", "show", "apart"]).await;
    assert_eq!(shown["separated_by"], "bubblewrap");
    assert_eq!(shown["ssh_address"], "build.example:7022");
    assert_eq!((&shown["counters"]["memory"], &shown["unmet"][1]), (&Value::Null, &Value::from("cpu")));
    let shown = json(&sandbox, &["executor", "show", "worker"]).await;
    let owner_and_lock = (shown["owner"].as_str(), shown["locked"].as_bool(), shown["separates"].as_bool());
    assert_eq!(owner_and_lock, (Some("ada"), Some(true), Some(false)));

    sculpt(&sandbox, &["executor", "rm", "worker"]).await.refuses(7, &["--force"]);
    assert!(said(&sandbox, &["executor", "rm", "worker", "--force"]).await.contains("removed executor worker"));
    sculpt(&sandbox, &["executor", "show", "worker"]).await.refuses(6, &["sculpt executor ls"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_without_executors_says_how_to_join_one() {
    let (sandbox, _controller) = known().await;
    let none = sculpt(&sandbox, &["executor", "ls"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
    assert!(
        none.stderr.contains("sculpt executor token") && none.stderr.contains("sculpt-executor join"),
        "{}",
        none.stderr
    );
    assert!(!none.stderr.contains("sculpt up"), "that would start another controller: {}", none.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_looks_at_identities_and_at_what_separates() {
    let (sandbox, controller) = known().await;
    let open = Executor { unseparated: "bubblewrap is not installed".into(), owner: "ada".into(), ..executor() };
    let locked = Executor { name: "gone".into(), locked: true, ..executor() };
    controller.script.book.pages().executors = vec![open, locked];
    let told = sculpt(&sandbox, &["doctor"]).await.stdout;
    for word in [
        "the controller has proved the authority that the token names, sha256:",
        "ada, operator@website, viewer; the token runs out in 29d",
        "1 of 2 connected",
        "does not keep attempts apart from itself (bubblewrap is not installed), so it runs the tasks of ada alone",
        "sculpt unlock executor gone",
    ] {
        assert!(told.contains(word), "{word:?} is not in {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_have_rules_until_they_are_removed() {
    let (sandbox, controller) = known().await;
    assert_eq!(json(&sandbox, &["pool", "ls"]).await, Value::Array(vec![]));
    let limits = ["--memory", "4GiB", "--processes", "100", "--cpu", "1.5", "--network", "none"];
    said(&sandbox, &[&["pool", "set", "build", "--project", "website", "--user", "ada"][..], &limits].concat()).await;
    let pool = controller.script.book.pages().pools[0].clone();
    assert_eq!((pool.memory, pool.processes, pool.cpu, pool.network.as_str()), (4 << 30, 100, 1500, "none"));
    let table = said(&sandbox, &["pool", "ls"]).await;
    for word in ["website", "ada", "none", "4.00 GiB", "1.5"] {
        assert!(table.contains(word), "{word:?} is not in {table}");
    }
    let listed = json(&sandbox, &["pool", "ls"]).await;
    assert_eq!((listed[0]["cpu"].as_f64(), listed[0]["projects"][0].as_str()), (Some(1.5), Some("website")));
    assert_eq!(said(&sandbox, &["pool", "rm", "build"]).await, "removed pool build\n");
    assert!(controller.script.book.pages().pools.is_empty());
}
