//! The person's own terminal, which a program that dies leaves as it had it.

use std::{
    cell::Cell,
    env,
    io::{self, IsTerminal as _, Write as _},
};

use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};

use crate::{exit::Exit, failure::Failure};

/// Out of another screen, with a cursor, and without the modes in which keys, the mouse and what is pasted are told
/// differently.
const PLAIN: &[u8] =
    b"\x1b[?1049l\x1b[?25h\x1b[?1l\x1b>\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[0m\r\n";

/// The terminal as it was, and as it is again when this is dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    before: Option<Termios>,
    /// A program has its own screen there.
    taken: Cell<bool>,
}

impl Terminal {
    /// Remembers how it is; nothing where there is none.
    pub(crate) fn remember() -> Self {
        Self { before: tcgetattr(io::stdin()).ok(), taken: Cell::new(false) }
    }

    /// A program begins to draw there.
    pub(crate) fn taken(&self) {
        self.taken.set(true);
    }

    /// Forgets what was typed while nobody was there to take it: what it would be an answer to now, its person has not seen.
    pub(crate) fn forget_typed(&self) {
        let _gone = tcflush(io::stdin(), QueueSelector::IFlush);
    }

    /// It has left its screen by itself.
    pub(crate) fn left(&self) {
        self.taken.set(false);
    }

    /// Brings the screen back that a program had not left.
    fn leave_screen(&self) {
        let mut out = io::stdout();
        if self.taken.get() && self.before.is_some() && out.is_terminal() {
            // A terminal that is gone needs none.
            let _gone = out.write_all(PLAIN).and_then(|()| out.flush());
        }
    }

    /// What was typed to nobody is forgotten: half a command would be worse.
    fn restore(&self) {
        if let Some(state) = &self.before {
            let _gone = tcsetattr(io::stdin(), OptionalActions::Flush, state);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.leave_screen();
        self.restore();
    }
}

/// tmux needs a terminal that it knows.
pub(crate) fn needed(attempted: &str) -> Result<(), Failure> {
    let refuse = |why, next: &str| Err(Failure::new(Exit::BadInput, attempted, why).next(next));
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return refuse("this is not a terminal", "`sculpt logs -f` needs none");
    }
    if env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
        return refuse("TERM is unset or `dumb`, which tmux refuses", "export TERM=xterm-256color");
    }
    Ok(())
}
