//! Cold start without a link: from the exec of the agent to the exec of its first task.

use crate::figure::{Figure, Goal};
use crate::gateway::{self, Gateway};
use crate::place::Place;
use crate::{spawn, stats, workload};
use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{OpenOptions, Permissions, set_permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

/// How long the first task may take to write.
const PATIENCE: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let cases = [
        ("one task waits", 1, 15.0),
        ("1,000 tasks wait", 1000, 50.0),
    ];
    for (what, waiting, goal) in cases {
        let mut rounds = Vec::new();
        for _ in 0..5 * place.rounds {
            let since = Instant::now();
            spawn::spawn_true()?;
            let reference = since.elapsed().as_secs_f64() * 1e3;
            rounds.push((once(place, waiting)?, reference));
        }
        let result = stats::compare(&rounds);
        figures.push(Figure::beside(
            "start",
            what,
            "ms",
            result,
            Goal::AtMost(goal),
        ));
    }
    Ok(figures)
}

/// Milliseconds until the first task has written into a pipe (its shell's own start included).
fn once(place: &Place, waiting: usize) -> Result<f64> {
    let dir = place.fresh()?;
    let fifo = dir.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o622), 0)?;
    // Whatever the mask of this process is: tasks may be another user.
    set_permissions(&fifo, Permissions::from_mode(0o622))?;
    let mut pipe = OpenOptions::new().read(true).write(true).open(&fifo)?;
    let path = fifo.to_str().context("the directory's name is not UTF-8")?;
    let data = dir.path().join("agent");
    gateway::make_waiting(&data, &workload::signals(waiting, path)?)?;
    let since = Instant::now();
    let mut agent = Gateway::start::<&str>(&data, &[])?;
    let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&PATIENCE))?;
    let took = since.elapsed().as_secs_f64() * 1e3;
    ensure!(ready == 1, "no task was started: {:?}", agent.status()?);
    pipe.read_exact(&mut [0])?;
    Ok(took)
}
