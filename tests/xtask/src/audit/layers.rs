//! The direction of dependencies between the packages of this workspace.
//!
//! Only normal dependencies are ruled; what tests alone use is listed, so that it can be seen.

use super::metadata::{Metadata, Package};
use super::policy::Layer;

/// Members that depend on what is above or beside them, or on crates that their layer excludes.
pub(crate) fn check(metadata: &Metadata, layers: &[Layer]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata.members() {
        match layers.iter().find(|layer| layer.package == package.name) {
            Some(layer) => findings.extend(check_one(metadata, package, layer)),
            None => findings.push(format!(
                "the package {} has no row in LAYERS: say what it may depend on",
                package.name
            )),
        }
    }
    findings
}

fn check_one(metadata: &Metadata, package: &Package, layer: &Layer) -> Vec<String> {
    let mut findings = Vec::new();
    for id in package.normal.iter().filter(|id| metadata.is_member(id)) {
        let name = metadata.name(id);
        if !layer.may_use.contains(&name) {
            findings.push(format!(
                "{} depends on {name}; of ours it may depend on {}",
                package.name,
                listed(layer.may_use)
            ));
        }
    }
    for excluded in layer.never {
        if let Some(way) = metadata.way(package, |name| name == *excluded) {
            findings.push(format!(
                "{} must not reach {excluded}, it decides without I/O: {}",
                package.name,
                way.join(" -> ")
            ));
        }
    }
    findings
}

/// The members that each member's tests use, one line a member.
pub(crate) fn dev_dependencies(metadata: &Metadata) -> Vec<String> {
    let mut lines = Vec::new();
    for package in metadata.members() {
        let ours = package.dev.iter().filter(|id| metadata.is_member(id));
        let names: Vec<&str> = ours.map(|id| metadata.name(id)).collect();
        if !names.is_empty() {
            lines.push(format!("{} -> {}", package.name, names.join(", ")));
        }
    }
    lines
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::metadata::fake::graph;

    const LAYERS: &[Layer] = &[
        Layer {
            package: "shared",
            may_use: &[],
            never: &[],
        },
        Layer {
            package: "edge-core",
            may_use: &["shared"],
            never: &["tokio"],
        },
        Layer {
            package: "cloud",
            may_use: &["shared"],
            never: &[],
        },
    ];

    #[test]
    fn the_allowed_direction_passes_and_tests_are_only_listed() {
        let metadata = graph(&[
            "shared 1.0.0 MIT ours: serde",
            "edge-core 1.0.0 MIT ours: shared ~cloud ~tokio",
            "cloud 1.0.0 MIT ours: shared tokio",
            "serde 1.0.0 MIT crates.io",
            "tokio 1.0.0 MIT crates.io",
        ]);
        assert_eq!(check(&metadata, LAYERS), Vec::<String>::new());
        assert_eq!(dev_dependencies(&metadata), ["edge-core -> cloud"]);
    }

    #[test]
    fn the_wrong_direction_is_a_finding() {
        let metadata = graph(&[
            "shared 1.0.0 MIT ours: cloud",
            "edge-core 1.0.0 MIT ours: cloud",
            "cloud 1.0.0 MIT ours",
        ]);
        let findings = check(&metadata, LAYERS);
        assert_eq!(
            findings,
            [
                "edge-core depends on cloud; of ours it may depend on shared",
                "shared depends on cloud; of ours it may depend on nothing",
            ]
        );
    }

    #[test]
    fn an_excluded_crate_is_found_behind_others() {
        let metadata = graph(&[
            "edge-core 1.0.0 MIT ours: timer",
            "timer 1.0.0 MIT crates.io: tokio",
            "tokio 1.0.0 MIT crates.io",
        ]);
        let findings = check(&metadata, LAYERS);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(
            findings[0].ends_with("edge-core -> timer -> tokio"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_new_package_needs_a_row() {
        let findings = check(&graph(&["extra 1.0.0 MIT ours"]), LAYERS);
        assert!(
            findings[0].contains("extra has no row in LAYERS"),
            "{findings:?}"
        );
    }
}
