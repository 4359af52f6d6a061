//! Where crates may come from, which may not come at all, and who may name the heavy ones.

use super::metadata::Metadata;
use super::policy::{Banned, Owned};

/// The one registry that dependencies may come from.
pub(crate) const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Packages that are neither ours nor from crates.io.
pub(crate) fn sources(metadata: &Metadata) -> Vec<String> {
    let ours: Vec<&str> = metadata.members().map(|package| &*package.name).collect();
    let mut findings = Vec::new();
    for package in metadata.packages() {
        let (name, version) = (&package.name, &package.version);
        match &package.source {
            None if ours.contains(&name.as_str()) => {}
            None => findings.push(format!(
                "{name} {version} is a path outside the workspace: make it a member"
            )),
            Some(source) if source == CRATES_IO => {}
            Some(source) => findings.push(format!(
                "{name} {version} comes from {source}: only crates.io and the workspace may be used"
            )),
        }
    }
    findings
}

/// Banned crates that somebody brought in, with the way they came.
pub(crate) fn crates(metadata: &Metadata, banned: &[Banned]) -> Vec<String> {
    let mut findings = Vec::new();
    for Banned { name, reason } in banned {
        if !metadata.packages().any(|package| package.name == *name) {
            continue;
        }
        let way = metadata
            .members()
            .find_map(|package| metadata.way(package, |n| n == *name));
        let way = way.map_or_else(
            || "tests or build scripts only".to_owned(),
            |w| w.join(" -> "),
        );
        findings.push(format!("{name} is banned, {reason} (it comes by: {way})"));
    }
    findings
}

/// Members that name a heavy crate which is another member's business.
pub(crate) fn owners(metadata: &Metadata, owned: &[Owned]) -> Vec<String> {
    let mut findings = Vec::new();
    for Owned {
        name,
        owners,
        reason,
    } in owned
    {
        for package in metadata.members() {
            let named = package.normal.iter().any(|id| metadata.name(id) == *name);
            if named && !owners.contains(&package.name.as_str()) {
                findings.push(format!(
                    "{} depends on {name}, which belongs to {}: {reason}",
                    package.name,
                    owners.join(", ")
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::metadata::fake::graph;

    #[test]
    fn only_crates_io_and_members_are_sources() {
        let findings = sources(&graph(&[
            "cloud 1.0.0 MIT ours",
            "serde 1.0.0 MIT crates.io",
            "forked 0.1.0 MIT git+https://example.org/forked",
        ]));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(
            findings[0].starts_with("forked 0.1.0 comes from git+"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_banned_crate_is_found_with_its_way_even_if_only_tests_use_it() {
        let metadata = graph(&[
            "cloud 1.0.0 MIT ours: http ~tester",
            "http 1.0.0 MIT crates.io: openssl",
            "openssl 1.0.0 MIT crates.io",
            "tester 1.0.0 MIT crates.io: chrono",
            "chrono 1.0.0 MIT crates.io",
        ]);
        let ban = |name| Banned {
            name,
            reason: "because",
        };
        let findings = crates(
            &metadata,
            &[ban("openssl"), ban("chrono"), ban("native-tls")],
        );
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(
            findings[0].ends_with("(it comes by: cloud -> http -> openssl)"),
            "{findings:?}"
        );
        assert!(
            findings[1].contains("tests or build scripts only"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_heavy_crate_is_named_by_its_owners_only() {
        let metadata = graph(&[
            "edge-store 1.0.0 MIT ours: redb",
            "edge-agent 1.0.0 MIT ours: edge-store",
            "certs 1.0.0 MIT ours: redb",
            "redb 1.0.0 MIT crates.io",
        ]);
        let owned = Owned {
            name: "redb",
            owners: &["edge-store"],
            reason: "because",
        };
        let findings = owners(&metadata, &[owned]);
        assert_eq!(
            findings,
            ["certs depends on redb, which belongs to edge-store: because"]
        );
    }
}
