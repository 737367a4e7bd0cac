//! The person's own terminal, which a program that dies leaves as it had it.

use std::{
    cell::Cell,
    env,
    io::{self, IsTerminal as _, Write as _},
};

use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};

use crate::{exit::Exit, failure::Failure};

/// Out of another screen.
const OUT: &[u8] = b"\x1b[?1049l";

/// The whole of it, with the cursor where it is: margins take it away.
const WHOLE: &[u8] = b"\x1b7\x1b[r\x1b[?69l\x1b8";

/// With a cursor, plain characters and wrapped lines, and without the modes in which keys, the mouse, the focus and what is pasted are
/// told differently.
const PLAIN: &[u8] =
    b"\x0f\x1b(B\x1b[0m\x1b[4l\x1b[?25h\x1b[?7h\x1b[?1l\x1b>\x1b[>4m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\
      \x1b[?1005l\x1b[?1006l\x1b[?2004l\x1b[?7727l";

/// The terminal as it was, and as it is again when this is dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    before: Option<Termios>,
    program: Cell<Program>,
}

/// What a program has done to the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// Nothing.
    Absent,
    /// It has its own screen there.
    Draws,
    /// It has left its screen, and said so on the person's.
    Left,
}

impl Terminal {
    /// Remembers how it is; nothing where there is none.
    pub(crate) fn remember() -> Self {
        Self { before: tcgetattr(io::stdin()).ok(), program: Cell::new(Program::Absent) }
    }

    /// A program begins to draw there.
    pub(crate) fn taken(&self) {
        self.program.set(Program::Draws);
    }

    /// Forgets what was typed while nobody was there to take it: what it would be an answer to now, its person has not seen.
    pub(crate) fn forget_typed(&self) {
        let _gone = tcflush(io::stdin(), QueueSelector::IFlush);
    }

    /// It has left its screen by itself.
    pub(crate) fn left(&self) {
        if self.program.get() == Program::Draws {
            self.program.set(Program::Left);
        }
    }

    /// Brings back what a program had not: also one that has left by itself may have been made to leave more than it knows.
    fn leave_screen(&self) {
        let mut out = io::stdout();
        if self.before.is_some() && out.is_terminal() {
            // A terminal that is gone needs none.
            let _gone = out.write_all(&self.program.get().afterwards()).and_then(|()| out.flush());
        }
    }

    /// What was typed to nobody is forgotten: half a command would be worse.
    fn restore(&self) {
        if let Some(state) = &self.before {
            let _gone = tcsetattr(io::stdin(), OptionalActions::Flush, state);
        }
    }
}

impl Program {
    /// PURE: what makes the terminal the person's again.
    fn afterwards(self) -> Vec<u8> {
        match self {
            Self::Absent => Vec::new(),
            Self::Draws => [OUT, WHOLE, PLAIN, b"\r\n"].concat(),
            // Out once more, and the cursor would go back to before its last words.
            Self::Left => [WHOLE, PLAIN].concat(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What an agent can set by what of its output is shown.
    const SET: [&str; 15] = [
        "\x0f",
        "\x1b(B",
        "\x1b[r",
        "\x1b[?69l",
        "\x1b[4l",
        "\x1b[?25h",
        "\x1b[?7h",
        "\x1b[?1l",
        "\x1b[>4m",
        "\x1b[?1000l",
        "\x1b[?1003l",
        "\x1b[?1004l",
        "\x1b[?1006l",
        "\x1b[?2004l",
        "\x1b[0m",
    ];

    #[test]
    fn nothing_stays_set_and_who_left_by_itself_is_not_left_again() {
        let written = |program: Program| String::from_utf8(program.afterwards()).unwrap();
        assert_eq!(written(Program::Absent), "");
        for program in [Program::Draws, Program::Left] {
            assert_eq!(SET.into_iter().find(|set| !written(program).contains(set)), None, "{program:?}");
        }
        assert!(written(Program::Draws).starts_with("\x1b[?1049l"));
        assert!(!written(Program::Left).contains("\x1b[?1049l"));
    }
}
