//! A coordinator with one agent connected to it, both real processes on loopback.

use crate::gateway::Gateway;
use crate::place::{Place, binary};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the two may take to find each other.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both processes; dropping it kills them.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The agent.
    pub(crate) gateway: Gateway,
    _coordinator: Coordinator,
    dir: TempDir,
}

/// A running coordinator. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Coordinator {
    child: Child,
    /// Where agents find it.
    pub(crate) address: String,
    api: String,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Coordinator {
    /// Starts it on the directory `data`, which is made if it is not there.
    pub(crate) fn start(data: &Path) -> Result<Self> {
        for file in ["quic.addr", "api.addr"] {
            let _ = std::fs::remove_file(data.join(file)); // left by one that was killed
        }
        let child = Command::new(binary("driftless")?)
            .args(["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"])
            .arg("--data")
            .arg(data)
            .env("DRIFTLESS_LOG", "warn")
            .spawn()
            .context("cannot start driftless serve")?;
        let mut started = Self {
            child,
            address: String::new(),
            api: String::new(),
        };
        started.address = published(&data.join("quic.addr"))?;
        started.api = published(&data.join("api.addr"))?;
        Ok(started)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An enrolment token.
    pub(crate) fn token(&self) -> Result<String> {
        let url = format!("http://{}/v1/tokens", self.api);
        let made: Value = ureq::post(&url)
            .send_json(serde_json::json!({}))?
            .body_mut()
            .read_json()?;
        let token = made["token"].as_str().context("no token was given")?;
        Ok(token.to_owned())
    }

    /// A counter with this label, as `/metrics` says.
    pub(crate) fn counter(&self, name: &str, label: &str) -> Result<u64> {
        let url = format!("http://{}/metrics", self.api);
        let text = ureq::get(&url).call()?.body_mut().read_to_string()?;
        let start = format!("{name}{{{label}}} ");
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(&start));
        Ok(value.with_context(|| format!("no {start}"))?.parse()?)
    }

    /// The objects that the API lists at `path`.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Value>> {
        let url = format!("http://{}/v1/{path}", self.api);
        let text = ureq::get(&url).call()?.body_mut().read_to_string()?;
        let objects = text.lines().map(serde_json::from_str);
        Ok(objects.collect::<Result<_, _>>()?)
    }
}

impl Pair {
    /// Starts both and waits until the link is up.
    pub(crate) fn start(place: &Place) -> Result<Self> {
        Self::start_with(place, &[])
    }

    /// The same with more flags for the agent.
    pub(crate) fn start_with(place: &Place, flags: &[&str]) -> Result<Self> {
        let dir = place.fresh()?;
        let coordinator = Coordinator::start(&dir.path().join("cloud"))?;
        let gateway = enrolled_with(&coordinator, &dir.path().join("agent"), flags)?;
        Ok(Self {
            gateway,
            _coordinator: coordinator,
            dir,
        })
    }

    /// Kills both; what they wrote stays until the directory is dropped.
    pub(crate) fn stop(self) -> TempDir {
        self.dir
    }
}

/// Starts an agent on the new directory `data` and waits until its link is up.
pub(crate) fn enrolled(coordinator: &Coordinator, data: &Path) -> Result<Gateway> {
    enrolled_with(coordinator, data, &[])
}

fn enrolled_with(coordinator: &Coordinator, data: &Path, flags: &[&str]) -> Result<Gateway> {
    let (address, token) = (&coordinator.address, coordinator.token()?);
    let mut more = vec![
        "--name",
        "bench",
        "--coordinator",
        address,
        "--token",
        &token,
    ];
    more.extend(flags);
    let mut gateway = Gateway::start(data, &more)?;
    let since = Instant::now();
    while gateway.status()?.link != "online" {
        ensure!(
            since.elapsed() < PATIENCE,
            "no link: {:?}",
            gateway.status()?
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(gateway)
}

fn published(path: &PathBuf) -> Result<String> {
    let since = Instant::now();
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            _ if since.elapsed() > PATIENCE => bail!("{} does not appear", path.display()),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
