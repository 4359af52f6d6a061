//! Layer 3: seeds, the meta test, agreement with layer 1, and mistakes that must be noticed.

use sim::plan::{Layer, Plan};
use sim::report::complaint;
use sim::runner::Verdict;
use stack::{Mistake, Ran, plan, run, settled};
use std::process::Command;

fn passes(ran: &Ran) {
    let found = &ran.verdict.violations;
    assert!(found.is_empty(), "{}", complaint(&ran.verdict));
}

#[test]
fn seeds_with_the_real_link_keep_all_promises() {
    for seed in [1, 2] {
        let ran = run(plan(seed), None, Default::default(), None);
        passes(&ran);
        assert!(ran.figures.sessions > 0 && ran.figures.datagrams > 1000);
    }
}

#[test]
fn the_same_seed_gives_the_same_datagrams_in_another_process() {
    let hash = || {
        let out = Command::new(env!("CARGO_BIN_EXE_stack"))
            .args(["replay", "1", "--hash"])
            .output()
            .expect("the simulator runs");
        String::from_utf8(out.stdout).expect("a hash is text")
    };
    let first = hash();
    assert_eq!(first.trim().len(), 16, "{first}");
    assert_eq!(first, hash());
}

fn ends(plan: Plan) -> Verdict {
    let ran = run(plan, None, Default::default(), None);
    passes(&ran);
    ran.verdict
}

/// What is compared: the set of runs, and of each task its state and the hashes of its outputs.
#[test]
fn layers_1_and_3_come_to_the_same_ends() {
    let mut states = std::collections::BTreeSet::new();
    for seed in 100..108 {
        let cores = ends(settled(seed, Layer::Cores)).outcome;
        let link = ends(settled(seed, Layer::Link)).outcome;
        assert!(!cores.is_empty(), "seed {seed} comes to no rest");
        let runs = |one: &sim::world::Outcome| one.keys().copied().collect::<Vec<_>>();
        assert_eq!(runs(&cores), runs(&link), "seed {seed}: runs");
        for (run, tasks) in &cores {
            assert_eq!(
                link.get(run),
                Some(tasks),
                "seed {seed}: tasks of run {run}"
            );
            states.extend(tasks.values().map(|(state, _)| state.clone()));
        }
    }
    // else there would be nothing to compare
    assert!(states.len() > 2, "only {states:?}");
}

/// The first invariant that notices `mistake` in one of `seeds`.
fn noticed(mistake: Mistake, seeds: std::ops::Range<u64>) -> Option<&'static str> {
    seeds.into_iter().find_map(|seed| {
        let ran = run(plan(seed), None, Default::default(), Some(mistake));
        ran.verdict.violations.first().map(|first| first.invariant)
    })
}

#[test]
fn mistakes_in_the_link_are_noticed() {
    for mistake in Mistake::OF_THE_LINK {
        assert_eq!(noticed(*mistake, 0..6), Some("carried"), "{mistake:?}");
    }
}

#[test]
fn mistakes_in_the_loop_are_noticed() {
    for mistake in Mistake::OF_THE_LOOP {
        assert!(noticed(*mistake, 0..10).is_some(), "{mistake:?}");
    }
}
