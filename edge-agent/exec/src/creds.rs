//! The user that tasks run as.
//!
//! Credentials belong to threads, and a child inherits those of the thread that spawns it.
//! Switching the spawning thread for that moment keeps `posix_spawn` usable, which costs half of
//! the fork that a switch in the child would need. The price: during these tens of microseconds a
//! task of the same user may signal the agent. It cannot read or trace it: the kernel makes a
//! process undumpable when a thread of it changes its user (unless `fs.suid_dumpable` is 1, and
//! then the child does the switch).

use rustix::process::{Gid, Uid};
use rustix::thread as thr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Who tasks run as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Identity {
    /// Whoever the agent is.
    Same,
    /// Another user, set by the spawning thread.
    Switched { uid: Uid, gid: Gid },
    /// Another user, set by the child.
    InChild { uid: u32, gid: u32 },
}

impl Identity {
    /// Chooses how to become `run_as`.
    pub(crate) fn new(run_as: Option<(u32, u32)>) -> Self {
        let Some((uid, gid)) = run_as else {
            return Self::Same;
        };
        let undumpable = std::fs::read_to_string("/proc/sys/fs/suid_dumpable")
            .is_ok_and(|mode| mode.trim() != "1");
        if undumpable {
            Self::Switched {
                uid: Uid::from_raw(uid),
                gid: Gid::from_raw(gid),
            }
        } else {
            Self::InChild { uid, gid }
        }
    }

    /// Owner that the task's files must have so that it can work with them.
    pub(crate) fn owner(self) -> Option<(Uid, Gid)> {
        match self {
            Self::Same => None,
            Self::Switched { uid, gid } => Some((uid, gid)),
            Self::InChild { uid, gid } => Some((Uid::from_raw(uid), Gid::from_raw(gid))),
        }
    }

    /// Starts `command` as this user, without supplementary groups, from a thread that is `home`
    /// otherwise.
    pub(crate) fn spawn(self, home: &Home, command: &mut Command) -> io::Result<Child> {
        match self {
            Self::Same => command.spawn(),
            // std clears the supplementary groups when root changes the user
            Self::InChild { uid, gid } => command.uid(uid).gid(gid).spawn(),
            Self::Switched { uid, gid } => {
                let away = home.leave(uid, gid)?;
                let child = command.spawn();
                drop(away);
                child
            }
        }
    }
}

/// The way back for a thread that becomes somebody else to spawn.
#[derive(Debug)]
pub(crate) struct Home {
    groups: Vec<Gid>,
    capabilities: thr::CapabilitySets,
}

impl Home {
    /// What this thread is now. If it will change its user for `identity`, it keeps its
    /// capabilities then: the way back needs them; an exec drops them, and the flag with them.
    pub(crate) fn of_this_thread(identity: Identity) -> io::Result<Self> {
        if matches!(identity, Identity::Switched { .. }) {
            thr::set_keep_capabilities(true)?;
        }
        Ok(Self {
            groups: rustix::process::getgroups()?,
            capabilities: thr::capabilities(None)?,
        })
    }

    fn leave(&self, uid: Uid, gid: Gid) -> io::Result<Away<'_>> {
        let away = Away(self);
        if !self.groups.is_empty() {
            thr::set_thread_groups(&[])?;
        }
        thr::set_thread_res_gid(gid, gid, gid)?;
        thr::set_thread_res_uid(uid, uid, uid)?;
        Ok(away)
    }

    fn come_back(&self) -> io::Result<()> {
        thr::set_capabilities(None, self.capabilities)?;
        thr::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
        thr::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        if !self.groups.is_empty() {
            thr::set_thread_groups(&self.groups)?;
        }
        Ok(())
    }
}

/// This thread is somebody else until this value is dropped.
struct Away<'a>(&'a Home);

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.come_back() {
            // a thread that stays somebody else would fail at random later on
            tracing::error!(%error, "cannot become root again after starting a task");
            std::process::abort();
        }
    }
}
