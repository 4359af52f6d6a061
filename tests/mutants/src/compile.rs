//! The mutated copy of the workspace: written, compiled once, and what the compiler refuses.

use crate::find::{Id, Mutant};
use crate::project::{Package, Project};
use crate::rewrite::{Rewritten, rewrite};
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The module that holds the switch, in the first mutated package of the copy.
const SWITCH: &str = include_str!("switch.rs.in");

/// Fast to compile and to run, with all checks of overflows.
const PROFILE: &str = "
[profile.mutants]
inherits = \"dev\"
opt-level = 1
debug = false
incremental = false

[profile.mutants.package.\"*\"]
opt-level = 2
";

/// A program that the build made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// The package and the target, as in `edge-core::core`.
    pub name: String,
    /// The package.
    pub package: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Where the package lies, in which tests run.
    pub folder: PathBuf,
}

/// What a build made.
#[derive(Debug, Default)]
pub struct Built {
    /// The programs of tests.
    pub tests: Vec<Program>,
    /// The simulator.
    pub simulator: Option<Program>,
}

/// Where mutants stand in the copy, by file.
type Places = BTreeMap<String, Vec<(Range<usize>, u32)>>;

/// Writes the copy with these mutants behind the switch.
///
/// # Errors
///
/// Where a file cannot be read or written.
pub fn write(project: &Project, mutants: &[&Mutant]) -> Result<Places> {
    let copy = project.copy();
    let mut places = Places::new();
    let mut kept = BTreeSet::new();
    let mut by_file: BTreeMap<&str, Vec<(u32, &Mutant)>> = BTreeMap::new();
    for mutant in mutants {
        by_file
            .entry(&mutant.id.file)
            .or_default()
            .push((mutant.number(), mutant));
    }
    let switch_package = project.packages.first().context("nothing is mutated")?;
    for name in project.files()? {
        let bytes = fs::read(project.root.join(&name)).with_context(|| name.clone())?;
        let bytes = match by_file.get(name.as_str()) {
            Some(mutants) => {
                let package = project.package_of(&name).context("a mutant outside")?;
                let source = String::from_utf8(bytes).with_context(|| name.clone())?;
                let path = switch_path(package, switch_package);
                let Rewritten {
                    text,
                    places: there,
                } = rewrite(&source, mutants, &path);
                places.insert(name.clone(), there);
                text.into_bytes()
            }
            None => bytes,
        };
        let bytes = extended(&name, bytes, switch_package);
        write_if_other(&copy.join(&name), &bytes)?;
        kept.insert(copy.join(&name));
    }
    let switch = copy
        .join(&switch_package.folder)
        .join("src/mutant_switch.rs");
    write_if_other(&switch, SWITCH.as_bytes())?;
    kept.insert(switch);
    remove_others(&copy, &kept)?;
    Ok(places)
}

fn switch_path(package: &Package, holder: &Package) -> String {
    match package.name == holder.name {
        true => "crate::mutant_switch::on".to_owned(),
        false => format!("::{}::mutant_switch::on", holder.name.replace('-', "_")),
    }
}

/// What some files have behind their end in the copy.
fn extended(name: &str, mut bytes: Vec<u8>, holder: &Package) -> Vec<u8> {
    if name == "Cargo.toml" {
        bytes.extend(PROFILE.as_bytes());
    }
    if *name == format!("{}/src/lib.rs", holder.folder) {
        bytes.extend(b"\n#[doc(hidden)]\npub mod mutant_switch;\n");
    }
    bytes
}

/// Leaves a file that is the same untouched, so that cargo does not build it again.
fn write_if_other(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let name = || format!("{} cannot be written", path.display());
    let folder = path.parent().with_context(name)?;
    fs::create_dir_all(folder).with_context(name)?;
    fs::write(path, bytes).with_context(name)
}

fn remove_others(folder: &Path, kept: &BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) && path.file_name() != Some("Cargo.lock".as_ref()) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Writes and checks until the compiler takes all of `drawn`; `draw` is asked again after each
/// time, with what was refused so far.
///
/// # Errors
///
/// Where the compiler complains about something else.
pub fn settle<'a>(
    project: &Project,
    draw: &dyn Fn(&BTreeSet<Id>) -> Vec<&'a Mutant>,
    refused: &mut BTreeSet<Id>,
) -> Result<Vec<&'a Mutant>> {
    loop {
        let drawn = draw(refused);
        let places = write(project, &drawn)?;
        let errors = check(project)?;
        if errors.is_empty() {
            return Ok(drawn);
        }
        let blamed = blamed(&errors, &places)?;
        eprintln!(
            "the compiler refuses {} of {} mutants",
            blamed.len(),
            drawn.len()
        );
        for mutant in drawn
            .iter()
            .filter(|mutant| blamed.contains(&mutant.number()))
        {
            eprintln!("  {}", mutant.id);
            refused.insert(mutant.id.clone());
        }
    }
}

/// A place that the compiler complains about, and what it says.
#[derive(Debug)]
struct Complaint {
    file: String,
    at: Range<usize>,
    text: String,
}

/// Checks the mutated packages: what the compiler complains about.
fn check(project: &Project) -> Result<Vec<Complaint>> {
    let mut command = cargo(project);
    command.args(["check", "--keep-going"]);
    for package in &project.packages {
        command.args(["--package", &package.name]);
    }
    let (messages, good) = messages(command)?;
    let mut complaints = Vec::new();
    for message in messages
        .iter()
        .filter(|one| one["reason"] == "compiler-message")
    {
        let message = &message["message"];
        if message["level"] != "error" {
            continue;
        }
        let Some(spans) = message["spans"].as_array() else {
            continue;
        };
        for span in spans.iter().filter(|span| span["is_primary"] == true) {
            let edge = |name: &str| span[name].as_u64().map(|at| at as usize);
            let (Some(start), Some(end)) = (edge("byte_start"), edge("byte_end")) else {
                continue;
            };
            complaints.push(Complaint {
                file: span["file_name"].as_str().unwrap_or_default().to_owned(),
                at: start..end,
                text: message["rendered"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    ensure!(
        good || !complaints.is_empty(),
        "cargo check of the copy failed, and names no place"
    );
    Ok(complaints)
}

/// The mutants that are to blame: the innermost at each place, or the nearest one in the file.
fn blamed(complaints: &[Complaint], places: &Places) -> Result<BTreeSet<u32>> {
    let mut blamed = BTreeSet::new();
    for Complaint { file, at, text } in complaints {
        let Some(there) = places.get(file) else {
            bail!("the copy does not compile:\n{text}");
        };
        let far = |place: &Range<usize>| match place.start <= at.start && at.end <= place.end {
            true => (0, place.len()),
            false => (
                1,
                place
                    .start
                    .abs_diff(at.start)
                    .min(place.end.abs_diff(at.start)),
            ),
        };
        let nearest = there.iter().min_by_key(|(place, _)| far(place));
        blamed.extend(nearest.map(|(_, number)| *number));
    }
    Ok(blamed)
}

/// Builds the programs of all judges.
///
/// # Errors
///
/// Where that fails.
pub fn build(project: &Project) -> Result<Built> {
    let mut command = cargo(project);
    command.args(["test", "--no-run", "--lib", "--tests", "--bins"]);
    for judge in project.judges() {
        command.args(["--package", judge]);
    }
    let (messages, good) = messages(command)?;
    for message in messages
        .iter()
        .filter(|one| one["message"]["level"] == "error")
    {
        eprintln!(
            "{}",
            message["message"]["rendered"].as_str().unwrap_or_default()
        );
    }
    ensure!(good, "the copy cannot be built");
    let mut built = Built::default();
    for message in messages
        .iter()
        .filter(|one| one["reason"] == "compiler-artifact")
    {
        let Some(path) = message["executable"].as_str() else {
            continue;
        };
        let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
        let folder = manifest
            .parent()
            .context("a package without a folder")?
            .to_owned();
        let id = message["package_id"].as_str().unwrap_or_default();
        let package = package_name(id).to_owned();
        let target = message["target"]["name"].as_str().unwrap_or_default();
        let program = Program {
            name: format!("{package}::{target}"),
            package,
            path: PathBuf::from(path),
            folder,
        };
        if message["profile"]["test"] == true && !project.left_out.contains(&program.name) {
            built.tests.push(program);
        } else if message["profile"]["test"] == false
            && Some(target) == project.simulator.as_deref()
        {
            built.simulator = Some(program);
        }
    }
    let found = project.simulator.is_none() || built.simulator.is_some();
    ensure!(found, "the build made no simulator");
    built.tests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(built)
}

/// The name in an id of cargo's: `path+file:///a/core#edge-core@0.1.0`, or `…/shared#0.1.0`.
fn package_name(id: &str) -> &str {
    let (place, version) = id.rsplit_once('#').unwrap_or((id, ""));
    match version.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next().unwrap_or(place),
    }
}

fn cargo(project: &Project) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(project.copy());
    // what cargo sets for the program that it runs would make build scripts run again
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_"))
        {
            command.env_remove(name);
        }
    }
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_INCREMENTAL",
    ] {
        command.env_remove(name);
    }
    command.env("CARGO_TARGET_DIR", project.output.join("build"));
    // a mutant may leave names unused
    command.env("RUSTFLAGS", "--cap-lints=allow");
    command
}

/// Runs cargo: what it says for programs, and whether all went well.
fn messages(mut command: Command) -> Result<(Vec<Value>, bool)> {
    command.args([
        "--profile",
        "mutants",
        "--message-format",
        "json",
        "--quiet",
    ]);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let output = output.context("cargo cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    Ok((messages, output.status.success()))
}
