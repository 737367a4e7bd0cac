use alacritty_terminal::term::{TermMode, cell::Cell};

use super::*;

const SIZE: Size = Size { columns: 20, rows: 6 };

fn terminal(text: &str) -> Terminal {
    let mut terminal = Terminal::new(SIZE);
    terminal.feed(text.as_bytes());
    terminal
}

/// Cells of the screen and of what is above it.
fn grid(terminal: &Terminal) -> Vec<Cell> {
    let grid = terminal.term.grid();
    let top = -i32::try_from(grid.history_size()).unwrap();
    let rows = top..i32::from(terminal.size.rows);
    let cells = rows.flat_map(|line| grid[alacritty_terminal::index::Line(line)].into_iter());
    // The emulator remembers where a tab was; it looks like a space.
    cells.cloned().map(|cell| if cell.c == '\t' { Cell { c: ' ', ..cell } } else { cell }).collect()
}

#[track_caller]
fn assert_copied(text: &str) {
    let mut original = terminal(text);
    let before = grid(&original);
    let paint = original.repaint(true);
    assert!(grid(&original) == before, "repainting changes nothing");
    // The copy begins as something else altogether.
    let mut copy = terminal("\x1b[?1049h\x1b[3;5rrubbish\x1b[?2004h\x1b[41mx\x1b]0;cut o");
    assert!(copy.feed(&paint).is_empty(), "a repaint asks nothing");
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    assert!(grid(&copy) == before, "{}", shown(&paint));
    assert_eq!(copy.term.mode(), original.term.mode(), "{}", shown(&paint));
    assert_eq!(copy.term.cursor_style(), original.term.cursor_style());
    let (theirs, ours) = (&copy.term.grid().cursor, &original.term.grid().cursor);
    assert_eq!((theirs.point, theirs.input_needs_wrap), (ours.point, ours.input_needs_wrap), "{}", shown(&paint));
    assert_eq!(theirs.template, ours.template);
    assert_eq!(theirs.charsets, ours.charsets);
    assert_eq!(copy.heard.lock().unwrap().title, original.heard.lock().unwrap().title);
    // What comes next has the same effect on both: scroll region, saved modes and all.
    let next = b"\n\n\nnext\x1b[A\x1b[L\x1b[31mz";
    original.feed(next);
    copy.feed(next);
    assert!(grid(&copy) == grid(&original), "after more output: {}", shown(&paint));
}

#[test]
fn text_is_copied() {
    assert_copied("");
    assert_copied("one\r\ntwo\r\n  three");
    assert_copied("a line that is longer than the screen is wide and wraps twice, so there");
    assert_copied("twenty characters ok");
    assert_copied("twenty characters ok\r\nnext");
    assert_copied("w\u{4f60}\u{597d} e\u{301} \u{1f600}\r\n0123456789012345678\u{4f60}x");
    assert_copied("a\tb\tc");
}

#[test]
fn history_is_copied() {
    let text: String = (0..50).map(|n| format!("line {n}\r\n")).collect();
    assert_copied(&text);
    assert_copied(&format!("{text}\x1b[2J\x1b[Hcleared"));
}

#[test]
fn colours_and_attributes_are_copied() {
    assert_copied("\x1b[1;31mbold red\x1b[0m \x1b[38;5;200mindexed\x1b[m\r\n\x1b[48;2;1;2;3mrgb\x1b[m");
    assert_copied("\x1b[3;4;9mx\x1b[0;2;7my\x1b[0;8mz\x1b[0;4:3;58:2::1:2:3mcurl\x1b[0;94;103mbright\x1b[m");
    assert_copied("\x1b[44mbackground\x1b[K\r\nto the end\x1b[K\x1b[32m");
    assert_copied("\x1b]8;id=1;http://a.example/\x1b\\link\x1b]8;;\x1b\\ plain \x1b]2;a title\x07");
}

#[test]
fn cursor_and_modes_are_copied() {
    assert_copied("x\x1b[3;7H\x1b[5 q");
    assert_copied("\x1b[?25l\x1b[?2004h\x1b[?1h\x1b=\x1b[?1002h\x1b[?1006h\x1b[?1004h");
    assert_copied("\x1b[?7l\x1b[?1003h\x1b[?1007l\x1b[3 q");
    assert_copied("1\r\n2\r\n3\r\n4\r\n5\x1b[2;4r\x1b[3;3H");
    assert_copied("1\r\n2\r\n3\r\n4\r\n5\x1b[2;4r\x1b[?6h\x1b[2;3H");
    assert_copied("\x1b(0lqqk");
    assert_copied("\x1b[4h");
}

#[test]
fn blanks_before_the_cursor_are_written() {
    let mut original = terminal("above  \r\nName? ");
    let painted = original.repaint(true);
    let shown = String::from_utf8_lossy(&painted);
    assert!(shown.contains("above\r\nName? \r\n"), "{shown:?}");
}

#[test]
fn the_alternate_screen_is_copied_and_left_again() {
    assert_copied("primary\r\nscreen\x1b[?1049h\x1b[2;2Halternate\x1b[31m\x1b[2;4r");
    let mut original = terminal("primary\r\nscreen \x1b[?1049h\x1b[2;2Halternate");
    let mut copy = terminal("");
    copy.feed(&original.repaint(true));
    for terminal in [&mut original, &mut copy] {
        terminal.feed(b"\x1b[?1049l");
    }
    assert!(grid(&copy) == grid(&original));
    assert_eq!(copy.term.grid().cursor.point, original.term.grid().cursor.point);
    assert!(!copy.term.mode().contains(TermMode::ALT_SCREEN));
}

#[test]
fn questions_are_answered() {
    let mut terminal = terminal("ab\r\nc");
    assert!(terminal.feed(b"\x1b[c").starts_with(b"\x1b[?"));
    assert_eq!(terminal.feed(b"\x1b[6n"), b"\x1b[2;2R");
    assert_eq!(terminal.feed(b"\x1b[18t"), b"\x1b[8;6;20t");
    assert!(terminal.feed(b"\x1b]11;?\x07").starts_with(b"\x1b]11;rgb:0000/0000/0000"));
    terminal.resize(Size { columns: 30, rows: 7 });
    assert_eq!(terminal.feed(b"\x1b[18t"), b"\x1b[8;7;30t");
    assert!(terminal.feed(b"no question").is_empty());
}

#[test]
fn no_output_takes_memory_without_bound() {
    let mut terminal = terminal("a");
    let marks = "\u{301}".repeat(64 << 10);
    for _ in 0..(PRUNE_EVERY / marks.len() + 1) {
        terminal.feed(marks.as_bytes());
    }
    let held: usize = grid(&terminal).iter().filter_map(|cell| cell.zerowidth().map(<[char]>::len)).sum();
    assert!(held <= marks.len(), "{held}");
}
