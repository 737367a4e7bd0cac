//! Every run is a recording: what its terminal showed, when, and how large it was.

use anyhow::{Context as _, Result, ensure};
use sculpt_tests::harness::{Stack, eventually};
use serde_json::{Value, json};

/// What an asciicast holds of sizes and of text, without its times. Fails unless it is what version 2 of the format says.
fn events(cast: &str) -> Result<(Value, Vec<(String, String)>)> {
    let mut lines = cast.lines();
    let header: Value = serde_json::from_str(lines.next().context("no header")?)?;
    let is_size = |size: &Value| size.as_u64().is_some_and(|size| size > 0);
    let is_header = header["version"] == 2 && is_size(&header["width"]) && is_size(&header["height"]);
    ensure!(is_header && header["timestamp"].is_null() | header["timestamp"].is_u64(), "{header}");
    ensure!(cast.ends_with('\n'), "its last line has no end");
    let mut events: Vec<(String, String)> = Vec::new();
    let mut before = 0.0;
    for line in lines {
        let (at, code, data): (f64, String, String) = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(at >= before, "{at} after {before}");
        before = at;
        let of_size = |data: &str| {
            let size = data.split_once('x').map(|(columns, rows)| [columns, rows].map(str::parse::<u16>));
            size.is_some_and(|size| size.iter().all(|it| it.as_ref().is_ok_and(|it| *it > 0)))
        };
        ensure!(code == "o" || (code == "r" && of_size(&data)), "{line}");
        match events.last_mut().filter(|(last, _)| *last == code && code == "o") {
            Some((_, text)) => text.push_str(&data),
            None => events.push((code, data)),
        }
    }
    Ok((header, events))
}

/// Sizes and bytes come through every process, each of which dies meanwhile.
#[tokio::test]
async fn a_recording_has_every_size_once_whatever_dies() -> Result<()> {
    let mut stack = Stack::parts().await?;
    let gate = stack.root().join("gate");
    let script = format!("trap 'stty size' WINCH; stty size; until [ -e {} ]; do sleep 0.05; done", gate.display());
    let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", &script]).await?;
    stack.log_until(&task, "its first size", |log| log == b"50 200\r\n").await?;
    let socket = |task: &sculpt_proto::v1::Task| task.attempts.last().map(|attempt| attempt.tmux_socket.clone());
    let shown = stack.until(&task, "a view", |task| socket(task).is_some_and(|socket| !socket.is_empty())).await?;
    let socket = socket(&shown).unwrap_or_default();
    let mut log = String::from("50 200\r\n");
    let mut expected = vec![("o".to_owned(), log.clone())];
    for (columns, rows) in [(90, 30), (60, 20), (120, 40)] {
        if columns == 60 {
            stack.controller()?.kill().await?;
            stack.start_controller().await?;
        } else {
            stack.executor()?.kill().await?;
            stack.start_executor().await?;
        }
        let size = [columns.to_string(), rows.to_string()];
        let resized = || {
            let words = ["-S", &socket, "resize-window", "-t", "main", "-x", &size[0], "-y", &size[1]];
            Ok(std::process::Command::new("tmux").args(words).status()?.success().then_some(()))
        };
        eventually("a view of another size", resized).await?;
        let line = format!("{rows} {columns}\r\n");
        log.push_str(&line);
        stack.log_until(&task, "the other size", |held| held == log.as_bytes()).await?;
        expected.extend([("r".to_owned(), format!("{columns}x{rows}")), ("o".to_owned(), line)]);
    }
    std::fs::write(&gate, "")?;
    stack.done(&task).await?;
    let film = stack.root().join("film.cast");
    stack.sculpt(["replay", &task, "--cast", &film.display().to_string()]).run().await?.done()?;
    let (header, found) = events(&std::fs::read_to_string(&film)?)?;
    ensure!((&header["width"], &header["height"]) == (&json!(200), &json!(50)), "{header}");
    ensure!(found == expected, "{found:?}");
    stack.finish().await
}
