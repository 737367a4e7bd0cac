//! The keys that steer a replay, and the terminal's settings meanwhile.

use std::io;

use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt as _, Stdin};

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// To stop for a while, or to go on.
    Pause,
    /// No more.
    End,
}

impl Key {
    fn of(byte: u8) -> Option<Self> {
        match byte {
            b' ' => Some(Self::Pause),
            b'q' | CTRL_C => Some(Self::End),
            _ => None,
        }
    }
}

/// As it comes from a terminal that makes no signal of it.
const CTRL_C: u8 = 3;

/// Where keys come from; none ever come without one.
pub(super) struct Keyboard(Option<Stdin>);

impl Keyboard {
    pub(super) fn open(there: bool) -> Self {
        Self(there.then(tokio::io::stdin))
    }

    /// The next key that means something.
    pub(super) async fn next(&mut self) -> Key {
        let mut byte = [0];
        while let Some(stdin) = &mut self.0 {
            match stdin.read(&mut byte).await {
                Ok(0) | Err(_) => self.0 = None,
                Ok(_) => {
                    if let Some(key) = Key::of(byte[0]) {
                        return key;
                    }
                }
            }
        }
        std::future::pending().await
    }
}

/// The terminal's settings as they were, for when this is dropped.
pub(super) struct Settings(Termios);

impl Settings {
    /// Lets bytes through as they were recorded and, with `keyed`, each key at once and unseen.
    pub(super) fn change(keyed: bool) -> io::Result<Self> {
        let out = io::stdout();
        let before = tcgetattr(&out)?;
        let mut during = before.clone();
        if keyed {
            during.make_raw();
        } else {
            during.output_modes.remove(OutputModes::OPOST);
        }
        tcsetattr(&out, OptionalActions::Drain, &during)?;
        Ok(Self(before))
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // Keys that nobody read are not for the shell. Without the terminal there is nothing to give back.
        let _ = tcsetattr(io::stdout(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_little() {
        for (byte, key) in [
            (b' ', Some(Key::Pause)),
            (b'q', Some(Key::End)),
            (3, Some(Key::End)),
            (b'Q', None),
            (b'\r', None),
            (0x1b, None),
        ] {
            assert_eq!(Key::of(byte), key, "{byte:02x}");
        }
    }
}
