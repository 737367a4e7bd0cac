//! PURE: the modes that a person's terminal has, as SSH tells them, given to the one that stands for it here.

use russh::Pty;
use rustix::termios::{InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios};

/// What SSH says of a key that means nothing, and what the kernel says.
const NO_KEY: u32 = 255;
const DISABLED: u8 = 0;

/// What one of SSH's modes is here. Speed and parity are of wires.
enum Mode {
    Key(SpecialCodeIndex),
    Input(InputModes),
    Local(LocalModes),
    Output(OutputModes),
}

fn mode(asked: Pty) -> Option<Mode> {
    use Mode::{Input, Key, Local, Output};
    Some(match asked {
        Pty::VINTR => Key(SpecialCodeIndex::VINTR),
        Pty::VQUIT => Key(SpecialCodeIndex::VQUIT),
        Pty::VERASE => Key(SpecialCodeIndex::VERASE),
        Pty::VKILL => Key(SpecialCodeIndex::VKILL),
        Pty::VEOF => Key(SpecialCodeIndex::VEOF),
        Pty::VEOL => Key(SpecialCodeIndex::VEOL),
        Pty::VEOL2 => Key(SpecialCodeIndex::VEOL2),
        Pty::VSTART => Key(SpecialCodeIndex::VSTART),
        Pty::VSTOP => Key(SpecialCodeIndex::VSTOP),
        Pty::VSUSP => Key(SpecialCodeIndex::VSUSP),
        Pty::VREPRINT => Key(SpecialCodeIndex::VREPRINT),
        Pty::VWERASE => Key(SpecialCodeIndex::VWERASE),
        Pty::VLNEXT => Key(SpecialCodeIndex::VLNEXT),
        Pty::VDISCARD => Key(SpecialCodeIndex::VDISCARD),
        Pty::ISTRIP => Input(InputModes::ISTRIP),
        Pty::INLCR => Input(InputModes::INLCR),
        Pty::IGNCR => Input(InputModes::IGNCR),
        Pty::ICRNL => Input(InputModes::ICRNL),
        Pty::IXON => Input(InputModes::IXON),
        Pty::IXANY => Input(InputModes::IXANY),
        Pty::IXOFF => Input(InputModes::IXOFF),
        Pty::IMAXBEL => Input(InputModes::IMAXBEL),
        Pty::IUTF8 => Input(InputModes::IUTF8),
        Pty::ISIG => Local(LocalModes::ISIG),
        Pty::ICANON => Local(LocalModes::ICANON),
        Pty::ECHO => Local(LocalModes::ECHO),
        Pty::ECHOE => Local(LocalModes::ECHOE),
        Pty::ECHOK => Local(LocalModes::ECHOK),
        Pty::ECHONL => Local(LocalModes::ECHONL),
        Pty::NOFLSH => Local(LocalModes::NOFLSH),
        Pty::TOSTOP => Local(LocalModes::TOSTOP),
        Pty::IEXTEN => Local(LocalModes::IEXTEN),
        Pty::ECHOCTL => Local(LocalModes::ECHOCTL),
        Pty::ECHOKE => Local(LocalModes::ECHOKE),
        Pty::OPOST => Output(OutputModes::OPOST),
        Pty::ONLCR => Output(OutputModes::ONLCR),
        Pty::OCRNL => Output(OutputModes::OCRNL),
        Pty::ONOCR => Output(OutputModes::ONOCR),
        Pty::ONLRET => Output(OutputModes::ONLRET),
        _ => return None,
    })
}

/// Gives `terminal` the modes that are asked for; what is not mentioned stays.
pub(super) fn give(terminal: &mut Termios, asked: &[(Pty, u32)]) {
    for (name, value) in asked {
        match mode(*name) {
            Some(Mode::Key(key)) => {
                let code = if *value == NO_KEY { Some(DISABLED) } else { u8::try_from(*value).ok() };
                if let Some(code) = code {
                    terminal.special_codes[key] = code;
                }
            }
            Some(Mode::Input(flag)) => terminal.input_modes.set(flag, *value != 0),
            Some(Mode::Local(flag)) => terminal.local_modes.set(flag, *value != 0),
            Some(Mode::Output(flag)) => terminal.output_modes.set(flag, *value != 0),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::termios::tcgetattr;

    use super::*;
    use crate::pty;

    #[test]
    fn a_terminal_has_the_modes_of_the_persons_and_keeps_the_others() {
        let (_master, slave) = pty::open(None).unwrap();
        let usual = tcgetattr(&slave).unwrap();
        let given = |asked: &[(Pty, u32)]| {
            let mut terminal = usual.clone();
            give(&mut terminal, asked);
            terminal
        };
        let keys = given(&[(Pty::VERASE, 8), (Pty::VKILL, 255), (Pty::VINTR, 70_000)]);
        assert_eq!(keys.special_codes[SpecialCodeIndex::VERASE], 8);
        assert_eq!(keys.special_codes[SpecialCodeIndex::VKILL], DISABLED);
        assert_eq!(keys.special_codes[SpecialCodeIndex::VINTR], 3, "no key has such a code");
        let flags = given(&[(Pty::IUTF8, 1), (Pty::ECHO, 0), (Pty::ONLCR, 0), (Pty::TTY_OP_OSPEED, 9600)]);
        assert_eq!(flags.input_modes, usual.input_modes | InputModes::IUTF8);
        assert_eq!(flags.local_modes, usual.local_modes - LocalModes::ECHO);
        assert_eq!(flags.output_modes, usual.output_modes - OutputModes::ONLCR);
        assert_eq!(flags.control_modes, usual.control_modes);
    }
}
