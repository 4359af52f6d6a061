//! Survivors that somebody looked at: why no check notices them, or which one does by now.

use crate::find::Id;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// What somebody found out about a survivor.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explained {
    /// The mutant.
    pub mutant: Id,
    /// Why it makes no difference, or none that a check could see.
    #[serde(default)]
    pub why: Option<String>,
    /// The check that was written because of it, and notices it.
    #[serde(default)]
    pub check: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    survivor: Vec<Explained>,
}

/// Reads the list; none where there is no file.
///
/// # Errors
///
/// Where it cannot be read, or says neither why nor which check.
pub fn read(path: &Path) -> Result<Vec<Explained>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let name = || path.display().to_string();
    let text = fs::read_to_string(path).with_context(name)?;
    let page: Page = toml::from_str(&text).with_context(name)?;
    for one in &page.survivor {
        let said = one.why.is_some() != one.check.is_some();
        anyhow::ensure!(
            said,
            "{}: {}: say either why or which check",
            name(),
            one.mutant
        );
    }
    Ok(page.survivor)
}
