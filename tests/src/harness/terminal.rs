//! A person at a terminal.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

use super::{DEADLINE, Stack, within};

/// How long keys may take to leave before they are typed again.
const NOTICED: Duration = Duration::from_secs(5);

/// A program that is about to be started in a terminal.
#[derive(Debug)]
#[must_use = "nothing runs before `sit`"]
pub struct Desk {
    command: Command,
    size: (u16, u16),
}

/// A program in a terminal of its own, with somebody who types and reads.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: watch::Sender<Vec<u8>>,
}

impl Stack {
    /// `sculpt ARGUMENTS` in a terminal.
    pub fn terminal(&self, arguments: &[&str]) -> Result<Terminal> {
        self.desk("sculpt", arguments).sit()
    }

    /// Any program, as in the person's shell, in a terminal of the usual kind and size.
    pub fn desk<A: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = A>) -> Desk {
        let program = self.command(program);
        // It makes the terminal on stdin the controlling one, which no safe code of ours could.
        let mut command = self.command("setsid");
        command.args(["--ctty", "--wait"]).arg(program.as_std().get_program()).args(arguments);
        let known = program.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(known).env("TERM", "xterm");
        Desk { command, size: (100, 30) }
    }
}

impl Desk {
    /// With one more variable in the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// With a terminal of so many columns and rows.
    pub fn size(mut self, columns: u16, rows: u16) -> Self {
        self.size = (columns, rows);
        self
    }

    /// Starts it.
    pub fn sit(self) -> Result<Terminal> {
        let Self { mut command, size } = self;
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context("open a terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        resize(&master, size)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let (stdin, stdout): (Stdio, Stdio) = (slave.try_clone()?.into(), slave.try_clone()?.into());
        let child = command.stdin(stdin).stdout(stdout).stderr(slave).kill_on_drop(true).spawn().context("start it")?;
        // The command holds the slave's descriptors, and the terminal ends only when nobody does.
        drop(command);
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone()?;
        let screen = watch::Sender::new(Vec::new());
        let shown = screen.clone();
        // Ends with the program, when reading fails.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut piece) {
                shown.send_modify(|screen| screen.extend_from_slice(&piece[..read]));
            }
        });
        Ok(Terminal { child, keyboard, screen })
    }
}

impl Terminal {
    /// Types `keys`.
    pub fn types(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("type")
    }

    /// Draws the window larger or smaller.
    pub fn resizes(&self, columns: u16, rows: u16) -> Result<()> {
        resize(&self.keyboard, (columns, rows))
    }

    /// Waits until `text` has been shown.
    pub async fn shows(&self, text: &str) -> Result<()> {
        let mut screen = self.screen.subscribe();
        let what = format!("the terminal to show {text:?}");
        let shown = within(DEADLINE, &what, async {
            screen.wait_for(|screen| holds(screen, text)).await.context("the screen is there")?;
            Ok(())
        });
        shown.await.with_context(|| format!("it shows {:?}", self.screen()))
    }

    /// Whether `text` has been shown.
    pub fn has_shown(&self, text: &str) -> bool {
        holds(&self.screen.borrow(), text)
    }

    /// What was shown so far does not count any more.
    pub fn forgets(&self) {
        self.screen.send_modify(Vec::clear);
    }

    /// Waits for the end and gives the exit code.
    pub async fn ends(mut self) -> Result<i32> {
        let status =
            within(DEADLINE, "the program in the terminal to end", async { Ok(self.child.wait().await?) }).await;
        let status = status.with_context(|| format!("it shows {:?}", self.screen()))?;
        Ok(status.code().unwrap_or(-1))
    }

    /// Leaves tmux as people do, and gives the exit code. Keys that come at once after others tmux takes for pasted ones, which
    /// have no meaning to it: then they are typed again.
    pub async fn leaves(mut self) -> Result<i32> {
        let left = within(DEADLINE, "the program in the terminal to be left", async {
            loop {
                self.types("\u{2}d")?;
                if let Ok(status) = timeout(NOTICED, self.child.wait()).await {
                    return Ok(status?);
                }
            }
        });
        let left = left.await;
        let status = left.with_context(|| format!("it shows {:?}", self.screen()))?;
        Ok(status.code().unwrap_or(-1))
    }

    /// All that was shown.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.borrow()).into_owned()
    }
}

fn holds(screen: &[u8], text: &str) -> bool {
    memchr::memmem::find(screen, text.as_bytes()).is_some()
}

fn resize(terminal: impl AsFd, (columns, rows): (u16, u16)) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).context("give the terminal a size")
}
