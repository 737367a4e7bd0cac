//! A terminal, with somebody before it.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionread,
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{InputModes, LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize},
};

/// A terminal, with somebody before it.
pub(crate) struct Terminal {
    keys: File,
    programs: OwnedFd,
    seen: Vec<u8>,
}

impl Terminal {
    pub(crate) fn open(columns: u16, rows: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let programs = ioctl_tiocgptpeer(&master, flags).unwrap();
        tcsetwinsize(&master, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        Self { keys: master.into(), programs, seen: Vec::new() }
    }

    pub(crate) fn spawn(&self, mut command: Command) -> Child {
        let end = || self.programs.try_clone().unwrap();
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    pub(crate) fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
    }

    /// Waits until `text` was shown since this was last asked for, and gives all that was.
    pub(crate) fn shows(&mut self, text: &str) -> String {
        let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
        let mut buffer = [0; 4096];
        loop {
            let shown = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = shown.find(text) {
                self.seen.drain(..at + text.len());
                return shown;
            }
            let ready = poll(&mut [PollFd::new(&self.keys, PollFlags::IN)], Some(&patience)).unwrap();
            assert_eq!(ready, 1, "{text:?} is not in {shown:?}");
            let length = self.keys.read(&mut buffer).unwrap();
            self.seen.extend_from_slice(&buffer[..length]);
        }
    }

    /// How much was typed that no program has read.
    pub(crate) fn unread(&self) -> u64 {
        ioctl_fionread(&self.programs).unwrap()
    }

    pub(crate) fn settings(&self) -> (InputModes, OutputModes, LocalModes) {
        let settings = tcgetattr(&self.programs).unwrap();
        (settings.input_modes, settings.output_modes, settings.local_modes)
    }
}
