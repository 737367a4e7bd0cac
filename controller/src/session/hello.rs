//! The first message: who connects, and whether it may.

use sculpt_proto::{
    EXECUTOR_PROTOCOL, FieldError,
    executor::v1::{Hello, Reject, reject::Code},
    id::ClusterId,
    labels, to_duration,
};
use std::{net::Ipv6Addr, time::Duration};

use crate::store::{
    executors::Counters,
    sessions::{Introduction, OpenError},
};

/// Most agents that one executor offers.
const AGENTS: usize = 256;

/// Most remarks on itself that are kept of one executor, and their longest, in characters.
const NOTES: (usize, usize) = (50, 1000);

/// How long until an executor asks again whose name another one has.
const NAME_TAKEN: Duration = Duration::from_secs(30);

/// What `hello` says, or why the executor is turned away.
pub fn check(hello: Hello, cluster: ClusterId) -> Result<Introduction, Reject> {
    if hello.protocol != EXECUTOR_PROTOCOL {
        let text = format!(
            "the executor speaks protocol {}, this controller speaks {EXECUTOR_PROTOCOL}; install matching versions",
            hello.protocol
        );
        return Err(permanent(Code::Protocol, text));
    }
    if !hello.cluster_id.is_empty() && hello.cluster_id != cluster.to_string() {
        let text = format!(
            "the executor belongs to cluster {}, this controller is cluster {cluster}; \
             point it to its own controller, or, where this one has taken that one's place, let \
             `sculpt-executor rebind --data-dir DIR` on its machine forget the old one; its attempts stay",
            hello.cluster_id
        );
        return Err(permanent(Code::Cluster, text));
    }
    introduction(hello).map_err(|error| permanent(Code::Invalid, format!("hello.{error}")))
}

fn introduction(hello: Hello) -> Result<Introduction, FieldError> {
    let name = word(hello.name, "name")?;
    let pool = word(hello.pool, "pool")?;
    if hello.slots > 10_000 {
        return Err(FieldError::new("slots", format!("{}; at most 10,000 are taken", hello.slots)));
    }
    if hello.agents.len() > AGENTS {
        return Err(FieldError::new("agents", format!("{}; at most {AGENTS} are taken", hello.agents.len())));
    }
    let default_agent = hello.agents.iter().find(|agent| agent.is_default).map(|agent| agent.name.clone());
    let agents =
        hello.agents.into_iter().map(|agent| word(agent.name, "agents.name")).collect::<Result<Vec<_>, _>>()?;
    Ok(Introduction {
        id: FieldError::parse(&hello.executor_id, "executor_id")?,
        certified: None,
        instance: FieldError::parse(&hello.instance_id, "instance_id")?,
        name,
        pool,
        labels: labels(hello.labels, "labels")?,
        slots: hello.slots,
        agents,
        default_agent,
        separates: hello.separates,
        unseparated: short(&hello.unseparated),
        closes_network: hello.closes_network,
        separated_by: short(&hello.separated_by),
        counters: hello.counters.map(|counters| Counters {
            memory: short(&counters.memory),
            processes: short(&counters.processes),
            cpu: short(&counters.cpu),
            lacking: short(&counters.lacking),
        }),
        ssh_address: hello.ssh_address.map(ssh_address).transpose()?,
        version: short(&hello.version),
        hostname: short(&hello.hostname),
        directory: directory(&hello.directory_id)?,
        notes: hello.notes.iter().take(NOTES.0).map(|note| note.chars().take(NOTES.1).collect()).collect(),
    })
}

/// A text for people, within reason.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(255).collect()
}

fn directory(id: &str) -> Result<Option<uuid::Uuid>, FieldError> {
    if id.is_empty() { Ok(None) } else { FieldError::parse(id, "directory_id").map(Some) }
}

/// Where people may be sent: a name or an address and a port, as OpenSSH takes them; or nowhere.
fn ssh_address(text: String) -> Result<String, FieldError> {
    if text.is_empty() {
        return Ok(text);
    }
    let host = |host: &str| match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            (1..=253).contains(&host.len()) && host.chars().all(plain) && !host.starts_with('-')
        }
    };
    match text.rsplit_once(':') {
        Some((name, port)) if host(name) && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text),
        Some(_) | None => Err(FieldError::new("ssh_address", format!("{text:?} is no `host:port`"))),
    }
}

pub(super) fn word(text: String, field: &'static str) -> Result<String, FieldError> {
    if text.is_empty() || text.chars().count() > 128 || text.chars().any(char::is_control) {
        return Err(FieldError::new(field, "must have 1 to 128 characters without controls"));
    }
    Ok(text)
}

/// A rejection that only a change on the executor's side can end.
pub fn permanent(code: Code, text: impl Into<String>) -> Reject {
    Reject { code: code.into(), text: text.into(), retry_after: None }
}

/// A rejection that ends by itself.
pub fn for_now(text: impl Into<String>, retry_after: Duration) -> Reject {
    Reject { code: Code::Unavailable.into(), text: text.into(), retry_after: Some(to_duration(retry_after)) }
}

impl From<OpenError> for Reject {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Removed(_) => permanent(Code::Barred, error.to_string()),
            // Another may have taken the name of one that a restored database does not know: an executor that ended would
            // be stranded, with agents that go on.
            OpenError::NameTaken { .. } => {
                Reject { code: Code::Invalid.into(), ..for_now(error.to_string(), NAME_TAKEN) }
            }
            OpenError::Store(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a session cannot be opened");
                for_now("the controller's database is out of reach", Duration::from_secs(2))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_sent_only_where_ssh_can_go() {
        for good in ["", "build-1.example.org:22", "10.0.0.7:2222", "[2001:db8::1]:22", "host:65535"] {
            assert_eq!(ssh_address(good.to_owned()).as_deref(), Ok(good));
        }
        let bad =
            ["host", ":22", "host:", "host:0", "host:65536", "2001:db8::1:22", "[host]:22", "[::1:22", "-oX=y:22"];
        for bad in bad.into_iter().chain(["a b:22", "user@host:22", "host\n:22"]) {
            assert!(ssh_address(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
