//! Slices at rest: out of the way, and as they were whenever something is about them.

use crate::env::*;
use edge_core::event::{Local, LocalReply};
use shared::codec;
use shared::directive::Body as Wish;
use shared::fact::Body;
use shared::ids::RunId;
use shared::state::TaskState;
use shared::time::Span;
use std::sync::Arc;

/// A slice of two of three tasks, worked through, with the snapshot behind it.
fn over() -> Env {
    let mut env = Env::new();
    let mut flow = workflow(vec![task("a", &[]), task("b", &[0]), task("c", &[0, 1])]);
    flow.tasks[2].retry.max_attempts = 1;
    let mut wish = assign(slice(4, 1), &flow, &[1, 2]);
    wish.upstream = vec![upstream(0, TaskState::Succeeded, &[9])];
    env.assigned(wish);
    env.event(edge_core::event::Event::FileHere { hash: file(9).hash });
    env.end("b", 0);
    env.pass(Span(300));
    env.end("c", 7);
    env.pass(Span(1));
    env
}

fn at_rest(env: &Env) -> (usize, usize) {
    let state = env.driver.agent().state();
    (state.slices.len(), state.resting.len())
}

#[test]
fn a_slice_that_is_over_rests_behind_the_next_snapshot_and_is_still_seen() {
    let mut env = over();
    assert_eq!(at_rest(&env), (1, 0));
    let before = env.driver.agent().state().slices[&(RUN, 4)].clone();
    let seen = |env: &Env| {
        let agent = env.driver.agent();
        let explained = agent.explain(RUN, "c").unwrap();
        (
            agent.ps(true),
            agent.runs(),
            agent.status().tasks,
            explained.summary,
        )
    };
    let shown = seen(&env);
    env.pass(Span::secs(11));
    assert_eq!(at_rest(&env), (0, 1));
    let state = env.driver.agent().state();
    assert!(
        state.workflows.is_empty(),
        "no slice that is awake needs it"
    );
    assert_eq!(state.slice((RUN, 4)).unwrap().into_owned(), before);
    assert_eq!(seen(&env), shown);
    assert_eq!(env.driver.agent().ps(false), []);
    env.check_replay();
}

#[test]
fn a_start_leaves_at_rest_what_made_nothing() {
    let mut env = Env::new();
    let mut flow = workflow(vec![task("a", &[])]);
    flow.tasks[0].outputs.clear();
    env.assigned(assign(slice(0, 1), &flow, &[0]));
    let launch = env.held.remove(0);
    let end = env.process_end(launch.attempt, 0, Vec::new());
    env.event(edge_core::event::Event::Ended(end));
    env.pass(Span::secs(11));
    env.crash();
    assert_eq!(at_rest(&env), (0, 1));
    assert_eq!(env.states(), "a=succeeded");
}

#[test]
fn what_is_asked_of_it_wakes_it_and_is_answered() {
    let mut env = over();
    env.pass(Span::secs(11));
    let (run, by, why) = (RUN, "ann".to_owned(), String::new());
    env.tell(vec![Wish::Cancel { run, by, why }]);
    let facts = env.facts();
    assert!(matches!(facts.last(), Some(Body::CancelDone { slice: s }) if *s == slice(4, 1)));
    env.pass(Span::secs(11));
    assert_eq!(at_rest(&env), (0, 1));
    let (on, by) = (true, "ann".to_owned());
    env.tell(vec![Wish::Pause { run, on, by }]);
    let facts = env.facts();
    assert!(matches!(
        facts.last(),
        Some(Body::PauseDone { on: true, .. })
    ));
    env.pass(Span::secs(11));
    env.tell(vec![Wish::Release { slice: slice(4, 1) }]);
    env.event(edge_core::event::Event::Uploaded {
        hash: file(101).hash,
    });
    let facts = env.facts();
    assert!(matches!(facts.last(), Some(Body::Released { .. })));
    assert_eq!(at_rest(&env), (0, 0));
}

#[test]
fn a_later_epoch_takes_its_place_and_its_run_can_be_forgotten() {
    let mut env = over();
    env.pass(Span::secs(11));
    let flow = workflow(vec![task("a", &[]), task("b", &[0]), task("c", &[0, 1])]);
    env.tell(vec![Wish::Assign(assign(slice(4, 2), &flow, &[0, 1]))]);
    assert_eq!(at_rest(&env), (1, 0));
    assert_eq!(env.held_ids(), "a");
    let mut env = over();
    env.pass(Span::secs(11));
    env.tell(vec![Wish::Forget { run: RUN }]);
    assert_eq!(at_rest(&env), (0, 0));
    let state = env.driver.agent().state();
    assert!(state.packed.is_empty() && state.workflows.is_empty());
    env.pass(Span::secs(11));
    env.check_replay();
}

#[test]
fn a_person_at_the_gateway_wakes_it_too() {
    let mut env = over();
    env.pass(Span::secs(11));
    let by = "ann".to_owned();
    let resume = Local::Resume {
        run: RUN,
        task: shared::ids::TaskIdx(1),
        by: by.clone(),
    };
    let LocalReply::Refused(text) = env.local(1, resume) else {
        panic!("b succeeded")
    };
    assert!(text.contains("succeeded"), "{text}");
    let unknown = Local::Pause {
        run: RunId([3; 16]),
        on: true,
        by,
    };
    assert!(matches!(env.local(2, unknown), LocalReply::Refused(_)));
}

#[test]
fn runs_of_one_workflow_hold_it_once() {
    let mut env = Env::new();
    let flow = workflow(vec![task("a", &[]), task("b", &[0])]);
    env.submit(&flow);
    let again = Local::Submit {
        run: RunId([3; 16]),
        workflow: codec::pack(&flow).0,
        by: "ann".to_owned(),
    };
    assert_eq!(env.local(2, again), LocalReply::Done);
    let slices = env.driver.agent().state().slices.values();
    let held: Vec<_> = slices.map(|slice| &slice.workflow).collect();
    assert_eq!((held.len(), held[0].as_ref()), (2, &flow));
    assert!(Arc::ptr_eq(held[0], held[1]));
}

#[test]
fn tasks_are_shown_in_pages() {
    let mut env = Env::new();
    let flow = workflow(vec![task("a", &[]), task("b", &[0]), task("c", &[])]);
    env.assigned(assign(slice(0, 1), &flow, &[0, 2]));
    env.tell(vec![Wish::Assign(assign(slice(1, 1), &flow, &[1]))]);
    env.end("c", 0);
    let agent = env.driver.agent();
    for (all, count) in [(true, 3), (false, 2)] {
        let whole: Vec<String> = agent.ps(all).into_iter().map(|task| task.task).collect();
        assert_eq!(whole.len(), count);
        let (mut pages, mut after) = (Vec::new(), None);
        while let Some((key, task)) = agent.ps_behind(all, after, 1).pop() {
            pages.push(task.task);
            after = Some(key);
        }
        assert_eq!(pages, whole);
    }
}

#[test]
fn files_of_a_slice_at_rest_are_still_named() {
    let mut env = over();
    let before = env.driver.agent().named_files();
    assert!(before.contains(&file(101).hash), "{before:?}");
    env.pass(Span::secs(11));
    assert_eq!(at_rest(&env), (0, 1));
    assert!(env.driver.agent().named_files().contains(&file(101).hash));
}
