//! Rules on the text of files: width, length, heads, words, invisible characters, foreign paths.

use super::Finding;
use super::lexer::without_strings;

/// Columns of a line of Rust, not counting what stands in strings.
pub(crate) const COLUMNS_MAX: usize = 100;

/// Lines of a Rust file, not counting its test module.
const LINES_MAX: usize = 800;

/// Marks of unfinished work.
const UNFINISHED: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];

/// Folders of somebody's machine that mean nothing on another.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Rules for every kind of text.
pub(crate) fn any_text(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in numbered(text) {
        if let Some(c) = line.chars().find(|c| is_invisible(*c)) {
            findings.push(Finding::new(
                number,
                format!("has the invisible character {c:?}"),
            ));
        }
        if line.ends_with([' ', '\u{a0}']) {
            findings.push(Finding::new(number, "ends with a space"));
        }
        for path in MACHINE_PATHS.iter().filter(|path| names_path(line, path)) {
            findings.push(Finding::new(
                number,
                format!("names {path}, a path of one machine"),
            ));
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        findings.push(Finding::new(
            text.lines().count(),
            "the file must end with one line break",
        ));
    }
    findings
}

/// Rules for Rust alone.
pub(crate) fn rust(text: &str) -> Vec<Finding> {
    let bare = without_strings(text);
    let mut findings = unfinished(&bare);
    if !text.starts_with("//!") {
        findings.push(Finding::new(
            1,
            "must start with a `//!` line: what does this module own?",
        ));
    }
    for (number, line) in numbered(&bare) {
        if line.trim_start().starts_with("#[ignore") {
            findings.push(Finding::new(number, "ignores a test: mend it or remove it"));
        }
        let columns = line.chars().count();
        if columns > COLUMNS_MAX && !line.contains("://") {
            findings.push(Finding::new(
                number,
                format!("has {columns} columns, {COLUMNS_MAX} fit (--fix mends comments)"),
            ));
        }
    }
    let lines = bare.lines().count() - test_lines(&bare);
    if lines > LINES_MAX {
        let what =
            format!("the file has {lines} lines without tests, more than {LINES_MAX}: split it");
        findings.push(Finding::new(1, what));
    }
    findings
}

/// Marks of unfinished work, in comments or anywhere else.
pub(crate) fn unfinished(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in numbered(text) {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(word) = words.find(|word| UNFINISHED.contains(word)) {
            findings.push(Finding::new(
                number,
                format!("has the mark {word}: do it or open an issue"),
            ));
        }
    }
    findings
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    // Not `lines()`, which would hide a carriage return.
    text.split('\n')
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// Control characters, byte order marks, and what reorders or hides text on a screen.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Whether the path starts there and is not the end of a longer one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}>)*$".contains(c))
    })
}

/// How many lines the test modules at the left margin have.
fn test_lines(bare: &str) -> usize {
    let mut count = 0;
    let mut lines = bare.lines().peekable();
    while let Some(line) = lines.next() {
        let opens = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if line != "#[cfg(test)]" || lines.peek().filter(|next| opens(next)).is_none() {
            continue;
        }
        // rustfmt puts the module's closing brace alone at the left margin.
        count += 3 + lines
            .by_ref()
            .skip(1)
            .take_while(|line| *line != "}")
            .count();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(findings: Vec<Finding>) -> String {
        findings
            .iter()
            .map(|f| format!("{}: {}\n", f.line, f.what))
            .collect()
    }

    #[test]
    fn clean_text_has_no_findings() {
        let text = "//! Head.\n\nfn a() -> &'static str {\n    \"b\"\n}\n";
        assert_eq!(whats(any_text(text)) + &whats(rust(text)), "");
        assert_eq!(whats(any_text("")), "");
    }

    #[test]
    fn invisible_characters_are_named() {
        for (text, named) in [
            ("a\tb\n", r"'\t'"),
            ("a\r\n", r"'\r'"),
            ("a\u{202e}b\n", r"'\u{202e}'"),
            ("\u{feff}a\n", r"'\u{feff}'"),
            ("a\0\n", r"'\0'"),
        ] {
            let found = whats(any_text(text));
            assert_eq!(found, format!("1: has the invisible character {named}\n"));
        }
    }

    #[test]
    fn the_ends_of_lines_and_files_are_checked() {
        assert_eq!(whats(any_text("a \nb\n")), "1: ends with a space\n");
        assert!(whats(any_text("a")).contains("must end with one line break"));
        assert!(whats(any_text("a\n\n")).contains("must end with one line break"));
    }

    #[test]
    fn paths_of_one_machine_are_found_only_at_their_start() {
        let (work, root) = (MACHINE_PATHS[0], MACHINE_PATHS[1]);
        for line in [
            format!("cd {work}x"),
            format!("\"{root}.cargo\""),
            format!("file:{work}a"),
        ] {
            assert!(
                whats(any_text(&format!("{line}\n"))).contains("path of one machine"),
                "{line}"
            );
        }
        for line in [
            format!("/var/lib/driftless{work}7"),
            format!("$DIR{work}"),
            "work".into(),
        ] {
            assert_eq!(whats(any_text(&format!("{line}\n"))), "", "{line}");
        }
    }

    #[test]
    fn a_module_needs_a_head() {
        assert!(whats(rust("fn a() {}\n")).starts_with("1: must start with a `//!` line"));
        assert!(whats(rust("/// Not the module's.\nfn a() {}\n")).contains("`//!`"));
    }

    #[test]
    fn no_test_is_ignored() {
        for attribute in ["#[ignore]", "    #[ignore = \"slow\"]"] {
            let found = whats(rust(&format!("//!\n{attribute}\n")));
            assert_eq!(found, "2: ignores a test: mend it or remove it\n");
        }
    }

    #[test]
    fn long_lines_are_found_but_for_strings_and_addresses() {
        let wide = "x".repeat(101);
        assert_eq!(
            whats(rust(&format!("//!\n// {wide}\n"))),
            "2: has 104 columns, 100 fit (--fix mends comments)\n"
        );
        assert_eq!(whats(rust(&format!("//!\nlet a = \"{wide}\";\n"))), "");
        assert_eq!(whats(rust(&format!("//!\nlet a = \"\n{wide}\n\";\n"))), "");
        assert_eq!(
            whats(rust(&format!("//! https://example.org/{wide}\n"))),
            ""
        );
        // Columns are characters, not bytes.
        assert_eq!(whats(rust(&format!("//! {}\n", "é".repeat(96)))), "");
    }

    #[test]
    fn long_files_are_found_but_for_their_tests() {
        let code = format!("//!\n{}", "fn a() {}\n".repeat(LINES_MAX - 1));
        let tests = format!(
            "#[cfg(test)]\nmod tests {{\n{}}}\n",
            "    // a\n".repeat(500)
        );
        assert_eq!(whats(rust(&code)), "");
        assert_eq!(whats(rust(&format!("{code}{tests}"))), "");
        assert!(whats(rust(&format!("{code}{tests}fn b() {{}}\n"))).contains("801 lines"));
        let elsewhere = format!("{code}#[cfg(test)]\nmod tests;\n");
        assert!(whats(rust(&elsewhere)).contains("802 lines"));
    }

    #[test]
    fn marks_of_unfinished_work_are_whole_words_outside_of_strings() {
        let mark = UNFINISHED[0];
        assert!(whats(rust(&format!("//!\n// {mark}: later\n"))).starts_with("2: has the mark"));
        assert!(
            whats(unfinished(&format!("key = 1 # {mark}(me)\n"))).starts_with("1: has the mark")
        );
        assert_eq!(
            whats(rust(&format!("//!\nlet a = \"{mark}\"; // {mark}S\n"))),
            ""
        );
        assert_eq!(whats(unfinished("mktemp /tmp/a.XXXXXX\n")), "");
    }
}
