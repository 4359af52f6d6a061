//! An inventory that is told in parts, as the link takes them.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use crate::env::*;
use edge_core::event::{Event, Local};
use shared::directive::Body as Wish;
use shared::ids::{Hash, RunId};
use shared::inventory::{InventoryPart, Item, Reader, RunState};
use shared::log::{Direction, Head};
use shared::state::TaskState;
use shared::time::Span;
use shared::wire::{INVENTORY_PARTS, Up, Welcome};
use shared::workflow::Workflow;

fn two() -> Workflow {
    workflow(vec![task("a", &[]), task("b", &[0])])
}

/// A workflow that needs several parts.
fn bulky(n: u32) -> Workflow {
    let noise = (0..40u32).map(|m| Hash::of(&[n.to_le_bytes(), m.to_le_bytes()].concat()).hex());
    let mut flow = two();
    flow.description = noise.collect();
    flow
}

/// Some runs, two of them of one workflow, told in parts of 600 bytes.
fn env() -> Env {
    let mut config = config();
    config.inventory_part = 600;
    let mut env = Env::with(config);
    env.assigned(assign(slice(0, 1), &two(), &[0, 1]));
    for n in 0..3 {
        let what = Local::Submit {
            run: RunId([n as u8 + 20; 16]),
            workflow: shared::codec::pack(&bulky(n / 2)).0,
            by: "ann".to_owned(),
        };
        env.local(u64::from(n), what);
    }
    let by = "ann".to_owned();
    env.tell(vec![Wish::Pause {
        run: RUN,
        on: true,
        by,
    }]);
    env
}

fn asks(welcome: &mut Welcome) {
    welcome.want_inventory = true;
    welcome.features = INVENTORY_PARTS;
}

/// A new session asks for everything.
fn asked(env: &mut Env) {
    let (session, why) = (env.session.unwrap(), String::new());
    env.event(Event::Unlinked { session, why });
    env.actions.clear();
    env.pass(Span::secs(60));
    env.join_as(Head::origin(NODE, LIFE, Direction::Up), asks);
}

fn parts(env: &Env) -> Vec<InventoryPart> {
    let part = |up: &Up| match up {
        Up::InventoryPart(part) => Some(part.clone()),
        _ => None,
    };
    env.sent().into_iter().filter_map(part).collect()
}

fn taken(env: &mut Env) {
    let session = env.session.unwrap();
    env.event(Event::PartTaken { session });
}

fn joined(parts: &[InventoryPart]) -> (Vec<Vec<u8>>, Vec<RunState>) {
    let mut reader = Reader::new(parts[0].session);
    let (mut workflows, mut runs) = (Vec::new(), Vec::new());
    for part in parts {
        for item in reader.take(part).unwrap() {
            match item {
                Item::Workflow(packed) => workflows.push(packed),
                Item::Run(run) => runs.push(run),
            }
        }
    }
    (workflows, runs)
}

#[test]
fn each_part_is_made_when_the_link_has_taken_the_one_before() {
    let mut env = env();
    env.end("a", 0);
    env.pass(Span(10));
    asked(&mut env);
    assert_eq!(parts(&env).len(), 1);
    env.event(Event::Wake);
    assert_eq!(parts(&env).len(), 1, "nobody has taken the first one");
    while !parts(&env).last().unwrap().last {
        let before = parts(&env).len();
        taken(&mut env);
        assert_eq!(parts(&env).len(), before + 1);
    }
    let all = parts(&env);
    taken(&mut env);
    assert_eq!(parts(&env).len(), all.len(), "nothing follows the last one");
    assert!(all.len() > 4, "{}", all.len());
    assert!(all.iter().all(|part| part.bytes.len() <= 600));
    let (workflows, runs) = joined(&all);
    assert_eq!(workflows.len(), 3, "each workflow is told once");
    let told = |run: &RunState| (run.run.0[0], run.slices.len(), run.directives.len());
    let mut told: Vec<_> = runs.iter().map(told).collect();
    told.sort_unstable();
    assert_eq!(told, [(7, 1, 1), (20, 1, 0), (21, 1, 0), (22, 1, 0)]);
    let tasks = runs.iter().map(|run| run.slices[0].tasks.len());
    assert_eq!(tasks.sum::<usize>(), 8, "also those without a history");
    let of_run = runs.iter().find(|told| told.run == RUN).unwrap();
    let first = &of_run.slices[0].tasks[0];
    assert_eq!((first.state, first.attempts), (TaskState::Succeeded, 1));
    assert!(first.outputs.is_empty(), "facts tell them");
}

#[test]
fn a_session_that_ends_between_two_parts_is_followed_by_all_of_them() {
    let mut env = env();
    asked(&mut env);
    let old = env.session.unwrap();
    taken(&mut env);
    assert_eq!(parts(&env).len(), 2);
    asked(&mut env);
    env.event(Event::PartTaken { session: old });
    let first = parts(&env);
    assert_eq!(first.len(), 1, "the link took a part of another session");
    assert_eq!((first[0].part, first[0].session), (0, old + 1));
}

#[test]
fn what_is_not_durable_is_not_told() {
    let mut env = env();
    asked(&mut env);
    let before = parts(&env).len();
    env.end("a", 0);
    assert!(env.driver.has_uncommitted());
    taken(&mut env);
    assert_eq!(parts(&env).len(), before);
    env.pass(Span(50));
    assert_eq!(parts(&env).len(), before + 1);
}

#[test]
fn runs_that_go_while_they_are_told_are_left_out() {
    let mut env = env();
    asked(&mut env);
    env.tell(vec![Wish::Release { slice: slice(0, 1) }]);
    env.pass(Span(10));
    while !parts(&env).last().unwrap().last {
        taken(&mut env);
    }
    let (_, runs) = joined(&parts(&env));
    let here: Vec<_> = runs.iter().filter(|run| !run.slices.is_empty()).collect();
    assert!(here.len() >= 3, "{here:?}");
}
