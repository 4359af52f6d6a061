//! What all seeds of a rehearsal come to.

use serde::Serialize;
use sim::queue::{MS, Time};
use sim::rehearsal::Ended;
use sim::thinned;
use std::collections::BTreeMap;

/// Of all seeds.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Summary {
    /// Name of the workflow.
    pub(crate) workflow: String,
    /// Nodes of the fleet.
    pub(crate) nodes: u64,
    /// Tasks of the workflow.
    pub(crate) tasks: u64,
    /// Seeds that were rehearsed.
    pub(crate) seeds: u64,
    /// Slots of the schedule in each seed; none: one run by itself.
    pub(crate) slots: Option<u64>,
    /// Runs that it fired in the seed with the fewest.
    pub(crate) fired: u64,
    /// What the run takes without faults; none if it is not over in time.
    pub(crate) without_faults_ms: Option<u64>,
    /// How many seeds ended in each state of the run.
    pub(crate) states: BTreeMap<String, u64>,
    /// Seeds whose run was not over in time.
    pub(crate) not_over: u64,
    /// Half of the seeds take no longer.
    pub(crate) median_ms: Option<u64>,
    /// Of a hundred seeds 95 take no longer.
    pub(crate) p95_ms: Option<u64>,
    /// No seed takes longer.
    pub(crate) longest_ms: Option<u64>,
    /// Tasks in each state, over all seeds.
    pub(crate) task_states: BTreeMap<String, u64>,
    /// In how many seeds each task was late: a deadline ended it, or kept it from beginning.
    pub(crate) late: BTreeMap<String, u64>,
    /// Seeds with a late task.
    pub(crate) late_seeds: u64,
    /// Attempts of the seed with the most of them.
    pub(crate) most_attempts: u64,
    /// Most facts that waited at one gateway for its link.
    pub(crate) backlog_facts: u64,
    /// Bytes of these.
    pub(crate) backlog_bytes: u64,
    /// How long the link takes to carry them.
    pub(crate) drained_ms: u64,
    /// The largest store of a gateway.
    pub(crate) store_bytes: u64,
    /// The longest time that a gateway was without its coordinator.
    pub(crate) outage_ms: u64,
    /// What a gateway keeps of its telemetry in that time.
    pub(crate) telemetry: Telemetry,
    /// How often each kind of fault happened, over all seeds.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// The seed to look at first.
    pub(crate) worst: Worst,
    /// Promises of Driftless that were broken, with their seeds.
    pub(crate) broken: Vec<String>,
}

/// Samples of an outage at one gateway.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Telemetry {
    /// That were taken.
    pub(crate) samples: u64,
    /// That are kept one by one.
    pub(crate) single: u64,
    /// Of which sums over a minute, a quarter or an hour are kept.
    pub(crate) thinned: u64,
    /// Of which nothing is kept but that they are missing.
    pub(crate) dropped: u64,
    /// What they take on the disk of the gateway.
    pub(crate) bytes: u64,
    /// What they may take there.
    pub(crate) budget: u64,
}

impl Telemetry {
    /// Of an outage that lasts so long.
    pub(crate) fn of(outage_ms: u64, budget: u64) -> Self {
        let kept = thinned::outage(outage_ms * MS, budget);
        Self {
            samples: kept.samples,
            single: kept.single,
            thinned: kept.thinned,
            dropped: kept.dropped(),
            bytes: kept.bytes,
            budget,
        }
    }

    /// Samples of a hundred thousand that are kept one by one.
    pub(crate) fn unthinned(&self) -> u64 {
        match self.samples {
            0 => 100_000,
            samples => self.single * 100_000 / samples,
        }
    }
}

/// A seed.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Worst {
    /// Which.
    pub(crate) seed: u64,
    /// State of its run.
    pub(crate) state: String,
    /// What it took.
    pub(crate) took_ms: Option<u64>,
    /// What it waits for from people.
    pub(crate) waits: Vec<String>,
    /// Tasks that were late.
    pub(crate) late: Vec<String>,
}

impl Summary {
    /// Seeds whose run succeeded.
    pub(crate) fn succeeded(&self) -> u64 {
        self.states.get("succeeded").copied().unwrap_or(0)
    }

    /// Slots that no run was fired for, in the seed with the most of them.
    pub(crate) fn skipped(&self) -> u64 {
        self.slots
            .map_or(0, |slots| slots.saturating_sub(self.fired))
    }

    /// Sums up. `bandwidth` is bits a second.
    pub(crate) fn of(ended: &[Ended], bandwidth: u64) -> Self {
        let mut sum = Self {
            seeds: ended.len() as u64,
            ..Self::default()
        };
        for one in ended {
            *sum.states.entry(one.state.clone()).or_default() += 1;
            sum.not_over += u64::from(one.took.is_none());
            for (state, n) in &one.tasks {
                *sum.task_states.entry(state.clone()).or_default() += n;
            }
            for (kind, n) in &one.faults {
                *sum.faults.entry(*kind).or_default() += n;
            }
            for task in &one.late {
                *sum.late.entry(task.clone()).or_default() += 1;
            }
            sum.late_seeds += u64::from(!one.late.is_empty());
            let broken = one.broken.iter();
            sum.broken
                .extend(broken.map(|text| format!("seed {}: {text}", one.seed)));
            sum.most_attempts = sum.most_attempts.max(one.attempts);
            sum.backlog_facts = sum.backlog_facts.max(one.backlog);
            sum.backlog_bytes = sum.backlog_bytes.max(one.backlog_bytes);
            sum.outage_ms = sum.outage_ms.max(one.silent / MS);
            sum.store_bytes = sum.store_bytes.max(one.store);
        }
        sum.fired = ended.iter().map(|one| one.fired).min().unwrap_or(0);
        sum.drained_ms = sum.backlog_bytes * 8 * 1000 / bandwidth.max(1);
        let mut took: Vec<u64> = ended.iter().map(|one| millis(one.took)).collect();
        took.sort_unstable();
        let at = |percent: usize| {
            let position = (took.len() * percent).div_ceil(100).saturating_sub(1);
            took.get(position).copied().filter(|ms| *ms < NEVER)
        };
        (sum.median_ms, sum.p95_ms, sum.longest_ms) = (at(50), at(95), at(100));
        if let Some(worst) = ended.iter().max_by_key(|one| badness(one)) {
            sum.worst = Worst {
                seed: worst.seed,
                state: worst.state.clone(),
                took_ms: worst.took.map(|took| took / MS),
                waits: worst.waits.clone(),
                late: worst.late.clone(),
            };
        }
        sum
    }
}

/// What never ended sorts behind everything.
const NEVER: u64 = u64::MAX;

fn millis(took: Option<Time>) -> u64 {
    took.map_or(NEVER, |took| took / MS)
}

/// Mistakes of ours first, then what is not over, what did not succeed, what took longest.
fn badness(one: &Ended) -> (bool, bool, bool, u64, std::cmp::Reverse<u64>) {
    let failed = one.state != "succeeded";
    let first = std::cmp::Reverse(one.seed);
    (
        !one.broken.is_empty(),
        one.took.is_none(),
        failed,
        millis(one.took),
        first,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim::queue::MIN;

    fn ended(seed: u64, state: &str, minutes: Option<u64>) -> Ended {
        Ended {
            seed,
            state: state.to_owned(),
            took: minutes.map(|n| n * MIN),
            backlog_bytes: seed * 1000,
            ..Ended::default()
        }
    }

    #[test]
    fn quantiles_count_what_never_ended() {
        let mut all: Vec<Ended> = (1..=99).map(|n| ended(n, "succeeded", Some(n))).collect();
        all.push(ended(100, "running", None));
        let sum = Summary::of(&all, 8000);
        assert_eq!((sum.succeeded(), sum.not_over), (99, 1));
        assert_eq!(sum.median_ms, Some(50 * 60_000));
        assert_eq!(sum.p95_ms, Some(95 * 60_000));
        assert_eq!(sum.longest_ms, None);
        assert_eq!(sum.worst.seed, 100);
        assert_eq!((sum.backlog_bytes, sum.drained_ms), (100_000, 100_000));
    }

    #[test]
    fn a_broken_promise_is_worse_than_anything_else() {
        let mut all = vec![
            ended(1, "succeeded", Some(9)),
            ended(2, "failed", Some(1)),
            ended(3, "succeeded", Some(9)),
        ];
        assert_eq!(Summary::of(&all, 1).worst.seed, 2);
        all[2].broken.push("one_owner".to_owned());
        let sum = Summary::of(&all, 1);
        assert_eq!((sum.worst.seed, sum.broken.len()), (3, 1));
    }
}
