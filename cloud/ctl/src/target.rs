//! Where the coordinator is: its API's address and its data directory, from flags and environment.

use crate::args::Global;
use crate::config;
use crate::exit::{Code, Failure};
use shared::config::{From, Settings};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The API of a coordinator that was started without `--api`.
pub(crate) const DEFAULT_API: &str = "127.0.0.1:4480";

/// Reads an environment variable; empty counts as absent.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The coordinator's data directory: of flag, environment, configuration file, or the usual place.
pub(crate) fn data_dir(global: &Global) -> PathBuf {
    config::dir_of(global, &config::whereabouts(global))
}

/// Whether flag or environment name the coordinator by its API. It may be on another machine then:
/// what is on this one says nothing of it.
pub(crate) fn by_api(global: &Global) -> bool {
    global.api.is_some() || variable("DRIFTLESS_API").is_some()
}

/// Where a coordinator of this user keeps its state unless told otherwise.
pub(crate) fn usual_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return config::DATA.into();
    }
    // what a service manager gives to a service of its own user
    if let Some(state) = variable("STATE_DIRECTORY") {
        return PathBuf::from(state).join("coordinator");
    }
    let state = variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let home = || PathBuf::from(variable("HOME").unwrap_or_else(|| "/".into()));
    state
        .unwrap_or_else(|| home().join(".local/state"))
        .join("driftless/coordinator")
}

/// A coordinator's API, and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// As in `http://127.0.0.1:4480`.
    pub(crate) base: String,
    /// The access token to show.
    pub(crate) token: Option<String>,
    /// Files with the certificates that the API's must come from.
    pub(crate) roots: Vec<PathBuf>,
}

/// Where systems keep the certificates of public authorities.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// The coordinator that flags, environment and files name.
///
/// # Errors
/// When one of them is wrong, or the data directory that was named says nothing.
pub(crate) fn find(global: &Global) -> Result<Target, Failure> {
    let told = config::whereabouts(global);
    let (base, of_dir) = address(global, &told)?;
    let dir = (of_dir || is_named(&told)).then(|| config::dir_of(global, &told));
    let token = match token(global)? {
        Some(token) => Some(token),
        None => dir.as_deref().and_then(local_token),
    };
    let (_, host) = base.split_once("://").unwrap_or_default();
    if token.is_some() && base.starts_with("http://") && !is_loopback(host) {
        let what = format!("an access token is not sent to {base} without TLS");
        return Err(Failure::new(Code::Usage, what).hint("name the API as https://HOST:PORT"));
    }
    let mut roots = Vec::new();
    let ca = global.ca.clone();
    match ca.or_else(|| variable("DRIFTLESS_CA").map(PathBuf::from)) {
        Some(named) => roots.push(named),
        None => {
            // the next one takes the place of the first between two commands, or in one
            let ours = ["authority/authority.crt", "authority/next.crt"];
            roots.extend(dir.iter().flat_map(|dir| ours.map(|name| dir.join(name))));
            roots.extend(SYSTEM_ROOTS.map(PathBuf::from));
            roots.retain(|path| path.is_file());
        }
    }
    Ok(Target { base, token, roots })
}

/// Whether flag or environment name the data directory.
fn is_named(told: &Settings) -> bool {
    matches!(told.from("data"), From::Variable(_) | From::Flag(_))
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The token that flags or environment give.
fn token(global: &Global) -> Result<Option<String>, Failure> {
    if let Some(token) = &global.token {
        return Ok(Some(token.clone()));
    }
    if let Some(token) = variable("DRIFTLESS_TOKEN") {
        return Ok(Some(token.to_string_lossy().trim().to_owned()));
    }
    let Some(path) = variable("DRIFTLESS_TOKEN_FILE").map(PathBuf::from) else {
        return Ok(None);
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) => {
            let what = format!(
                "cannot read the access token in {}: {error}",
                path.display()
            );
            Err(Failure::new(Code::Usage, what).hint("DRIFTLESS_TOKEN_FILE names a file with it"))
        }
    }
}

/// The token of this start of the coordinator, if it asks for one and we may read it.
fn local_token(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join(cloud::data::API_TOKEN)).ok()?;
    Some(text.trim().to_owned())
}

/// The API's base address, and whether the data directory told it.
fn address(global: &Global, told: &Settings) -> Result<(String, bool), Failure> {
    if let Some(api) = &global.api {
        return Ok((base(api, "--api")?, false));
    }
    if let Some(api) = variable("DRIFTLESS_API") {
        return Ok((base(&api.to_string_lossy(), "DRIFTLESS_API")?, false));
    }
    match read_address(&config::dir_of(global, told)) {
        Ok(address) => Ok((base(&address, "api.addr")?, true)),
        Err(_) if !is_named(told) => {
            Ok((base(told.text("api"), "the configuration's api")?, false))
        }
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

/// `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`, with or without a slash at the end.
fn base(text: &str, from: &str) -> Result<String, Failure> {
    let wrong = |why: &str| {
        let what = format!("{from} is '{text}', which is {why}");
        Err(Failure::new(Code::Usage, what)
            .hint("write HOST:PORT, http://HOST:PORT or https://HOST:PORT"))
    };
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return wrong("of another scheme"),
        None => ("http", text),
    };
    let rest = rest.trim_end_matches('/');
    let Some((host, port)) = rest.rsplit_once(':') else {
        return wrong("without a port");
    };
    if host.is_empty() || host.contains(['/', '@', ' ']) || port.parse::<u16>().is_err() {
        return wrong("not an address");
    }
    Ok(format!("{scheme}://{rest}"))
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
        assert_eq!(base("https://h:1/", "--api").unwrap(), "https://h:1");
        for text in [
            "",
            "host",
            "host:",
            ":1",
            "host:99999",
            "ftp://h:1",
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
        let api = |global: &Global| find(global).map(|target| target.base);
        assert_eq!(api(&by_data).unwrap_err().code, Code::Unreachable);
        std::fs::write(dir.path().join("api.addr"), "127.0.0.1:4711\n").unwrap();
        assert_eq!(api(&by_data).unwrap(), "http://127.0.0.1:4711");
        let both = Global {
            data,
            api: Some("h:1".into()),
            ..Global::default()
        };
        assert_eq!(api(&both).unwrap(), "http://h:1");
        std::fs::write(dir.path().join("api.token"), "dfa1-secret\n").unwrap();
        std::fs::write(dir.path().join("api.addr"), "https://127.0.0.1:4711\n").unwrap();
        let found = find(&by_data).unwrap();
        assert_eq!(found.token.as_deref(), Some("dfa1-secret"));
        let plain = find(&both).unwrap_err();
        assert!(plain.what.contains("without TLS"), "{plain}");
    }
}
