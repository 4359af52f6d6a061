//! Tables without lines: columns as wide as they need to be, colours when a terminal looks.

use crate::text::{Style, safe};
use std::io::{self, Write};

/// Rows that decide the widths; later ones may run over, so that long lists stream.
const SAMPLE: usize = 1000;
/// Widest column that later columns are still lined up behind.
const WIDEST: usize = 48;

/// A cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    right: bool,
}

impl Cell {
    /// Text in a style.
    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self {
            text: safe(text.as_ref()),
            style,
            right: false,
        }
    }
    /// A state, in its colour.
    pub(crate) fn state(text: &str) -> Self {
        Self::styled(text, Style::of_state(text))
    }
    /// A number, at the right of its column.
    pub(crate) fn number(n: impl ToString) -> Self {
        Self {
            right: true,
            ..Self::from(n.to_string())
        }
    }
}
impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// Writes a table row by row.
#[derive(Debug)]
pub(crate) struct Table {
    colour: bool,
    waiting: Vec<Vec<Cell>>,
    widths: Option<Vec<usize>>,
}

impl Table {
    /// A table with this header.
    pub(crate) fn new<const N: usize>(header: [&str; N], colour: bool) -> Self {
        let header = header.map(|text| Cell::styled(text, Style::Bold)).to_vec();
        Self {
            colour,
            waiting: vec![header],
            widths: None,
        }
    }

    /// Adds a row; long tables are written as they grow.
    pub(crate) fn row<const N: usize>(
        &mut self,
        cells: [Cell; N],
        out: &mut dyn Write,
    ) -> io::Result<()> {
        self.waiting.push(cells.to_vec());
        if self.waiting.len() > SAMPLE {
            self.flush(out)
        } else {
            Ok(())
        }
    }

    /// Writes what was not written yet.
    pub(crate) fn finish(mut self, out: &mut dyn Write) -> io::Result<()> {
        self.flush(out)
    }

    fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let rows = std::mem::take(&mut self.waiting);
        let widths = self.widths.get_or_insert_with(|| measure(&rows));
        for (index, row) in rows.iter().enumerate() {
            let header_right = index == 0 && rows.len() > 1;
            let below = header_right.then(|| &rows[1]);
            write_row(row, below, widths, self.colour, out)?;
        }
        Ok(())
    }
}

fn measure(rows: &[Vec<Cell>]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].text.chars().count());
        widths.filter(|width| *width <= WIDEST).max().unwrap_or(0)
    };
    (0..columns).map(width).collect()
}

fn write_row(
    row: &[Cell],
    below: Option<&Vec<Cell>>,
    widths: &[usize],
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (column, cell) in row.iter().enumerate() {
        let last = column + 1 == row.len();
        let pad = widths[column].saturating_sub(cell.text.chars().count());
        let painted = cell.style.paint(&cell.text, colour);
        let right = cell.right || below.is_some_and(|row| row[column].right);
        match (right, last) {
            (true, _) => write!(out, "{:pad$}{painted}", "")?,
            (false, true) => write!(out, "{painted}")?,
            (false, false) => write!(out, "{painted}{:pad$}", "")?,
        }
        if !last {
            out.write_all(b"  ")?;
        }
    }
    out.write_all(b"\n")
}

/// Writes `name  value` lines, the names in one column.
pub(crate) fn facts(facts: &[(&str, Cell)], colour: bool, out: &mut dyn Write) -> io::Result<()> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, cell) in facts {
        let name = Style::Dim.paint(&format!("{name:width$}"), colour);
        writeln!(out, "{name}  {}", cell.style.paint(&cell.text, colour))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: Table, mut out: Vec<u8>) -> String {
        table.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let mut table = Table::new(["TASK", "STATE", "N"], false);
        let mut out = Vec::new();
        table
            .row(
                ["a".into(), Cell::state("succeeded"), Cell::number(7)],
                &mut out,
            )
            .unwrap();
        table
            .row(
                ["long-name".into(), Cell::state("lost"), Cell::number(120)],
                &mut out,
            )
            .unwrap();
        let expected = "TASK       STATE        N\n\
                        a          succeeded    7\n\
                        long-name  lost       120\n";
        assert_eq!(text(table, out), expected);
    }

    #[test]
    fn long_tables_are_written_before_they_end() {
        let mut table = Table::new(["A"], false);
        let mut out = Vec::new();
        for n in 0..SAMPLE {
            table.row([n.to_string().into()], &mut out).unwrap();
        }
        assert!(out.starts_with(b"A\n0\n1\n"));
        assert_eq!(text(table, out).lines().count(), SAMPLE + 1);
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let mut table = Table::new(["STATE", "X"], true);
        let mut out = Vec::new();
        table
            .row([Cell::state("failed"), "y".into()], &mut out)
            .unwrap();
        let text = text(table, out);
        assert!(text.contains("\x1b[31mfailed\x1b[0m  y\n"), "{text:?}");
    }
}
