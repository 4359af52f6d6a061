//! Where the coordinator is: its API's address and its data directory, from flags and environment.

use crate::args::Global;
use crate::config;
use crate::exit::{Code, Failure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The API of a coordinator that was started without `--api`.
pub(crate) const DEFAULT_API: &str = "127.0.0.1:4480";

/// Reads an environment variable; empty counts as absent.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The coordinator's data directory: `--data`, `DRIFTLESS_DATA`, the configuration file, or the
/// usual place.
pub(crate) fn data_dir(global: &Global) -> PathBuf {
    if let Some(data) = &global.data {
        return data.clone();
    }
    if let Some(data) = variable("DRIFTLESS_DATA") {
        return data.into();
    }
    if let Some(data) = config::of_file(global, "data") {
        return data.into();
    }
    if rustix::process::geteuid().is_root() {
        return config::DATA.into();
    }
    let state = variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let home = || PathBuf::from(variable("HOME").unwrap_or_else(|| "/".into()));
    state
        .unwrap_or_else(|| home().join(".local/state"))
        .join("driftless/coordinator")
}

/// The API's base address, as in `http://127.0.0.1:4480`.
///
/// # Errors
/// When a flag or variable cannot be an address, or the data directory that was named says nothing.
pub(crate) fn api(global: &Global) -> Result<String, Failure> {
    if let Some(api) = &global.api {
        return base(api, "--api");
    }
    if let Some(api) = variable("DRIFTLESS_API") {
        return base(&api.to_string_lossy(), "DRIFTLESS_API");
    }
    let named = global.data.is_some() || variable("DRIFTLESS_DATA").is_some();
    match read_address(&data_dir(global)) {
        Ok(address) => base(&address, "api.addr"),
        Err(_) if !named => match config::of_file(global, "api") {
            Some(api) => base(&api, "the configuration's api"),
            None => base(DEFAULT_API, "the default"),
        },
        Err(error) => Err(error),
    }
}

fn read_address(data: &Path) -> Result<String, Failure> {
    let path = data.join("api.addr");
    let start = format!("start one with `driftless serve --data {}`", data.display());
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let what = format!("cannot read {}: {error}", path.display());
            Err(Failure::new(Code::Unreachable, what)
                .hint("use the coordinator's user, or name its API with --api HOST:PORT"))
        }
        _ => {
            let what = format!("no coordinator runs on {}", data.display());
            Err(Failure::new(Code::Unreachable, what).hint(start))
        }
    }
}

/// `HOST:PORT` or `http://HOST:PORT`, with or without a slash at the end.
fn base(text: &str, from: &str) -> Result<String, Failure> {
    let wrong = |why: &str| {
        let what = format!("{from} is '{text}', which is {why}");
        Err(Failure::new(Code::Usage, what).hint("write HOST:PORT or http://HOST:PORT"))
    };
    if text.starts_with("https://") {
        return wrong("https: the API speaks plain http, on loopback or behind a proxy");
    }
    let rest = text
        .strip_prefix("http://")
        .unwrap_or(text)
        .trim_end_matches('/');
    let Some((host, port)) = rest.rsplit_once(':') else {
        return wrong("without a port");
    };
    if host.is_empty() || host.contains(['/', '@', ' ']) || port.parse::<u16>().is_err() {
        return wrong("not an address");
    }
    Ok(format!("http://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_scheme() {
        for text in ["127.0.0.1:1", "http://127.0.0.1:1", "http://127.0.0.1:1/"] {
            assert_eq!(base(text, "--api").unwrap(), "http://127.0.0.1:1");
        }
        assert_eq!(base("[::1]:80", "--api").unwrap(), "http://[::1]:80");
        for text in [
            "",
            "host",
            "host:",
            ":1",
            "host:99999",
            "https://h:1",
            "h:1/v1",
            "a b:1",
        ] {
            assert_eq!(base(text, "--api").unwrap_err().code, Code::Usage, "{text}");
        }
    }

    #[test]
    fn the_flag_wins_and_a_directory_says_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let data = Some(dir.path().to_path_buf());
        let by_data = Global {
            data: data.clone(),
            ..Global::default()
        };
        assert_eq!(api(&by_data).unwrap_err().code, Code::Unreachable);
        std::fs::write(dir.path().join("api.addr"), "127.0.0.1:4711\n").unwrap();
        assert_eq!(api(&by_data).unwrap(), "http://127.0.0.1:4711");
        let both = Global {
            data,
            api: Some("h:1".into()),
            ..Global::default()
        };
        assert_eq!(api(&both).unwrap(), "http://h:1");
    }
}
