//! The figures of a demo, computed from what its processes left on disk when they had ended: the
//! agents' journals, the coordinator's store, the relay's log.
//!
//! Invariant: nothing here asks a running process, and no counter of either core is used. Outcomes
//! are told apart by (node, incarnation, number of the fact).

use crate::exit::{Code, Failure};
use cloud_store::reader::{Folded, Reader};
use edge_agent::data::Identity;
use edge_core::store::Store;
use relay::log::Window;
use serde::Serialize;
use shared::codec;
use shared::directive::{self, Directive};
use shared::fact::{Body, End, Fact, Outcome};
use shared::ids::{AttemptRef, Incarnation, NodeId, RunId, TaskIdx};
use shared::state::RunState;
use shared::wire::LogId;
use shared::workflow::Workflow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) runs: Runs,
    pub(crate) tasks: Tasks,
    pub(crate) outcomes: Outcomes,
    pub(crate) faults: Faults,
    /// Time in which at least one link was cut.
    pub(crate) offline_seconds: f64,
}

/// Runs by their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Runs {
    pub(crate) submitted: u64,
    pub(crate) succeeded: u64,
    /// Ended in any other way.
    pub(crate) failed: u64,
}

/// Tasks and what became of them without a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Tasks {
    pub(crate) total: u64,
    /// Attempts that began and succeeded while their node's link was cut.
    pub(crate) finished_offline: u64,
    /// Those of them that need a task which is itself among them.
    pub(crate) following_offline: u64,
    /// Those of them that began after their agent was killed and started again.
    pub(crate) started_after_restart: u64,
}

/// Terminal facts of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Outcomes {
    /// In the agents' journals.
    pub(crate) recorded: u64,
    /// In the coordinator's store.
    pub(crate) received: u64,
    /// Folded into their run, where they count.
    pub(crate) applied: u64,
    /// Offered again because their acknowledgement was lost, and known by number and hash.
    pub(crate) duplicates_ignored: u64,
    /// Recorded and not received.
    pub(crate) lost: u64,
}

/// What was done to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Faults {
    pub(crate) links_cut: u64,
    pub(crate) agents_killed: u64,
}

/// What is read.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) coordinator: PathBuf,
    pub(crate) agents: Vec<PathBuf>,
    pub(crate) relay: Option<PathBuf>,
}

/// A fact's place: whose log, which number.
type FactId = (LogId, u64);

/// An ended attempt in a journal.
#[derive(Debug)]
struct Ended {
    id: FactId,
    attempt: AttemptRef,
    succeeded: bool,
    began_ms: Option<u64>,
    ended_ms: u64,
}

/// What one agent left.
#[derive(Debug, Default)]
struct Journal {
    name: String,
    ended: Vec<Ended>,
    /// Starts of the agent after an end that it did not announce.
    restarts_ms: Vec<u64>,
    workflows: BTreeMap<RunId, Workflow>,
}

/// What the coordinator left.
#[derive(Debug, Default)]
struct Ledger {
    received: BTreeMap<FactId, AttemptRef>,
    applied: BTreeSet<(RunId, TaskIdx, u64, u32, NodeId)>,
    repeats: Vec<(LogId, u64, u64)>,
    runs: Runs,
    tasks: u64,
}

fn unreadable(what: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Code::Failed,
        format!("cannot read {}: {error}", what.display()),
    )
}

/// Reads everything and computes the figures.
///
/// # Errors
/// If something cannot be read.
pub(crate) fn compute(sources: &Sources) -> Result<Figures, Failure> {
    let journals = sources
        .agents
        .iter()
        .map(|dir| read_agent(dir))
        .collect::<Result<Vec<_>, _>>()?;
    let ledger = read_coordinator(&store_of(&sources.coordinator))?;
    let windows = match &sources.relay {
        Some(log) => relay::log::windows(&relay::log::read(log).map_err(|e| unreadable(log, &e))?),
        None => Vec::new(),
    };
    Ok(Figures {
        runs: ledger.runs,
        tasks: offline_tasks(&journals, &windows, ledger.tasks),
        outcomes: outcomes(&journals, &ledger),
        faults: Faults {
            links_cut: windows.len() as u64,
            agents_killed: journals
                .iter()
                .map(|journal| journal.restarts_ms.len() as u64)
                .sum(),
        },
        offline_seconds: union_ms(&windows) as f64 / 1000.0,
    })
}

/// The coordinator's store in its data directory.
pub(crate) fn store_of(coordinator: &Path) -> PathBuf {
    coordinator.join("store.redb")
}

fn read_agent(dir: &Path) -> Result<Journal, Failure> {
    let path = dir.join("identity.json");
    let text = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    let identity: Identity = serde_json::from_slice(&text).map_err(|e| unreadable(&path, &e))?;
    let mut journal = Journal {
        name: identity.name.clone(),
        ..Journal::default()
    };
    let mut stores = vec![(identity.incarnation(), dir.join("store.redb"))];
    for entry in std::fs::read_dir(dir.join("old"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let path = entry.path();
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if let Ok(incarnation) = stem.parse::<Incarnation>() {
            stores.push((incarnation, path));
        }
    }
    for (incarnation, path) in stores {
        let log = LogId {
            node: identity.node(),
            incarnation,
        };
        read_store(&path, log, &mut journal)?;
    }
    Ok(journal)
}

fn read_store(path: &Path, log: LogId, journal: &mut Journal) -> Result<(), Failure> {
    let identity = edge_store::Identity {
        node: log.node,
        incarnation: log.incarnation,
    };
    let mut store = edge_store::open_file(path, identity).map_err(|e| unreadable(path, &e))?;
    let each_fact = &mut |number, bytes: &[u8]| {
        let Ok(fact) = Fact::decode(number, bytes) else {
            return;
        };
        match fact.body {
            Body::Ended { attempt, end } => {
                journal
                    .ended
                    .push(ended((log, number), attempt, &end, fact.at.mono_ms));
            }
            Body::Booted { unclean: true, .. } => journal.restarts_ms.push(fact.at.mono_ms),
            _ => {}
        }
    };
    store
        .each_fact(0, each_fact)
        .map_err(|error| unreadable(path, &error))?;
    let each_directive = &mut |number, bytes: &[u8]| {
        let Ok(Directive {
            body: directive::Body::Assign(assign),
            ..
        }) = Directive::decode(number, bytes)
        else {
            return;
        };
        let workflow = assign
            .workflow
            .and_then(|packed| codec::unpack(&packed).ok());
        if let Some((workflow, _)) = workflow {
            journal.workflows.insert(assign.slice.run, workflow);
        }
    };
    store
        .each_directive(0, each_directive)
        .map_err(|error| unreadable(path, &error))
}

fn ended(id: FactId, attempt: AttemptRef, end: &End, ended_ms: u64) -> Ended {
    Ended {
        id,
        attempt,
        succeeded: end.outcome == Outcome::Succeeded,
        began_ms: end.began.map(|at| at.mono_ms),
        ended_ms,
    }
}

fn read_coordinator(path: &Path) -> Result<Ledger, Failure> {
    let mut reader = Reader::open(path).map_err(|error| unreadable(path, &error))?;
    let mut ledger = Ledger::default();
    let facts = reader.facts(&mut |log, number, bytes| {
        if let Ok(Fact {
            body: Body::Ended { attempt, .. },
            ..
        }) = Fact::decode(number, bytes)
        {
            ledger.received.insert((log, number), attempt);
        }
    });
    let runs = reader.runs(&mut |_, head| {
        ledger.tasks += head.counts.iter().map(|n| u64::from(*n)).sum::<u64>();
        ledger.runs.submitted += 1;
        ledger.runs.succeeded += u64::from(head.state == RunState::Succeeded);
        ledger.runs.failed += u64::from(head.state.is_final() && head.state != RunState::Succeeded);
    });
    let folded = reader.folded(&mut |attempt: Folded| {
        if attempt.applied && attempt.outcome.is_some() {
            let Folded {
                run,
                task,
                epoch,
                number,
                node,
                ..
            } = attempt;
            ledger.applied.insert((run, task, epoch.0, number, node));
        }
    });
    let nodes = reader.nodes(&mut |node, state| {
        for (incarnation, first, last) in state.repeats {
            ledger
                .repeats
                .push((LogId { node, incarnation }, first, last));
        }
    });
    facts
        .and(runs)
        .and(folded)
        .and(nodes)
        .map_err(|error| unreadable(path, &error))?;
    Ok(ledger)
}

/// Recorded, received, applied, offered again, lost: by id, each once.
fn outcomes(journals: &[Journal], ledger: &Ledger) -> Outcomes {
    let recorded: BTreeSet<FactId> = journals
        .iter()
        .flat_map(|journal| journal.ended.iter().map(|ended| ended.id))
        .collect();
    let counts = |(id, attempt): &(&FactId, &AttemptRef)| {
        let AttemptRef {
            slice,
            task,
            number,
        } = **attempt;
        ledger
            .applied
            .contains(&(slice.run, task, slice.epoch.0, number, id.0.node))
    };
    let again = |id: &&FactId| {
        let hit = |(log, first, last): &(LogId, u64, u64)| {
            id.0 == *log && (*first..=*last).contains(&id.1)
        };
        ledger.repeats.iter().filter(|row| hit(row)).count() as u64
    };
    Outcomes {
        recorded: recorded.len() as u64,
        received: ledger.received.len() as u64,
        applied: ledger.received.iter().filter(counts).count() as u64,
        duplicates_ignored: ledger.received.keys().map(|id| again(&id)).sum(),
        lost: recorded
            .iter()
            .filter(|id| !ledger.received.contains_key(id))
            .count() as u64,
    }
}

/// What began and succeeded within a window of its node's link.
fn offline_tasks(journals: &[Journal], windows: &[Window], total: u64) -> Tasks {
    let mut tasks = Tasks {
        total,
        ..Tasks::default()
    };
    for journal in journals {
        let cut: Vec<&Window> = windows.iter().filter(|w| w.lane == journal.name).collect();
        let within = |ended: &&Ended| {
            let span = ended.began_ms.map(|began| (began, ended.ended_ms));
            ended.succeeded && span.is_some_and(|(from, to)| cut.iter().any(|w| w.holds(from, to)))
        };
        let offline: Vec<&Ended> = journal.ended.iter().filter(within).collect();
        let done: BTreeSet<(RunId, TaskIdx)> = offline
            .iter()
            .map(|ended| (ended.attempt.slice.run, ended.attempt.task))
            .collect();
        let follows = |ended: &&&Ended| {
            let run = ended.attempt.slice.run;
            let workflow = journal.workflows.get(&run);
            let task = workflow.and_then(|w| w.tasks.get(ended.attempt.task.0 as usize));
            task.is_some_and(|task| task.needs.iter().any(|need| done.contains(&(run, *need))))
        };
        let restarted = |ended: &&&Ended| {
            journal
                .restarts_ms
                .iter()
                .any(|at| ended.began_ms.is_some_and(|began| began > *at))
        };
        tasks.finished_offline += offline.len() as u64;
        tasks.following_offline += offline.iter().filter(follows).count() as u64;
        tasks.started_after_restart += offline.iter().filter(restarted).count() as u64;
    }
    tasks
}

/// Milliseconds in which at least one window was open; one that was never closed does not count.
fn union_ms(windows: &[Window]) -> u64 {
    let closed = windows.iter().filter_map(|w| Some((w.from_ms, w.to_ms?)));
    let mut spans: Vec<(u64, u64)> = closed.collect();
    spans.sort_unstable();
    let (mut total, mut until) = (0, 0);
    for (from, to) in spans {
        total += to.saturating_sub(from.max(until));
        until = until.max(to);
    }
    total
}

impl Figures {
    /// What was promised and not kept, for people; empty if all is well.
    pub(crate) fn broken_promises(&self) -> Vec<String> {
        let Self {
            runs,
            tasks,
            outcomes,
            faults,
            ..
        } = self;
        let at_least = |n: u64, least: u64, what: &str| {
            (n < least).then(|| format!("{n} {what}, at least {least} were to be seen"))
        };
        let equal =
            |a: u64, b: u64, what: &str| (a != b).then(|| format!("{what}: {a} and not {b}"));
        [
            equal(runs.succeeded, runs.submitted, "runs that succeeded"),
            equal(outcomes.lost, 0, "outcomes lost"),
            equal(outcomes.received, outcomes.recorded, "outcomes received"),
            equal(outcomes.applied, outcomes.received, "outcomes applied"),
            at_least(tasks.total, 40, "tasks"),
            at_least(tasks.finished_offline, 15, "tasks finished without a link"),
            at_least(
                tasks.following_offline,
                5,
                "of them after another one of them",
            ),
            at_least(
                tasks.started_after_restart,
                3,
                "of them begun after the restart",
            ),
            at_least(outcomes.duplicates_ignored, 1, "outcomes offered again"),
            at_least(faults.links_cut, 2, "links cut"),
            at_least(faults.agents_killed, 1, "agents killed"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Takes one received outcome out of a store: what a loss would look like.
///
/// # Errors
/// If there is none, or the store cannot be changed.
pub(crate) fn remove_one(coordinator: &Path) -> Result<(), Failure> {
    let path = store_of(coordinator);
    let ledger = read_coordinator(&path)?;
    let Some(((log, number), _)) = ledger.received.last_key_value() else {
        return Err(Failure::new(Code::Failed, "no outcome was received"));
    };
    let mut reader = Reader::open(&path).map_err(|error| unreadable(&path, &error))?;
    match reader.remove_fact(*log, *number) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(Code::Failed, "the outcome cannot be found")),
        Err(error) => Err(unreadable(&path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::ids::{Epoch, SliceRef};

    const LOG: LogId = LogId {
        node: NodeId([1; 16]),
        incarnation: Incarnation([2; 16]),
    };

    fn attempt(task: u32) -> AttemptRef {
        let slice = SliceRef {
            run: RunId([3; 16]),
            slice: 0,
            epoch: Epoch(1),
        };
        AttemptRef {
            slice,
            task: TaskIdx(task),
            number: 1,
        }
    }

    fn one(number: u64, task: u32, began_ms: u64, ended_ms: u64) -> Ended {
        let id = (LOG, number);
        Ended {
            id,
            attempt: attempt(task),
            succeeded: true,
            began_ms: Some(began_ms),
            ended_ms,
        }
    }

    fn journal() -> Journal {
        let ended = vec![one(5, 0, 10, 20), one(7, 1, 30, 40), one(9, 2, 50, 60)];
        Journal {
            name: "gw".into(),
            ended,
            restarts_ms: vec![45],
            ..Journal::default()
        }
    }

    #[test]
    fn what_was_recorded_and_not_received_is_lost_by_id() {
        let mut ledger = Ledger::default();
        for (number, task) in [(5, 0), (9, 2), (11, 3)] {
            ledger.received.insert((LOG, number), attempt(task));
        }
        ledger
            .applied
            .insert((RunId([3; 16]), TaskIdx(2), 1, 1, LOG.node));
        ledger.repeats.push((LOG, 6, 9));
        let expected = Outcomes {
            recorded: 3,
            received: 3,
            applied: 1,
            duplicates_ignored: 1,
            lost: 1,
        };
        assert_eq!(outcomes(&[journal()], &ledger), expected);
    }

    #[test]
    fn only_what_lies_within_a_window_of_its_own_link_counts_as_offline() {
        let window = |lane: &str, from_ms, to| Window {
            lane: lane.into(),
            from_ms,
            to_ms: Some(to),
        };
        let tasks = |windows: &[Window]| {
            let tasks = offline_tasks(&[journal()], windows, 3);
            (tasks.finished_offline, tasks.started_after_restart)
        };
        assert_eq!(tasks(&[window("gw", 25, 61)]), (2, 1));
        assert_eq!(
            tasks(&[window("gw", 25, 60)]),
            (1, 0),
            "it must end before the link is back"
        );
        assert_eq!(
            tasks(&[window("gw", 31, 61)]),
            (1, 1),
            "it must begin after the cut"
        );
        assert_eq!(tasks(&[window("other", 0, 100)]), (0, 0));
        assert_eq!(
            union_ms(&[
                window("a", 10, 30),
                window("b", 20, 50),
                window("c", 60, 61)
            ]),
            41
        );
    }
}
