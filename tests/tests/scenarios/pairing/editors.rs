//! Editors that work over ssh: their start in the shape that is known of it, with a server of ours in the place of theirs.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sculpt_tests::{
    harness::{DEADLINE, within},
    layering::workspace,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout},
};

use super::{
    ports::{connects, free_port},
    world::{Server, World},
};

/// One line of a record.
#[derive(Debug)]
enum Step {
    /// A program is started, which goes on until the next one is.
    Run(Vec<String>),
    /// A line that it is given.
    Give(String),
    /// Nothing more is given to it.
    Close,
    /// It has ended, and well.
    Ends,
    /// The beginning of a line that it is waited for to print; a port may stand behind it.
    Expect(String),
    /// What is said on a connection to the port, and what is answered.
    Ask(Way, String, String),
}

/// How an editor gets to its server.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By the SOCKS proxy that ssh is.
    Socks,
    /// By a port that ssh forwards.
    Forward,
}

fn step(line: &str) -> Result<Option<Step>> {
    let Some((mark, rest)) = line.split_once(' ').or((!line.is_empty()).then_some((line, ""))) else { return Ok(None) };
    let ask = |way| {
        let (question, answer) = rest.split_once(" => ").with_context(|| format!("no answer in {line:?}"))?;
        Ok::<_, anyhow::Error>(Step::Ask(way, question.to_owned(), answer.to_owned()))
    };
    Ok(Some(match mark {
        "#" => return Ok(None),
        "$" => Step::Run(shell_words(rest)),
        "|" => Step::Give(rest.to_owned()),
        "." => Step::Close,
        ";" => Step::Ends,
        "<" => Step::Expect(rest.to_owned()),
        "socks" => ask(Way::Socks)?,
        "forward" => ask(Way::Forward)?,
        other => bail!("{other:?} is no mark of a record"),
    }))
}

/// Words with spaces between them; one in single quotes may hold spaces.
fn shell_words(line: &str) -> Vec<String> {
    let (quoted, plain): (Vec<_>, Vec<_>) = line.split('\'').enumerate().partition(|(number, _)| number % 2 == 1);
    let mut words: Vec<(usize, String)> = quoted.into_iter().map(|(at, text)| (at, text.to_owned())).collect();
    for (at, text) in plain {
        words.extend(text.split_whitespace().map(|word| (at, word.to_owned())));
    }
    words.sort_by_key(|(at, _)| *at);
    words.into_iter().map(|(_, word)| word).collect()
}

/// A program that the editor has started.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What stands for what of a record.
struct Names {
    host: String,
    socks: u16,
    forward: u16,
    /// On which the editor's server listens.
    port: Option<u16>,
}

impl Names {
    fn fill(&self, text: &str) -> String {
        let port = self.port.map(|port| port.to_string()).unwrap_or_default();
        text.replace("{host}", &self.host)
            .replace("{socks}", &self.socks.to_string())
            .replace("{forward}", &self.forward.to_string())
            .replace("{port}", &port)
            .replace("{server}", &fixture("editor-server.py").to_string_lossy())
    }
}

fn fixture(name: &str) -> std::path::PathBuf {
    workspace().join("tests/fixtures").join(name)
}

async fn replay(world: &World, server: &Server, record: &Path) -> Result<()> {
    let text = fs::read_to_string(record).with_context(|| format!("read {}", record.display()))?;
    let host = format!("sculpt.{}", server.task);
    let mut names = Names { host, socks: free_port()?, forward: free_port()?, port: None };
    let mut running: Vec<Running> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some(step) = step(line)? else { continue };
        let done = within(DEADLINE, line, play(world, &mut names, &mut running, step)).await;
        done.with_context(|| format!("{}:{}: {line}", record.display(), number + 1))?;
    }
    for mut program in running {
        drop(program.input.take());
        program.child.kill().await?;
    }
    Ok(())
}

async fn play(world: &World, names: &mut Names, running: &mut Vec<Running>, step: Step) -> Result<()> {
    let last = running.last_mut().context("a program of the record");
    match step {
        Step::Run(words) => {
            let words: Vec<String> = words.iter().map(|word| names.fill(word)).collect();
            running.push(start(world, &words)?);
        }
        Step::Give(line) => {
            let input = last?.input.as_mut().context("it is still given something")?;
            input.write_all(format!("{}\n", names.fill(&line)).as_bytes()).await?;
        }
        Step::Close => drop(last?.input.take()),
        Step::Ends => {
            let program = last?;
            drop(program.input.take());
            let status = program.child.wait().await?;
            ensure!(status.success(), "it ended with {status}");
        }
        Step::Expect(wanted) => {
            let line = line_of(last?, &names.fill(&wanted)).await?;
            let port: String = line.chars().take_while(char::is_ascii_digit).collect();
            names.port = port.parse().ok().or(names.port);
        }
        Step::Ask(way, question, answer) => {
            let stream = match way {
                Way::Socks => through_socks(names.socks, names.port.context("the server's port is known")?).await?,
                Way::Forward => connects(names.forward).await?,
            };
            let mut stream = BufReader::new(stream);
            stream.write_all(format!("{question}\n").as_bytes()).await?;
            let mut said = String::new();
            stream.read_line(&mut said).await?;
            ensure!(said.trim_end() == answer, "the editor's server answers {said:?}");
        }
    }
    Ok(())
}

fn start(world: &World, words: &[String]) -> Result<Running> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = world.ssh_command(&world.ada, &words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().context("start it")?;
    let (input, output) = (child.stdin.take(), child.stdout.take().context("stdout is piped")?);
    Ok(Running { child, input, output: BufReader::new(output) })
}

/// What stands behind `wanted` in the next line that holds it.
async fn line_of(program: &mut Running, wanted: &str) -> Result<String> {
    let mut line = String::new();
    while program.output.read_line(&mut line).await? > 0 {
        if let Some(at) = line.find(wanted) {
            return Ok(line[at + wanted.len()..].trim_end().to_owned());
        }
        line.clear();
    }
    bail!("it ended before it printed {wanted:?}")
}

/// A connection to a port of the other side's loopback, by version 5 of SOCKS without authentication.
async fn through_socks(socks: u16, port: u16) -> Result<TcpStream> {
    let mut stream = connects(socks).await?;
    stream.write_all(&[5, 1, 0]).await?;
    let mut method = [0; 2];
    stream.read_exact(&mut method).await?;
    ensure!(method == [5, 0], "the proxy wants {method:?}");
    let [high, low] = port.to_be_bytes();
    stream.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low]).await?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await?;
    ensure!(answer[1] == 0, "the proxy answers {answer:?}");
    Ok(stream)
}

#[tokio::test]
async fn editors_start_their_servers_and_reach_them() -> Result<()> {
    let (world, server) = World::with_server().await?;
    for record in ["vscode-remote-ssh.txt", "jetbrains-gateway.txt"] {
        replay(&world, &server, &fixture(record)).await?;
    }
    world.ends(&server.task).await
}
