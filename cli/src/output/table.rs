//! Tables that fit the terminal: one line a row, the widest texts cut.

use std::io::{self, IsTerminal as _};

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, presets};

use super::clean;

/// Width below which a table is not squeezed any further.
const NARROWEST: u16 = 30;
/// Columns between two columns.
pub(super) const GAP: u16 = 2;
/// What is shown of a column at least before others are left out for it.
const LEAST: u16 = 12;

/// A table under construction.
pub(crate) struct Grid {
    table: Table,
    columns: Vec<Column>,
    /// The widest cell of each, the header being one.
    widths: Vec<u16>,
    headers: Vec<u16>,
}

/// How a column meets a narrow terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Whole,
    Cut,
    LeftOut,
}

impl Grid {
    /// Columns whose name ends in `*` are cut where the terminal is narrow; those with `-` are cut too, and left out, the
    /// last first, where the others would not fit.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let names = || columns.iter().map(|name| name.trim_end_matches(['*', '-']));
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(names());
        table.set_truncation_indicator("…");
        let headers: Vec<u16> = names().map(columns_of).collect();
        let columns = columns.iter().map(|name| match name.chars().last() {
            Some('*') => Column::Cut,
            Some('-') => Column::LeftOut,
            _ => Column::Whole,
        });
        Self { table, columns: columns.collect(), widths: headers.clone(), headers }
    }

    /// Adds a row; an empty cell shows as a dash.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { clean(&cell) });
        let cells: Vec<String> = cells.collect();
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(columns_of(cell));
        }
        let mut row = Row::from(cells);
        row.max_height(1);
        self.table.add_row(row);
    }

    /// The lines, each no wider than the terminal.
    pub(crate) fn render(self) -> String {
        self.fit(width())
    }

    /// What each column is to have before others are left out for it.
    fn least(&self) -> Vec<u16> {
        let columns = self.columns.iter().zip(&self.widths).zip(&self.headers);
        columns
            .map(|((column, widest), header)| match column {
                Column::Whole => *widest,
                Column::Cut | Column::LeftOut => LEAST.min(*widest).max(*header),
            })
            .collect()
    }

    fn fit(mut self, width: Option<u16>) -> String {
        if let Some(width) = width {
            self.table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.max(NARROWEST));
            let least = self.least();
            let shown = shown(&self.columns, &least, width.max(NARROWEST));
            let constraints =
                self.columns.iter().zip(&self.headers).zip(shown).map(|((column, header), shown)| match column {
                    Column::Whole => ColumnConstraint::ContentWidth,
                    Column::Cut | Column::LeftOut if shown => {
                        ColumnConstraint::LowerBoundary(comfy_table::Width::Fixed(header + GAP))
                    }
                    Column::Cut | Column::LeftOut => ColumnConstraint::Hidden,
                });
            self.table.set_constraints(constraints);
        }
        for column in self.table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        self.table.trim_fmt()
    }
}

/// How many columns of a terminal `text` takes.
pub(super) fn columns_of(text: &str) -> u16 {
    u16::try_from(unicode_width::UnicodeWidthStr::width(text)).unwrap_or(u16::MAX)
}

/// Which columns are shown on so many columns of a terminal.
fn shown(columns: &[Column], least: &[u16], width: u16) -> Vec<bool> {
    let mut shown = vec![true; columns.len()];
    for (at, column) in columns.iter().enumerate().rev() {
        let taken: u32 = least
            .iter()
            .zip(&shown)
            .filter(|(_, shown)| **shown)
            .map(|(least, _)| u32::from(*least) + u32::from(GAP))
            .sum();
        if taken <= width.into() {
            break;
        }
        shown[at] = *column != Column::LeftOut;
    }
    shown
}

/// Columns of the terminal that standard output is.
fn width() -> Option<u16> {
    window().map(|(columns, _)| columns)
}

/// Columns and lines of the terminal that standard output is.
pub(crate) fn window() -> Option<(u16, u16)> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(&["TASK", "STATE", "TITLE*", "AGE"]);
        grid.row([
            "17".to_owned(),
            "needs_review".to_owned(),
            "a long title \x1b[31mthat goes on and on and on and on".to_owned(),
            "3m".to_owned(),
        ]);
        grid.row(["4".to_owned(), "queued".to_owned(), String::new(), "12s".to_owned()]);
        grid
    }

    #[test]
    fn a_table_fits_its_terminal() {
        let text = grid().fit(Some(50));
        for line in text.lines() {
            assert!(line.chars().count() <= 50, "{line:?}");
        }
        assert_eq!(text.lines().count(), 3, "{text}");
        for word in ["17", "needs_review", "3m", "a long title", "…", "queued  "] {
            assert!(text.contains(word), "{word:?} is not in\n{text}");
        }
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn a_very_narrow_table_leaves_columns_out() {
        let table = |width| {
            let mut grid = Grid::new(&["TASK", "STATE", "TITLE*", "EXECUTOR-", "AGE"]);
            let row = ["17", "needs_review", "make the tests pass", "worker", "3m 12s"];
            grid.row(row.map(str::to_owned));
            grid.fit(Some(width))
        };
        let narrow = table(40);
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert_eq!(narrow.lines().count(), 2, "{narrow}");
        assert!(narrow.contains("make the") && narrow.contains("3m 12s") && !narrow.contains("EXECUTOR"), "{narrow}");
        assert!(table(80).contains("worker"));
    }

    #[test]
    fn no_width_breaks_a_header() {
        const NAMES: [&str; 7] = ["TASK", "STATE", "TITLE*", "PROJECT-", "EXECUTOR-", "AGE", "RAN-"];
        for width in 40..120 {
            let mut grid = Grid::new(&NAMES);
            let row =
                ["1234", "needs_review ?", "sh -c 'make test 2>&1'", "controller", "build-host-07", "3m 12s", "2m 1s"];
            grid.row(row.map(str::to_owned));
            let text = grid.fit(Some(width));
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 2, "at {width}:\n{text}");
            assert!(lines.iter().all(|line| line.chars().count() <= usize::from(width)), "at {width}:\n{text}");
            let whole = NAMES.map(|name| name.trim_end_matches(['*', '-']));
            assert!(lines[0].split_whitespace().all(|header| whole.contains(&header)), "at {width}:\n{text}");
        }
    }

    #[test]
    fn a_table_on_a_pipe_is_whole() {
        let text = grid().fit(None);
        assert!(text.contains("that goes on and on and on and on"), "{text}");
        assert!(text.lines().nth(2).is_some_and(|line| line.starts_with("4 ")), "{text}");
    }
}
