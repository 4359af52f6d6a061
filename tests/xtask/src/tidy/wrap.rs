//! Breaks comments that are too wide, which rustfmt on the stable channel leaves as they are.

use super::lexer::without_strings;

/// A line that is a comment and nothing else, in parts.
struct Comment<'a> {
    /// The margin and the mark: `    ///`.
    head: &'a str,
    /// The spaces in front of the text.
    gap: &'a str,
    text: &'a str,
}

impl<'a> Comment<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let margin = line.len() - line.trim_start().len();
        let mark = ["//!", "///", "//"]
            .into_iter()
            .find(|m| line[margin..].starts_with(m))?;
        let (head, rest) = line.split_at(margin + mark.len());
        let text = rest.trim_start();
        Some(Self {
            head,
            gap: &rest[..rest.len() - text.len()],
            text,
        })
    }

    fn is_item(&self) -> bool {
        self.text.starts_with("- ") || self.text.starts_with("* ")
    }

    /// Text that may be joined with the line above it.
    fn is_running(&self) -> bool {
        let starts_new = ["#", "|", "```", ">"]
            .iter()
            .any(|mark| self.text.starts_with(mark))
            || self.text.starts_with(|c: char| c.is_ascii_digit());
        !self.text.is_empty() && !self.is_item() && !starts_new
    }

    /// The spaces in front of the lines that continue this one.
    fn hanging_gap(&self) -> String {
        if self.is_item() {
            format!("{}  ", self.gap)
        } else {
            self.gap.to_owned()
        }
    }
}

/// The source with every comment line broken that has more than `width` columns.
///
/// What is cut off goes in front of the next line where the sentence goes on, else on a line of its
/// own. Code blocks, tables and words without a break stay as they are.
pub(crate) fn comments(source: &str, width: usize) -> String {
    let bare = without_strings(source);
    let mut lines: Vec<(String, bool)> = source
        .split('\n')
        .zip(bare.split('\n'))
        .map(|(line, bare)| (line.to_owned(), line == bare))
        .collect();
    let (mut at, mut in_block) = (0, false);
    while at < lines.len() {
        let (line, is_bare) = lines[at].clone();
        if let Some(comment) = Comment::parse(&line).filter(|_| is_bare) {
            in_block ^= comment.text.starts_with("```");
            if !in_block && !comment.text.starts_with('|') {
                break_line(&mut lines, at, &comment, width);
            }
        } else {
            in_block = false;
        }
        at += 1;
    }
    lines
        .into_iter()
        .map(|(line, _)| line)
        .collect::<Vec<_>>()
        .join("\n")
}

fn break_line(lines: &mut Vec<(String, bool)>, at: usize, comment: &Comment<'_>, width: usize) {
    let start = comment.head.len() + comment.gap.len();
    let line = lines[at].0.clone();
    // A space behind the last column leaves exactly `width` of them.
    let fitting = line.char_indices().take(width + 1);
    if fitting.clone().count() <= width {
        return;
    }
    let last = fitting.filter(|(_, c)| *c == ' ').last();
    let Some((space, _)) = last.filter(|(space, _)| *space > start) else {
        return;
    };
    let rest = line[space..].trim_start();
    let lead = format!("{}{}", comment.head, comment.hanging_gap());
    let next = lines.get(at + 1).and_then(|(next, _)| Comment::parse(next));
    let joined = next
        .filter(|next| next.head == comment.head && next.gap == comment.hanging_gap())
        .filter(Comment::is_running)
        .map(|next| format!("{lead}{rest} {}", next.text));
    match joined {
        Some(joined) => lines[at + 1].0 = joined,
        None => lines.insert(at + 1, (format!("{lead}{rest}"), true)),
    }
    lines[at].0 = line[..space].trim_end().to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_joins_the_sentence_or_stands_alone() {
        for (source, wrapped) in [
            ("// one two three\n// four", "// one two\n// three four"),
            ("// one two three\nlet a;", "// one two\n// three\nlet a;"),
            (
                "/// one two three\n///\n/// four",
                "/// one two\n/// three\n///\n/// four",
            ),
            (
                "// one two three\n/// four",
                "// one two\n// three\n/// four",
            ),
            ("// - one two three\n//   x", "// - one two\n//   three x"),
            (
                "// one two three\n// - four",
                "// one two\n// three\n// - four",
            ),
            (
                "// a b c d e f g h i j k l\n",
                "// a b c d e\n// f g h i j\n// k l\n",
            ),
        ] {
            assert_eq!(comments(source, 13), wrapped, "{source}");
        }
    }

    #[test]
    fn what_must_stay_stays() {
        for source in [
            "// fits there",
            "// /averylongwordwithoutbreak",
            "/// ```\n/// one two three four\n/// ```",
            "// | one | two | three |",
            "let a = \"\n// one two three four\n\";",
            "let a = 1; // one two three four",
        ] {
            assert_eq!(comments(source, 13), source);
        }
    }

    #[test]
    fn columns_are_characters() {
        assert_eq!(comments("// äöü äöü äöü", 14), "// äöü äöü äöü");
        assert_eq!(comments("// äöü äöü äöü", 13), "// äöü äöü\n// äöü");
    }
}
