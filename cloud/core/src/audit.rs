//! Sanity checks: of compiled workflows before they are taken, and of a run's counts.

use crate::run::{NONE, Run};
use shared::limits::TASKS;
use shared::state::TaskState;
use shared::workflow::{Source, Workflow};

/// Whether a compiled workflow can be worked on.
///
/// # Errors
/// What is wrong with it, for people.
pub fn workflow(workflow: &Workflow) -> Result<(), String> {
    let n = workflow.tasks.len();
    if n == 0 || n > TASKS {
        return Err(format!("a workflow has 1 to {TASKS} tasks, this has {n}"));
    }
    let mut waiting = vec![0usize; n];
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); n];
    for (at, task) in workflow.tasks.iter().enumerate() {
        let mut above: Vec<usize> = task.needs.iter().map(|t| t.0 as usize).collect();
        for input in &task.inputs {
            if let Source::Task { task: from, output } = input.source {
                let known = workflow.tasks.get(from.0 as usize);
                if known.is_none_or(|t| output as usize >= t.outputs.len()) {
                    let (id, name) = (&task.id, &input.name);
                    return Err(format!("task {id}: input {name} has no source"));
                }
                above.push(from.0 as usize);
            }
        }
        if above.iter().any(|t| *t >= n) {
            return Err(format!(
                "task {}: needs a task that does not exist",
                task.id
            ));
        }
        waiting[at] = above.len();
        above.into_iter().for_each(|t| next[t].push(at));
    }
    let mut ready: Vec<usize> = (0..n).filter(|t| waiting[*t] == 0).collect();
    let mut seen = 0;
    while let Some(task) = ready.pop() {
        seen += 1;
        for other in &next[task] {
            waiting[*other] -= 1;
            if waiting[*other] == 0 {
                ready.push(*other);
            }
        }
    }
    if seen < n {
        return Err("its tasks wait for each other in a circle".to_owned());
    }
    Ok(())
}

/// Whether a loaded run's counts are those of its rows.
///
/// # Errors
/// The first difference, for people.
pub fn counts(run: &Run) -> Result<(), String> {
    let Some(body) = &run.body else { return Ok(()) };
    for state in TaskState::ALL {
        let real = body.tasks.iter().filter(|t| t.state == *state).count();
        if real != run.count(*state) as usize {
            let said = run.count(*state);
            return Err(format!(
                "run {}: {said} tasks {state}, really {real}",
                run.id
            ));
        }
    }
    let open = |slice: u32| {
        let rows = body.tasks.iter();
        rows.filter(|t| t.slice == slice && !t.state.is_final())
            .count()
    };
    for (number, slice) in (0u32..).zip(&run.head.slices) {
        if open(number) != slice.open as usize {
            let (id, said, real) = (run.id, slice.open, open(number));
            return Err(format!(
                "run {id}: slice {number} has {said} open, really {real}"
            ));
        }
    }
    if open(NONE) != run.head.unplaced as usize {
        return Err(format!("run {}: unplaced tasks are miscounted", run.id));
    }
    Ok(())
}
