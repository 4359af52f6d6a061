//! Layer 4 of the simulator: ten scenarios of the built binaries, drawn from seeds, and controls
//! that show that the checks see what is wrong. `docs/simulation.md` says what is checked; any
//! other seed is played by `cargo run -p e2e --bin chaos -- --seed N`.

use e2e::chaos::{
    Attempt, Fault, Fence, Flow, GatewaySeen, Invariant, Kind, LocalTask, Mark, Observation, Plan,
    RunSeen, Said, Source, Task, TaskSeen, checksum, judge, play_all,
};
use std::collections::BTreeMap;
use std::ops::Range;

/// The seeds of the gate.
const SEEDS: Range<u64> = 1..11;
/// How many are played at once: they mostly wait.
const AT_ONCE: usize = 5;

#[test]
fn ten_scenarios_keep_every_promise() {
    let mut failed = Vec::new();
    play_all(SEEDS, AT_ONCE, |outcome| {
        eprintln!("{}", outcome.report());
        if outcome.broken.is_empty() {
            notices_what_is_doctored(&outcome.plan, &outcome.seen);
        } else {
            failed.push(outcome.plan.seed);
        }
    });
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

/// A scenario that went well is not judged so any more when what was seen of it is changed.
fn notices_what_is_doctored(plan: &Plan, seen: &Observation) {
    let notices = |invariant: Invariant, doctor: &dyn Fn(&mut Observation)| {
        let mut seen = seen.clone();
        doctor(&mut seen);
        let noticed = judge(plan, &seen).iter().any(|b| b.invariant == invariant);
        assert!(noticed, "seed {}: not {}", plan.seed, invariant.name());
    };
    let end = seen.marks.iter().rposition(|mark| mark.said == Said::End);
    let end = end.expect("some task came to its end");
    notices(Invariant::Ran, &|seen| {
        seen.marks.remove(end);
    });
    let Mark { task, run, .. } = &seen.marks[end];
    notices(Invariant::CountedOnce, &|seen| {
        let run = seen.runs.iter_mut().find(|shown| shown.id == *run);
        let task = run.and_then(|run| run.tasks.get_mut(task));
        task.expect("it is shown").history.pop();
    });
    let once = |mark: &&Mark| {
        let mut runs = plan.flows.iter().zip(&seen.runs);
        let flow = runs
            .find(|(_, run)| run.id == mark.run)
            .map(|(flow, _)| flow);
        let task = flow.and_then(|flow| Some(&flow.tasks[flow.index(&mark.task)?]));
        mark.said == Said::Begin && task.is_some_and(|task| task.kind == Kind::Once)
    };
    if let Some(begin) = seen.marks.iter().find(once) {
        notices(Invariant::AtMostOnce, &|seen| {
            seen.marks.push(begin.clone())
        });
    }
    let read = |mark: &Mark| matches!(mark.said, Said::Read(..));
    if let Some(read) = seen.marks.iter().position(read) {
        notices(Invariant::Files, &|seen| {
            if let Said::Read(_, sum, _) = &mut seen.marks[read].said {
                *sum ^= 1;
            }
        });
    }
}

#[test]
fn a_seed_gives_the_same_plan_each_time_and_another_seed_another_one() {
    for seed in 0..500 {
        let plan = Plan::draw(seed);
        assert_eq!(plan, Plan::draw(seed));
        assert_eq!(plan.to_string(), Plan::draw(seed).to_string());
        assert_ne!(plan.strikes, Plan::draw(seed + 1).strikes, "seed {seed}");
        for strike in &plan.strikes {
            assert!(strike.node < plan.gateways, "{strike:?}");
            assert!(strike.from_ms <= strike.to_ms && strike.to_ms <= plan.window_ms);
        }
    }
}

#[test]
fn every_kind_of_fault_is_drawn_in_the_gate() {
    let mut drawn: BTreeMap<Fault, usize> = BTreeMap::new();
    for strike in SEEDS.flat_map(|seed| Plan::draw(seed).strikes) {
        *drawn.entry(strike.fault).or_default() += 1;
    }
    for fault in Fault::ALL {
        let count = drawn.get(&fault).copied().unwrap_or(0);
        eprintln!("{:>17} {count}", fault.name());
        assert!(count > 0, "{} is not drawn", fault.name());
    }
    let flows = SEEDS.flat_map(|seed| Plan::draw(seed).flows);
    let (mut local, mut movable, mut kinds) = (0, 0, [0; 4]);
    for flow in flows {
        local += usize::from(matches!(flow.source, Source::Gateway(_)));
        movable += usize::from(flow.movable);
        for task in &flow.tasks {
            kinds[match task.kind {
                Kind::Plain => 0,
                Kind::FailsFirst(_) => 1,
                Kind::Fails => 2,
                Kind::Once => 3,
            }] += 1;
        }
    }
    eprintln!("{local} at gateways, {movable} movable; plain, retried, failing, once: {kinds:?}");
    assert!(local > 0 && movable > 0 && kinds.iter().all(|count| *count > 0));
}

/// Two gateways; `t0` writes a file at gw-0 that `t1` reads at gw-1, `t2` may begin once, `t3`
/// fails once before it succeeds.
fn small_plan() -> Plan {
    let task = |kind, site, needs: &[usize], output| Task {
        kind,
        site: Some(site),
        needs: needs.to_vec(),
        output,
        naps: 1,
        always: false,
    };
    Plan {
        seed: 0,
        gateways: 2,
        window_ms: 1000,
        flows: vec![Flow {
            name: "small".to_owned(),
            source: Source::Coordinator(0),
            movable: false,
            tasks: vec![
                task(Kind::Plain, 0, &[], Some(100)),
                task(Kind::Plain, 1, &[0], None),
                task(Kind::Once, 0, &[], None),
                task(Kind::FailsFirst(1), 1, &[], None),
            ],
        }],
        strikes: Vec::new(),
    }
}

const EPOCH: u64 = 7;
const HASH: &str = "blake3:00";

fn mark(said: Said, task: usize, number: u64, node: usize) -> Mark {
    Mark {
        said,
        run: "r".to_owned(),
        task: Flow::id(task),
        fence: Fence {
            epoch: EPOCH,
            number,
        },
        node,
    }
}

fn attempt(number: u64, outcome: &str) -> Attempt {
    Attempt {
        fence: Fence {
            epoch: EPOCH,
            number,
        },
        outcome: outcome.to_owned(),
        reason: String::new(),
        counts: true,
    }
}

/// What is seen of [`small_plan`] when all goes well.
fn right_world(plan: &Plan) -> Observation {
    let content = plan.flows[0].content(0);
    let read = Said::Read("t0".to_owned(), checksum(&content), content.len());
    let mut seen = Observation {
        marks: vec![
            mark(Said::Begin, 0, 1, 0),
            mark(Said::Begin, 2, 1, 0),
            mark(Said::Begin, 3, 1, 1),
            mark(Said::Fail, 3, 1, 1),
            mark(Said::End, 0, 1, 0),
            mark(Said::End, 2, 1, 0),
            mark(Said::Begin, 1, 1, 1),
            mark(Said::Begin, 3, 2, 1),
            mark(read, 1, 1, 1),
            mark(Said::End, 3, 2, 1),
            mark(Said::Tick, 1, 1, 1),
            mark(Said::End, 1, 1, 1),
        ],
        gateways: vec![GatewaySeen::default(); 2],
        files: [(HASH.to_owned(), Some(content.clone()))].into(),
        ..Observation::default()
    };
    let mut tasks = BTreeMap::new();
    for (index, node) in [0, 1, 0, 1].into_iter().enumerate() {
        let mut history = vec![attempt(1, "succeeded")];
        if index == 3 {
            history = vec![attempt(1, "failed"), attempt(2, "succeeded")];
        }
        let task = TaskSeen {
            state: "succeeded".to_owned(),
            node: Some(node),
            attempts: history.len() as u64,
            output: (index == 0).then(|| (HASH.to_owned(), content.len())),
            history,
        };
        seen.gateways[node].tasks.push(LocalTask {
            run: "r".to_owned(),
            task: Flow::id(index),
            state: task.state.clone(),
            attempts: task.attempts,
            fence: task.history[task.history.len() - 1].fence,
            output: task.output.clone(),
        });
        tasks.insert(Flow::id(index), task);
    }
    seen.runs = vec![RunSeen {
        id: "r".to_owned(),
        state: "succeeded".to_owned(),
        conflicts: Vec::new(),
        tasks,
    }];
    seen.again = Some(seen.runs.clone());
    seen
}

fn seen_task(seen: &mut Observation, index: usize) -> &mut TaskSeen {
    let task = seen.runs[0].tasks.get_mut(&Flow::id(index));
    task.expect("the task is there")
}

/// What is done to a right world, the invariant that must notice it, and how.
type Doctored = (&'static str, Invariant, fn(&mut Observation));

const DOCTORED: &[Doctored] = &[
    ("a run goes on", Invariant::Convergence, |seen| {
        seen.unrest = Some("run r is running".to_owned());
    }),
    ("a task failed that cannot", Invariant::Outcomes, |seen| {
        seen_task(seen, 1).state = "failed".to_owned();
    }),
    (
        "a run says succeeded with a failed task",
        Invariant::Outcomes,
        |seen| {
            seen_task(seen, 3).state = "failed".to_owned();
        },
    ),
    (
        "a task is lost where nothing was killed",
        Invariant::Outcomes,
        |seen| {
            seen_task(seen, 2).state = "lost".to_owned();
        },
    ),
    ("a run is not there", Invariant::Outcomes, |seen| {
        seen.runs.clear()
    }),
    ("a task is not there", Invariant::Outcomes, |seen| {
        seen.runs[0].tasks.remove("t1");
    }),
    ("a missing end", Invariant::Ran, |seen| {
        seen.marks
            .retain(|mark| mark.said != Said::End || mark.task != "t0");
    }),
    (
        "a mark of a task that did not run",
        Invariant::Ran,
        |seen| {
            seen_task(seen, 0).state = "aborted".to_owned();
        },
    ),
    ("a mark of an unknown run", Invariant::Ran, |seen| {
        seen.marks[0].run = "other".to_owned();
    }),
    ("half a line of marks", Invariant::Ran, |seen| {
        seen.unreadable.push("mark 'beg'".to_owned());
    }),
    (
        "an extra begin of a task that may begin once",
        Invariant::AtMostOnce,
        |seen| {
            seen.marks.push(mark(Said::Begin, 2, 2, 0));
        },
    ),
    (
        "an attempt goes on beside a later one",
        Invariant::NoOverlap,
        |seen| {
            seen.marks.insert(8, mark(Said::Tick, 3, 1, 1));
        },
    ),
    ("an attempt began twice", Invariant::NoOverlap, |seen| {
        seen.marks.insert(1, mark(Said::Begin, 0, 1, 1));
    }),
    ("two successes count", Invariant::CountedOnce, |seen| {
        seen_task(seen, 0).history.push(attempt(2, "succeeded"));
    }),
    (
        "an attempt that is not shown",
        Invariant::CountedOnce,
        |seen| {
            seen_task(seen, 3).history.remove(0);
        },
    ),
    (
        "an attempt that ran and is said not to have",
        Invariant::CountedOnce,
        |seen| {
            seen_task(seen, 3).history[0].outcome = "not_begun".to_owned();
        },
    ),
    (
        "a failure that no task had",
        Invariant::CountedOnce,
        |seen| {
            seen_task(seen, 1).history.insert(0, attempt(9, "failed"));
        },
    ),
    (
        "an outcome that was not applied",
        Invariant::CountedOnce,
        |seen| {
            seen.runs[0].conflicts.push("superseded".to_owned());
        },
    ),
    ("the gateway says otherwise", Invariant::Agreed, |seen| {
        seen.gateways[1].tasks[0].state = "running".to_owned();
    }),
    (
        "the gateway does not know the task",
        Invariant::Agreed,
        |seen| {
            seen.gateways[1].tasks.clear();
        },
    ),
    (
        "the sides count attempts otherwise",
        Invariant::Agreed,
        |seen| {
            seen_task(seen, 3).attempts = 1;
        },
    ),
    ("a fact waits", Invariant::Delivered, |seen| {
        seen.gateways[0].undelivered.push("1 facts".to_owned());
    }),
    ("a process is left", Invariant::NothingLeft, |seen| {
        seen.gateways[0].left.push("process 7".to_owned());
    }),
    ("a reader saw another content", Invariant::Files, |seen| {
        seen.marks[8].said = Said::Read("t0".to_owned(), 1, 100);
    }),
    (
        "a reader saw half of the content",
        Invariant::Files,
        |seen| {
            let half = checksum(&small_plan().flows[0].content(0)[..50]);
            seen.marks[8].said = Said::Read("t0".to_owned(), half, 50);
        },
    ),
    (
        "the coordinator has another content",
        Invariant::Files,
        |seen| {
            seen.files.insert(HASH.to_owned(), Some(b"other".to_vec()));
        },
    ),
    (
        "the coordinator lacks a file that crossed",
        Invariant::Files,
        |seen| {
            seen.files.insert(HASH.to_owned(), None);
        },
    ),
    (
        "somebody is asked about a task that is fine",
        Invariant::Waits,
        |seen| {
            seen.waits.push(("r".to_owned(), "t0".to_owned()));
        },
    ),
    (
        "nobody is asked about a lost task",
        Invariant::Waits,
        |seen| {
            seen_task(seen, 2).state = "lost".to_owned();
        },
    ),
    ("a program ended by itself", Invariant::Alive, |seen| {
        seen.ended.push("Agent(0) ended by itself".to_owned());
    }),
    (
        "an attempt is forgotten by a restart",
        Invariant::Remembered,
        |seen| {
            let again = seen.again.as_mut().expect("asked again");
            again[0]
                .tasks
                .get_mut("t3")
                .expect("the task")
                .history
                .remove(0);
        },
    ),
    (
        "a run has another state behind a restart",
        Invariant::Remembered,
        |seen| {
            seen.again.as_mut().expect("asked again")[0].state = "running".to_owned();
        },
    ),
    ("a page of a store is damaged", Invariant::Whole, |seen| {
        seen.unsound.push("gw-0: a page is damaged".to_owned());
    }),
];

#[test]
fn the_checks_find_nothing_in_a_right_world_and_what_is_wrong_in_a_doctored_one() {
    let plan = small_plan();
    assert_eq!(judge(&plan, &right_world(&plan)), []);
    for (what, invariant, doctor) in DOCTORED {
        let mut seen = right_world(&plan);
        doctor(&mut seen);
        let broken = judge(&plan, &seen);
        let noticed = broken.iter().any(|broken| broken.invariant == *invariant);
        assert!(
            noticed,
            "{what}: {} has not noticed it: {broken:?}",
            invariant.name()
        );
    }
    for invariant in Invariant::ALL {
        let tried = DOCTORED.iter().any(|(_, tried, _)| *tried == invariant);
        assert!(tried, "{} has no control", invariant.name());
    }
}
