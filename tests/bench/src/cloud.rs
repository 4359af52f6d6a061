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
    _dir: TempDir,
}

#[derive(Debug)]
struct Coordinator(Child);

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pair {
    /// Starts both and waits until the link is up.
    pub(crate) fn start(place: &Place) -> Result<Self> {
        let dir = place.fresh()?;
        let data = dir.path().join("cloud");
        let child = Command::new(binary("driftless")?)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--api",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(&data)
            .env("DRIFTLESS_LOG", "warn")
            .spawn()
            .context("cannot start driftless serve")?;
        let coordinator = Coordinator(child);
        let address = published(&data.join("quic.addr"))?;
        published(&data.join("api.addr"))?;
        let token = token(&data)?;
        let more = [
            "--name",
            "bench",
            "--coordinator",
            &address,
            "--token",
            &token,
        ];
        let mut gateway = Gateway::start(&dir.path().join("agent"), &more)?;
        let since = Instant::now();
        while gateway.status()?.link != "online" {
            ensure!(
                since.elapsed() < PATIENCE,
                "no link: {:?}",
                gateway.status()?
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Self {
            gateway,
            _coordinator: coordinator,
            _dir: dir,
        })
    }
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

fn token(data: &Path) -> Result<String> {
    let output = Command::new(binary("driftless")?)
        .args(["token", "create", "--json", "--data"])
        .arg(data)
        .output()
        .context("cannot start driftless token create")?;
    ensure!(
        output.status.success(),
        "token create: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let reply: Value = serde_json::from_slice(&output.stdout)?;
    let token = reply["token"]
        .as_str()
        .context("token create gives no token")?;
    Ok(token.to_owned())
}
