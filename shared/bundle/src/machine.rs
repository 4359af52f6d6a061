//! The machine and the sizes of a data directory.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Most entries of a data directory that are counted.
const ENTRIES: usize = 200_000;

/// System, kernel, cores and memory.
#[must_use]
pub fn machine() -> Value {
    let uname = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system: BTreeMap<&str, &str> = release
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| ["ID", "VERSION_ID", "PRETTY_NAME"].contains(key))
        .map(|(key, value)| (key, value.trim_matches('"')))
        .collect();
    let info = rustix::system::sysinfo();
    json!({
        "kernel": text(uname.release()),
        "machine": text(uname.machine()),
        "system": system,
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": info.totalram.saturating_mul(u64::from(info.mem_unit.max(1))),
        "up_seconds": info.uptime,
        "user": rustix::process::geteuid().as_raw(),
        "systemd": Path::new("/run/systemd/system").is_dir(),
    })
}

/// Bytes and number of files below each entry of a directory.
///
/// # Errors
/// Why the directory cannot be read, for people.
pub fn sizes(dir: &Path) -> Result<Value, String> {
    let failed = |error| format!("{}: {error}", dir.display());
    let mut left = ENTRIES;
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(failed)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (bytes, files) = below(entry.path(), &mut left);
        entries.insert(name, json!({"bytes": bytes, "files": files}));
    }
    Ok(json!({"entries": entries, "whole": left > 0}))
}

fn below(path: PathBuf, left: &mut usize) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    let mut todo = vec![path];
    while let Some(path) = todo.pop() {
        *left = left.saturating_sub(1);
        // what goes away meanwhile, or may not be looked at, counts nothing
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        if meta.is_dir() && *left > 0 {
            todo.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.path()),
            );
        } else if meta.is_file() {
            bytes += meta.len();
            files += 1;
        }
    }
    (bytes, files)
}
