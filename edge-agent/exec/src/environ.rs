//! What a task's program is and what it finds in its environment.

use crate::attempt::Node;
use crate::mark;
use crate::model::{Launch, Options};
use shared::workflow::Action;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// `PATH` of tasks unless told otherwise.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with its arguments, found.
#[derive(Debug)]
pub(crate) struct Program {
    /// What is executed; absolute.
    pub(crate) file: PathBuf,
    /// All of them, the program's name first.
    pub(crate) argv: Vec<OsString>,
}

/// Finds what `launch` executes; relative paths with a `/` start at `base`. The error is for
/// people.
pub(crate) fn program(launch: &Launch, options: &Options, base: &Path) -> Result<Program, String> {
    let argv: Vec<OsString> = match &launch.task.action {
        Action::Shell(text) => ["/bin/sh", "-c", text].map(Into::into).into(),
        Action::Argv(argv) => argv.iter().map(Into::into).collect(),
        Action::Approval(_) => return Err("it asks a person and runs nothing".to_owned()),
    };
    let name = argv
        .first()
        .filter(|name| !name.is_empty())
        .ok_or("the command is empty")?
        .clone();
    if argv.iter().any(|arg| arg.as_encoded_bytes().contains(&0)) {
        return Err("an argument contains a NUL byte".to_owned());
    }
    if name.as_encoded_bytes().contains(&b'/') {
        return Ok(Program {
            file: base.join(&name),
            argv,
        });
    }
    let path = launch
        .task
        .env
        .get("PATH")
        .or_else(|| launch.env.get("PATH"));
    let path = path.unwrap_or(&options.path);
    search(&name, path).map(|file| Program { file, argv })
}

fn search(name: &OsStr, path: &str) -> Result<PathBuf, String> {
    let mut not_executable = None;
    for dir in path.split(':').filter(|dir| dir.starts_with('/')) {
        let file = Path::new(dir).join(name);
        match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {
                return Ok(file);
            }
            Ok(_) => not_executable = Some(file),
            Err(_) => {}
        }
    }
    let name = name.display();
    Err(match not_executable {
        Some(file) => format!("program '{name}': {} is not executable", file.display()),
        None => format!("program '{name}' was not found in PATH={path}"),
    })
}

/// The whole environment of an attempt that bears `mark` and works in `dir`. What the agent sets
/// cannot be changed by the task, except where programs look for each other and for their language.
pub(crate) fn environment(
    launch: &Launch,
    node: &Node,
    mark: &str,
    dir: &Path,
) -> Result<Vec<(OsString, OsString)>, String> {
    let a = &launch.attempt;
    let mut env: Vec<(OsString, OsString)> =
        Vec::with_capacity(12 + launch.env.len() + launch.task.env.len());
    let mut set = |name: &str, value: &OsStr| env.push((name.into(), value.into()));
    set("PATH", node.options.path.as_ref());
    set("HOME", dir.as_ref());
    set("TMPDIR", dir.as_ref());
    set("LANG", "C.UTF-8".as_ref());
    for (name, value) in launch.env.iter().chain(&launch.task.env) {
        let bad_name = name.is_empty() || name.contains(['=', '\0']);
        if bad_name || value.contains('\0') {
            return Err(format!(
                "'{}' cannot be an environment variable",
                name.escape_default()
            ));
        }
        set(name, value.as_ref());
    }
    // the mark begins with it
    let run = mark.split_once('-').map_or(mark, |(run, _)| run);
    set("DRIFTLESS_RUN", run.as_ref());
    set("DRIFTLESS_TASK", launch.task.id.as_ref());
    set("DRIFTLESS_ATTEMPT", a.number.to_string().as_ref());
    set(
        "DRIFTLESS_FENCE",
        format!("{}.{}", a.slice.epoch, a.number).as_ref(),
    );
    set(mark::STORE, node.store.as_ref());
    set(mark::MARK, mark.as_ref());
    Ok(env)
}

/// `path` if it stays below where it starts: relative, without `..`.
pub(crate) fn below(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let plain = path
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    let clean = !path.as_os_str().as_encoded_bytes().contains(&0);
    (plain && clean && path.components().any(|c| matches!(c, Component::Normal(_)))).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_below_are_taken() {
        for good in ["a", "a/b", "./a"] {
            assert!(below(good).is_some(), "{good}");
        }
        for bad in ["", "/a", "..", "a/../b", ".", "a\0"] {
            assert!(below(bad).is_none(), "{bad}");
        }
    }
}
