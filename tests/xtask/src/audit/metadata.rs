//! The part of `cargo metadata` that the audit reads, checked on the way in.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

/// The resolved dependency graph, by package id.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    packages: BTreeMap<String, Package>,
    members: BTreeSet<String>,
}

/// One package of the graph.
#[derive(Debug, Default, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression, as the author wrote it.
    pub(crate) licence: Option<String>,
    /// A registry or a repository; a path has none.
    pub(crate) source: Option<String>,
    /// Ids of what it links.
    pub(crate) normal: BTreeSet<String>,
    /// Ids of what only its tests use.
    pub(crate) dev: BTreeSet<String>,
}

impl Metadata {
    /// Reads the output of `cargo metadata --format-version 1`.
    pub(crate) fn parse(value: &Value) -> Result<Self> {
        let mut all = Self::default();
        for package in array(value, "packages")? {
            let text = |key: &str| package[key].as_str().map(str::to_owned);
            let entry = Package {
                name: string(package, "name")?,
                version: string(package, "version")?,
                licence: text("license"),
                source: text("source"),
                ..Package::default()
            };
            all.packages.insert(string(package, "id")?, entry);
        }
        for member in array(value, "workspace_members")? {
            all.members
                .insert(member.as_str().context("a member is no string")?.to_owned());
        }
        for node in array(&value["resolve"], "nodes")? {
            all.add_edges(node)?;
        }
        Ok(all)
    }

    fn add_edges(&mut self, node: &Value) -> Result<()> {
        let id = string(node, "id")?;
        let package = self
            .packages
            .get_mut(&id)
            .with_context(|| format!("unknown node {id}"))?;
        for dependency in array(node, "deps")? {
            let target = string(dependency, "pkg")?;
            for kind in array(dependency, "dep_kinds")? {
                // A build dependency runs on the builder's machine and is in no binary.
                match kind["kind"].as_str() {
                    None => _ = package.normal.insert(target.clone()),
                    Some("dev") => _ = package.dev.insert(target.clone()),
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// All packages, ours and others'.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// The packages of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.members.iter().filter_map(|id| self.packages.get(id))
    }

    /// Whether the package of this id is one of ours.
    pub(crate) fn is_member(&self, id: &str) -> bool {
        self.members.contains(id)
    }

    /// The package's name; the id itself if cargo named an unknown one.
    pub(crate) fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.packages.get(id).map_or(id, |package| &package.name)
    }

    /// How many packages are ours and how many are others'.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.members.len(), self.packages.len() - self.members.len())
    }

    /// The shortest way over normal dependencies from `package` to one that `wanted` names.
    pub(crate) fn way<'a>(
        &'a self,
        package: &'a Package,
        wanted: impl Fn(&str) -> bool,
    ) -> Option<Vec<&'a str>> {
        let mut seen = BTreeSet::new();
        let mut ways = std::collections::VecDeque::from([(package, vec![&*package.name])]);
        while let Some((at, way)) = ways.pop_front() {
            for (id, next) in at
                .normal
                .iter()
                .filter_map(|id| Some((id, self.packages.get(id)?)))
            {
                let mut longer = way.clone();
                longer.push(&next.name);
                if wanted(&next.name) {
                    return Some(longer);
                }
                if seen.insert(id) {
                    ways.push_back((next, longer));
                }
            }
        }
        None
    }
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key]
        .as_array()
        .with_context(|| format!("cargo metadata has no list `{key}`"))
}

fn string(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str();
    Ok(text
        .with_context(|| format!("cargo metadata has no text `{key}`"))?
        .to_owned())
}

/// Small made-up graphs for the tests of the checks.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;
    use serde_json::json;

    /// A graph from lines `name version licence source: dependency ~dev-dependency`; the source is
    /// `ours`, `crates.io` or an address.
    pub(crate) fn graph(lines: &[&str]) -> Metadata {
        let (mut packages, mut nodes, mut members) = (vec![], vec![], vec![]);
        for line in lines {
            let (head, deps) = line.split_once(':').unwrap_or((line, ""));
            let [name, version, licence, source] = head
                .split_whitespace()
                .collect::<Vec<_>>()
                .try_into()
                .unwrap();
            let id = format!("{name}@{version}");
            let source = match source {
                "ours" => {
                    members.push(id.clone());
                    None
                }
                "crates.io" => Some(crate::audit::bans::CRATES_IO),
                other => Some(other),
            };
            let licence = (licence != "-").then(|| licence.replace('_', " "));
            packages.push(json!({"id": id, "name": name, "version": version,
                "license": licence, "source": source}));
            let deps: Vec<_> = deps.split_whitespace().map(dependency).collect();
            nodes.push(json!({"id": id, "deps": deps}));
        }
        let all = json!({"packages": packages, "workspace_members": members,
            "resolve": {"nodes": nodes}});
        Metadata::parse(&all).unwrap()
    }

    fn dependency(word: &str) -> Value {
        let (kind, name) = match word.strip_prefix('~') {
            Some(name) => (Some("dev"), name),
            None => (None, word),
        };
        let id = if name.contains('@') {
            name.to_owned()
        } else {
            format!("{name}@1.0.0")
        };
        json!({"pkg": id, "dep_kinds": [{"kind": kind, "target": null}]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_way_is_shown_and_cycles_end() {
        let graph = fake::graph(&[
            "a 1.0.0 MIT ours: b c",
            "b 1.0.0 MIT crates.io: d",
            "c 1.0.0 MIT crates.io: a b",
            "d 1.0.0 MIT crates.io: tokio",
            "tokio 1.0.0 MIT crates.io",
        ]);
        let a = graph.members().next().unwrap();
        assert_eq!(
            graph.way(a, |n| n == "tokio").unwrap(),
            ["a", "b", "d", "tokio"]
        );
        assert_eq!(graph.way(a, |n| n == "quinn"), None);
    }

    #[test]
    fn what_is_not_metadata_is_refused_by_name() {
        let error = Metadata::parse(&serde_json::json!({"packages": []})).unwrap_err();
        assert!(error.to_string().contains("workspace_members"), "{error}");
    }
}
