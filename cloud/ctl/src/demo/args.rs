//! The command lines of the demo and of its helpers.

use clap::Args;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// See the main job done, on this machine alone: one coordinator, three gateways, and links that
/// get cut.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless demo
  driftless demo --json | tail -n 1
  driftless demo --keep /tmp/demo                     look into the directories afterwards
  driftless demo --agent-bin target/release/driftless-agent

Starts a coordinator, three agents and a UDP relay as processes of their own on loopback, and runs the
weather example on them. In the middle it cuts two of the links, swallows an acknowledgement, kills one
of the cut-off agents with SIGKILL and starts it again while it is still cut off. At the end all processes
are stopped, and a separate reader computes from their files what was recorded, received, applied, lost.
The exit code is 0 only if nothing was lost and everything succeeded. Takes less than a minute and
leaves nothing behind but the report.")]
pub(crate) struct Demo {
    /// Keep the directories of all processes in this one, which must be new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Where the comparison of the stations goes; driftless-demo-report.txt among the temporary
    /// files without it
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Run the gateways with this program (driftless-agent) and not with this one
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) agent_bin: Option<PathBuf>,
}

/// The relay of the demo, a process of its own; `relay::process` describes what it understands.
#[derive(Args, Debug)]
pub(crate) struct Relay {
    /// The coordinator
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// File for what it did
    #[arg(long)]
    pub(crate) log: PathBuf,
    /// Names of the lanes
    pub(crate) lanes: Vec<String>,
}

/// Becomes another program that is told to stop when the process PARENT ends.
#[derive(Args, Debug)]
pub(crate) struct Child {
    /// Process that must live
    pub(crate) parent: u32,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

/// Computes the figures of a demo from what its processes left.
#[derive(Args, Debug)]
pub(crate) struct Figures {
    /// Data directory of the coordinator, which must not run
    #[arg(long, value_name = "DIR")]
    pub(crate) coordinator: PathBuf,
    /// Data directory of an agent, which must not run (may be repeated)
    #[arg(long = "agent", value_name = "DIR")]
    pub(crate) agents: Vec<PathBuf>,
    /// What the relay wrote down
    #[arg(long, value_name = "FILE")]
    pub(crate) relay: Option<PathBuf>,
    /// First take one received outcome out of the coordinator's store (of a copy!), to see that it
    /// is missed
    #[arg(long)]
    pub(crate) remove_one: bool,
}
