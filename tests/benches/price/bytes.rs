//! Durable log bytes a second: from an agent through executor and controller into Postgres, beside the same bytes put into
//! the same Postgres by SQL, a commit for each chunk.

use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::Stack;
use uuid::Uuid;

use crate::{report::Row, samples::Samples};

/// What one sample writes.
const BYTES: usize = 32 << 20;

/// As the controller's own, less what it is not about.
const TABLE: &str = "CREATE TABLE price_bytes (attempt uuid, start bigint, at timestamptz DEFAULT now(), data bytea, \
                     PRIMARY KEY (attempt, start, at)); ALTER TABLE price_bytes ALTER COLUMN data SET STORAGE EXTERNAL";

pub(crate) async fn measure(stack: &Stack, count: usize) -> Result<Vec<Row>> {
    let scratch = stack.root().join("bytes");
    fs::create_dir_all(&scratch)?;
    let file = scratch.join("random");
    let mut random = Vec::new();
    fs::File::open("/dev/urandom")?.take(BYTES as u64).read_to_end(&mut random)?;
    fs::write(&file, &random)?;
    let file = file.to_str().context("a path of the tests is text")?;
    stack.sql(TABLE).await?;
    let (mut ours, mut theirs, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    // The first of each fills caches.
    for number in 0..=count {
        let began = Instant::now();
        let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "cat", file]).await?;
        // What a follower gets is committed.
        let log = stack.sculpt(["logs", &task, "-f"]).run().await?.done()?.stdout;
        let took = began.elapsed();
        ensure!(log == random, "the log of task {task} is not what was written");
        stack.done(&task).await?;
        let chunk = stack.sql("SELECT coalesce(avg(octet_length(data)), 0)::bigint FROM log_chunks").await?;
        let chunk: usize = chunk.parse().with_context(|| format!("the size of a chunk is {chunk:?}"))?;
        let reference = by_sql(stack, &random, chunk.clamp(4 << 10, 1 << 20)).await?;
        eprintln!("bench: bytes {number} of {count}: {:.1} MB/s, by SQL {reference:.1}", rate(took));
        if number > 0 {
            ours.push(rate(took));
            theirs.push(reference);
            sizes.push(chunk as f64 / 1024.0);
        }
    }
    let samples = |numbers: Vec<f64>| Samples::of(numbers).context("no sample");
    let reference = Some(("psql COPY, a commit for each chunk of the same size", samples(theirs)?));
    Ok(vec![
        Row {
            name: "durable log bytes, the task's start included",
            unit: "MB/s",
            ours: samples(ours)?,
            reference,
            bound: None,
        },
        Row { name: "log bytes that share a row", unit: "KiB", ours: samples(sizes)?, reference: None, bound: None },
    ])
}

fn rate(took: Duration) -> f64 {
    BYTES as f64 / 1e6 / took.as_secs_f64()
}

/// One psql for all of it: what is measured is Postgres, and the little that psql adds.
async fn by_sql(stack: &Stack, bytes: &[u8], chunk: usize) -> Result<f64> {
    let directory = stack.fresh("copies");
    fs::create_dir_all(&directory)?;
    let attempt = Uuid::new_v4();
    let mut script = "\\set ON_ERROR_STOP on\n".to_owned();
    for (number, data) in bytes.chunks(chunk).enumerate() {
        let file = directory.join(number.to_string());
        fs::write(&file, binary_copy(attempt, number * chunk, data))?;
        writeln!(script, "\\copy price_bytes (attempt, start, data) from '{}' (format binary)", file.display())?;
    }
    let file = directory.join("script");
    fs::write(&file, script)?;
    let file = file.to_str().context("a path of the tests is text")?;
    let database = stack.database_url()?;
    let began = Instant::now();
    stack.shell("psql", ["-X", "-q", "-d", &database, "-f", file]).run().await?.done()?;
    let took = began.elapsed();
    stack.sql("TRUNCATE price_bytes").await?;
    fs::remove_dir_all(&directory)?;
    Ok(rate(took))
}

/// One row in the format of COPY BINARY.
fn binary_copy(attempt: Uuid, start: usize, data: &[u8]) -> Vec<u8> {
    let mut copy = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    copy.extend(3_i16.to_be_bytes());
    for field in [attempt.as_bytes().as_slice(), &(start as u64).to_be_bytes(), data] {
        copy.extend((field.len() as u32).to_be_bytes());
        copy.extend(field);
    }
    copy.extend((-1_i16).to_be_bytes());
    copy
}
