//! NOTIFY between replicas.

use sqlx::postgres::PgListener;

use super::{Store, StoreError};

/// The one channel; what is meant stands in the payload.
const CHANNEL: &str = "sculpt";

/// Most bytes of a payload; the server takes less than 8,000.
pub const LONGEST: usize = 7_900;

/// A connection that hears what replicas say.
#[derive(Debug)]
pub struct Ear {
    listener: PgListener,
}

impl Store {
    /// Says `payload` to everybody, ourselves included.
    pub async fn notify(&self, payload: &str) -> Result<(), StoreError> {
        let mut conn = self.read().await?;
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(&mut *conn).await?;
        Ok(())
    }

    /// Hears from now on. To be made anew after any error: a listener goes on with a dead connection.
    pub async fn ear(&self) -> Result<Ear, StoreError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Ear { listener })
    }
}

impl Ear {
    /// The next payload; `None` when something may have been missed.
    pub async fn hear(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.listener.try_recv().await?.map(|said| said.payload().to_owned()))
    }
}
