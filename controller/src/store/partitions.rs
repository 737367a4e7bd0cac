//! Day partitions of the journal and the log tail: made ahead, dropped when their time is over.

use chrono::{Days, NaiveDate};
use sqlx::AssertSqlSafe;

use super::{Store, StoreError};

/// Tables that are partitioned by the day of their column `at`.
const TABLES: [&str; 2] = ["events", "log_chunks"];

/// Days beyond today that have a partition before anybody needs it.
const AHEAD: u64 = 3;

/// How long a finished request is remembered, so that its repetition is known.
const REQUEST_DAYS: i32 = 7;

impl Store {
    /// Makes the partitions of today and the days to come.
    pub async fn make_partitions(&self) -> Result<(), StoreError> {
        let mut conn = self.read().await?;
        let today: NaiveDate =
            sqlx::query_scalar("SELECT (now() AT TIME ZONE 'UTC')::date").fetch_one(&mut *conn).await?;
        drop(conn);
        for day in (0..=AHEAD).filter_map(|days| today.checked_add_days(Days::new(days))) {
            for table in TABLES {
                self.make_partition(table, day).await?;
            }
        }
        Ok(())
    }

    /// Drops the days of the journal that ended more than `days` ago, and forgets old requests. How many days went.
    pub async fn drop_old_events(&self, days: u32) -> Result<usize, StoreError> {
        let sql = "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
                   WHERE inhparent = 'events'::regclass AND relname ~ '^events_[0-9]{8}$' \
                   AND to_date(right(relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - $1 ORDER BY relname";
        let mut conn = self.read().await?;
        let old: Vec<String> =
            sqlx::query_scalar(sql).bind(i32::try_from(days).unwrap_or(i32::MAX)).fetch_all(&mut *conn).await?;
        drop(conn);
        let count = old.len();
        for partition in old {
            self.drop_partition(partition).await?;
        }
        let mut conn = self.read().await?;
        sqlx::query("DELETE FROM requests WHERE created_at < now() - make_interval(days => $1)")
            .bind(REQUEST_DAYS)
            .execute(&mut *conn)
            .await?;
        Ok(count)
    }

    async fn make_partition(&self, table: &'static str, day: NaiveDate) -> Result<(), StoreError> {
        let Some(next) = day.succ_opt() else { return Ok(()) };
        let name = format!("{table}_{}", day.format("%Y%m%d"));
        let (from, to) = (format!("{day} 00:00:00+00"), format!("{next} 00:00:00+00"));
        self.write(move |conn| {
            Box::pin(async move {
                // Two replicas at once: the second finds it made.
                sqlx::query("SELECT pg_advisory_xact_lock(hashtext('sculpt partitions'))").execute(&mut *conn).await?;
                let there: bool =
                    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(&name).fetch_one(&mut *conn).await?;
                if there {
                    return Ok(());
                }
                // Rows that came while there was no partition stand in the default one, and would forbid it.
                let statements = format!(
                    "CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE); \
                     WITH moved AS (DELETE FROM {table}_default WHERE at >= '{from}' AND at < '{to}' RETURNING *) \
                     INSERT INTO {name} SELECT * FROM moved; \
                     ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}');"
                );
                sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *conn).await?;
                Ok(())
            })
        })
        .await
    }

    async fn drop_partition(&self, partition: String) -> Result<(), StoreError> {
        self.write(move |conn| {
            Box::pin(async move {
                let statements = format!(
                    "UPDATE cluster SET journal_floor = GREATEST(journal_floor, (SELECT max(id) FROM {partition})); \
                     DROP TABLE {partition};"
                );
                sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *conn).await?;
                Ok(())
            })
        })
        .await
    }
}
