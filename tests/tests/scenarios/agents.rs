//! Agents of every kind, in a real terminal or on pipes.

use anyhow::{Result, ensure};
use sculpt_proto::v1::TaskState;
use sculpt_tests::harness::Stack;

const SETTINGS: &str = r#"
default_agent = "words"
[agents.words]
command = ["printf", "<%s>\n", "{prompt}"]
[agents.reader]
command = ["sh", "-c", "wc -c"]
prompt = "stdin"
[agents.filer]
command = ["sh", "-c", 'wc -c < "$1"; sha256sum < "$1"', "filer", "{prompt_file}"]
prompt = "file"
env = { ROBOT_COLOR = "1" }
"#;

#[tokio::test]
async fn a_prompt_reaches_the_agent_whole() -> Result<()> {
    let stack = Stack::options().settings(SETTINGS).up().await?;
    let odd = "--it's \"$(touch /tmp/x)\" `x`; {prompt} \u{1F600}\n#(touch x)";
    let run = ["run", "-q", "--no-repo", "--no-tty", "-d"];
    let by_argument = stack.sculpt(run).stdin(odd).run().await?.done()?.text();
    stack.done(&by_argument).await?;
    let log = String::from_utf8(stack.logs(&by_argument).await?)?;
    ensure!(log == format!("<{odd}>\n"), "{log:?}");

    let big = "x".repeat((1 << 20) - 7) + " \u{e9} end";
    let big = &big[..1 << 20];
    for agent in ["reader", "filer"] {
        let all = run.into_iter().chain(["--agent", agent]);
        let task = stack.sculpt(all).stdin(big).run().await?.done()?.text();
        stack.done(&task).await?;
        let log = String::from_utf8(stack.logs(&task).await?)?;
        ensure!(log.split_whitespace().next() == Some("1048576"), "{agent}: {log:?}");
    }

    // As an argument it cannot work, and the failure says what can.
    let task = stack.sculpt(run.into_iter().chain(["--agent", "words"])).stdin(big).run().await?.done()?.text();
    stack.sculpt(["wait", &task]).run().await?.exits(1)?;
    let shown = stack.show(&task).await?;
    ensure!(shown["cause"] == "setup" && shown.to_string().contains("stdin"), "{shown:#}");
    stack.finish().await
}

#[tokio::test]
async fn bytes_are_exact_whatever_they_are() -> Result<()> {
    let stack = Stack::up().await?;
    // Binary, twice the size of one message, without a newline.
    let file = stack.root().join("noise");
    let noise: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, &noise)?;
    let path = file.to_string_lossy();
    let task = stack.detached(stack.root(), ["--no-repo", "--no-tty", "--", "cat", &path]).await?;
    stack.done(&task).await?;
    ensure!(stack.logs(&task).await? == noise, "the log is not what was printed");
    let from = stack.sculpt(["logs", &task, "--from-offset", "2999990"]).run().await?.done()?;
    ensure!(from.stdout == noise[2_999_990..], "{} bytes", from.stdout.len());

    let raw = ["--no-repo", "--", "sh", "-c", "stty raw; cat \"$1\"", "x", &path];
    let task = stack.detached(stack.root(), raw).await?;
    stack.done(&task).await?;
    ensure!(stack.logs(&task).await? == noise, "through a raw terminal the log is not what was printed");

    let quiet = stack.detached(stack.root(), ["--no-repo", "--", "true"]).await?;
    ensure!(stack.done(&quiet).await?["state"] == "completed");
    ensure!(stack.logs(&quiet).await?.is_empty());

    let colours =
        stack.detached(stack.root(), ["--no-repo", "--", "printf", r"\033[31mred\033[0m\033]0;title\007\n"]).await?;
    stack.done(&colours).await?;
    ensure!(stack.logs(&colours).await?.starts_with(b"\x1b[31mred"));
    let plain = stack.sculpt(["logs", &colours, "--plain"]).run().await?.done()?;
    ensure!(plain.text() == "red", "{plain:?}");
    stack.finish().await
}

#[tokio::test]
async fn a_flood_is_kept_whole() -> Result<()> {
    let stack = Stack::up().await?;
    const SIZE: usize = 32 << 20;
    let endless = format!("head -c {SIZE} /dev/zero | tr '\\0' x");
    for mode in [&["--no-repo"][..], &["--no-repo", "--no-tty"]] {
        let task = stack.detached(stack.root(), mode.iter().chain(&["--", "sh", "-c", &endless])).await?;
        stack.sculpt(["wait", &task]).run().await?.done()?;
        let log = stack.logs(&task).await?;
        ensure!(log.len() == SIZE && log.iter().all(|byte| *byte == b'x'), "{} bytes", log.len());
        let shown = stack.show(&task).await?;
        ensure!(shown["log_bytes"] == SIZE && shown["log_complete"] == true, "{shown:#}");
    }
    stack.finish().await
}

#[tokio::test]
async fn the_terminal_and_the_environment_are_right() -> Result<()> {
    let stack = Stack::options().env("SCULPT_TOKEN_OF_SOMETHING", "secret").env("MY_TOOL", "mine").up().await?;
    let script = "stty size; echo $TERM; tty | cut -c1-9; echo task=$SCULPT_TASK attempt=$SCULPT_ATTEMPT; \
                  echo tool=$MY_TOOL token=$SCULPT_TOKEN_OF_SOMETHING given=$GIVEN; pwd";
    let all = ["--no-repo", "--env", "GIVEN=yes", "--", "sh", "-c", script];
    let task = stack.detached(stack.root(), all).await?;
    stack.done(&task).await?;
    let log = String::from_utf8(stack.logs(&task).await?)?;
    let lines: Vec<_> = log.lines().collect();
    ensure!(lines.first() == Some(&"50 200"), "{log}");
    ensure!(lines.get(1) == Some(&"xterm-256color"), "{log}");
    ensure!(lines.get(2) == Some(&"/dev/pts/"), "{log}");
    ensure!(lines.get(3).is_some_and(|line| !line.contains("task= ") && !line.ends_with("attempt=")), "{log}");
    ensure!(lines.get(4) == Some(&"tool=mine token= given=yes"), "{log}");
    ensure!(lines.get(5).is_some_and(|line| line.contains("/workspaces/")), "{log}");

    // An agent that asks its terminal something is answered though nobody watches.
    let ask = "stty raw -echo min 0 time 50; printf '\\033[6n'; dd bs=1 count=4 2>/dev/null | od -An -c | tr -d ' '";
    let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", ask]).await?;
    stack.done(&task).await?;
    let log = String::from_utf8_lossy(&stack.logs(&task).await?).into_owned();
    ensure!(log.contains("033[1;"), "{log:?}");
    stack.finish().await
}

#[tokio::test]
async fn attach_opens_the_terminal_of_a_running_agent() -> Result<()> {
    let stack = Stack::up().await?;
    let script = "echo ready; read answer; echo \"got $answer and more\"; read answer; echo \"then $answer\"";
    let task = stack.detached(stack.root(), ["--no-repo", "--", "sh", "-c", script]).await?;
    let running = stack.until(&task, "running", |task| task.state() == TaskState::Running).await?;
    let socket = running.attempts.last().map(|attempt| attempt.tmux_socket.clone()).unwrap_or_default();
    ensure!(!socket.is_empty(), "no socket in {running:?}");
    stack.log_until(&task, "the question", |log| log.starts_with(b"ready")).await?;

    let mut person = stack.terminal(&["attach", &task])?;
    person.shows("ready").await?;
    person.types("hello\r")?;
    stack.log_until(&task, "the answer", |log| String::from_utf8_lossy(log).contains("got hello")).await?;
    person.shows("and more").await?;
    // Leaving the view leaves the agent alone; coming back shows what was there.
    person.types("\u{2}d")?;
    person.ends().await?;
    let mut person = stack.terminal(&["attach", &task])?;
    person.shows("got hello").await?;
    person.types("bye\r")?;
    stack.done(&task).await?;
    let log = String::from_utf8(stack.logs(&task).await?)?;
    ensure!(log == "ready\r\nhello\r\ngot hello and more\r\nbye\r\nthen bye\r\n", "{log:?}");
    drop(person);
    stack.finish().await
}
