//! Writes out a terminal so that another one shows the same: what a new or late view gets first.

use std::io::Write as _;

use alacritty_terminal::{
    event::EventListener,
    grid::{Dimensions as _, Grid, Row},
    index::{Column, Line},
    term::{
        Term, TermMode,
        cell::{Cell, Flags},
    },
    vte::ansi::{CharsetIndex, Color, CursorShape, Handler as _, NamedColor, NamedPrivateMode, StandardCharset},
};

/// Ends whatever sequence was cut off, leaves the alternate screen and resets everything.
pub(super) const CLEAR: &[u8] = b"\x18\x1b[?1049l\x1bc";

/// The bytes that turn any terminal of the same size into a copy of `term`.
pub(super) fn repaint<T: EventListener>(term: &mut Term<T>, title: &str, history: bool) -> Vec<u8> {
    let mut out = CLEAR.to_vec();
    // An empty one too: the sequence that was cut off may have been a title.
    put(&mut out, format_args!("\x1b]2;{title}\x1b\\"));
    let region = scroll_region(term);
    if term.mode().contains(TermMode::ALT_SCREEN) {
        // The emulator clears the alternate screen whenever it is entered, so it is set aside and put back.
        let alternate = term.grid().clone();
        term.swap_alt();
        lines(&mut out, term.grid(), history);
        cursor(&mut out, term.grid());
        term.swap_alt();
        *term.grid_mut() = alternate;
        out.extend_from_slice(b"\x1b[?1049h\x1b[H\x1b[m");
        lines(&mut out, term.grid(), false);
    } else {
        lines(&mut out, term.grid(), history);
    }
    if region != (0, term.screen_lines()) {
        put(&mut out, format_args!("\x1b[{};{}r", region.0 + 1, region.1));
    }
    let origin = term.mode().contains(TermMode::ORIGIN);
    cursor(&mut out, term.grid());
    modes(&mut out, term, origin, region.0);
    out
}

/// First line and the one after the last of the scroll region. The emulator keeps it to itself, but shows it in origin
/// mode: there the cursor cannot leave it.
fn scroll_region<T: EventListener>(term: &mut Term<T>) -> (usize, usize) {
    let cursor = term.grid().cursor.clone();
    let origin = term.mode().contains(TermMode::ORIGIN);
    term.set_private_mode(NamedPrivateMode::Origin.into());
    term.goto(0, 0);
    let top = term.grid().cursor.point.line.0;
    term.goto(i32::from(u16::MAX), 0);
    let bottom = term.grid().cursor.point.line.0 + 1;
    if !origin {
        term.unset_private_mode(NamedPrivateMode::Origin.into());
    }
    term.grid_mut().cursor = cursor;
    (usize::try_from(top).unwrap_or(0), usize::try_from(bottom).unwrap_or(0))
}

/// Prints the lines one after the other, so that what does not fit scrolls up to where it stood.
fn lines(out: &mut Vec<u8>, grid: &Grid<Cell>, history: bool) {
    let above = if history { i32::try_from(grid.history_size()).unwrap_or(0) } else { 0 };
    let last = i32::try_from(grid.screen_lines()).unwrap_or(1) - 1;
    let mut pen = Cell::default();
    for line in -above..=last {
        let row = &grid[Line(line)];
        let wraps = row[grid.last_column()].flags.contains(Flags::WRAPLINE) && line < last;
        // Blanks before the cursor count: where the copy is made narrower, the cursor cannot be beyond what was written in its line.
        let least = match grid.cursor.point {
            _ if wraps => grid.columns(),
            point if point.line == Line(line) => point.column.0,
            _ => 0,
        };
        cells(out, row, grid.columns(), least, &mut pen);
        if line < last && !wraps {
            // A line feed with a coloured pen would colour the line that appears.
            set_pen(out, &Cell::default(), &mut pen);
            out.extend_from_slice(b"\r\n");
        }
    }
    set_pen(out, &Cell::default(), &mut pen);
}

fn cells(out: &mut Vec<u8>, row: &Row<Cell>, columns: usize, least: usize, pen: &mut Cell) {
    let used = (0..columns).rev().find(|at| !is_blank(&row[Column(*at)])).map_or(0, |at| at + 1);
    for column in 0..used.max(least) {
        let cell = &row[Column(column)];
        if cell.flags.intersects(Flags::WIDE_CHAR_SPACER | Flags::LEADING_WIDE_CHAR_SPACER) {
            continue;
        }
        set_pen(out, cell, pen);
        glyph(out, cell);
    }
}

fn glyph(out: &mut Vec<u8>, cell: &Cell) {
    let mut buffer = [0; 4];
    let shown = if cell.c.is_control() { ' ' } else { cell.c };
    out.extend_from_slice(shown.encode_utf8(&mut buffer).as_bytes());
    for combining in cell.zerowidth().unwrap_or_default() {
        out.extend_from_slice(combining.encode_utf8(&mut buffer).as_bytes());
    }
}

fn is_blank(cell: &Cell) -> bool {
    let looks = Flags::INVERSE | Flags::ALL_UNDERLINES | Flags::STRIKEOUT | Flags::WIDE_CHAR_SPACER;
    matches!(cell.c, ' ' | '\t')
        && cell.bg == Color::Named(NamedColor::Background)
        && !cell.flags.intersects(looks)
        && cell.extra.is_none()
}

/// Flags that a pen has, with the SGR parameter of each.
const ATTRIBUTES: [(Flags, &str); 11] = [
    (Flags::BOLD, ";1"),
    (Flags::DIM, ";2"),
    (Flags::ITALIC, ";3"),
    (Flags::UNDERLINE, ";4"),
    (Flags::DOUBLE_UNDERLINE, ";4:2"),
    (Flags::UNDERCURL, ";4:3"),
    (Flags::DOTTED_UNDERLINE, ";4:4"),
    (Flags::DASHED_UNDERLINE, ";4:5"),
    (Flags::INVERSE, ";7"),
    (Flags::HIDDEN, ";8"),
    (Flags::STRIKEOUT, ";9"),
];

/// Makes what is printed next look like `cell`.
fn set_pen(out: &mut Vec<u8>, cell: &Cell, pen: &mut Cell) {
    if cell.hyperlink() != pen.hyperlink() {
        match cell.hyperlink() {
            Some(link) => put(out, format_args!("\x1b]8;id={};{}\x1b\\", link.id(), link.uri())),
            None => out.extend_from_slice(b"\x1b]8;;\x1b\\"),
        }
    }
    let look = |cell: &Cell| {
        let flags = ATTRIBUTES.iter().fold(Flags::empty(), |all, (flag, _)| all | (cell.flags & *flag));
        (flags, cell.fg, cell.bg, cell.underline_color())
    };
    if look(cell) != look(pen) {
        out.extend_from_slice(b"\x1b[0");
        for (flag, parameter) in ATTRIBUTES {
            if cell.flags.contains(flag) {
                out.extend_from_slice(parameter.as_bytes());
            }
        }
        color(out, cell.fg, 30);
        color(out, cell.bg, 40);
        if let Some(underline) = cell.underline_color() {
            color(out, underline, 50);
        }
        out.push(b'm');
    }
    pen.clone_from(cell);
}

/// The SGR parameters of a colour; `base` is 30 for foreground, 40 for background, 50 for underlines.
fn color(out: &mut Vec<u8>, color: Color, base: u16) {
    match color {
        Color::Spec(rgb) => put(out, format_args!(";{};2;{};{};{}", base + 8, rgb.r, rgb.g, rgb.b)),
        Color::Indexed(index) => put(out, format_args!(";{};5;{index}", base + 8)),
        Color::Named(name) => match name as u16 {
            named @ 0..8 if base < 50 => put(out, format_args!(";{}", base + named)),
            named @ 8..16 if base < 50 => put(out, format_args!(";{}", base + 60 + named - 8)),
            named @ 0..16 => put(out, format_args!(";{};5;{named}", base + 8)),
            // Foreground and background are what the reset gives.
            _ => {}
        },
    }
}

/// Puts cursor and pen where they are.
fn cursor(out: &mut Vec<u8>, grid: &Grid<Cell>) {
    let cursor = &grid.cursor;
    let mut pen = Cell::default();
    let (line, column) = (cursor.point.line.0 + 1, cursor.point.column.0 + 1);
    put(out, format_args!("\x1b[{line};{column}H"));
    if cursor.input_needs_wrap {
        // Only printing into the last column leaves a cursor that wraps before it prints again.
        let row = &grid[cursor.point.line];
        let last = &row[cursor.point.column];
        let before = cursor.point.column - usize::from(cursor.point.column.0 > 0);
        if last.flags.contains(Flags::WIDE_CHAR_SPACER) {
            put(out, format_args!("\x1b[{line};{}H", column - 1));
            set_pen(out, &row[before], &mut pen);
            glyph(out, &row[before]);
        } else {
            set_pen(out, last, &mut pen);
            glyph(out, last);
        }
    }
    set_pen(out, &cursor.template, &mut pen);
    for (index, designator) in [(CharsetIndex::G0, '('), (CharsetIndex::G1, ')')] {
        if cursor.charsets[index] == StandardCharset::SpecialCharacterAndLineDrawing {
            put(out, format_args!("\x1b{designator}0"));
        }
    }
}

/// Private modes that are off after a reset.
const OFF_AT_FIRST: [(TermMode, u16); 9] = [
    (TermMode::APP_CURSOR, 1),
    (TermMode::MOUSE_REPORT_CLICK, 1000),
    (TermMode::MOUSE_DRAG, 1002),
    (TermMode::MOUSE_MOTION, 1003),
    (TermMode::FOCUS_IN_OUT, 1004),
    (TermMode::UTF8_MOUSE, 1005),
    (TermMode::SGR_MOUSE, 1006),
    (TermMode::BRACKETED_PASTE, 2004),
    (TermMode::ORIGIN, 6),
];

/// Private modes that are on after a reset.
const ON_AT_FIRST: [(TermMode, u16); 3] =
    [(TermMode::SHOW_CURSOR, 25), (TermMode::LINE_WRAP, 7), (TermMode::ALTERNATE_SCROLL, 1007)];

fn modes<T: EventListener>(out: &mut Vec<u8>, term: &Term<T>, origin: bool, region_top: usize) {
    let mode = *term.mode();
    for (flag, number) in OFF_AT_FIRST {
        if mode.contains(flag) {
            put(out, format_args!("\x1b[?{number}h"));
        }
    }
    if origin {
        // Origin mode moves the cursor home and counts from the region's first line.
        let point = term.grid().cursor.point;
        let line = usize::try_from(point.line.0).unwrap_or(0).saturating_sub(region_top) + 1;
        put(out, format_args!("\x1b[{line};{}H", point.column.0 + 1));
    }
    for (flag, number) in ON_AT_FIRST {
        if !mode.contains(flag) {
            put(out, format_args!("\x1b[?{number}l"));
        }
    }
    for (flag, sequence) in
        [(TermMode::APP_KEYPAD, "\x1b="), (TermMode::INSERT, "\x1b[4h"), (TermMode::LINE_FEED_NEW_LINE, "\x1b[20h")]
    {
        if mode.contains(flag) {
            out.extend_from_slice(sequence.as_bytes());
        }
    }
    let style = term.cursor_style();
    let shape = match style.shape {
        CursorShape::Underline => 4,
        CursorShape::Beam => 6,
        CursorShape::Block | CursorShape::HollowBlock | CursorShape::Hidden => 2,
    };
    if shape != 2 || style.blinking {
        put(out, format_args!("\x1b[{} q", shape - u16::from(style.blinking)));
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}
