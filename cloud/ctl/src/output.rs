//! Where a command writes: data to standard output, talk to standard error.

use crate::exit::{Failure, written};
use crate::table::{Cell, Table, facts};
use crate::text::{Style, safe};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// The standard output of a command, and how it wants to be written.
pub(crate) struct Output {
    /// JSON was asked for.
    pub(crate) json: bool,
    /// A terminal looks.
    pub(crate) colour: bool,
    /// Standard error is a terminal, too.
    pub(crate) live: bool,
    to: Box<dyn Write + Send>,
}

impl Output {
    /// Standard output; colours unless `NO_COLOR` is set or nobody looks.
    pub(crate) fn standard(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            colour: !plain && io::stdout().is_terminal(),
            live: !plain && io::stderr().is_terminal(),
            to: Box::new(io::BufWriter::new(io::stdout())),
        }
    }

    /// Writes to `to`, without colours.
    #[cfg(test)]
    pub(crate) fn plain(json: bool, to: Box<dyn Write + Send>) -> Self {
        Self {
            json,
            colour: false,
            live: false,
            to,
        }
    }

    /// Where to write bytes that are neither JSON nor text of ours.
    pub(crate) fn raw(&mut self) -> &mut dyn Write {
        &mut self.to
    }

    /// One object, on a line of its own, at once.
    pub(crate) fn object(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).expect("views can always be written as JSON");
        self.line(&text)
    }

    /// A line of text, at once.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        written(writeln!(self.to, "{text}").and_then(|()| self.to.flush()))
    }

    /// A heading of a part of the output.
    pub(crate) fn heading(&mut self, text: &str) -> Result<(), Failure> {
        let text = Style::Bold.paint(text, self.colour);
        self.line(&format!("\n{text}"))
    }

    /// `name  value` lines.
    pub(crate) fn facts(&mut self, lines: &[(&str, Cell)]) -> Result<(), Failure> {
        written(facts(lines, self.colour, &mut self.to))
    }

    /// A row of a table.
    pub(crate) fn row<const N: usize>(
        &mut self,
        table: &mut Table,
        cells: [Cell; N],
    ) -> Result<(), Failure> {
        written(table.row(cells, &mut self.to))
    }

    /// The end of a table.
    pub(crate) fn finish(&mut self, table: Table) -> Result<(), Failure> {
        written(table.finish(&mut self.to).and_then(|()| self.to.flush()))
    }

    /// What was not written yet.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        written(self.to.flush())
    }

    /// Says something to the person, beside the data.
    pub(crate) fn say(&self, text: &str) {
        // Nobody may be listening any more; the data decides how the command ends.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Output(json: {})", self.json)
    }
}

/// The part of an id that people are shown; commands take it as it is.
pub(crate) fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(12).collect()
}

/// Text of another machine, or a dash.
pub(crate) fn or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), safe)
}
