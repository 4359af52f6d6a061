//! What is mutated and what judges it: this repository, or a small one in the tool's own tests.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A package whose sources are mutated.
#[derive(Debug, Clone)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder in the workspace.
    pub folder: String,
    /// The packages whose tests judge its mutants, its own first.
    pub judges: Vec<String>,
}

/// A workspace, its packages that are mutated, and their judges.
#[derive(Debug, Clone)]
pub struct Project {
    /// Where the workspace lies.
    pub root: PathBuf,
    /// Where the mutated copy, its build and the ledger lie.
    pub output: PathBuf,
    /// What is mutated. The first one holds the switch, and all others depend on it.
    pub packages: Vec<Package>,
    /// The folders of all judges and of what they stand on.
    pub checks: Vec<String>,
    /// Programs of tests that are left out: they are slow, and say again what others say.
    pub left_out: Vec<String>,
    /// The binary that runs seeds, if there is one, and the package that it belongs to.
    pub simulator: Option<String>,
    /// Added to eight times what a check takes without a mutant, before it counts as endless.
    pub patience: Duration,
}

impl Project {
    /// The two cores and what they share.
    #[must_use]
    pub fn driftless(root: &Path) -> Self {
        let package = |name: &str, folder: &str, judges: &[&str]| Package {
            name: name.to_owned(),
            folder: folder.to_owned(),
            judges: judges.iter().map(|judge| (*judge).to_owned()).collect(),
        };
        let everybody = [
            "shared",
            "edge-core",
            "cloud-core",
            "edge-store",
            "cloud-store",
            "sim",
        ];
        Self {
            root: root.to_owned(),
            output: root.join("target/mutants"),
            packages: vec![
                package("shared", "shared", &everybody),
                package(
                    "edge-core",
                    "edge-agent/core",
                    &["edge-core", "edge-store", "sim"],
                ),
                package(
                    "cloud-core",
                    "cloud/core",
                    &["cloud-core", "cloud-store", "sim"],
                ),
            ],
            checks: [
                "shared/",
                "edge-agent/core/",
                "edge-agent/store/",
                "cloud/core/",
            ]
            .into_iter()
            .chain(["cloud/store/", "tests/sim/"])
            .map(str::to_owned)
            .collect(),
            // the tests of the engine again over another store; worlds like those of the seeds
            left_out: ["cloud-store::engine", "sim::rehearsal", "sim::shrink"]
                .map(str::to_owned)
                .to_vec(),
            simulator: Some("sim".to_owned()),
            patience: Duration::from_secs(20),
        }
    }

    /// All packages whose tests are judges, each once.
    #[must_use]
    pub fn judges(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        for judge in self.packages.iter().flat_map(|package| &package.judges) {
            if !all.contains(&judge.as_str()) {
                all.push(judge);
            }
        }
        all
    }

    /// Where the mutated copy lies.
    #[must_use]
    pub fn copy(&self) -> PathBuf {
        self.output.join("copy")
    }

    /// The package that a file of the workspace belongs to, if it is mutated.
    #[must_use]
    pub fn package_of(&self, file: &str) -> Option<&Package> {
        let below = |package: &&Package| file.starts_with(&format!("{}/src/", package.folder));
        self.packages.iter().find(below)
    }

    /// Whether a file that is not mutated has a say in the verdicts.
    #[must_use]
    pub fn is_check(&self, file: &str) -> bool {
        self.checks.iter().any(|folder| file.starts_with(folder))
    }

    /// All files of the workspace, by their path in it, without what was built and what is hidden.
    ///
    /// # Errors
    ///
    /// Where a folder cannot be read.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        collect(&self.root, "", &mut files)?;
        files.sort();
        Ok(files)
    }
}

fn collect(folder: &Path, path: &str, files: &mut Vec<String>) -> Result<()> {
    let name = || folder.display().to_string();
    for entry in fs::read_dir(folder).with_context(name)? {
        let entry = entry.with_context(name)?;
        let file = entry.file_name();
        let file = file.to_str().with_context(name)?;
        let kind = entry.file_type().with_context(name)?;
        let hidden = file.starts_with('.') && file != ".cargo";
        if kind.is_dir() && !hidden && !(path.is_empty() && file == "target") {
            collect(&entry.path(), &format!("{path}{file}/"), files)?;
        } else if kind.is_file() && !hidden {
            files.push(format!("{path}{file}"));
        }
    }
    Ok(())
}
