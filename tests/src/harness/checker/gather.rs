//! Gathering the facts of a running stack.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use sculpt_proto::v1::{ReadLogRequest, read_log_response::Part};
use serde::Deserialize;

use super::{AttemptFacts, Facts, JournalEntry, RefFacts, Secret, Spread, TaskFacts, Text, spool};
use crate::harness::{Api, Stack, processes::Found};

/// The rows, in one statement and so at one moment.
const ROWS: &str = "
SELECT json_build_object(
  'tasks', (SELECT coalesce(json_agg(r), '[]') FROM (
     SELECT id, number, revision, shown, title, branch, project_id, attempt_id FROM tasks ORDER BY number) r),
  'attempts', (SELECT coalesce(json_agg(r), '[]') FROM (
     SELECT a.id, t.number AS task, a.task_id, a.number, a.state, a.outcome, a.cause, a.exit_code, a.exit_signal,
            a.fenced_at IS NOT NULL AS fenced, a.head, a.report_sequence AS reports, a.log_bytes, a.log_final,
            concat_ws(E'\n', a.message, array_to_string(a.notes, E'\n')) AS told
     FROM attempts a JOIN tasks t ON t.id = a.task_id ORDER BY t.number, a.number) r),
  'journal', (SELECT coalesce(json_agg(r), '[]') FROM (
     SELECT kind, task_number AS task, attempt, revision, shown FROM events
     WHERE task_id IS NOT NULL AND revision IS NOT NULL ORDER BY id) r),
  'refs', (SELECT coalesce(json_agg(r), '[]') FROM (SELECT project_id, name, target FROM refs) r))";

#[derive(Deserialize)]
struct Rows {
    tasks: Vec<TaskFacts>,
    attempts: Vec<AttemptFacts>,
    journal: Vec<JournalEntry>,
    refs: Vec<RefFacts>,
}

/// Files of an attempt that hold its spec or environment by their nature.
const SPEC_FILES: [&str; 2] = ["spec", "launch.json"];

/// Longer files are no place where a secret would hide from the shorter ones.
const SEARCHED: u64 = 64 << 20;

/// What was found in processes while they ran.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Vec<Text>>);

impl Stack {
    /// Searches the processes that run now, which may be gone when everything else is searched.
    pub fn looks_at_processes(&self) -> Result<()> {
        let found = self.of_processes(&self.secrets()?).into_iter().filter(|text| !text.found.is_empty());
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(())
    }

    /// What is seen of the processes that run now, searched.
    fn of_processes(&self, secrets: &[Secret]) -> Vec<Text> {
        let all = self.traces().processes();
        all.iter().flat_map(|found| seen_of(found, &all, secrets)).collect()
    }

    /// Everything that is known now.
    pub async fn facts(&self) -> Result<Facts> {
        let rows = self.sql(ROWS).await.context("read the rows of the database")?;
        let rows: Rows = serde_json::from_str(&rows).context("read the rows of the database")?;
        let mut attempts = rows.attempts;
        let mut api = self.api().await?;
        for attempt in &mut attempts {
            (attempt.log, attempt.recorded_for) =
                read_log(&mut api, attempt).await.with_context(|| format!("the log of {}", attempt.name()))?;
            attempt.spool = spool::read(&self.executor_data().join("attempts").join(&attempt.id).join("spool"))?;
            let account = self.written().join(&attempt.id);
            attempt.witness = fs::read(&account).ok();
            attempt.noted_for = written_for(&account);
            attempt.cut = self.cuts().get(&attempt.task).copied();
        }
        let known: BTreeSet<&str> = attempts.iter().map(|attempt| attempt.id.as_str()).collect();
        let unknown = self.traces().attempts().into_iter().filter(|id| !known.contains(id.as_str())).collect();
        let spread = |(attempt, found): (String, Found)| Spread { attempt, process: format!("{found:?}") };
        Ok(Facts {
            tasks: rows.tasks,
            journal: rows.journal,
            refs: rows.refs,
            events: self.journal().await?,
            processes: self.traces().of_attempts().into_iter().map(spread).collect(),
            executor_runs: self.has_executor(),
            ledger: self.ledger(),
            texts: self.texts().await?,
            unknown,
            attempts,
        })
    }

    /// The journal as `sculpt events` gives it.
    async fn journal(&self) -> Result<Vec<serde_json::Value>> {
        let output = self.sculpt(["events", "-o", "json"]).run().await?.done()?.text();
        output.lines().map(|line| serde_json::from_str(line).context("read an event")).collect()
    }

    /// Everything that must hold no secret, searched.
    async fn texts(&self) -> Result<Vec<Text>> {
        let secrets = self.secrets()?;
        let mut texts = tables(&self.dump().await?, &secrets);
        let mut files = Vec::new();
        for part in self.executors().into_iter().chain([self.data().join("controller")]) {
            files_below(&part, &mut files);
        }
        let logs = fs::read_dir(self.root()).context("list the stack's directory")?;
        files.extend(logs.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| has_extension(path, "log")));
        for path in files {
            // Collected meanwhile, or not ours to read.
            let Ok(content) = fs::read(&path) else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let mut text =
                Text::search(path.to_string_lossy(), SPEC_FILES.contains(&name.as_ref()), &content, &secrets);
            text.found.retain(|secret| secret.home.as_deref() != Some(&path));
            texts.push(text);
        }
        texts.extend(self.of_processes(&secrets));
        texts.extend(self.seen.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        Ok(texts)
    }
}

/// What everybody sees of a process, and what its own account sees.
fn seen_of(found: &Found, all: &[Found], secrets: &[Secret]) -> [Text; 2] {
    let [arguments, environment] = found.memory();
    // The person's own command has their token from their shell, and so has the git that it runs.
    let persons = is_of_the_person(found, all);
    let shell = |variable: &&[u8]| persons && variable.starts_with(b"SCULPT_TOKEN=");
    let environment: Vec<&[u8]> = environment.split(|byte| *byte == 0).filter(|variable| !shell(variable)).collect();
    [
        Text::search(format!("the arguments of {found:?}"), false, &arguments, secrets),
        Text::search(format!("the environment of {found:?}"), true, &environment.join(&0), secrets),
    ]
}

/// Whether it is `sculpt`, or below one.
fn is_of_the_person(found: &Found, all: &[Found]) -> bool {
    let parent = || all.iter().find(|other| other.pid == found.parent);
    found.name == "sculpt" || parent().is_some_and(|parent| is_of_the_person(parent, all))
}

/// A dump, one text per table.
fn tables(dump: &[u8], secrets: &[Secret]) -> Vec<Text> {
    let mut texts = Vec::new();
    let mut rest = dump;
    while let Some(at) = find(rest, b"\nCOPY ") {
        let table = &rest[at + 6..];
        let end = find(table, b"\n\\.\n").unwrap_or(table.len());
        let name: String = String::from_utf8_lossy(&table[..end]).chars().take_while(|c| *c != ' ').collect();
        let holds_specs = ["public.tasks", "public.attempt_specs"].contains(&name.as_str());
        texts.push(Text::search(format!("the table {name}"), holds_specs, &table[..end], secrets));
        rest = &table[end..];
    }
    texts
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Files below `directory` but for the database's own, and what agents work on.
fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Ok(metadata) = entry.metadata() else { continue };
        let apart = ["postgres", "workspaces", "homes"].iter().any(|other| name == *other);
        if metadata.is_dir() && !apart {
            files_below(&path, found);
        } else if metadata.is_file() && metadata.len() <= SEARCHED {
            found.push(path);
        }
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// From the first write of a file to the last one.
fn written_for(file: &Path) -> Option<Duration> {
    let metadata = fs::metadata(file).ok()?;
    metadata.modified().ok()?.duration_since(metadata.created().ok()?).ok()
}

/// All bytes of a log, and how long it took to record them.
async fn read_log(api: &mut Api, attempt: &AttemptFacts) -> Result<(Vec<u8>, Option<Duration>)> {
    let (task, number) = (attempt.task.to_string(), attempt.number);
    let request = ReadLogRequest { task, attempt: number, from_offset: 0, follow: false };
    let mut stream = api.logs.read_log(request).await?.into_inner();
    let (mut log, mut times) = (Vec::new(), Vec::new());
    while let Some(message) = stream.message().await? {
        let Some(Part::Chunk(chunk)) = message.part else { continue };
        let next = log.len() as u64;
        anyhow::ensure!(chunk.offset == next, "a chunk at {} where {next} is next", chunk.offset);
        log.extend_from_slice(&chunk.data);
        times.extend([chunk.frames.first(), chunk.frames.last()].into_iter().flatten().map(|frame| frame.time_ms));
    }
    let span = times.first().zip(times.last()).map(|(first, last)| Duration::from_millis(last.saturating_sub(*first)));
    Ok((log, span))
}
