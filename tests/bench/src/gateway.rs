//! A gateway without a coordinator: its data directory, the real agent on it, and the facts in its
//! journal.

use crate::place::binary;
use crate::virtually::{self, Virtual};
use anyhow::{Context, Result, bail, ensure};
use edge_agent::control::{Answer, Client, Request};
use edge_agent::data::{DataDir, Identity};
use edge_core::store::Store;
use edge_core::view::Status;
use edge_store::RedbStore;
use shared::codec;
use shared::fact::Fact;
use shared::ids::{Incarnation, NodeId};
use shared::workflow::Workflow;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long anything may take before the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whose stores the benchmarks make.
pub(crate) const IDENTITY: edge_store::Identity = edge_store::Identity {
    node: NodeId([7; 16]),
    incarnation: Incarnation([9; 16]),
};

/// Makes `data` the directory of an agent with an empty journal.
pub(crate) fn make(data: &Path) -> Result<()> {
    let dir = DataDir::open(data)?;
    let identity = Identity::new(
        IDENTITY.node,
        "bench",
        IDENTITY.incarnation,
        Vec::new(),
        BTreeMap::new(),
    );
    edge_store::create_file(&dir.store(), IDENTITY)?;
    dir.save(&identity)?;
    Ok(())
}

/// Makes `workflow` wait in `data`, accepted and not begun.
pub(crate) fn make_waiting(data: &Path, workflow: &Workflow) -> Result<()> {
    make(data)?;
    let mut agent = Virtual::boot(open(data)?, 0)?;
    agent.submit(workflow)?;
    Ok(())
}

/// The journal in `data`.
pub(crate) fn open(data: &Path) -> Result<RedbStore> {
    Ok(edge_store::open_file(&data.join("store.redb"), IDENTITY)?)
}

/// A fact and its bytes in the journal.
pub(crate) type Entry = (Fact, Vec<u8>);

/// The facts in the journal of `data`, in order.
pub(crate) fn facts(data: &Path) -> Result<Vec<Entry>> {
    let mut facts = Vec::new();
    open(data)?.each_fact(0, &mut |number, bytes| {
        facts.extend(Fact::decode(number, bytes).map(|fact| (fact, bytes.to_vec())));
    })?;
    Ok(facts)
}

/// Milliseconds of the clock that facts are stamped with.
pub(crate) fn boot_clock_ms() -> u64 {
    virtually::now().mono.0 / 1_000_000
}

/// A running agent. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Gateway {
    data: PathBuf,
    child: Child,
}

impl Gateway {
    /// Starts the agent on `data` with two slots.
    pub(crate) fn start<S: AsRef<OsStr>>(data: &Path, more: &[S]) -> Result<Self> {
        let child = Command::new(binary("driftless-agent")?)
            .args(["run", "--cpus", "2", "--data"])
            .arg(data)
            .args(more)
            .env("DRIFTLESS_LOG", "warn")
            .spawn()
            .context("cannot start driftless-agent")?;
        let data = data.to_owned();
        Ok(Self { data, child })
    }

    /// The agent's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ask(&mut self, request: &Request, body: &[u8]) -> Result<Answer> {
        let since = Instant::now();
        loop {
            match Client::connect(&self.data) {
                Ok(mut client) => return Ok(client.ask(request, body)?),
                Err(error) if since.elapsed() > Duration::from_secs(20) => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("driftless-agent ended: {status}");
            }
        }
    }

    /// Its state.
    pub(crate) fn status(&mut self) -> Result<Status> {
        match self.ask(&Request::Status, &[])? {
            Answer::Value { value } => Ok(serde_json::from_value(value)?),
            other => bail!("status: {other:?}"),
        }
    }

    /// Starts a run here.
    pub(crate) fn submit(&mut self, workflow: &Workflow) -> Result<()> {
        let (packed, _) = codec::pack(workflow);
        let size = packed.len() as u64;
        match self.ask(&Request::Submit { size }, &packed)? {
            Answer::Submitted { .. } => Ok(()),
            other => bail!("submit: {other:?}"),
        }
    }

    /// Waits until `what` holds of its state. Asked rarely, so that asking costs nothing.
    pub(crate) fn wait(&mut self, what: impl Fn(&Status) -> bool) -> Result<()> {
        let since = Instant::now();
        while !what(&self.status()?) {
            ensure!(
                since.elapsed() < PATIENCE,
                "the agent is not done: {:?}",
                self.status()?
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        // What ended last may wait for company.
        std::thread::sleep(Duration::from_millis(2 * shared::limits::LINGER_AHEAD_MS));
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // SIGKILL: only what is durable counts. It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
