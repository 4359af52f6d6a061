//! What happens to the processes, disks and clocks of a [`Fleet`], without waiting for what
//! follows.

use super::{Fleet, homed_below, serve};
use crate::disk::SmallDisk;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

/// Sends a signal to a process that was started here; whether it runs.
fn signal(child: Option<&Child>, signal: Signal) -> bool {
    child.is_some_and(|child| kill_process(Pid::from_child(child), signal).is_ok())
}

/// How a process ended by itself; it is forgotten then.
fn ended(child: &mut Option<Child>) -> Option<ExitStatus> {
    let status = child.as_mut()?.try_wait().ok()??;
    *child = None;
    Some(status)
}

impl Fleet {
    /// Starts a gateway's agent; the first time it enrols.
    ///
    /// # Panics
    /// If it runs already, or cannot be started.
    pub fn spawn_agent(&mut self, node: usize) {
        assert!(
            self.nodes[node].child.is_none(),
            "the agent of gw-{node} runs already"
        );
        let mut command = self.agent(node);
        command
            .stdout(Stdio::null())
            .stderr(self.log(&self.nodes[node].name));
        self.nodes[node].child = Some(command.spawn().expect("the agent can be started"));
    }

    /// Starts the coordinator again, where it was.
    ///
    /// # Panics
    /// If it runs already, or cannot be started.
    pub fn spawn_coordinator(&mut self) {
        assert!(self.coordinator.is_none(), "the coordinator runs already");
        // The files would say where it was, and not that it is there.
        for name in ["quic.addr", "api.addr"] {
            // A coordinator that was stopped has removed them.
            let _ = fs::remove_file(self.data().join(name));
        }
        self.coordinator = Some(serve(self.base(), self.listen, self.api, &self.serve_args));
    }

    /// Sends a signal to a gateway's agent; whether it runs.
    pub fn signal_agent(&self, node: usize, what: Signal) -> bool {
        signal(self.nodes[node].child.as_ref(), what)
    }

    /// Sends a signal to the coordinator; whether it runs.
    pub fn signal_coordinator(&self, what: Signal) -> bool {
        signal(self.coordinator.as_ref(), what)
    }

    /// How a gateway's agent ended by itself, once.
    pub fn agent_ended(&mut self, node: usize) -> Option<ExitStatus> {
        ended(&mut self.nodes[node].child)
    }

    /// How the coordinator ended by itself, once.
    pub fn coordinator_ended(&mut self) -> Option<ExitStatus> {
        ended(&mut self.coordinator)
    }

    /// Processes of tasks of a gateway.
    #[must_use]
    pub fn task_processes(&self, node: usize) -> Vec<Pid> {
        homed_below(&self.nodes[node].data)
    }

    /// Sets a variable of an agent's environment, from the next start on.
    pub fn set_agent_env(&mut self, node: usize, name: &str, path: &Path) {
        let variable = (name.to_owned(), path.to_owned());
        self.nodes[node].env.push(variable);
    }

    /// Puts a gateway's data directory on a file system of its own of so many MiB, before its agent
    /// starts. Only root can; `false` for others.
    pub fn on_small_disk(&mut self, node: usize, mib: u32) -> bool {
        let at = self.base().join(format!("disk-{node}"));
        let Some(disk) = SmallDisk::mount(&at, mib) else {
            return false;
        };
        self.nodes[node].data = disk.path().join(&self.nodes[node].name);
        self.disks.insert(node, disk);
        true
    }

    /// The small disk of a gateway, if it has one.
    #[must_use]
    pub fn small_disk(&self, node: usize) -> Option<&SmallDisk> {
        self.disks.get(&node)
    }
}
