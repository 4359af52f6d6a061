//! The text in which Prometheus reads figures.

use std::fmt::{Display, Write as _};

/// Its media type.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of figures, as it grows. Names, helps and labels are ours, so nothing needs escaping.
#[derive(Clone, Debug)]
pub struct Page {
    catalogue: &'static str,
    text: String,
}

impl Page {
    /// A page of figures that `catalogue` has: a line each, `NAME KIND HELP`, where the kind is
    /// `gauge` (goes up and down) or `counter` (goes up only).
    #[must_use]
    pub fn new(catalogue: &'static str) -> Self {
        let text = String::with_capacity(4096);
        Self { catalogue, text }
    }

    /// A figure that has one value.
    pub fn one(&mut self, name: &str, value: impl Display) {
        self.head(name);
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{name} {value}");
    }

    /// A figure with a value for each of a closed list of words.
    pub fn each<W: Display, N: Display>(
        &mut self,
        name: &str,
        label: &str,
        values: impl IntoIterator<Item = (W, N)>,
    ) {
        self.head(name);
        for (word, value) in values {
            let _ = writeln!(self.text, "{name}{{{label}=\"{word}\"}} {value}");
        }
    }

    /// One that the catalogue lacks has neither help nor kind, which Prometheus takes, too.
    fn head(&mut self, name: &str) {
        let mut known = self.catalogue.lines().map(|line| line.splitn(3, ' '));
        let found = known.find_map(|mut words| {
            (words.next() == Some(name)).then_some((words.next()?, words.next()?))
        });
        if let Some((kind, help)) = found {
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        }
    }

    /// The text.
    #[must_use]
    pub fn text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_prometheus_reads_it() {
        let mut page = Page::new("facts_total counter Facts.\ntasks gauge Tasks that are here.");
        page.one("facts_total", 7);
        page.each("tasks", "state", [("ready", 1), ("lost", 0)]);
        page.one("strange", 3);
        let wanted = "# HELP facts_total Facts.\n# TYPE facts_total counter\nfacts_total 7\n\
                      # HELP tasks Tasks that are here.\n# TYPE tasks gauge\n\
                      tasks{state=\"ready\"} 1\ntasks{state=\"lost\"} 0\nstrange 3\n";
        assert_eq!(page.text(), wanted);
    }
}
