//! Transitive reduction where it cannot change meaning, upward ranks, and batches of small leaves.
//!
//! `u → v` may go if another path leads from `u` to `v` and hands on every end of `u`. A task
//! hands on what happened before it if its rule is `all_success` and its condition holds: a
//! failure aborts it, a skip skips it, and so the next one. So `v` and all tasks between must be
//! such; under another rule, or behind a task that is skipped anyway, the end of `u` itself
//! decides and the edge stays.

use super::order::{Order, Successors};
use crate::codec;
use crate::ids::TaskIdx;
use crate::workflow::{SideEffects, Task, TriggerRule};
use std::collections::BTreeMap;

/// Tasks visited for one task's edges. What is not proved redundant by then stays, which is never
/// wrong.
const VISITS_PER_TASK: usize = 20_000;

fn hands_on(task: &Task) -> bool {
    task.trigger_rule == TriggerRule::AllSuccess && task.when.as_ref().is_none_or(|when| when.holds)
}

/// Removes redundant edges.
pub(crate) fn reduce(tasks: &mut [Task], order: &Order) {
    let edges: usize = tasks.iter().map(|task| task.needs.len()).sum();
    let mut visits = 16 * (tasks.len() + edges) + 1_000_000;
    let forest = Forest::of(tasks, order);
    let mut seen = vec![u32::MAX; tasks.len()];
    // In this order the needs of earlier tasks are reduced already, which keeps searches short.
    for index in &order.tasks {
        let task = &tasks[index.0 as usize];
        if task.trigger_rule != TriggerRule::AllSuccess || task.needs.len() < 2 {
            continue;
        }
        let kept = forest.without_ancestors(&task.needs);
        let kept = search(tasks, order, *index, kept, &mut seen, &mut visits);
        tasks[index.0 as usize].needs = kept;
    }
}

/// Drops those of `needs` that are reached from others of them, as far as `visits` go.
fn search(
    tasks: &[Task],
    order: &Order,
    index: TaskIdx,
    mut needs: Vec<TaskIdx>,
    seen: &mut [u32],
    visits: &mut usize,
) -> Vec<TaskIdx> {
    let level = |task: TaskIdx| order.level[task.0 as usize];
    let Some(low) = needs.iter().map(|need| level(*need)).min() else {
        return needs;
    };
    let passable = |task: TaskIdx| level(task) > low && hands_on(&tasks[task.0 as usize]);
    let mut stack: Vec<TaskIdx> = needs
        .iter()
        .copied()
        .filter(|need| passable(*need))
        .collect();
    let mut left = VISITS_PER_TASK.min(*visits);
    while let Some(task) = stack.pop() {
        for before in &tasks[task.0 as usize].needs {
            if left == 0 {
                stack.clear();
                break;
            }
            left -= 1;
            *visits -= 1;
            if seen[before.0 as usize] == index.0 || level(*before) < low {
                continue;
            }
            seen[before.0 as usize] = index.0;
            if passable(*before) {
                stack.push(*before);
            }
        }
    }
    needs.retain(|need| seen[need.0 as usize] != index.0);
    needs
}

/// A spanning forest in which each task that hands on hangs below its deepest need. An ancestor
/// there is reached by a path that hands on; that answers most questions without a search.
struct Forest {
    enter: Vec<u32>,
    leave: Vec<u32>,
}

impl Forest {
    fn of(tasks: &[Task], order: &Order) -> Self {
        let parent: Vec<Vec<TaskIdx>> = tasks
            .iter()
            .map(|task| {
                let deepest = task
                    .needs
                    .iter()
                    .max_by_key(|need| order.level[need.0 as usize]);
                deepest
                    .filter(|_| hands_on(task))
                    .copied()
                    .into_iter()
                    .collect()
            })
            .collect();
        let parents: Vec<&[TaskIdx]> = parent.iter().map(Vec::as_slice).collect();
        let children = Successors::of(&parents);
        let mut forest = Self {
            enter: vec![0; tasks.len()],
            leave: vec![0; tasks.len()],
        };
        let mut clock = 0;
        let mut stack: Vec<(TaskIdx, usize)> = Vec::new();
        for root in (0_u32..)
            .zip(&parent)
            .filter(|(_, p)| p.is_empty())
            .map(|(i, _)| TaskIdx(i))
        {
            stack.push((root, 0));
            while let Some((task, next)) = stack.last_mut() {
                let task = *task;
                if *next == 0 {
                    forest.enter[task.0 as usize] = clock;
                    clock += 1;
                }
                let child = children.get(task).get(*next).copied();
                *next += 1;
                match child {
                    Some(child) => stack.push((child, 0)),
                    None => {
                        forest.leave[task.0 as usize] = clock;
                        stack.pop();
                    }
                }
            }
        }
        forest
    }

    /// `needs` without those that are ancestors of others of them.
    fn without_ancestors(&self, needs: &[TaskIdx]) -> Vec<TaskIdx> {
        let mut entered: Vec<u32> = needs
            .iter()
            .map(|need| self.enter[need.0 as usize])
            .collect();
        entered.sort_unstable();
        let below = |need: &&TaskIdx| {
            let (enter, leave) = (self.enter[need.0 as usize], self.leave[need.0 as usize]);
            let next = entered.partition_point(|e| *e <= enter);
            entered.get(next).is_some_and(|e| *e < leave)
        };
        needs.iter().filter(|need| !below(need)).copied().collect()
    }
}

/// Makes of each task's weight in `upward_rank` its rank; a task that is skipped is no work.
pub(crate) fn rank(tasks: &mut [Task], order: &Order) {
    let mut behind = vec![0_u64; tasks.len()];
    for index in order.tasks.iter().rev() {
        let task = &mut tasks[index.0 as usize];
        let runs = task.when.as_ref().is_none_or(|when| when.holds);
        let own = if runs { task.upward_rank } else { 0 };
        task.upward_rank = behind[index.0 as usize].saturating_add(own);
        for need in &task.needs {
            let most = &mut behind[need.0 as usize];
            *most = (*most).max(task.upward_rank);
        }
    }
}

/// Puts leaves that need the same tasks, run under the same settings, and may be run twice, into
/// batches of up to `most`.
pub(crate) fn merge_leaves(tasks: &mut [Task], most: usize, limited: &[bool]) {
    if most < 2 {
        return;
    }
    let mut needed = vec![false; tasks.len()];
    for need in tasks.iter().flat_map(|task| &task.needs) {
        needed[need.0 as usize] = true;
    }
    let mut alike: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (index, task) in tasks.iter().enumerate() {
        let one_by_one = task.matrix.is_some_and(|m| limited[m as usize]);
        if !needed[index] && is_small(task) && !one_by_one {
            alike.entry(settings(task)).or_default().push(index);
        }
    }
    let mut groups: Vec<Vec<usize>> = alike
        .into_values()
        .flat_map(|group| {
            group
                .chunks(most)
                .map(<[usize]>::to_vec)
                .collect::<Vec<_>>()
        })
        .filter(|group| group.len() > 1)
        .collect();
    groups.sort_unstable();
    for (batch, group) in (0_u32..).zip(groups) {
        for index in group {
            tasks[index].batch = Some(batch);
        }
    }
}

/// Small: at most one core and no GPU. What must not run twice stays alone.
fn is_small(task: &Task) -> bool {
    task.resources.cpu_milli <= 1000
        && task.resources.gpu_milli == 0
        && task.side_effects != SideEffects::AtMostOnce
        && task.approval().is_none()
        && task.when.as_ref().is_none_or(|when| when.holds)
}

/// All that two tasks of one batch must have in common.
fn settings(task: &Task) -> Vec<u8> {
    codec::encode(&(
        (
            &task.needs,
            &task.resources,
            task.priority,
            (&task.retry, &task.retry_left),
            task.timeout,
            task.deadline,
        ),
        (
            task.kill_grace,
            task.crash_limit,
            task.side_effects,
            task.trigger_rule,
        ),
        (&task.placement, &task.disconnect),
    ))
}
