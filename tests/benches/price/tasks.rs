//! Tasks that do nothing, a second: all of their life, beside the same steps by SQL alone.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result};
use sculpt_tests::harness::Stack;

use crate::{report::Row, samples::Samples};

/// Tasks of one sample.
const TASKS: usize = 40;

/// The reference is quicker: as many samples of the same length.
const REFERENCE: usize = 5 * TASKS;

/// The stack's slots, and so the clients of the reference.
const AT_ONCE: usize = 8;

/// Insert, claim, and an update for each step of a task's life, each durable by itself.
const LIFE: &str = r"
INSERT INTO price_tasks (state) VALUES (0) RETURNING id \gset
UPDATE price_tasks SET state = 1 WHERE id = (
    SELECT id FROM price_tasks WHERE state = 0 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED);
UPDATE price_tasks SET state = 2 WHERE id = :id;
UPDATE price_tasks SET state = 3 WHERE id = :id;
UPDATE price_tasks SET state = 4 WHERE id = :id;
UPDATE price_tasks SET state = 5 WHERE id = :id;
UPDATE price_tasks SET state = 6 WHERE id = :id;
UPDATE price_tasks SET state = 7 WHERE id = :id;
";

pub(crate) async fn measure(stack: &Stack, count: usize) -> Result<Vec<Row>> {
    stack.sql("CREATE TABLE price_tasks (id bigserial PRIMARY KEY, state int NOT NULL)").await?;
    stack.sql("CREATE INDEX ON price_tasks (id) WHERE state = 0").await?;
    let script = stack.root().join("life.sql");
    fs::write(&script, LIFE)?;
    let script = script.to_str().context("a path of the tests is text")?;
    let (mut ours, mut theirs, mut flushes) = (Vec::new(), Vec::new(), Vec::new());
    // The first of each fills caches.
    for number in 0..=count {
        let before = flushes_so_far(stack).await?;
        let began = Instant::now();
        let mut arguments = vec!["wait".to_owned()];
        for _ in 0..TASKS {
            arguments.push(stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "true"]).await?);
        }
        stack.sculpt(arguments).run().await?.done()?;
        let rate = TASKS as f64 / began.elapsed().as_secs_f64();
        let flushed = (flushes_so_far(stack).await? - before) / TASKS as f64;
        let reference = by_sql(stack, script).await?;
        eprintln!("bench: tasks {number} of {count}: {rate:.1} a second, by SQL {reference:.1}");
        if number > 0 {
            ours.push(rate);
            theirs.push(reference);
            flushes.push(flushed);
        }
    }
    let samples = |numbers: Vec<f64>| Samples::of(numbers).context("no sample");
    let reference = Some(("pgbench: insert, claim, six updates", samples(theirs)?));
    Ok(vec![
        Row {
            name: "tasks that do nothing, made by the CLI",
            unit: "1/s",
            ours: samples(ours)?,
            reference,
            bound: None,
        },
        Row {
            name: "flushes of Postgres's log for each of them",
            unit: "",
            ours: samples(flushes)?,
            reference: None,
            bound: None,
        },
    ])
}

async fn flushes_so_far(stack: &Stack) -> Result<f64> {
    let text = stack.sql("SELECT wal_sync FROM pg_stat_wal").await?;
    text.parse().with_context(|| format!("the number of flushes is {text:?}"))
}

async fn by_sql(stack: &Stack, script: &str) -> Result<f64> {
    let (clients, each) = (AT_ONCE.to_string(), (REFERENCE / AT_ONCE).to_string());
    let database = stack.database_url()?;
    let pgbench = pgbench(stack).await?;
    let pgbench = pgbench.to_str().context("the path of pgbench is text")?;
    let began = Instant::now();
    stack
        .shell(pgbench, ["-n", "-c", &clients, "-j", "2", "-t", &each, "-f", script, &database])
        .run()
        .await?
        .done()?;
    Ok(REFERENCE as f64 / began.elapsed().as_secs_f64())
}

/// Beside the server's other programs, which are not on everybody's PATH.
async fn pgbench(stack: &Stack) -> Result<PathBuf> {
    let text = stack.sql("SELECT setting FROM pg_config WHERE name = 'BINDIR'").await?;
    Ok(PathBuf::from(text).join("pgbench"))
}
