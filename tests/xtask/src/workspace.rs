//! Where the workspace lies and how cargo is called inside it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The root folder of this repository.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this tool belongs to, from wherever it is called.
    pub(crate) fn find() -> Result<Self> {
        // `cargo run` says where the package lies; a binary called by hand looks upwards instead.
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(package) => PathBuf::from(package),
            None => env::current_dir().context("cannot tell the current folder")?,
        };
        let root = start.ancestors().find(|folder| is_root(folder));
        match root {
            Some(root) => Ok(Self {
                root: root.to_path_buf(),
            }),
            None => bail!(
                "no Cargo.toml with a [workspace] at or above {}",
                start.display()
            ),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A cargo command in the workspace, with the environment of a fresh shell.
    ///
    /// `cargo run` hands its child the variables of the package it runs. Build scripts that watch
    /// them (ring's does) would then run again, and so would everything above them.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args).current_dir(&self.root);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_package_variable) {
                command.env_remove(name);
            }
        }
        command
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target_directory(&self) -> Result<PathBuf> {
        let metadata = self.metadata()?;
        let directory = metadata["target_directory"].as_str();
        let directory = directory.context("cargo metadata names no target directory")?;
        Ok(PathBuf::from(directory))
    }

    /// What cargo knows about the workspace and everything that it depends on.
    pub(crate) fn metadata(&self) -> Result<Value> {
        let args = ["metadata", "--locked", "--format-version", "1"];
        let output = self
            .cargo(&args)
            .output()
            .context("cannot start cargo metadata")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")
    }
}

fn is_root(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("Cargo.toml"))
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
}

fn is_package_variable(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name == "CARGO_CRATE_NAME"
        || name == "CARGO_PRIMARY_PACKAGE"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_and_holds_this_package() {
        let workspace = Workspace::find().unwrap();
        assert!(workspace.root().join("tests/xtask/Cargo.toml").is_file());
    }

    #[test]
    fn only_the_variables_of_the_package_are_taken_away() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_CRATE_NAME"] {
            assert!(is_package_variable(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "CARGO_NET_RETRY",
            "CARGO",
            "PATH",
        ] {
            assert!(!is_package_variable(name), "{name}");
        }
    }
}
