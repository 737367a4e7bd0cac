//! The headless terminal: knows what the agent's screen shows, and answers what the agent asks its terminal.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use alacritty_terminal::{
    event::{Event, EventListener, WindowSize},
    grid::Dimensions,
    term::{Config, Term, TermMode},
    vte::ansi::{Processor, Rgb, Timeout},
};

use super::{lock, repaint, strings::StringGuard};

/// Lines above the screen that a new view gets to see; 200 columns of them take about 5 MB.
const HISTORY: usize = 1000;
/// Combining characters that one cell keeps; what is beyond is dropped now and then.
const COMBINING: usize = 16;
/// How many bytes are taken between two looks for cells that hold too many.
const PRUNE_EVERY: usize = 4 << 20;
/// Size of a cell in pixels, for agents that ask.
const CELL: (u16, u16) = (8, 16);
/// Longest title that is kept.
const TITLE: usize = 512;

/// A terminal without a screen.
pub(super) struct Terminal {
    term: Term<Listener>,
    parser: Processor<NoSync>,
    strings: StringGuard,
    heard: Arc<Mutex<Heard>>,
    size: Size,
    since_prune: usize,
}

/// Size in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: u16,
    pub(super) rows: u16,
}

impl Size {
    /// The nearest size that a terminal can have.
    pub(super) fn clamped(columns: u16, rows: u16) -> Self {
        Self { columns: columns.clamp(2, 1000), rows: rows.clamp(1, 500) }
    }
}

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.screen_lines()
    }

    fn screen_lines(&self) -> usize {
        usize::from(self.rows)
    }

    fn columns(&self) -> usize {
        usize::from(self.columns)
    }
}

/// What the emulator has told since it was asked last, and what it may want to know.
struct Heard {
    answers: Vec<u8>,
    title: String,
    size: Size,
}

/// Takes down what the emulator tells.
pub(super) struct Listener(Arc<Mutex<Heard>>);

impl EventListener for Listener {
    fn send_event(&self, event: Event) {
        let mut heard = lock(&self.0);
        match event {
            Event::PtyWrite(text) => heard.answers.extend_from_slice(text.as_bytes()),
            Event::ColorRequest(index, format) => heard.answers.extend_from_slice(format(color(index)).as_bytes()),
            Event::TextAreaSizeRequest(format) => {
                let (cell_width, cell_height) = CELL;
                let (num_lines, num_cols) = (heard.size.rows, heard.size.columns);
                let window = WindowSize { num_lines, num_cols, cell_width, cell_height };
                heard.answers.extend_from_slice(format(window).as_bytes());
            }
            Event::Title(title) => heard.title = title.chars().filter(|c| !c.is_control()).take(TITLE).collect(),
            Event::ResetTitle => heard.title.clear(),
            _ => {}
        }
    }
}

/// Synchronized updates are not held back here: nobody looks at half a picture, and what is held back takes memory.
#[derive(Default)]
struct NoSync;

impl Timeout for NoSync {
    fn set_timeout(&mut self, _: Duration) {}

    fn clear_timeout(&mut self) {}

    fn pending_timeout(&self) -> bool {
        false
    }
}

impl Terminal {
    /// An empty terminal of this size.
    pub(super) fn new(size: Size) -> Self {
        let heard = Arc::new(Mutex::new(Heard { answers: Vec::new(), title: String::new(), size }));
        let config = Config { scrolling_history: HISTORY, ..Config::default() };
        let term = Term::new(config, &size, Listener(Arc::clone(&heard)));
        Self { term, parser: Processor::new(), strings: StringGuard::default(), heard, size, since_prune: 0 }
    }

    /// Shows `bytes` and gives back what the terminal answers to the questions in them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Self { term, parser, strings, .. } = self;
        // The emulator works on whatever an agent prints; should it fail, the picture is lost, not the shim.
        let fed = catch_unwind(AssertUnwindSafe(|| strings.pass(bytes, |bytes| parser.advance(term, bytes))));
        if fed.is_err() {
            *self = Self::new(self.size);
        }
        self.since_prune += bytes.len();
        if self.since_prune >= PRUNE_EVERY {
            self.prune();
        }
        std::mem::take(&mut lock(&self.heard).answers)
    }

    /// The size it has.
    pub(super) fn size(&self) -> Size {
        self.size
    }

    /// Gives it another size.
    pub(super) fn resize(&mut self, size: Size) {
        let Self { term, .. } = self;
        if catch_unwind(AssertUnwindSafe(|| term.resize(size))).is_err() {
            *self = Self::new(size);
        }
        self.size = size;
        lock(&self.heard).size = size;
    }

    /// Whether the agent wants to know what is pasted.
    pub(super) fn takes_pastes(&self) -> bool {
        self.term.mode().contains(TermMode::BRACKETED_PASTE)
    }

    /// What makes another terminal of this size show the same, with the lines above the screen if `history`.
    pub(super) fn repaint(&mut self, history: bool) -> Vec<u8> {
        let title = lock(&self.heard).title.clone();
        let Self { term, .. } = self;
        let painted = catch_unwind(AssertUnwindSafe(|| repaint::repaint(term, &title, history)));
        painted.unwrap_or_else(|_| {
            *self = Self::new(self.size);
            repaint::CLEAR.to_vec()
        })
    }

    /// Bounds what a screen full of endless combining characters takes.
    fn prune(&mut self) {
        self.since_prune = 0;
        let grid = self.term.grid_mut();
        let top = -i32::try_from(grid.history_size()).unwrap_or(0);
        for line in top..i32::from(self.size.rows) {
            let row = &mut grid[alacritty_terminal::index::Line(line)];
            for cell in row {
                if cell.zerowidth().is_some_and(|characters| characters.len() > COMBINING) {
                    cell.extra = None;
                }
            }
        }
    }
}

/// A common dark scheme, for agents that ask which one it is.
fn color(index: usize) -> Rgb {
    const BASE: [(u8, u8, u8); 16] = [
        (0, 0, 0),
        (205, 0, 0),
        (0, 205, 0),
        (205, 205, 0),
        (0, 0, 238),
        (205, 0, 205),
        (0, 205, 205),
        (229, 229, 229),
        (127, 127, 127),
        (255, 0, 0),
        (0, 255, 0),
        (255, 255, 0),
        (92, 92, 255),
        (255, 0, 255),
        (0, 255, 255),
        (255, 255, 255),
    ];
    let (r, g, b) = match index {
        0..16 => BASE[index],
        16..232 => {
            let level = |step: usize| if step == 0 { 0 } else { (55 + 40 * step) as u8 };
            let index = index - 16;
            (level(index / 36), level(index / 6 % 6), level(index % 6))
        }
        232..=255 => {
            let gray = (8 + 10 * (index - 232)) as u8;
            (gray, gray, gray)
        }
        // Background.
        257 => (0, 0, 0),
        _ => (229, 229, 229),
    };
    Rgb { r, g, b }
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;
