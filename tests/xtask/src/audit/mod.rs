//! The dependency audit, offline, over `cargo metadata`.
//!
//! Each check is a function from the metadata and the tables of [`policy`] to a list of findings;
//! all findings are shown at once.

mod advisories;
mod bans;
mod duplicates;
mod layers;
mod licence;
mod metadata;
mod policy;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use metadata::Metadata;

/// Checks everything that this workspace depends on and prints what was checked.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let metadata = Metadata::parse(&workspace.metadata()?)?;
    let mut findings = licence::check(&metadata, policy::LICENCES);
    findings.extend(bans::sources(&metadata));
    findings.extend(bans::crates(&metadata, policy::BANNED));
    findings.extend(bans::owners(&metadata, policy::OWNED));
    findings.extend(duplicates::check(&metadata, policy::DUPLICATES));
    findings.extend(layers::check(&metadata, policy::LAYERS));

    let (ours, theirs) = metadata.counts();
    println!("audit: {ours} packages of ours, {theirs} of others, all targets");
    for line in layers::dev_dependencies(&metadata) {
        println!("  for tests only: {line}");
    }
    for finding in &findings {
        println!("  - {finding}");
    }
    if !findings.is_empty() {
        bail!(
            "the audit has {} finding(s); its rules: tests/xtask/src/audit/policy.rs",
            findings.len()
        );
    }
    println!("  licences, sources, banned crates, duplicates, layers: ok");
    advisories::check(workspace)
}
