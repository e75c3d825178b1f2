//! What commands print on standard output: a table or text for people, or JSON.

use std::io::{self, Write as _};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::outcome::StdoutFailed;
use crate::text::{clean, clean_line};

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Text,
    Json,
}

impl Output {
    pub(crate) fn is_json(self) -> bool {
        self == Self::Json
    }

    /// Prints a value, as text made by `text`.
    pub(crate) fn value<T: Serialize + ?Sized>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match self {
            Self::Json => line(&serde_json::to_string_pretty(value)?),
            Self::Text => line(clean(&text()).trim_end()),
        }
    }

    /// Prints a list, as a table made by `rows`.
    pub(crate) fn list<T: Serialize>(
        self,
        items: &[T],
        headings: &[&str],
        row: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Json => line(&serde_json::to_string_pretty(items)?),
            Self::Text => line(&table(headings, items.iter().map(row))),
        }
    }

    /// Prints one of many values, on a line of its own.
    pub(crate) fn each<T: Serialize + ?Sized>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match self {
            Self::Json => line(&serde_json::to_string(value)?),
            Self::Text => line(&clean_line(&text())),
        }
    }
}

fn line(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| StdoutFailed(error).into())
}

/// Copies a job's own output, byte by byte.
pub(crate) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| StdoutFailed(error).into())
}

/// The same to standard error, which nobody misses when it is closed.
pub(crate) fn raw_error(bytes: &[u8]) {
    let mut out = io::stderr().lock();
    drop(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Columns without lines; numbers are the caller's to align.
pub(crate) fn table(headings: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_header(headings.iter().copied());
    let mut empty = true;
    for row in rows {
        empty = false;
        table.add_row(row.iter().map(|cell| clean_line(cell)));
    }
    for index in 0..headings.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            column.set_cell_alignment(CellAlignment::Left);
        }
    }
    if empty {
        return format!(
            "no {}",
            headings.first().copied().unwrap_or("rows").to_lowercase() + "s"
        );
    }
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// Names and values, one pair a line; pairs without a value are left out.
pub(crate) fn fields(pairs: &[(&str, Option<String>)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = pairs.iter().filter_map(|(name, value)| {
        let value = clean(value.as_deref()?.trim_end());
        // further lines stand below the first
        let value = value.replace('\n', &format!("\n  {:width$}  ", ""));
        Some(format!("  {name:width$}  {value}\n"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_lines_and_no_trailing_blanks() {
        let rows = [["a", "1"], ["long name", "\x1b[0m"]];
        let rows = rows.iter().map(|row| row.map(str::to_owned).to_vec());
        let text = table(&["NAME", "N"], rows);
        assert_eq!(text, "NAME       N\na          1\nlong name  ?[0m");
        assert_eq!(table(&["JOB"], std::iter::empty()), "no jobs");
    }

    #[test]
    fn fields_line_up() {
        let text = fields(&[
            ("id", Some("7".into())),
            ("nothing", None),
            ("reasons", Some("one\ntwo".into())),
        ]);
        assert_eq!(text, "  id       7\n  reasons  one\n           two\n");
    }
}
