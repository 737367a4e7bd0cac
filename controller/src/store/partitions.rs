//! Day partitions of the journal and the log tail: made ahead, dropped when their time is over.

use chrono::{Days, NaiveDate};
use sqlx::AssertSqlSafe;

use super::{Connection, Store, StoreError};

/// Tables that are partitioned by the day of their column `at`.
const TABLES: [&str; 2] = ["events", "log_chunks"];

/// Days beyond today that have a partition before anybody needs it.
const AHEAD: u64 = 3;

/// Days after which the partition of a day of logs may go, once it is empty. No transaction that writes into it is as old.
const LOG_DAYS: i32 = 2;

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

    /// Drops the days of the journal that ended more than `days` ago, and forgets old requests and adoptions. How many days went.
    pub async fn drop_old_events(&self, days: u32) -> Result<usize, StoreError> {
        let old = self.partitions_before("events", i32::try_from(days).unwrap_or(i32::MAX)).await?;
        let count = old.len();
        for partition in old {
            self.drop_partition(partition).await?;
        }
        let mut conn = self.read().await?;
        sqlx::query(
            "DELETE FROM adoptions WHERE wanted_at < now() - make_interval(days => $1) \
             AND (task_id IS NOT NULL OR refusal IS NOT NULL)",
        )
        .bind(REQUEST_DAYS)
        .execute(&mut *conn)
        .await?;
        sqlx::query("DELETE FROM requests WHERE created_at < now() - make_interval(days => $1)")
            .bind(REQUEST_DAYS)
            .execute(&mut *conn)
            .await?;
        Ok(count)
    }

    /// Drops old days of the log tail that hold nothing any more: whatever is not sealed keeps its day. How many days went.
    pub async fn drop_empty_log_days(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        for partition in self.partitions_before("log_chunks", LOG_DAYS).await? {
            let mut conn = self.read().await?;
            // Looked at first: the lock below holds up whoever reads or writes logs.
            if empty(&mut conn, &partition).await? {
                drop(conn);
                count += usize::from(self.drop_empty(partition).await?);
            }
        }
        Ok(count)
    }

    /// The partitions of `table` whose days ended more than `days` ago.
    async fn partitions_before(&self, table: &'static str, days: i32) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid \
                   WHERE inhparent = $1::text::regclass AND relname ~ ('^' || $1 || '_[0-9]{8}$') \
                   AND to_date(right(relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - $2 ORDER BY relname";
        let mut conn = self.read().await?;
        Ok(sqlx::query_scalar(sql).bind(table).bind(days).fetch_all(&mut *conn).await?)
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

    /// Drops a partition of the log tail, unless it holds something after all.
    async fn drop_empty(&self, partition: String) -> Result<bool, StoreError> {
        self.write(move |conn| {
            Box::pin(async move {
                sqlx::raw_sql("LOCK TABLE log_chunks IN ACCESS EXCLUSIVE MODE").execute(&mut *conn).await?;
                if !empty(conn, &partition).await? {
                    return Ok(false);
                }
                sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE {partition}"))).execute(&mut *conn).await?;
                Ok(true)
            })
        })
        .await
    }
}

async fn empty(conn: &mut Connection, partition: &str) -> Result<bool, StoreError> {
    let sql = format!("SELECT NOT EXISTS (SELECT FROM {partition})");
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(conn).await?)
}
