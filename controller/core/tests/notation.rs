//! Tables as people read them: a line of columns, then a line per row; `|` is ornament, a line that
//! begins with `#` is a remark.

/// An enum without data whose values have names, and the list of them all.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($variant),+ }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            pub(crate) fn read(text: &str) -> Self {
                *Self::ALL.iter().find(|value| value.text() == text).unwrap_or_else(|| panic!("no such name: {text}"))
            }

            pub(crate) fn texts() -> Vec<&'static str> {
                Self::ALL.iter().map(|value| value.text()).collect()
            }
        }
    };
}
pub(crate) use named;

/// Compares every cell of `table` with what `cell(row, column)` says. The columns must be exactly `columns`; `rows` must all
/// be there, in whatever order, and others may be.
pub(crate) fn check(table: &str, rows: &[&str], columns: &[&str], cell: impl Fn(&str, &str) -> String) {
    let mut lines = table.lines().map(words).filter(|words| !words.is_empty());
    let header = lines.next().unwrap();
    let mut seen = Vec::new();
    let mut wrong = Vec::new();
    assert_eq!(header[1..], *columns, "columns");
    for line in lines {
        let row = line[0];
        assert!(!seen.contains(&row), "row {row} stands twice");
        assert_eq!(line.len(), header.len(), "cells in row {row}");
        seen.push(row);
        for (column, expected) in columns.iter().zip(&line[1..]) {
            let actual = cell(row, column);
            if actual != *expected {
                wrong.push(format!("{row} × {column}: the table says {expected}, the machine {actual}"));
            }
        }
    }
    let missing: Vec<_> = rows.iter().filter(|row| !seen.contains(row)).collect();
    assert!(missing.is_empty(), "rows without a line: {missing:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The names of the rows of `table`.
pub(crate) fn rows(table: &str) -> Vec<&str> {
    table.lines().map(words).filter(|words| !words.is_empty()).skip(1).map(|words| words[0]).collect()
}

/// The names of the columns of `table`.
pub(crate) fn columns(table: &str) -> Vec<&str> {
    table.lines().map(words).find(|words| !words.is_empty()).unwrap_or_default().split_off(1)
}

fn words(line: &str) -> Vec<&str> {
    if line.starts_with('#') { Vec::new() } else { line.split_whitespace().filter(|word| *word != "|").collect() }
}
