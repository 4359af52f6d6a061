//! Style rules that neither rustfmt nor clippy checks, over all text files of the repository.
//!
//! Owns the walk over the files and the report; the rules lie in [`rules`] and [`links`].

mod lexer;
mod links;
mod rules;
mod wrap;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Files that are checked: what people write, not data and golden files.
const TEXT: [&str; 7] = ["rs", "md", "toml", "yaml", "yml", "sh", "service"];

/// Folders of inputs and expected outputs, which may be ugly on purpose.
const DATA_FOLDERS: [&str; 5] = ["fixtures", "golden", "corpus", "testdata", "snapshots"];

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The line, from 1.
    pub(crate) line: usize,
    /// What is wrong and how to mend it.
    pub(crate) what: String,
}

impl Finding {
    pub(crate) fn new(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
        }
    }
}

/// Breaks the comments that are too wide in every Rust file below `root`.
pub(crate) fn fix(root: &Path) -> Result<()> {
    for file in collected(root)? {
        if file.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let wrapped = wrap::comments(&text, rules::COLUMNS_MAX);
            if wrapped != text {
                fs::write(&file, wrapped)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                println!(
                    "mended {}",
                    file.strip_prefix(root).unwrap_or(&file).display()
                );
            }
        }
    }
    Ok(())
}

/// Checks every text file below `root` and prints all findings.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = collected(root)?;
    let mut count = 0;
    for file in &files {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let shown = file.strip_prefix(root).unwrap_or(file).display();
        for Finding { line, what } in check(file, &bytes) {
            println!("{shown}:{line}: {what}");
            count += 1;
        }
    }
    if count > 0 {
        bail!("tidy has {count} finding(s)");
    }
    println!("tidy: {} files are fine", files.len());
    Ok(())
}

fn check(file: &Path, bytes: &[u8]) -> Vec<Finding> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return vec![Finding::new(1, "is not UTF-8")];
    };
    let mut findings = rules::any_text(text);
    match file.extension().and_then(OsStr::to_str) {
        Some("rs") => findings.extend(rules::rust(text)),
        Some("md") => findings.extend(links::check(file, text)),
        _ => findings.extend(rules::unfinished(text)),
    }
    findings.sort();
    findings
}

fn collected(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    Ok(files)
}

/// All text files below a folder, without build output and hidden folders but CI's and cargo's.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() && is_ours(&name) {
            collect(&path, files)?;
        } else if kind.is_file() && is_text(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_ours(folder: &str) -> bool {
    match folder.strip_prefix('.') {
        Some(hidden) => ["ci", "cargo", "config"].contains(&hidden),
        None => {
            folder != "target" && !folder.starts_with("target-") && !DATA_FOLDERS.contains(&folder)
        }
    }
}

fn is_text(path: &Path) -> bool {
    let in_ci = path.parent().and_then(Path::file_name) == Some(OsStr::new(".ci"));
    in_ci
        || path
            .extension()
            .and_then(OsStr::to_str)
            .is_some_and(|end| TEXT.contains(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_output_and_data_are_left_alone() {
        for folder in ["src", ".ci", ".cargo", "docs", "targets"] {
            assert!(is_ours(folder), "{folder}");
        }
        for folder in [".git", "target", "target-arm", "golden", ".idea"] {
            assert!(!is_ours(folder), "{folder}");
        }
        assert!(is_text(Path::new("a/.ci/run")));
        assert!(is_text(Path::new("docs/spec.md")));
        assert!(!is_text(Path::new("deploy/examples/weather/hourly.txt")));
    }

    #[test]
    fn what_is_no_text_is_a_finding() {
        let findings = check(Path::new("a.rs"), &[0xff, 0xfe]);
        assert_eq!(findings, [Finding::new(1, "is not UTF-8")]);
    }

    #[test]
    fn findings_come_in_the_order_of_lines() {
        let text = "fn a() {}\n\n// \tlook \nlet x = 1; \n";
        let lines: Vec<usize> = check(Path::new("a.rs"), text.as_bytes())
            .iter()
            .map(|finding| finding.line)
            .collect();
        assert_eq!(lines, [1, 3, 3, 4]);
    }
}
