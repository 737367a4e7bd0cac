//! Join tokens and pools, from messages and into them.

use std::{ops::RangeInclusive, time::Duration};

use sculpt_proto::{FieldError, duration, labels, required, timestamp, v1};
use sculpt_tls::{Kind, Token};
use tonic::Status;

use super::{Api, once::once_of};
use crate::{
    access::{Fleet, May},
    store::{
        joins::{JoinToken, NewJoinToken},
        pools::{Pool, Wish},
    },
};

/// Longest life of a join token: it lies about in scripts and images.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Most machines that may join with one token.
const MOST_USES: u32 = 10_000;

/// Most projects and most users that a pool is limited to.
const MOST_NAMED: usize = 1000;

/// What limits of an attempt may be: no program starts with less, no machine has more.
const MEMORY: RangeInclusive<u64> = 16 << 20..=1 << 44;
const PROCESSES: RangeInclusive<u64> = 8..=1 << 22;
const CPU: RangeInclusive<u64> = 10..=4_096_000;

/// The pool of who names none.
const DEFAULT_POOL: &str = "default";

impl Api {
    /// Makes a join token; its secret stands in the answer and nowhere else.
    pub(super) async fn new_join_token(
        &self,
        by: May<Fleet>,
        message: v1::CreateJoinTokenRequest,
    ) -> Result<v1::CreateJoinTokenResponse, Status> {
        let request = once_of(&message, "CreateJoinToken", |message| &mut message.request_id)?;
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
        executors: pool.executors,
        unlimited: pool.unlimited,
        waiting: pool.waiting.unsigned_abs(),
    }
}

/// A pool as it is wished for.
pub(super) fn wished_pool(wish: v1::Pool) -> Result<Wish, FieldError> {
    let network = match wish.network.as_str() {
        "" | "host" => "host",
        "none" => "none",
        other => return Err(FieldError::new("pool.network", format!("{other:?} is neither host nor none"))),
    };
    for (names, field) in [(&wish.projects, "pool.projects"), (&wish.users, "pool.users")] {
        if names.len() > MOST_NAMED {
            return Err(FieldError::new(field, format!("names {}; at most {MOST_NAMED} are taken", names.len())));
        }
    }
    Ok(Wish {
        name: plain(wish.name, "pool.name")?,
        projects: wish.projects,
        users: wish.users,
        network,
        memory: limit(wish.memory, MEMORY, "pool.memory", "bytes")?,
        processes: limit(wish.processes.into(), PROCESSES, "pool.processes", "processes")?,
        cpu: limit(wish.cpu.into(), CPU, "pool.cpu", "thousandths of a processor")?,
    })
}

/// `value` as the database takes it, if an attempt can live with it; 0 is no limit.
fn limit<T: TryFrom<u64>>(
    value: u64,
    within: RangeInclusive<u64>,
    field: &'static str,
    unit: &str,
) -> Result<Option<T>, FieldError> {
    let fits = || within.contains(&value).then(|| T::try_from(value).ok()).flatten();
    match value {
        0 => Ok(None),
        _ => fits().map(Some).ok_or_else(|| {
            let (least, most) = (within.start(), within.end());
            FieldError::new(field, format!("{value} is not within {least} to {most} {unit}; 0 is no limit"))
        }),
    }
}

/// A name that fits on one line of a list.
pub(super) fn plain(name: String, field: &'static str) -> Result<String, FieldError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
        let problem = format!("{name:?} is no name: 1 to 63 letters, digits, dots, dashes and underscores");
        return Err(FieldError::new(field, problem));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(pool: v1::Pool, field: &str) {
        let pool = v1::Pool { name: if pool.name.is_empty() { "gpu".to_owned() } else { pool.name }, ..pool };
        let error = wished_pool(pool).expect_err("it is refused");
        assert_eq!(error.field, field, "{error}");
    }

    #[test]
    fn limits_are_those_that_an_attempt_can_live_with() {
        let pool = || v1::Pool { name: "gpu".to_owned(), ..v1::Pool::default() };
        let wish = wished_pool(v1::Pool { memory: 1 << 30, processes: 8, cpu: 1500, ..pool() }).expect("it is taken");
        assert_eq!((wish.memory, wish.processes, wish.cpu), (Some(1 << 30), Some(8), Some(1500)));
        let wish = wished_pool(pool()).expect("it is taken");
        assert_eq!((wish.network, wish.memory, wish.processes, wish.cpu), ("host", None, None, None));
        for memory in [1, (16 << 20) - 1, (1 << 44) + 1, u64::MAX] {
            refused(v1::Pool { memory, ..pool() }, "pool.memory");
        }
        for processes in [1, 7, u32::MAX] {
            refused(v1::Pool { processes, ..pool() }, "pool.processes");
        }
        for cpu in [9, u32::MAX] {
            refused(v1::Pool { cpu, ..pool() }, "pool.cpu");
        }
        refused(v1::Pool { network: "some".to_owned(), ..pool() }, "pool.network");
        refused(v1::Pool { name: "a b".to_owned(), ..pool() }, "pool.name");
        refused(v1::Pool { users: vec!["x".to_owned(); MOST_NAMED + 1], ..pool() }, "pool.users");
    }
}
