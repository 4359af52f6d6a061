//! Runs attempts of tasks as real processes on Linux. It decides nothing: it obeys commands,
//! reports events, and keeps these invariants:
//!
//! - `Ended` is reported only when every process of the attempt is confirmed gone: its process
//!   group, and every process that bears its mark in the environment, whatever session it moved to.
//! - No signal goes to a bare pid that could have been used again: groups are signalled only while
//!   their leader is not reaped (its number cannot be given away then), everything else through a
//!   pidfd.
//! - An attempt's directory is made just before its program is executed and stays until
//!   [`Command::Settled`] says that its end is durable. After a crash of the agent a missing
//!   directory therefore proves that the attempt never began.
//! - Whatever the task can write to is never followed by the agent, which may be root.
//!
//! What it cannot see: a process that leaves both its group and its marked environment behind.

mod attempt;
mod bench;
mod creds;
mod environ;
mod files;
mod logs;
mod mark;
mod model;
mod pool;
mod procs;

pub use logs::{Stream, log_path};
pub use model::{Command, Ended, Error, Event, InputFile, Launch, LeftOver, Options, Report};
pub use pool::Executor;
