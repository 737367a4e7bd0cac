//! A person at a terminal.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::process::{Child, Command};

use super::{DEADLINE, Stack, eventually, within};

/// A program in a terminal of its own, with somebody who types and reads.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Stack {
    /// `sculpt ARGUMENTS` in a terminal.
    pub fn terminal(&self, arguments: &[&str]) -> Result<Terminal> {
        let sculpt = self.command("sculpt");
        // It makes the terminal on stdin the controlling one, which no safe code of ours could.
        let mut command = self.command("setsid");
        command.args(["--ctty", "--wait"]).arg(sculpt.as_std().get_program()).args(arguments);
        let known = sculpt.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(known).env("TERM", "xterm");
        Terminal::start(command)
    }
}

impl Terminal {
    fn start(mut command: Command) -> Result<Self> {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context("open a terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 })?;
        let name = ptsname(&master, Vec::new())?;
        let slave = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let (stdin, stdout): (Stdio, Stdio) = (slave.try_clone()?.into(), slave.try_clone()?.into());
        let child = command.stdin(stdin).stdout(stdout).stderr(slave).kill_on_drop(true).spawn().context("start it")?;
        // The command holds the slave's descriptors, and the terminal ends only when nobody does.
        drop(command);
        let keyboard = File::from(master);
        let mut output = keyboard.try_clone()?;
        let screen = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&screen);
        // Ends with the program, when reading fails.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut piece) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..read]);
            }
        });
        Ok(Self { child, keyboard, screen })
    }

    /// Types `keys`.
    pub fn types(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("type")
    }

    /// Waits until `text` has been shown.
    pub async fn shows(&self, text: &str) -> Result<()> {
        let what = format!("the terminal to show {text:?}");
        let shown = eventually(&what, || Ok(self.screen().contains(text).then_some(()))).await;
        shown.with_context(|| format!("it shows {:?}", self.screen()))
    }

    /// Waits for the end and gives the exit code.
    pub async fn ends(mut self) -> Result<i32> {
        let status =
            within(DEADLINE, "the program in the terminal to end", async { Ok(self.child.wait().await?) }).await;
        let status = status.with_context(|| format!("it shows {:?}", self.screen()))?;
        Ok(status.code().unwrap_or(-1))
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}
