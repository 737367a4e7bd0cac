//! A private Postgres per test program and a fresh database per test.

mod server;
mod stack;

use std::time::Duration;

use sculpt_controller::{
    access::{Authority, Caller},
    bus::Bus,
    store::{Database, Store},
};
use sculpt_tls::{Kind, Token};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

pub(crate) use self::stack::{Authorised, Enrolled, Stack, authorised, connect, stack, stack_with};

/// A database of one test; removed when dropped.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Where it is.
    pub(crate) database: Database,
    name: String,
}

/// An empty database with the schema of this build.
pub(crate) async fn database() -> Fresh {
    let name = server::shared().fresh(true).await;
    Fresh { database: server::shared().database().named(&name), name }
}

/// An empty database without a schema.
pub(crate) async fn bare_database() -> Fresh {
    let name = server::shared().fresh(false).await;
    Fresh { database: server::shared().database().named(&name), name }
}

/// A store on a fresh database. Keep the second part: its drop removes the database.
pub(crate) async fn store() -> (Store, Fresh) {
    let fresh = database().await;
    (Store::new(&fresh.database, 8), fresh)
}

/// An admin named ada, who shows a token of their own each time.
pub(crate) async fn admin(store: &Store) -> Caller {
    let token = Token::fresh(Kind::User, None);
    let another =
        "INSERT INTO tokens (id, user_id, digest) SELECT gen_random_uuid(), id, $1 FROM users WHERE name = 'ada'";
    let digest = token.secret.digest();
    let mut conn = store.read().await.expect("a connection");
    let made = sqlx::query(another).bind(&digest[..]).execute(&mut *conn).await.expect("a token").rows_affected();
    if made == 0 {
        store.reset_admin("ada", digest).await.expect("an admin");
    }
    let authority = Authority::new(store.clone(), Bus::new());
    authority.authenticate(&token.reveal(), "192.0.2.1").await.expect("it is known")
}

impl Fresh {
    /// Another database that holds what this one does now. Nobody may be connected to it.
    pub(crate) async fn copy(&self) -> Fresh {
        let name = server::shared().copy(&self.name).await;
        Fresh { database: server::shared().database().named(&name), name }
    }

    /// Its name on the server.
    fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        server::shared().remove(std::mem::take(&mut self.name));
    }
}

/// Returns when so many wait for a lock in this database, or when it is over; fails when neither comes.
pub(crate) async fn until_waiting(store: &sculpt_controller::store::Store, many: i64, over: impl Fn() -> bool) {
    // Not in anybody's transaction, which would see the same for ever.
    let mut conn = store.read().await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    in_time("somebody to wait for a lock", async {
        let mut again = looks();
        while !over() && sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *conn).await.unwrap() < many {
            again.tick().await;
        }
    })
    .await;
}

/// Looks again and again until `look` gives something, and fails when it does not.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut again = looks();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            again.tick().await;
        }
    };
    in_time(what, looking).await
}

/// When to look again at what nobody is told of: between two looks others have the processor and the database.
fn looks() -> Interval {
    let mut again = interval(Duration::from_millis(10));
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    again
}

/// What comes of `coming`; fails when it does not come.
pub(crate) async fn in_time<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    timeout(limit, coming).await.unwrap_or_else(|_| panic!("waited {limit:?} in vain for {what}"))
}
