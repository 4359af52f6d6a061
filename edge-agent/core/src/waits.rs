//! What waits for a person here, with its age and what ends the wait.

use crate::agent::Agent;
use crate::slice::Slice;
use serde::{Deserialize, Serialize};
use shared::approval::Field;
use shared::ids::RunId;
use shared::state::TaskState;
use shared::time::Unix;

/// Something that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The run.
    pub run: RunId,
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
        for (run, held) in &self.state.runs {
            if held.paused_here || held.paused_there {
                let (what, command) = match held.paused_here {
                    true => (
                        "paused at this gateway",
                        format!("driftless-agent resume {run}"),
                    ),
                    false => (
                        "paused by the coordinator",
                        format!("driftless run resume {run}"),
                    ),
                };
                out.push(Wait {
                    run: *run,
                    task: None,
                    what: what.to_owned(),
                    since: None,
                    command,
                });
            }
        }
        for (at, slice) in &self.state.slices {
            let positions = 0..slice.slots.len() as u32;
            out.extend(positions.filter_map(|pos| task_wait(at.0, slice, pos)));
        }
        out.sort_by(|a, b| (a.since, a.run, &a.task).cmp(&(b.since, b.run, &b.task)));
        out
    }
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
        run,
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
