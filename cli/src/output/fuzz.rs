//! Fuzz target: an agent's bytes on a person's terminal.

use super::screen::Screen;

/// What is shown asks the terminal nothing, wherever the log was cut into pieces, and is shown as it is a second time.
pub fn screen(data: &[u8]) {
    let shown = Screen::terminal().feed(data);
    let mut pieces = Screen::terminal();
    let piecewise: Vec<u8> = data.iter().flat_map(|byte| pieces.feed(&[*byte])).collect();
    assert_eq!(shown, piecewise, "the borders of pieces must not matter");
    let mut whole = shown.clone();
    whole.extend(pieces.restore());
    if let Err(harm) = harmless(&whole) {
        panic!("{harm} passes in {:?}", whole.escape_ascii().to_string());
    }
    assert_eq!(Screen::terminal().feed(&shown), shown, "what is harmless passes unchanged");
    let plain = Screen::plain().feed(data);
    let text = std::str::from_utf8(&plain).unwrap_or_else(|error| panic!("plain text is UTF-8: {error}"));
    assert!(!text.chars().any(|c| c.is_control() && !"\n\t".contains(c)), "a control is in {text:?}");
}

/// A terminal that knows only what is harmless, written without a look at the filter.
fn harmless(shown: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(shown).map_err(|error| format!("what is no UTF-8 ({error})"))?;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => sequence(&mut rest)?,
            '\x07'..='\x0f' => {}
            c if c.is_control() => return Err(format!("the control {c:?}")),
            _ => {}
        }
    }
    Ok(())
}

fn sequence(rest: &mut std::str::Chars<'_>) -> Result<(), String> {
    match rest.next() {
        Some('[') => {
            let text = rest.as_str();
            let length = text.find(|c| ('\x40'..='\x7e').contains(&c)).ok_or("an open sequence")?;
            let (body, last) = (&text[..length], &text[length..=length]);
            *rest = text[length + 1..].chars();
            let numbers = body.trim_start_matches(['?', '!']).trim_end_matches(' ');
            let well_formed = numbers.chars().all(|c| c.is_ascii_digit() || ";:".contains(c));
            // Reports of device, status, window, parameters, modes, version and keyboard, all of which are answered; and the
            // modes in which keys, mouse, focus or paste are.
            let asks = "cntxi".contains(last)
                || (last == "p" && body != "!")
                || (last == "q" && !body.ends_with(' '))
                || ("uSs".contains(last) && !body.chars().all(|c| c.is_ascii_digit() || ";:".contains(c)))
                || ("hl".contains(last)
                    && numbers.split(';').any(|mode| matches!(mode.parse(), Ok(9 | 1000..=1016 | 2004 | 2031 | 2048))));
            if asks || !well_formed { Err(format!("the question CSI {body}{last}")) } else { Ok(()) }
        }
        Some(']') => {
            let text = rest.as_str();
            let length = text.find("\x1b\\").ok_or("an open string")?;
            let (body, kind) = (&text[..length], text[..length].split(';').next().unwrap_or_default());
            *rest = text[length + 2..].chars();
            let plain = !body.chars().any(char::is_control);
            if plain && ["0", "1", "2", "8"].contains(&kind) { Ok(()) } else { Err(format!("the string {body:?}")) }
        }
        Some('(' | ')' | '*' | '+' | '#') => rest.next().map(|_| ()).ok_or_else(|| "an open sequence".to_owned()),
        Some('7' | '8' | 'D' | 'E' | 'H' | 'M' | '=' | '>' | 'c') => Ok(()),
        other => Err(format!("the escape {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_kept_of_fuzzing_passes() {
        sculpt_fuzz::replay("screen", super::screen);
    }
}
