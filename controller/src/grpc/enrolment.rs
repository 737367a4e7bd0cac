//! Join tokens and pools, from messages and into them.

use std::time::Duration;

use sculpt_proto::{FieldError, duration, labels, required, timestamp, v1};
use sculpt_tls::{Kind, Token};
use tonic::Status;

use super::{Api, projects::once};
use crate::{
    access::{Fleet, May},
    store::{
        joins::{JoinToken, NewJoinToken},
        pools::Pool,
    },
};

/// Longest life of a join token: it lies about in scripts and images.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Most machines that may join with one token.
const MOST_USES: u32 = 10_000;

/// The pool of who names none.
const DEFAULT_POOL: &str = "default";

impl Api {
    /// Makes a join token; its secret stands in the answer and nowhere else.
    pub(super) async fn new_join_token(
        &self,
        by: May<Fleet>,
        message: v1::CreateJoinTokenRequest,
    ) -> Result<v1::CreateJoinTokenResponse, Status> {
        let without_id = v1::CreateJoinTokenRequest { request_id: String::new(), ..message.clone() };
        let request = once(&message.request_id, "CreateJoinToken", &without_id)?;
        let ttl = duration(required(message.ttl, "ttl")?, "ttl")?;
        if ttl.is_zero() || ttl > LONGEST {
            return Err(FieldError::new("ttl", "must be more than nothing and at most 366 days").into());
        }
        if message.uses > MOST_USES {
            return Err(FieldError::new("uses", format!("{}; at most {MOST_USES}", message.uses)).into());
        }
        let pool = if message.pool.is_empty() { DEFAULT_POOL.to_owned() } else { message.pool };
        let secret = Token::fresh(Kind::Join, Some(self.about.pin_for_executors()));
        let new = NewJoinToken {
            digest: secret.secret.digest(),
            pool: plain(pool, "pool")?,
            labels: labels(message.labels, "labels")?,
            uses: message.uses.max(1),
            ttl,
        };
        let token = self.store.create_join_token(by, request, new).await?;
        self.bus.access();
        Ok(v1::CreateJoinTokenResponse {
            token: Some(join_token(token)),
            secret: secret.reveal(),
            executor_url: self.about.executor_url.clone(),
        })
    }
}

/// A token as people see it.
pub(super) fn join_token(token: JoinToken) -> v1::JoinToken {
    v1::JoinToken {
        uuid: token.id.to_string(),
        pool: token.pool,
        labels: token.labels.0.into_iter().collect(),
        uses: token.uses.unsigned_abs(),
        used: token.used.unsigned_abs(),
        created_by: token.created_by,
        created_at: Some(timestamp(token.created_at)),
        expires_at: Some(timestamp(token.expires_at)),
    }
}

/// A pool as people see it.
pub(super) fn pool(pool: Pool) -> v1::Pool {
    v1::Pool {
        name: pool.name,
        projects: pool.projects,
        users: pool.users,
        network: pool.network,
        memory: pool.memory.unwrap_or_default().unsigned_abs(),
        processes: pool.processes.unwrap_or_default().unsigned_abs(),
        cpu: pool.cpu.unwrap_or_default().unsigned_abs(),
    }
}

/// A pool as it is wished for.
pub(super) fn wished_pool(wish: v1::Pool) -> Result<Pool, FieldError> {
    let network = match wish.network.as_str() {
        "" | "host" => "host",
        "none" => "none",
        other => return Err(FieldError::new("pool.network", format!("{other:?} is neither host nor none"))),
    };
    let limit = |value: u32, field| {
        let limit = (value > 0).then_some(i32::try_from(value));
        limit.transpose().map_err(|_| FieldError::new(field, format!("{value} is too much")))
    };
    let memory = (wish.memory > 0).then_some(i64::try_from(wish.memory)).transpose();
    Ok(Pool {
        name: plain(wish.name, "pool.name")?,
        projects: wish.projects,
        users: wish.users,
        network: network.to_owned(),
        memory: memory.map_err(|_| FieldError::new("pool.memory", "is too much"))?,
        processes: limit(wish.processes, "pool.processes")?,
        cpu: limit(wish.cpu, "pool.cpu")?,
    })
}

/// A name that fits on one line of a list.
fn plain(name: String, field: &'static str) -> Result<String, FieldError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
        let problem = format!("{name:?} is no name: 1 to 63 letters, digits, dots, dashes and underscores");
        return Err(FieldError::new(field, problem));
    }
    Ok(name)
}
