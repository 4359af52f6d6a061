//! Security advisories, where their database can be had; where not, that is said.
//!
//! Nothing is downloaded here: a gate that depends on another server's mood is none.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::system::is_in_path;
use crate::workspace::Workspace;

/// A tool that compares Cargo.lock with the database, and where it keeps its copy.
struct Tool {
    program: &'static str,
    database: &'static str,
    args: &'static [&'static str],
}

const TOOLS: [Tool; 2] = [
    Tool {
        program: "cargo-audit",
        database: "advisory-db",
        args: &["audit", "--no-fetch", "--stale"],
    },
    Tool {
        program: "cargo-deny",
        database: "advisory-dbs",
        args: &["deny", "--offline", "check", "advisories"],
    },
];

/// Runs the first tool that is installed together with its database.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let home = cargo_home();
    let Some(tool) = usable(is_in_path, |name| home.join(name).is_dir()) else {
        println!("  advisories: NOT checked (needs cargo-audit or cargo-deny with its database)");
        return Ok(());
    };
    let status = workspace.cargo(tool.args).status();
    let status = status.with_context(|| format!("cannot start {}", tool.program))?;
    ensure!(
        status.success(),
        "{} found advisories ({status})",
        tool.program
    );
    println!(
        "  advisories: ok, by {} and the copy in {}",
        tool.program, tool.database
    );
    Ok(())
}

fn usable(
    is_installed: impl Fn(&str) -> bool,
    has_database: impl Fn(&str) -> bool,
) -> Option<&'static Tool> {
    TOOLS
        .iter()
        .find(|tool| is_installed(tool.program) && has_database(tool.database))
}

fn cargo_home() -> PathBuf {
    let own = || Path::new(&env::var_os("HOME").unwrap_or_default()).join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(own, PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_without_its_own_database_is_not_used() {
        let pick = |program: &str, database: &str| {
            usable(|p| p == program, |d| d == database).map(|tool| tool.program)
        };
        assert_eq!(pick("cargo-audit", "advisory-db"), Some("cargo-audit"));
        assert_eq!(pick("cargo-deny", "advisory-dbs"), Some("cargo-deny"));
        assert_eq!(pick("cargo-audit", "advisory-dbs"), None);
        assert_eq!(pick("none", "advisory-db"), None);
    }
}
