//! Running the user's own ssh.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    process::{Command, Stdio},
};

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::{
    access::Access,
    ending::{Ending, ending},
    leash::leashed,
};
use crate::{exit::Exit, failure::Failure};

/// What ssh runs here once it is let in and all its forwards stand, so that we hear of it; and what that says.
const READY: [&str; 4] = ["-o", "PermitLocalCommand=yes", "-o", "LocalCommand=/bin/sh -c 'echo sculpt-is-in >&2'"];
const IS_IN: &str = "sculpt-is-in";

/// How much is kept of what ssh says: so many lines, each of so many bytes.
const LINES: usize = 16;
const LONGEST: u64 = 4096;

/// How one connection went.
#[derive(Debug)]
pub(crate) struct Sat {
    pub(crate) ending: Ending,
    /// The other side let it in.
    pub(crate) was_in: bool,
}

/// The name of a task's host, for ssh.
pub(crate) fn host(number: u64) -> String {
    format!("sculpt.{number}")
}

/// The arguments of ssh for this access: options, and what is to run there, which nothing takes for an option.
pub(crate) fn ssh(access: &Access, options: &[&str], remote: Option<OsString>) -> Vec<OsString> {
    let config = [OsString::from("-F"), access.config().into()];
    let options = options.iter().map(OsString::from);
    config.into_iter().chain(options).chain(["--".into(), access.alias().into()]).chain(remote).collect()
}

/// Words as one line for a shell over there, which makes the same words of it.
pub(crate) fn remote_line(words: &[OsString]) -> Result<Option<OsString>, shlex::QuoteError> {
    if words.is_empty() {
        return Ok(None);
    }
    let line = shlex::bytes::try_join(words.iter().map(|word| word.as_bytes()))?;
    Ok(Some(OsString::from_vec(line)))
}

/// A program of OpenSSH. It runs its proxy command by the person's shell, and that of an account may run nothing.
pub(crate) fn openssh(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("SHELL", "/bin/sh");
    command
}

/// Runs ssh on this process's terminal to its end; `hear` gets each line that it says, as it says it. Killed when dropped, and when this
/// process is.
pub(crate) async fn sit(
    arguments: &[OsString],
    attempted: &str,
    mut hear: impl FnMut(Heard<'_>),
) -> Result<Sat, Failure> {
    let mut command = leashed("ssh").map_err(|error| no_program("ssh", &error, attempted))?;
    command.args(READY).args(arguments).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| no_program("ssh", &error, attempted))?;
    let mut said = VecDeque::with_capacity(LINES);
    let mut was_in = false;
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = BufReader::new(stderr);
        while let Some(line) = line(&mut stderr).await {
            if line == IS_IN {
                was_in = true;
                hear(Heard::IsIn);
                continue;
            }
            hear(Heard::Line(&line));
            if said.len() == LINES {
                said.pop_front();
            }
            said.push_back(line);
        }
    }
    let status = child.wait().await;
    let status =
        status.map_err(|error| Failure::new(Exit::Failed, attempted, format!("ssh cannot be waited for: {error}")))?;
    Ok(Sat { ending: ending(status.code(), said.make_contiguous()), was_in })
}

/// What is heard of ssh while it runs.
pub(crate) enum Heard<'a> {
    /// It was let in, and its forwards stand.
    IsIn,
    /// It says this.
    Line(&'a str),
}

/// The next line, or what there is of one that is too long.
async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    match from.take(LONGEST).read_until(b'\n', &mut line).await {
        Ok(1..) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
        Ok(0) | Err(_) => None,
    }
}

/// A program of OpenSSH that cannot be run.
pub(crate) fn no_program(program: &str, error: &io::Error, attempted: &str) -> Failure {
    let failure = Failure::new(Exit::Failed, attempted, format!("{program} cannot be run: {error}"));
    match error.kind() {
        io::ErrorKind::NotFound => failure.next("install OpenSSH's client: apt install openssh-client"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_makes_the_same_words_of_a_line() {
        for words in
            [&["ls", "-l", "a b"][..], &["A=b", "it's", "$HOME", "`id`", "*", "~", "!x", "", "a\nb", "ü", "--", "-x"]]
        {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let line = remote_line(&words).unwrap().unwrap();
            let mut print = OsString::from("printf '%s\\0' ");
            print.push(line);
            let output = Command::new("sh").arg("-c").arg(print).output().unwrap();
            let made: Vec<&[u8]> = output.stdout.split(|byte| *byte == 0).collect();
            let expected: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).chain([&b""[..]]).collect();
            assert_eq!(made, expected);
        }
        assert_eq!(remote_line(&[]).unwrap(), None);
    }

    #[tokio::test]
    async fn an_endless_line_is_told_in_pieces() {
        let mut from = BufReader::new(&[b'x'; 5000][..]);
        assert_eq!(line(&mut from).await.unwrap().len(), 4096);
        assert_eq!(line(&mut from).await.unwrap().len(), 904);
        assert_eq!(line(&mut from).await, None);
    }
}
