//! What waits for a person here, with its age and what ends the wait.

use crate::agent::Agent;
use crate::scheduled::Scheduled;
use crate::slice::Slice;
use crate::state::Run;
use serde::{Deserialize, Serialize};
use shared::approval::Field;
use shared::ids::RunId;
use shared::state::TaskState;
use shared::time::Unix;

/// Something that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The run, if it concerns one.
    pub run: Option<RunId>,
    /// The task, if it concerns one.
    pub task: Option<String>,
    /// What is waited for, for people.
    pub what: String,
    /// Since when, if that is recorded.
    pub since: Option<Unix>,
    /// The command that ends the wait.
    pub command: String,
}

impl Agent {
    /// What waits for a person here, oldest first.
    #[must_use]
    pub fn waits(&self) -> Vec<Wait> {
        let mut out = Vec::new();
        out.extend(self.sync_wait());
        out.extend(self.state.schedules.values().filter_map(schedule_wait));
        for (run, held) in &self.state.runs {
            out.extend(run_waits(*run, held));
        }
        for (at, slice) in &self.state.slices {
            let positions = 0..slice.slots.len() as u32;
            out.extend(positions.filter_map(|pos| task_wait(at.0, slice, pos)));
        }
        out.sort_by(|a, b| (a.since, a.run, &a.task).cmp(&(b.since, b.run, &b.task)));
        out
    }
}

impl Agent {
    /// Nothing is sent until a person says so; a pause with a length ends by itself.
    fn sync_wait(&self) -> Option<Wait> {
        let pause = self.sync_paused().filter(|pause| pause.until.is_none())?;
        Some(Wait {
            run: None,
            task: None,
            what: format!("{} lets nothing be sent", pause.by),
            since: Some(pause.since),
            command: "driftless-agent sync resume".to_owned(),
        })
    }
}

fn schedule_wait(schedule: &Scheduled) -> Option<Wait> {
    let name = &schedule.name;
    let (by, program) = match (&schedule.paused_here, schedule.paused_there) {
        (Some(by), _) => (by.as_str(), "driftless-agent"),
        (None, true) => ("the coordinator", "driftless"),
        (None, false) => return None,
    };
    Some(Wait {
        run: None,
        task: None,
        what: format!("schedule {name} is paused by {by}"),
        since: schedule.paused_since,
        command: format!("{program} schedule resume {name}"),
    })
}

/// The pause marks of a run.
fn run_waits(run: RunId, held: &Run) -> Vec<Wait> {
    let [here, there] = held.paused_since;
    let marks = [
        (
            held.paused_here,
            "this gateway",
            "driftless-agent resume",
            here,
        ),
        (
            held.paused_there,
            "the coordinator",
            "driftless run resume",
            there,
        ),
    ];
    let marks = marks.into_iter().filter(|(stands, ..)| *stands);
    let wait = |(_, place, program, since)| Wait {
        run: Some(run),
        task: None,
        what: format!("paused at {place}"),
        since,
        command: format!("{program} {run}"),
    };
    marks.map(wait).collect()
}

fn task_wait(run: RunId, slice: &Slice, pos: u32) -> Option<Wait> {
    let (slot, task) = (slice.slot(pos), slice.task(pos));
    let again = format!("driftless-agent resume {run} {}", task.id);
    let (what, command) = match (slice.question(pos), slot.state) {
        (Some((approval, true)), _) => {
            let asked = fields(&approval.input);
            let command = format!("driftless-agent answer {run} {} yes|no{asked}", task.id);
            (approval.prompt.clone(), command)
        }
        (_, TaskState::Paused) => ("paused: no attempt is left".to_owned(), again),
        (_, TaskState::Lost) if !slot.adopted => {
            let what = "in doubt: it began, its end is not known, and it may not run twice";
            (what.to_owned(), again)
        }
        _ => return None,
    };
    Some(Wait {
        run: Some(run),
        task: Some(task.id.clone()),
        what,
        since: slot.since.map(|at| at.wall),
        command,
    })
}

/// The flags that fill in what must be filled in.
fn fields(input: &[Field]) -> String {
    let open = input.iter().filter(|field| field.default.is_none());
    open.map(|field| format!(" --input {}={}", field.name, field.kind.text()))
        .collect()
}
