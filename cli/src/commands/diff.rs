//! `sculpt diff`.

mod patch;

use sculpt_proto::v1::{DiffRequest, DiffResponse, FileChange, diff_response::Part, diff_response::Summary};
use serde::Serialize;

use super::{refuse_removed_project, task_named};
use crate::{
    args::DiffArgs,
    client::Client,
    exit::Exit,
    failure::Failure,
    output::{Format, json, line, note, paint, tasks::filled},
};

#[derive(Serialize)]
struct SummaryJson {
    base: String,
    head: String,
    files: Vec<FileJson>,
    files_omitted: u64,
    additions: u64,
    deletions: u64,
}

#[derive(Serialize)]
struct FileJson {
    status: String,
    path: String,
    old_path: Option<String>,
    additions: u64,
    deletions: u64,
    binary: bool,
}

pub(super) async fn run(args: DiffArgs, format: Format) -> Result<Exit, Failure> {
    let client = Client::connect().await?;
    let attempted = format!("show the changes of task {}", args.task);
    let task = task_named(&client, &args.task, &attempted).await?;
    let attempted = format!("show the changes of task {}", task.number);
    refuse_removed_project(&task, &attempted)?;
    let request = DiffRequest { task: task.uuid, attempt: 0 };
    let mut stream = client.read(&attempted, client.git().diff(request)).await?;
    let mut output = None;
    while let Some(DiffResponse { part }) =
        stream.message().await.map_err(|status| client.refused(&attempted, &status))?
    {
        match part {
            Some(Part::Summary(summary)) if format == Format::Json => return show_json(&summary),
            Some(Part::Summary(summary)) if args.stat => return stat(&summary),
            Some(Part::Summary(summary)) if summary.files.is_empty() => note("no changes"),
            Some(Part::Summary(_)) | None => {}
            Some(Part::Patch(piece)) => {
                if output.is_none() {
                    output = Some(patch::Output::open().await?);
                }
                // A pager that was left early wants no more.
                if let Some(output) = &mut output
                    && !output.write(&piece).await?
                {
                    break;
                }
            }
            Some(Part::Truncated(why)) => note(why),
        }
    }
    if let Some(output) = output {
        output.close().await?;
    }
    Ok(Exit::Done)
}

fn show_json(summary: &Summary) -> Result<Exit, Failure> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let file = |file: &FileChange| FileJson {
        status: file.status.clone(),
        path: text(&file.path),
        old_path: filled(&text(&file.old_path)).filter(|old| *old != text(&file.path)),
        additions: file.additions,
        deletions: file.deletions,
        binary: file.binary,
    };
    json(&SummaryJson {
        base: summary.base.clone(),
        head: summary.head.clone(),
        files: summary.files.iter().map(file).collect(),
        files_omitted: summary.files_omitted,
        additions: summary.additions,
        deletions: summary.deletions,
    })?;
    Ok(Exit::Done)
}

fn stat(summary: &Summary) -> Result<Exit, Failure> {
    let name = |file: &FileChange| {
        let path = quoted(&file.path);
        match file.old_path.is_empty() || file.old_path == file.path {
            true => path,
            false => format!("{} => {path}", quoted(&file.old_path)),
        }
    };
    let names: Vec<String> = summary.files.iter().map(name).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, file) in names.iter().zip(&summary.files) {
        let change = if file.binary {
            "binary".to_owned()
        } else {
            format!("{} {}", paint(&format!("+{}", file.additions), "32"), paint(&format!("-{}", file.deletions), "31"))
        };
        let status = if file.status == "modified" { String::new() } else { format!("  ({})", file.status) };
        line(format!(" {name:<width$} | {change}{status}"))?;
    }
    if summary.files_omitted > 0 {
        line(format!(
            " … and {} more",
            crate::output::counted(usize::try_from(summary.files_omitted).unwrap_or(usize::MAX), "file")
        ))?;
    }
    let total = summary.files.len() as u64 + summary.files_omitted;
    let files = crate::output::counted(usize::try_from(total).unwrap_or(usize::MAX), "file");
    let counted = |count, noun| crate::output::counted(usize::try_from(count).unwrap_or(usize::MAX), noun);
    let (additions, deletions) = (counted(summary.additions, "insertion"), counted(summary.deletions, "deletion"));
    line(format!(" {files} changed, {additions}(+), {deletions}(-)"))?;
    Ok(Exit::Done)
}

/// A path as git shows it: between quotes, with escapes, when it holds control characters, quotes or bytes that are not
/// UTF-8.
fn quoted(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(|c| c.is_control() || matches!(c, '"' | '\\')) => text.to_owned(),
        Ok(_) | Err(_) => {
            let escaped = path.utf8_chunks().flat_map(|chunk| {
                let text = chunk.valid().chars().map(|c| match c {
                    '"' | '\\' => format!("\\{c}"),
                    '\n' => "\\n".to_owned(),
                    '\t' => "\\t".to_owned(),
                    c if c.is_control() => c.to_string().bytes().map(octal).collect(),
                    c => c.to_string(),
                });
                text.chain(chunk.invalid().iter().copied().map(octal)).collect::<Vec<_>>()
            });
            format!("\"{}\"", escaped.collect::<String>())
        }
    }
}

fn octal(byte: u8) -> String {
    format!("\\{byte:03o}")
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn paths_are_shown_as_git_shows_them() {
        assert_eq!(quoted("with space/é".as_bytes()), "with space/é");
        assert_eq!(quoted(b"out\xff\n2"), r#""out\377\n2""#);
        assert_eq!(quoted(b"a\"b\\c\x1b"), r#""a\"b\\c\033""#);
    }
}
