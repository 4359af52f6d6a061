//! Links in Markdown: what they point to in this repository must exist, headings included.

use std::fs;
use std::path::{Path, PathBuf};

use super::Finding;

/// Links of a Markdown file that lead nowhere.
pub(crate) fn check(file: &Path, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in prose(text) {
        for target in targets(&content) {
            if let Some(why) = broken(file, text, target) {
                findings.push(Finding::new(line, format!("the link `{target}` {why}")));
            }
        }
    }
    findings
}

/// The lines outside of code blocks, with inline code cut out.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            let parts = line.split('`').step_by(2);
            lines.push((index + 1, parts.collect::<Vec<_>>().join("`")));
        }
    }
    lines
}

fn targets(line: &str) -> Vec<&str> {
    let after = line
        .match_indices("](")
        .map(|(at, found)| &line[at + found.len()..]);
    after
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.trim())
        .collect()
}

fn broken(file: &Path, text: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    if target.starts_with('/') {
        return Some("is absolute: make it relative to this file".to_owned());
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    let place: PathBuf = if path.is_empty() {
        file.into()
    } else {
        folder.join(path)
    };
    if !path.is_empty() && !place.exists() {
        return Some(format!(
            "leads to {}, which does not exist",
            place.display()
        ));
    }
    if heading.is_empty() || place.extension().is_none_or(|end| end != "md") {
        return None;
    }
    let there = if path.is_empty() {
        text.to_owned()
    } else {
        fs::read_to_string(place).ok()?
    };
    let known = prose_headings(&there).any(|known| known == heading);
    (!known).then(|| format!("names the heading `{heading}`, which does not exist"))
}

/// The names by which the headings of a page are linked.
fn prose_headings(text: &str) -> impl Iterator<Item = String> {
    let mut in_block = false;
    text.lines().filter_map(move |line| {
        in_block ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        let is_heading = !in_block && title.len() < line.len();
        title.strip_prefix(' ').filter(|_| is_heading).map(slug)
    })
}

fn slug(title: &str) -> String {
    let kept = title
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase)
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This package's own manifest and sources serve as targets.
    fn whats(text: &str) -> Vec<String> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("page.md");
        check(&file, text)
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn what_exists_or_lies_elsewhere_passes() {
        for text in [
            "[a](Cargo.toml) and [b](src/main.rs)",
            "[up](../xtask/src)",
            "[web](https://example.org/no/such) [mail](mailto:a@example.org)",
            "# Two words, one!\n[here](#two-words-one)",
            "`[code](none.md)`",
            "```\n[code](none.md)\n```",
        ] {
            assert_eq!(whats(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_found() {
        for (text, why) in [
            ("see [a](none.md)", "does not exist"),
            ("[a](Cargo.toml) [b](../none/)", "does not exist"),
            ("[a](/etc/passwd)", "is absolute"),
            ("# One\n[a](#two)", "heading `two`"),
            ("```\n# two\n```\n[a](#two)", "heading `two`"),
        ] {
            let found = whats(text);
            assert!(
                found.len() == 1 && found[0].contains(why),
                "{text}: {found:?}"
            );
        }
    }
}
