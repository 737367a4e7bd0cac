//! Tables that fit the terminal: one line a row, the widest texts cut.

use std::io::{self, IsTerminal as _};

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, presets};

use super::clean;

/// Width below which a table is not squeezed any further.
const NARROWEST: u16 = 30;
/// Width below which the columns that can be missed are left out.
const NARROW: u16 = 60;

/// A table under construction.
pub(crate) struct Grid {
    table: Table,
    columns: Vec<Column>,
}

/// How a column meets a narrow terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Whole,
    Cut,
    LeftOut,
}

impl Grid {
    /// Columns whose name ends in `*` are cut where the terminal is narrow; those with `-` are cut too, and left out
    /// where it is very narrow.
    pub(crate) fn new(columns: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(columns.iter().map(|name| name.trim_end_matches(['*', '-'])));
        table.set_truncation_indicator("…");
        let columns = columns.iter().map(|name| match name.chars().last() {
            Some('*') => Column::Cut,
            Some('-') => Column::LeftOut,
            _ => Column::Whole,
        });
        Self { table, columns: columns.collect() }
    }

    /// Adds a row; an empty cell shows as a dash.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { clean(&cell) });
        let mut row = Row::from(cells);
        row.max_height(1);
        self.table.add_row(row);
    }

    /// The lines, each no wider than the terminal.
    pub(crate) fn render(self) -> String {
        self.fit(width())
    }

    fn fit(mut self, width: Option<u16>) -> String {
        if let Some(width) = width {
            self.table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.max(NARROWEST));
            let constraints = self.columns.iter().map(|column| match column {
                Column::Whole => ColumnConstraint::ContentWidth,
                Column::LeftOut if width < NARROW => ColumnConstraint::Hidden,
                Column::Cut | Column::LeftOut => ColumnConstraint::LowerBoundary(comfy_table::Width::Fixed(4)),
            });
            self.table.set_constraints(constraints);
        }
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.table.trim_fmt()
    }
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
    fn a_table_on_a_pipe_is_whole() {
        let text = grid().fit(None);
        assert!(text.contains("that goes on and on and on and on"), "{text}");
        assert!(text.lines().nth(2).is_some_and(|line| line.starts_with("4 ")), "{text}");
    }
}
