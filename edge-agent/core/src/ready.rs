//! The ready queue: which of the tasks that may start goes first. Tasks that ask for the same
//! resources form a class; only the first of each class is ever looked at.

use crate::state::{SliceKey, TaskKey};
use shared::workflow::{Resources, Task};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The order of the ready queue. Smaller goes first.
pub trait Policy {
    /// The place of `task`, the `age`-th that became ready.
    fn place(&self, task: &Task, age: u64) -> Place;
}

/// A place in the order.
pub type Place = (Reverse<i32>, Reverse<u64>, u64);

/// Priority, then upward rank, then age.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByRank;

impl Policy for ByRank {
    fn place(&self, task: &Task, age: u64) -> Place {
        (Reverse(task.priority), Reverse(task.upward_rank), age)
    }
}

/// Tasks that ask for the same.
pub(crate) type Class = u32;

type Shape = (u32, u64, u64, u32, Vec<(String, u64)>);

/// A matrix with limits in a slice: its members are a class of their own, so that those behind its
/// share stand in nobody's way.
pub(crate) type Within = Option<(SliceKey, u32)>;

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    classes: BTreeMap<(Shape, Within), Class>,
    wants: BTreeMap<Class, Resources>,
    next: Class,
    queues: BTreeMap<Class, BTreeSet<(Place, TaskKey)>>,
    at: BTreeMap<TaskKey, (Class, Place, Option<u32>)>,
    /// Tasks of one batch of a slice that are here.
    batches: BTreeMap<(SliceKey, u32), BTreeSet<(Place, TaskKey)>>,
    age: u64,
}

impl Ready {
    /// The class of what a task asks for.
    pub(crate) fn class(&mut self, wants: &Resources, within: Within) -> Class {
        let custom = wants
            .custom
            .iter()
            .map(|(name, n)| (name.clone(), *n))
            .collect();
        let shape = (
            wants.cpu_milli,
            wants.memory,
            wants.disk,
            wants.gpu_milli,
            custom,
        );
        let class = *self.classes.entry((shape, within)).or_insert(self.next);
        if class == self.next {
            self.next += 1;
            self.wants.insert(class, wants.clone());
        }
        class
    }

    /// Forgets the classes that nobody is in any more, `running` being those of attempts: what new
    /// slices ask for would add to them for as long as the agent lives.
    pub(crate) fn forget_unused(&mut self, running: &BTreeSet<Class>) {
        let Self {
            classes,
            wants,
            queues,
            ..
        } = self;
        classes.retain(|_, class| {
            let used = queues.contains_key(class) || running.contains(class);
            if !used {
                wants.remove(class);
            }
            used
        });
    }

    /// What tasks of a class ask for.
    pub(crate) fn wants(&self, class: Class) -> &Resources {
        &self.wants[&class]
    }

    /// Adds a task, if it is not there.
    pub(crate) fn insert(&mut self, key: TaskKey, task: &Task, matrix: Option<u32>) {
        if self.at.contains_key(&key) {
            return;
        }
        self.age += 1;
        let place = ByRank.place(task, self.age);
        let class = self.class(&task.resources, matrix.map(|matrix| (key.slice, matrix)));
        self.at.insert(key, (class, place, task.batch));
        if let Some(batch) = task.batch {
            let mates = self.batches.entry((key.slice, batch)).or_default();
            mates.insert((place, key));
        }
        self.queues.entry(class).or_default().insert((place, key));
    }

    /// Takes a task out.
    pub(crate) fn remove(&mut self, key: TaskKey) {
        let Some((class, place, batch)) = self.at.remove(&key) else {
            return;
        };
        if let Some(batch) = batch.map(|batch| (key.slice, batch))
            && let Some(mates) = self.batches.get_mut(&batch)
        {
            mates.remove(&(place, key));
            if mates.is_empty() {
                self.batches.remove(&batch);
            }
        }
        if let Some(queue) = self.queues.get_mut(&class) {
            queue.remove(&(place, key));
            if queue.is_empty() {
                self.queues.remove(&class);
            }
        }
    }

    /// Whether a task is in the queue.
    pub(crate) fn holds(&self, key: TaskKey) -> bool {
        self.at.contains_key(&key)
    }

    /// The other queued tasks of a task's batch that ask for the same, in order.
    pub(crate) fn mates(&self, key: TaskKey) -> Vec<TaskKey> {
        let Some((class, _, Some(batch))) = self.at.get(&key) else {
            return Vec::new();
        };
        let alike = |other: &TaskKey| *other != key && self.at[other].0 == *class;
        let mates = self.batches.get(&(key.slice, *batch)).into_iter().flatten();
        mates.map(|(_, mate)| *mate).filter(alike).collect()
    }

    /// The queued tasks of a slice.
    pub(crate) fn of_slice(&self, slice: SliceKey) -> Vec<TaskKey> {
        let bound = |pos| TaskKey { slice, pos };
        self.at
            .range(bound(0)..=bound(u32::MAX))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Number of tasks in it.
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    /// The first task of each class, in order.
    pub(crate) fn heads(&self) -> Vec<(Place, TaskKey, Class)> {
        let first = |(class, queue): (&Class, &BTreeSet<(Place, TaskKey)>)| {
            queue.first().map(|(place, key)| (*place, *key, *class))
        };
        let mut heads: Vec<_> = self.queues.iter().filter_map(first).collect();
        heads.sort_unstable();
        heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(memory: u64) -> Resources {
        Resources {
            memory,
            ..Resources::default()
        }
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_forgotten() {
        let mut ready = Ready::default();
        let runs = ready.class(&wants(0), None);
        for memory in 1..=1000 {
            ready.class(&wants(memory), None);
        }
        ready.forget_unused(&BTreeSet::from([runs]));
        assert_eq!((ready.classes.len(), ready.wants.len()), (1, 1));
        assert_eq!(*ready.wants(runs), wants(0), "it is given back later");
        assert_eq!(ready.class(&wants(0), None), runs);
        let again = ready.class(&wants(1), None);
        assert!(again > runs, "no number is used twice");
        assert_eq!(*ready.wants(again), wants(1));
    }
}
