//! What each method leaves in the record: who did it, by which token, from where; or why it leaves nothing.

use std::collections::BTreeSet;

use prost::Message as _;
use sculpt_core::rights::Role;
use sculpt_proto::v1;
use uuid::Uuid;

use super::{
    project,
    rules::{Things, methods, told},
};
use crate::api::{command, create};

/// What stands in the record after a call.
enum Trace {
    /// This act.
    Act(&'static str),
    /// Nothing, because nothing is changed.
    Looks,
    /// Nothing, for another reason.
    Nothing(&'static str),
}

use Trace::{Act, Looks, Nothing};

/// All methods of ours. In this order each call finds what it is about.
const TRACES: &[(&str, Trace)] = &[
    ("Tasks/CreateTask", Act("task.create")),
    ("Tasks/StopTask", Act("task.stop")),
    ("Tasks/RetryTask", Act("task.retry")),
    ("Tasks/DescribeTask", Nothing("what is said of a task moves nothing, and stands in the journal")),
    ("Tasks/GetTask", Looks),
    ("Tasks/ListTasks", Looks),
    ("Tasks/WatchTask", Looks),
    ("Logs/ReadLog", Looks),
    ("Pairings/OpenPairing", Act("pairing.open")),
    ("Pairings/Tunnel", Nothing("who opened the pairing is recorded, and who sits there is told by its executor")),
    ("Pairings/ListPairings", Looks),
    ("Pairings/ClosePairing", Act("pairing.close")),
    ("Projects/EnsureProject", Act("project.create")),
    ("Projects/RemoveProject", Act("project.remove")),
    ("Projects/ListProjects", Looks),
    ("Git/FindCommits", Looks),
    ("Git/SendPack", Nothing("objects move no ref: the task that begins at them is recorded")),
    ("Git/Diff", Looks),
    ("Events/WatchEvents", Looks),
    ("Executors/AdoptAttempts", Act("executor.adopt")),
    ("Executors/CollectGarbage", Nothing("a dry run; what an executor is told to remove is recorded once it is asked")),
    ("Executors/CreateJoinToken", Act("join_token.create")),
    ("Executors/RevokeJoinToken", Act("join_token.revoke")),
    ("Executors/ListJoinTokens", Looks),
    ("Executors/RemoveExecutor", Act("executor.remove")),
    ("Executors/GetExecutor", Looks),
    ("Executors/ListExecutors", Looks),
    ("Executors/SetPool", Act("pool.set")),
    ("Executors/RemovePool", Act("pool.remove")),
    ("Executors/ListPools", Looks),
    ("Identity/AddUser", Act("user.add")),
    ("Identity/RemoveUser", Act("user.remove")),
    ("Identity/ListUsers", Looks),
    ("Identity/GrantRole", Act("role.grant")),
    ("Identity/RevokeRole", Act("role.revoke")),
    ("Identity/CreateToken", Act("token.create")),
    ("Identity/RevokeToken", Act("token.revoke")),
    ("Identity/ListTokens", Looks),
    ("Identity/Lock", Act("user.lock")),
    ("Identity/Unlock", Act("user.unlock")),
    ("Identity/ListLocks", Looks),
    ("Identity/WhoAmI", Looks),
    ("Audit/ReadAudit", Looks),
    ("Audit/VerifyAudit", Looks),
    ("System/GetInfo", Looks),
];

#[test]
fn of_each_method_is_known_what_it_leaves() {
    let ours: BTreeSet<String> = methods().into_iter().filter(|path| path.starts_with("/sculpt.v1.")).collect();
    let known: BTreeSet<String> = TRACES.iter().map(|(method, _)| format!("/sculpt.v1.{method}")).collect();
    assert_eq!(known, ours, "say what a method leaves in the record, or why nothing");
    for (method, trace) in TRACES {
        let verb = method.rsplit('/').next().expect("a method");
        let looks = ["Get", "List", "Watch", "Read", "Find", "Diff", "WhoAmI", "Verify"];
        let named = looks.iter().any(|look| verb.starts_with(look));
        assert_eq!(matches!(trace, Looks), named, "{method} is named like one that looks, or is not");
    }
}

#[tokio::test]
async fn each_act_is_recorded_with_who_did_it_by_what_and_from_where() {
    let mut things = Things::new().await;
    let zoe = things.world.user("zoe", &[(Role::Admin, None)]).await;
    let seen = things.world.stack.store().clone();
    let record = async || -> Vec<(String, String, String)> {
        let sql = "SELECT action, token, address FROM audit WHERE actor = 'zoe' ORDER BY id";
        sqlx::query_as(sql).fetch_all(&mut *seen.read().await.unwrap()).await.unwrap()
    };
    let sql = "SELECT id::text FROM tokens WHERE user_id = (SELECT id FROM users WHERE name = 'zoe')";
    let token: String = sqlx::query_scalar(sql).fetch_one(&mut *seen.read().await.unwrap()).await.unwrap();
    for (method, trace) in TRACES {
        let path = format!("/sculpt.v1.{method}");
        let message = match *method {
            "Tasks/CreateTask" => create(command(&["true"])).encode_to_vec(),
            "Projects/EnsureProject" => ensured("fresh"),
            "Projects/RemoveProject" => {
                project(&things.world.stack, &things.world.ada, "empty", 'd').await;
                let request_id = Uuid::new_v4().to_string();
                v1::RemoveProjectRequest { request_id, project: "empty".into(), force: false }.encode_to_vec()
            }
            // Only one's own leads anywhere.
            "Pairings/Tunnel" => {
                let sql = "SELECT id::text FROM pairings WHERE user_id = (SELECT id FROM users WHERE name = 'zoe')";
                let own = sqlx::query_scalar(sql).fetch_one(&mut *seen.read().await.unwrap()).await.unwrap();
                v1::TunnelRequest { part: Some(v1::tunnel_request::Part::Pairing(own)) }.encode_to_vec()
            }
            _ => things.message(&path).await,
        };
        let before = record().await.len();
        let said = told(things.world.stack.showing(&zoe), &path, message).await;
        assert_eq!(said, "ok", "{method}");
        let left = record().await.split_off(before);
        let wanted = match trace {
            Act(action) => vec![((*action).to_owned(), token.clone(), "127.0.0.1".to_owned())],
            Looks | Nothing(_) => vec![],
        };
        let why = match trace {
            Nothing(why) => why,
            Act(_) | Looks => "",
        };
        assert_eq!(left, wanted, "{method} {why}");
    }
    things.world.stack.stop().await;
}

fn ensured(name: &str) -> Vec<u8> {
    let request_id = Uuid::new_v4().to_string();
    v1::EnsureProjectRequest { request_id, name: name.into(), root_commit: "e".repeat(40), ..Default::default() }
        .encode_to_vec()
}
