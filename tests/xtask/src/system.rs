//! System packages that tests with real parts use, and what is skipped where they are missing.
//!
//! A test that needs one of these programs looks for it itself and says so when it skips; this
//! module sees to it that on Debian as root there is nothing to skip.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::Result;

use crate::steps::Steps;

/// A Debian package that tests use.
#[derive(Debug, Clone, Copy)]
struct SystemPackage {
    /// Its name for `apt-get install`.
    name: &'static str,
    /// A program that it brings; when it is there, nothing is installed.
    program: &'static str,
    /// Which tests need it, and for what: printed where they are skipped.
    used_by: &'static str,
}

/// What the tests need beyond a Rust toolchain. Keep only what a test really uses.
const PACKAGES: &[SystemPackage] = &[
    SystemPackage {
        name: "podman",
        program: "podman",
        used_by: "container files",
    },
    SystemPackage {
        name: "runc",
        program: "runc",
        used_by: "container files",
    },
];

/// Installs what is missing, or says what will be skipped and why.
pub(crate) fn prepare(steps: &mut Steps) -> Result<()> {
    let missing = missing(PACKAGES, is_in_path);
    if missing.is_empty() {
        eprintln!("\nsystem packages: nothing is missing, no test is skipped");
        return Ok(());
    }
    if !(is_debian() && is_root()) {
        eprint!("{}", skip_note(&missing));
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    update.args(["update", "--quiet"]);
    steps.program("apt-update", update)?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]);
    install.args(missing.iter().map(|package| package.name));
    install.env("DEBIAN_FRONTEND", "noninteractive");
    steps.program("apt-install", install)
}

fn missing(packages: &[SystemPackage], has: impl Fn(&str) -> bool) -> Vec<SystemPackage> {
    packages
        .iter()
        .filter(|package| !has(package.program))
        .copied()
        .collect()
}

fn skip_note(missing: &[SystemPackage]) -> String {
    let mut note = String::from("\nnot root on Debian, so nothing is installed; skipped are:\n");
    for SystemPackage {
        name,
        program,
        used_by,
    } in missing
    {
        writeln!(
            note,
            "  {used_by}: needs the program {program} (Debian package {name})"
        )
        .expect("writing to a string cannot fail");
    }
    note
}

/// Whether a program of this name can be called.
pub(crate) fn is_in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Not everybody's PATH has the folders where the network tools lie.
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| text.lines().any(|l| l == "ID=debian"))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: SystemPackage = SystemPackage {
        name: "iproute2",
        program: "ip",
        used_by: "links in namespaces",
    };

    #[test]
    fn only_what_is_not_there_is_missing() {
        assert_eq!(missing(&[IP], |_| true).len(), 0);
        assert_eq!(
            missing(&[IP], |program| program != "ip")[0].name,
            "iproute2"
        );
    }

    #[test]
    fn a_skip_names_the_tests_the_program_and_the_package() {
        let note = skip_note(&[IP]);
        for part in [
            "links in namespaces",
            "the program ip",
            "Debian package iproute2",
        ] {
            assert!(note.contains(part), "{part} is missing in: {note}");
        }
    }

    #[test]
    fn the_path_is_searched() {
        assert!(is_in_path("sh"));
        assert!(!is_in_path("surely-no-such-program"));
    }
}
