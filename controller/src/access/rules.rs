//! One table: what each method asks of a caller before its handler sees the call. What it asks in a project or of a task,
//! the handler proves.

use sculpt_core::rights::Right;

/// What a method asks of its callers at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// To be somebody.
    Known,
    /// This right in some project, or in all.
    Somewhere(Right),
    /// This right to the whole controller.
    Everywhere(Right),
}

use Right::{Administer, Create, Fleet, Read};
use Rule::{Everywhere, Known, Somewhere};

/// What is not here is not served.
pub const RULES: &[(&str, Rule)] = &[
    ("/sculpt.v1.Tasks/CreateTask", Somewhere(Create)),
    ("/sculpt.v1.Tasks/GetTask", Somewhere(Read)),
    ("/sculpt.v1.Tasks/ListTasks", Somewhere(Read)),
    ("/sculpt.v1.Tasks/WatchTask", Somewhere(Read)),
    ("/sculpt.v1.Tasks/StopTask", Somewhere(Read)),
    ("/sculpt.v1.Tasks/RetryTask", Somewhere(Read)),
    ("/sculpt.v1.Tasks/DescribeTask", Somewhere(Read)),
    ("/sculpt.v1.Logs/ReadLog", Somewhere(Read)),
    ("/sculpt.v1.Pairings/OpenPairing", Somewhere(Read)),
    ("/sculpt.v1.Pairings/Tunnel", Somewhere(Read)),
    ("/sculpt.v1.Pairings/ListPairings", Somewhere(Read)),
    ("/sculpt.v1.Pairings/ClosePairing", Somewhere(Read)),
    ("/sculpt.v1.Projects/EnsureProject", Somewhere(Read)),
    ("/sculpt.v1.Projects/ListProjects", Somewhere(Read)),
    ("/sculpt.v1.Projects/RemoveProject", Somewhere(Read)),
    ("/sculpt.v1.Git/FindCommits", Somewhere(Read)),
    ("/sculpt.v1.Git/SendPack", Somewhere(Read)),
    ("/sculpt.v1.Git/Diff", Somewhere(Read)),
    ("/sculpt.v1.Events/WatchEvents", Somewhere(Read)),
    ("/sculpt.v1.Executors/ListExecutors", Somewhere(Read)),
    ("/sculpt.v1.Executors/GetExecutor", Somewhere(Read)),
    ("/sculpt.v1.Executors/AdoptAttempts", Everywhere(Fleet)),
    ("/sculpt.v1.Executors/CollectGarbage", Everywhere(Fleet)),
    ("/sculpt.v1.Executors/CreateJoinToken", Everywhere(Fleet)),
    ("/sculpt.v1.Executors/ListJoinTokens", Everywhere(Fleet)),
    ("/sculpt.v1.Executors/RevokeJoinToken", Everywhere(Fleet)),
    ("/sculpt.v1.Executors/RemoveExecutor", Everywhere(Fleet)),
    ("/sculpt.v1.Executors/ListPools", Everywhere(Fleet)),
    ("/sculpt.v1.Executors/SetPool", Everywhere(Fleet)),
    ("/sculpt.v1.Executors/RemovePool", Everywhere(Fleet)),
    ("/sculpt.v1.Identity/WhoAmI", Known),
    ("/sculpt.v1.Identity/AddUser", Everywhere(Administer)),
    ("/sculpt.v1.Identity/ListUsers", Everywhere(Administer)),
    ("/sculpt.v1.Identity/RemoveUser", Everywhere(Administer)),
    ("/sculpt.v1.Identity/GrantRole", Everywhere(Administer)),
    ("/sculpt.v1.Identity/RevokeRole", Everywhere(Administer)),
    ("/sculpt.v1.Identity/CreateToken", Known),
    ("/sculpt.v1.Identity/ListTokens", Known),
    ("/sculpt.v1.Identity/RevokeToken", Known),
    ("/sculpt.v1.Identity/Lock", Everywhere(Administer)),
    ("/sculpt.v1.Identity/Unlock", Everywhere(Administer)),
    ("/sculpt.v1.Identity/ListLocks", Everywhere(Administer)),
    ("/sculpt.v1.Audit/ReadAudit", Everywhere(Administer)),
    ("/sculpt.v1.Audit/VerifyAudit", Everywhere(Administer)),
    ("/sculpt.v1.System/GetInfo", Known),
    ("/grpc.health.v1.Health/Check", Known),
    ("/grpc.health.v1.Health/Watch", Known),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Known),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Known),
];

/// The rule of the method at `path`.
pub fn rule(path: &str) -> Option<Rule> {
    RULES.iter().find(|(known, _)| *known == path).map(|(_, rule)| *rule)
}
