//! Crates that are built in more than one version: each must be known, with a reason.

use std::collections::{BTreeMap, BTreeSet};

use super::metadata::Metadata;
use super::policy::Duplicate;

/// Duplicates that the table lacks, and entries of the table that nothing needs any more.
pub(crate) fn check(metadata: &Metadata, known: &[Duplicate]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in metadata.packages() {
        versions
            .entry(&package.name)
            .or_default()
            .insert(release_line(&package.version));
    }
    versions.retain(|_, lines| lines.len() > 1);

    let mut findings = Vec::new();
    for (name, lines) in &versions {
        let found: Vec<&str> = lines.iter().copied().collect();
        match known.iter().find(|entry| entry.name == *name) {
            None => findings.push(format!(
                "{name} is built in the versions {}: unify them, or add it to DUPLICATES with the \
                 reason (`cargo tree --workspace --target all -i {name}@VERSION` shows who asks)",
                found.join(", ")
            )),
            Some(entry) if entry.lines.iter().copied().collect::<BTreeSet<_>>() != *lines => {
                findings.push(format!(
                    "{name} is built in the versions {}, DUPLICATES says {}: correct the entry \
                     (its reason was: {})",
                    found.join(", "),
                    entry.lines.join(", "),
                    entry.reason
                ));
            }
            Some(_) => {}
        }
    }
    for entry in known
        .iter()
        .filter(|entry| !versions.contains_key(entry.name))
    {
        findings.push(format!(
            "{} is no duplicate any more: remove it from DUPLICATES",
            entry.name
        ));
    }
    findings
}

/// The part of a version that must differ for two to be built: `1` of 1.2.3, `0.4` of 0.4.7.
fn release_line(version: &str) -> &str {
    let mut dots = version.match_indices('.').map(|(at, _)| at);
    let end = match version.starts_with("0.") {
        true => dots.nth(1),
        false => dots.next(),
    };
    &version[..end.unwrap_or(version.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::metadata::fake::graph;

    fn entry(name: &'static str, lines: &'static [&'static str]) -> Duplicate {
        Duplicate {
            name,
            lines,
            reason: "because",
        }
    }

    #[test]
    fn a_release_line_is_what_cargo_unifies_within() {
        for (version, line) in [
            ("1.2.3", "1"),
            ("0.4.7", "0.4"),
            ("12.0.0-rc.1", "12"),
            ("7", "7"),
        ] {
            assert_eq!(release_line(version), line, "{version}");
        }
    }

    #[test]
    fn unknown_wrong_and_stale_entries_are_findings() {
        let metadata = graph(&[
            "syn 2.0.1 MIT crates.io",
            "syn 3.0.1 MIT crates.io",
            "hashbrown 0.15.0 MIT crates.io",
            "hashbrown 0.17.0 MIT crates.io",
            "rand 0.9.0 MIT crates.io",
        ]);
        let right = entry("syn", &["2", "3"]);
        let findings = check(&metadata, &[right]);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("hashbrown is built in the versions 0.15, 0.17: unify"));

        let wrong = entry("hashbrown", &["0.14", "0.17"]);
        let stale = entry("rand", &["0.8", "0.9"]);
        let findings = check(&metadata, &[entry("syn", &["2", "3"]), wrong, stale]);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].contains("DUPLICATES says 0.14, 0.17: correct the entry"));
        assert!(
            findings[1].starts_with("rand is no duplicate any more"),
            "{findings:?}"
        );
    }
}
