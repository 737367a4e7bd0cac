//! PURE: what a terminal says by itself, to what programs ask it or when a person turns to it. It goes to the program in the
//! same stream as what is typed, and nothing marks it. So it is known by its form, and in doubt it was typed: an answer is
//! whole in the piece in which it begins, is short, and holds nothing that could hand in a line.

/// Longest answer.
const LONGEST: usize = 1 << 10;

/// Longest parameters of a sequence.
pub(crate) const PARAMETERS: usize = 64;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;

/// Length of the answer that `data` begins with; 0: it does not begin with one.
pub(crate) fn answer(data: &[u8]) -> usize {
    match data {
        // Turned to, and away from.
        [ESCAPE, b'[', b'I' | b'O', ..] => 3,
        // Where the cursor is, what the terminal is, and which modes it has: no key sends a `?` or `>`, nor these ends.
        [ESCAPE, b'[', rest @ ..] => {
            let middle = rest.iter().take_while(|byte| (0x20..=0x3f).contains(*byte)).count();
            let private = rest.first().is_some_and(|first| b"?>".contains(first));
            match rest.get(middle) {
                _ if middle > PARAMETERS => 0,
                Some(b'c' | b'y' | b't' | b'n' | b'u') if private => middle + 3,
                Some(b'R') if rest[..middle].contains(&b';') && !rest.starts_with(b"1;") => middle + 3,
                _ => 0,
            }
        }
        [ESCAPE, b']' | b'P' | b'_', ..] => string(data),
        _ => 0,
    }
}

/// Length of the answer in form of a string that `data` begins with: colours, capabilities, names, and whether pictures can be
/// shown. 0: it does not begin with one.
pub(crate) fn string(data: &[u8]) -> usize {
    let data = &data[..data.len().min(LONGEST)];
    let [ESCAPE, opens, rest @ ..] = data else { return 0 };
    let printable = rest.iter().take_while(|byte| (0x20..=0x7e).contains(*byte)).count();
    let (body, end) = rest.split_at(printable);
    let end = match end {
        [BELL, ..] => 1,
        [ESCAPE, b'\\', ..] => 2,
        _ => return 0,
    };
    let said = match opens {
        b']' => colour(body),
        b'P' => device(body),
        b'_' => body.starts_with(b"Gi="),
        _ => false,
    };
    if said { 2 + printable + end } else { 0 }
}

/// Whether that is what a terminal says of a colour, as `11;rgb:0000/0000/0000` or `4;7;rgb:ffff/ffff/ffff`.
fn colour(body: &[u8]) -> bool {
    let number = body.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    let (number, value) = body.split_at(number);
    let value = value.strip_prefix(b"rgb:").or_else(|| value.strip_prefix(b"rgba:"));
    number.ends_with(b";") && value.is_some_and(|value| value.iter().all(|byte| is_hex(*byte) || *byte == b'/'))
}

/// Whether that is what a terminal says of its name and number, of a capability, or of a setting.
fn device(body: &[u8]) -> bool {
    match body {
        [b'>', b'|', ..] => true,
        [b'!', b'|', number @ ..] => number.iter().all(|byte| is_hex(*byte)),
        [b'0' | b'1', b'+', b'r', names @ ..] => names.iter().all(|byte| is_hex(*byte) || b"=;".contains(byte)),
        [b'0' | b'1', b'$', b'r', setting @ ..] => {
            setting.iter().all(|byte| byte.is_ascii_digit() || b";: \"'$*,|mpqrstvxyz".contains(byte))
        }
        _ => false,
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_has_the_form_of_one() {
        let long = |length: usize| [b"\x1bP>|", &vec![b'x'; length][..], b"\x1b\\"].concat();
        let parameters = |count: usize| [b"\x1b[?", &vec![b'1'; count - 1][..], b"c"].concat();
        for (data, length) in [
            (&b"\x1b[I"[..], 3),
            (b"\x1b[Ols", 3),
            (b"\x1b[?1;2c", 7),
            (b"\x1b[>0;276;0c", 11),
            (b"\x1b[24;80R", 8),
            (b"\x1b[1;5R", 0),
            (b"\x1b[A", 0),
            (&parameters(PARAMETERS), PARAMETERS + 3),
            (&parameters(PARAMETERS + 1), 0),
            (b"\x1b]11;rgb:0000/0000/0000\x07", 24),
            (b"\x1b]4;7;rgba:ffff/ffff/ffff/ffff\x1b\\", 32),
            (b"\x1bP>|XTerm(370)\x1b\\", 16),
            (b"\x1bP!|00000000\x1b\\", 14),
            (b"\x1bP1+r544e=787465726d\x1b\\", 22),
            (b"\x1bP1$r2 q\x1b\\", 10),
            (b"\x1b_Gi=31;OK\x1b\\", 12),
            // Not ended, ended elsewhere, or with what would hand in a line.
            (b"\x1b]", 0),
            (b"\x1b]11;rgb:0000", 0),
            (b"\x1b]11;rgb:0000\x1b", 0),
            (b"\x1b]11;rgb:\r\x07", 0),
            (b"\x1bP>|a\x1bb\x1b\\", 0),
            (b"\x1bP>|\xc3\xa4\x1b\\", 0),
            // Keys, with what looks as if it ended a string.
            (b"\x1b]\rrm -rf x\r\x07", 0),
            (b"\x1b]rm -rf x\x07", 0),
            (b"\x1b]1;reboot\x1b\\", 0),
            (b"\x1bP1$r;reboot\x1b\\", 0),
            (b"\x1b_x\x07", 0),
            (b"\x1b^x\x1b\\", 0),
            (b"\x1bXx\x1b\\", 0),
            (&long(LONGEST - 6), LONGEST),
            (&long(LONGEST - 5), 0),
        ] {
            assert_eq!(answer(data), length, "{}", data.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn no_answer_hands_in_a_line(data in prop::collection::vec(prop_oneof![
            Just(b"\x1b]".to_vec()), Just(b"\x1bP>|".to_vec()), Just(b"\x1b_Gi=".to_vec()), Just(b"\x1b[?".to_vec()),
            Just(b"10;rgb:".to_vec()), Just(b"\x07".to_vec()), Just(b"\x1b\\".to_vec()), Just(b"\r".to_vec()),
            any::<u8>().prop_map(|byte| vec![byte]),
        ], 0..40)) {
            let data = data.concat();
            let length = answer(&data);
            prop_assert!(length <= LONGEST.min(data.len()));
            let controls = data[..length].iter().filter(|byte| !(0x20..=0x7e).contains(*byte) && **byte != ESCAPE);
            prop_assert!(controls.eq(data[..length].last().filter(|last| **last == BELL)));
        }
    }
}
