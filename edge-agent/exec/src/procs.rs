//! Finding the processes of an attempt, ending them, and knowing that they are gone.
//!
//! A process is found by its group or by its mark in `/proc/PID/environ`, held by a pidfd before it
//! is looked at, and signalled through that, so a number that is used again is never hit.
//!
//! Reading every environment costs milliseconds. So the agent is the subreaper of its tasks (see
//! prctl(2)): what an attempt leaves when its main process is over becomes a child of the agent's
//! first thread, and one read of the kernel's list of these shows that nothing is left. Where the
//! kernel was built without that list: it hands out process numbers in order and tells the last one
//! in `/proc/loadavg`; descendants of a process have later numbers, so after a short attempt only
//! the few numbers given out since are looked at.

use crate::mark;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, set_child_subreaper,
    test_kill_process_group, waitpid,
};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Longest range of numbers that is looked at one by one.
const RANGE: i32 = 256;
/// Attempts longer than this are looked for among all processes: numbers may have started over.
const BRIEF: Duration = Duration::from_millis(200);
/// Most bytes of an environment (the kernel allows 6 MiB).
const ENVIRON: u64 = 8 << 20;
/// Most environments fit into this.
const ENVIRON_USUAL: usize = 8 << 10;
/// A process within exec shows no environment for a moment; so often it is looked at again.
const UNSURE_LOOKS: u32 = 5;
/// PF_KTHREAD in the flags of `/proc/PID/stat`.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Which processes are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    /// Value of the store's variable.
    pub(crate) store: &'a str,
    /// Value of the mark's variable; any if absent.
    pub(crate) mark: Option<&'a str>,
    /// Process group; its members count without a mark.
    pub(crate) group: Option<Pid>,
}

/// A process that was alive when it was looked at.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) pid: Pid,
    pub(crate) mark: String,
    fd: OwnedFd,
}

impl Found {
    pub(crate) fn signal(&self, signal: Signal) {
        // it may be gone by now, which is what is wanted
        let _ = pidfd_send_signal(&self.fd, signal);
    }

    /// Waits until it is dead, at most for `limit`.
    pub(crate) fn gone_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            match poll(
                &mut [PollFd::new(&self.fd, PollFlags::IN)],
                timeout.as_ref(),
            ) {
                Ok(0) => return false,
                Err(Errno::INTR) => {}
                _ => return true,
            }
        }
    }
}

/// What one look showed.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) found: Vec<Found>,
    unsure: bool,
    /// Something bore no mark of this data directory.
    unmarked: bool,
    /// Something could not be looked at for want of descriptors or memory.
    blind: bool,
}

/// The last process number that was given out, read from a file that stays open.
#[derive(Debug)]
pub(crate) struct LastPid(Option<File>);

impl LastPid {
    pub(crate) fn open() -> Self {
        Self(File::open("/proc/loadavg").ok())
    }

    fn read(&self) -> Option<i32> {
        let mut text = [0; 128];
        let len = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..len])
            .ok()?
            .trim_end()
            .rsplit(' ')
            .next()?
            .parse()
            .ok()
    }
}

/// What attempts left behind when their main process was over, as the kernel lists it.
#[derive(Debug)]
pub(crate) struct Orphans(Option<File>);

impl Orphans {
    /// Makes this process the one that orphans are handed to; without `use_list`, or where the
    /// kernel has no list of them, they are looked for instead.
    pub(crate) fn adopt(use_list: bool) -> Self {
        let own = rustix::process::getpid();
        let number = own.as_raw_nonzero();
        // They go to the first thread that is alive, which is the one with the process's number.
        let list = || {
            let list = File::open(format!("/proc/self/task/{number}/children")).ok()?;
            // not without a list: nobody would let them go when they are over
            set_child_subreaper(Some(own)).ok()?;
            Some(list)
        };
        Self(use_list.then(list).flatten())
    }

    /// Lets go those that are over and names the others; none if the list cannot be read or is not
    /// whole.
    pub(crate) fn reap(&self) -> Option<Vec<Pid>> {
        let mut text = [0; 4096];
        let len = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        if len == 0 {
            return Some(Vec::new());
        }
        let whole = len < text.len();
        // a number that is cut is another number
        let end = text[..len].iter().rposition(|byte| *byte == b' ')?;
        let numbers = std::str::from_utf8(&text[..end])
            .ok()?
            .split_ascii_whitespace();
        let listed = numbers.filter_map(|number| Pid::from_raw(number.parse().ok()?));
        let alive = |pid: &Pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None));
        let left = listed.filter(alive).collect();
        whole.then_some(left)
    }

    /// Whether nothing is left of an attempt whose main process is over and not reaped.
    fn have_nothing_of(&self, whose: Whose<'_>) -> bool {
        let Some(left) = self.reap() else {
            return false;
        };
        let mut look = Look::default();
        for pid in left {
            look.at(pid.as_raw_nonzero().get(), whose, &|_| false);
        }
        // One without a mark may hide marked ones below it.
        look.found.is_empty() && !look.unsure && !look.blind && !look.unmarked
    }
}

/// Looks at every process of the machine.
pub(crate) fn look_everywhere(whose: Whose<'_>, skip: &dyn Fn(i32) -> bool) -> Look {
    let mut look = Look::default();
    let entries = match std::fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(error) => {
            let blind = Errno::from_io_error(&error).is_some_and(is_want);
            return Look {
                unsure: true,
                blind,
                ..look
            };
        }
    };
    for entry in entries.flatten() {
        if let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            look.at(pid, whose, skip);
        }
    }
    look
}

impl Look {
    fn at(&mut self, number: i32, whose: Whose<'_>, skip: &dyn Fn(i32) -> bool) {
        if skip(number) {
            return;
        }
        let Some(pid) = Pid::from_raw(number) else {
            return;
        };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(error) => {
                // else a number without a process, or that of a thread
                self.blind |= is_want(error);
                return;
            }
        };
        let in_group = whose
            .group
            .is_some_and(|group| group_of(number) == Some(group));
        let mut bytes = Vec::with_capacity(ENVIRON_USUAL);
        match File::open(format!("/proc/{number}/environ")) {
            Ok(file) => {
                let read = file.take(ENVIRON).read_to_end(&mut bytes);
                self.unsure |= read.is_ok() && bytes.is_empty() && within_exec(number);
            }
            Err(error) => self.blind |= Errno::from_io_error(&error).is_some_and(is_want),
        }
        let store = mark::value(&bytes, mark::STORE) == Some(whose.store.as_bytes());
        let found_mark = mark::value(&bytes, mark::MARK).filter(|_| store);
        self.unmarked |= found_mark.is_none();
        let marked = found_mark.is_some_and(|m| whose.mark.is_none_or(|w| w.as_bytes() == m));
        let found = Found {
            pid,
            mark: String::from_utf8_lossy(found_mark.unwrap_or_default()).into_owned(),
            fd,
        };
        // alive after it was looked at: what was read belongs to the process that the pidfd holds
        if (in_group || marked) && !found.gone_within(Duration::ZERO) {
            self.found.push(found);
        }
    }
}

/// Whether the system lacks what a look needs, so that it shows nothing.
pub(crate) fn is_want(error: Errno) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM].contains(&error)
}

/// What `read` makes of the fields of `/proc/PID/stat` behind the name: state, parent, group, …
///
/// One read into a buffer on the stack: this is asked for every process that is born beside an
/// attempt.
fn stat<T>(
    number: i32,
    read: impl FnOnce(std::str::SplitAsciiWhitespace<'_>) -> Option<T>,
) -> Option<T> {
    let mut text = [0; 1024];
    let len = File::open(format!("/proc/{number}/stat"))
        .and_then(|file| file.read_at(&mut text, 0))
        .ok()?;
    // The name may hold any byte; the last ')' ends it.
    let end = text[..len].iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&text[end + 1..len]).ok()?;
    read(fields.split_ascii_whitespace())
}

/// The process group of a process; none for kernel threads, which have none.
pub(crate) fn group_of(number: i32) -> Option<Pid> {
    stat(number, |mut fields| group(fields.nth(2)?))
}

/// The group that a field of `stat` names. The kernel writes -1 for a process that goes away while
/// it is looked at.
fn group(field: &str) -> Option<Pid> {
    let number = field.parse::<i32>().ok().filter(|number| *number > 0);
    number.and_then(Pid::from_raw)
}

/// Whether a process without an environment could be one that is just being executed.
fn within_exec(number: i32) -> bool {
    let alive = stat(number, |mut fields| {
        let dead = ["Z", "X"].contains(&fields.next()?);
        let flags: u64 = fields.nth(5)?.parse().unwrap_or(0);
        Some(!dead && flags & KERNEL_THREAD == 0)
    });
    alive.unwrap_or(false)
}

/// What is known when the main process of an attempt is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remains<'a> {
    /// Whose processes.
    pub(crate) whose: Whose<'a>,
    /// The main process, which led the group.
    pub(crate) main: Pid,
    /// How long it ran.
    pub(crate) ran: Duration,
}

impl Remains<'_> {
    /// Whether the kernel's list shows that nothing is left. To be asked before the main process is
    /// reaped.
    pub(crate) fn are_none(&self, orphans: &Orphans) -> bool {
        orphans.have_nothing_of(self.whose)
    }

    /// Once the main process is reaped: ends what is left of the attempt and returns when nothing
    /// is. Waits as long as the kernel needs; only this attempt's slot is held up by that.
    pub(crate) fn clear(&self, last: &LastPid, skip: &dyn Fn(i32) -> bool) {
        let mut unsure = 0;
        let began = Instant::now();
        let mut warned = false;
        loop {
            let group_empty = test_kill_process_group(self.main).is_err();
            let look = match self.since(last, skip).filter(|_| group_empty) {
                Some(look) => look,
                None => look_everywhere(self.whose, skip),
            };
            if look.found.is_empty() {
                if look.blind {
                    // others give back what they use
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                if !look.unsure || unsure == UNSURE_LOOKS {
                    return;
                }
                unsure += 1;
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            look.found
                .iter()
                .for_each(|found| found.signal(Signal::KILL));
            look.found.iter().for_each(|found| {
                found.gone_within(Duration::from_secs(1));
            });
            if !warned && began.elapsed() > Duration::from_secs(10) {
                warned = true;
                let pids: Vec<_> = look.found.iter().map(|f| f.pid.as_raw_nonzero()).collect();
                tracing::warn!(
                    ?pids,
                    "processes of an attempt do not end; its slot stays taken"
                );
            }
        }
    }

    /// Looks at the numbers given out since the main process began; none if that is not enough.
    fn since(&self, last: &LastPid, skip: &dyn Fn(i32) -> bool) -> Option<Look> {
        if self.ran > BRIEF {
            return None;
        }
        let main = self.main.as_raw_nonzero().get();
        let mut look = Look::default();
        let mut next = main.checked_add(1)?;
        loop {
            let end = last
                .read()
                .filter(|end| (main..main.saturating_add(RANGE)).contains(end))?;
            if end < next {
                return Some(look);
            }
            (next..=end).for_each(|pid| look.at(pid, self.whose, skip));
            next = end.checked_add(1)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_just_went_away_has_no_group() {
        assert_eq!(group("-1"), None);
        assert_eq!(group("0"), None);
        assert_eq!(group("7"), Pid::from_raw(7));
    }
}
