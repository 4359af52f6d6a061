//! Order of tasks: topological sorting, levels, successors, and the cycles that stand in the way.

use crate::ids::TaskIdx;

/// Cycles reported of one graph.
const CYCLES: usize = 100;

/// A sorted graph.
#[derive(Debug)]
pub(crate) struct Order {
    /// Each task after all that it needs.
    pub(crate) tasks: Vec<TaskIdx>,
    /// Number of tasks on the longest path to each task, itself not included.
    pub(crate) level: Vec<u32>,
}

/// Who needs whom, packed.
#[derive(Debug)]
pub(crate) struct Successors {
    start: Vec<usize>,
    to: Vec<TaskIdx>,
}

impl Successors {
    /// Turns the lists of needs around.
    pub(crate) fn of(needs: &[&[TaskIdx]]) -> Self {
        let mut start = vec![0; needs.len() + 1];
        for need in needs.iter().flat_map(|list| list.iter()) {
            start[need.0 as usize + 1] += 1;
        }
        for i in 0..needs.len() {
            start[i + 1] += start[i];
        }
        let mut next = start.clone();
        let mut to = vec![TaskIdx(0); start[needs.len()]];
        for (task, list) in (0_u32..).zip(needs) {
            for need in *list {
                to[next[need.0 as usize]] = TaskIdx(task);
                next[need.0 as usize] += 1;
            }
        }
        Self { start, to }
    }

    /// The tasks that need `task`, ascending.
    pub(crate) fn get(&self, task: TaskIdx) -> &[TaskIdx] {
        let i = task.0 as usize;
        &self.to[self.start[i]..self.start[i + 1]]
    }
}

/// Sorts, or says which tasks wait for each other: each list goes round once, in the order of
/// running.
pub(crate) fn sort(needs: &[&[TaskIdx]]) -> Result<Order, Vec<Vec<TaskIdx>>> {
    let successors = Successors::of(needs);
    let mut missing: Vec<usize> = needs.iter().map(|list| list.len()).collect();
    let mut level = vec![0; needs.len()];
    let ready = (0_u32..).zip(&missing).filter(|(_, n)| **n == 0);
    let mut tasks: Vec<TaskIdx> = ready.map(|(i, _)| TaskIdx(i)).collect();
    let mut done = 0;
    while let Some(task) = tasks.get(done).copied() {
        done += 1;
        for next in successors.get(task) {
            let n = next.0 as usize;
            level[n] = level[n].max(level[task.0 as usize] + 1);
            missing[n] -= 1;
            if missing[n] == 0 {
                tasks.push(*next);
            }
        }
    }
    if tasks.len() == needs.len() {
        return Ok(Order { tasks, level });
    }
    let stuck = missing.iter().map(|n| *n > 0).collect();
    Err(cycles(needs, stuck))
}

/// Cycles among the tasks that are stuck. Each of these has a need that is stuck, so walking from
/// need to need must come back to where it was.
fn cycles(needs: &[&[TaskIdx]], stuck: Vec<bool>) -> Vec<Vec<TaskIdx>> {
    let mut walked = vec![usize::MAX; needs.len()];
    let mut found = Vec::new();
    for start in (0..needs.len()).filter(|i| stuck[*i]) {
        let (mut path, mut at) = (Vec::new(), start);
        while walked[at] == usize::MAX {
            walked[at] = start;
            path.push(at);
            let next = needs[at]
                .iter()
                .map(|need| need.0 as usize)
                .find(|need| stuck[*need]);
            at = next.expect("a stuck task has a stuck need");
        }
        if walked[at] != start {
            continue;
        }
        let first = path.iter().position(|i| *i == at).unwrap_or(0);
        let mut cycle: Vec<TaskIdx> = path[first..]
            .iter()
            .rev()
            .map(|i| TaskIdx(u32::try_from(*i).unwrap_or(0)))
            .collect();
        let least = cycle
            .iter()
            .enumerate()
            .min_by_key(|(_, t)| **t)
            .map_or(0, |(i, _)| i);
        cycle.rotate_left(least);
        found.push(cycle);
        if found.len() == CYCLES {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(needs: &[&[u32]]) -> Result<Order, Vec<Vec<u32>>> {
        let needs: Vec<Vec<TaskIdx>> = needs
            .iter()
            .map(|list| list.iter().copied().map(TaskIdx).collect())
            .collect();
        let slices: Vec<&[TaskIdx]> = needs.iter().map(Vec::as_slice).collect();
        sort(&slices).map_err(|c| c.iter().map(|c| c.iter().map(|t| t.0).collect()).collect())
    }

    #[test]
    fn levels_count_the_longest_path() {
        let order = sorted(&[&[], &[0], &[0, 1], &[]]).unwrap();
        assert_eq!(order.level, [0, 1, 2, 0]);
        assert_eq!(order.tasks.len(), 4);
    }

    #[test]
    fn each_cycle_is_found_whole_and_in_the_order_of_running() {
        // 1 → 2 → 3 → 1, then 4 behind it, and 5 ↔ 6 apart.
        let found = sorted(&[&[], &[0, 3], &[1], &[2], &[3], &[6], &[5]]).unwrap_err();
        assert_eq!(found, [vec![1, 2, 3], vec![5, 6]]);
    }
}
