//! A patch on a pipe as it is; on a terminal through the user's pager, coloured, with control sequences made visible.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    process::Stdio,
};

use tokio::{
    io::{AsyncWriteExt as _, Stdout},
    process::{Child, ChildStdin, Command},
};

use crate::{failure::Failure, git::program, output::colours};

/// Where the patch goes.
pub(super) enum Output {
    Pipe(Stdout),
    Terminal { out: Stdout, pending: Vec<u8> },
    Pager { child: Child, stdin: ChildStdin, pending: Vec<u8> },
}

impl Output {
    /// The user's pager when standard output is a terminal.
    pub(super) async fn open() -> Result<Self, Failure> {
        let out = tokio::io::stdout();
        if !io::stdout().is_terminal() {
            return Ok(Self::Pipe(out));
        }
        // Git knows GIT_PAGER, core.pager and PAGER, in the user's order.
        let pager = program::text(Path::new("."), &["var", "GIT_PAGER"]).await.unwrap_or_default();
        if pager.is_empty() || pager == "cat" {
            return Ok(Self::Terminal { out, pending: Vec::new() });
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(&pager).stdin(Stdio::piped());
        for (name, value) in [("LESS", "FRX"), ("LV", "-c")] {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        let spawned = command.spawn().ok().and_then(|mut child| child.stdin.take().map(|stdin| (child, stdin)));
        Ok(match spawned {
            Some((child, stdin)) => Self::Pager { child, stdin, pending: Vec::new() },
            None => Self::Terminal { out, pending: Vec::new() },
        })
    }

    /// False when the reader wants no more.
    pub(super) async fn write(&mut self, piece: &[u8]) -> Result<bool, Failure> {
        match self {
            Self::Pipe(out) => put(out, piece).await.map(|()| true),
            Self::Terminal { out, pending } => put(out, &coloured(pending, piece)).await.map(|()| true),
            Self::Pager { stdin, pending, .. } => Ok(stdin.write_all(&coloured(pending, piece)).await.is_ok()),
        }
    }

    /// Writes the rest and waits for the pager.
    pub(super) async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Pipe(_) => Ok(()),
            Self::Terminal { mut out, mut pending } => {
                let rest = if pending.is_empty() { Vec::new() } else { coloured(&mut pending, b"\n") };
                put(&mut out, &rest).await
            }
            Self::Pager { mut child, mut stdin, mut pending } => {
                if !pending.is_empty() {
                    let _ = stdin.write_all(&coloured(&mut pending, b"\n")).await;
                }
                drop(stdin);
                // The pager owns Ctrl-C while it runs.
                loop {
                    tokio::select! {
                        _ = child.wait() => return Ok(()),
                        _ = tokio::signal::ctrl_c() => {}
                    }
                }
            }
        }
    }
}

async fn put(out: &mut Stdout, bytes: &[u8]) -> Result<(), Failure> {
    out.write_all(bytes).await.map_err(Failure::output)?;
    out.flush().await.map_err(Failure::output)
}

/// The complete lines of what came so far, coloured; the rest stays pending.
fn coloured(pending: &mut Vec<u8>, piece: &[u8]) -> Vec<u8> {
    let colours = colours();
    pending.extend_from_slice(piece);
    let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
    let rest = pending.split_off(end + 1);
    let lines = std::mem::replace(pending, rest);
    let mut shown = Vec::with_capacity(lines.len() * 5 / 4);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let colour: &[u8] = match line {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => b"1",
            [b'+', ..] => b"32",
            [b'-', ..] => b"31",
            [b'@', b'@', ..] => b"36",
            _ if line.starts_with(b"diff ") || line.starts_with(b"index ") => b"1",
            _ => b"",
        };
        let painted = colours && !colour.is_empty();
        if painted {
            shown.extend_from_slice(&[b"\x1b[", colour, b"m"].concat());
        }
        visible(&mut shown, line);
        if painted {
            shown.extend_from_slice(b"\x1b[0m");
        }
        shown.push(b'\n');
    }
    shown
}

/// File content with its control characters in caret notation: it must not steer the terminal.
fn visible(shown: &mut Vec<u8>, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    for c in text.chars() {
        match c {
            '\t' => shown.push(b'\t'),
            c if c.is_ascii_control() => shown.extend_from_slice(&[b'^', (c as u8) ^ 0x40]),
            c if c.is_control() => shown.push(b'?'),
            c => shown.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_cannot_steer_the_terminal() {
        let mut pending = Vec::new();
        let mut shown = coloured(&mut pending, b"+evil \x1b]52;c;aGk=\x07");
        shown.extend(coloured(&mut pending, b" end\r\n x\n"));
        assert_eq!(String::from_utf8(shown).unwrap(), "+evil ^[]52;c;aGk=^G end^M\n x\n");
    }
}
