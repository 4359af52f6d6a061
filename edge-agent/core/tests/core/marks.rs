//! What the coordinator says once more and otherwise: its pause mark, the end of a task elsewhere.

use crate::env::*;
use edge_core::event::Event;
use shared::directive::Body as Wish;
use shared::state::TaskState;
use shared::time::Span;
use shared::workflow::{SideEffects, Workflow};

fn chain() -> Workflow {
    workflow(vec![task("a", &[]), task("b", &[0]), task("c", &[1])])
}

/// A node whose only slice was lost was not told that its run went on; what it was given of the
/// run later stood still for ever.
#[test]
fn an_assignment_carries_the_pause_mark_of_now() {
    let mut env = Env::new();
    env.assigned(assign(slice(0, 1), &chain(), &[0]));
    env.tell(vec![Wish::Pause {
        run: RUN,
        on: true,
        by: "ann".to_owned(),
    }]);
    env.end("a", 0);
    env.tell(vec![Wish::Assign(assign(slice(1, 2), &chain(), &[1, 2]))]);
    let upstream = upstream(0, TaskState::Succeeded, &[100]);
    let id = slice(1, 2);
    env.tell(vec![Wish::Upstream {
        slice: id,
        upstream,
    }]);
    env.event(Event::FileHere {
        hash: file(100).hash,
    });
    assert_eq!(env.held_ids(), "b");
    let mut paused = assign(slice(2, 3), &chain(), &[0]);
    paused.paused = true;
    env.tell(vec![Wish::Assign(paused)]);
    assert_eq!(env.held_ids(), "b", "it stands still again");
    env.check_replay();
}

/// The end of an attempt keeps an assignment waiting; the mark changes in between.
#[test]
fn a_pause_reaches_an_assignment_that_waits() {
    let mut env = Env::new();
    env.assigned(assign(slice(0, 1), &chain(), &[0]));
    let pause = |on| Wish::Pause {
        run: RUN,
        on,
        by: "ann".to_owned(),
    };
    let mut next = assign(slice(1, 2), &chain(), &[0, 1]);
    next.paused = true;
    env.tell(vec![pause(true), Wish::Assign(next), pause(false)]);
    assert_eq!(env.held_ids(), "a", "the first attempt has not ended");
    env.tell(vec![Wish::Release { slice: slice(0, 1) }]);
    env.gone("a");
    assert_eq!(env.held_ids(), "a", "at the new epoch, and not paused");
    assert_eq!(env.held[0].attempt.slice, slice(1, 2));
    env.check_replay();
}

/// Found by seed 2271: what a task needs was lost with its output after it had been told as done.
#[test]
fn what_is_ready_is_judged_again_when_the_end_of_its_need_changes() {
    let mut env = Env::new();
    let mut flow = workflow(vec![
        task("a", &[]),
        task("b", &[0]),
        task("x", &[]),
        task("y", &[]),
    ]);
    // so that it is not started ahead
    flow.tasks[1].side_effects = SideEffects::AtMostOnce;
    env.assigned(assign(slice(1, 1), &flow, &[1, 2, 3]));
    let tell = |state, files: &[u8]| Wish::Upstream {
        slice: slice(1, 1),
        upstream: upstream(0, state, files),
    };
    env.tell(vec![tell(TaskState::Succeeded, &[50])]);
    env.event(Event::FileHere {
        hash: file(50).hash,
    });
    assert_eq!(env.states(), "b=ready x=running y=running");
    env.tell(vec![tell(TaskState::Succeeded, &[51])]);
    env.end("x", 0);
    assert_eq!(env.held_ids(), "y", "the file that is read now is not here");
    env.tell(vec![tell(TaskState::Lost, &[])]);
    assert_eq!(env.states(), "b=aborted x=succeeded y=running");
    env.check_replay();
}

/// Found by seed 14229: what a task needs was lost with its output while the task waited for its
/// next attempt, which began all the same.
#[test]
fn a_next_attempt_waits_for_what_came_undone() {
    let mut env = Env::new();
    let mut flow = workflow(vec![task("a", &[]), task("b", &[0])]);
    flow.tasks[1].retry.max_attempts = 3;
    env.assigned(assign(slice(1, 1), &flow, &[1]));
    let tell = |state, files: &[u8]| Wish::Upstream {
        slice: slice(1, 1),
        upstream: upstream(0, state, files),
    };
    let done = tell(TaskState::Succeeded, &[50]);
    env.tell(vec![done.clone()]);
    env.event(Event::FileHere {
        hash: file(50).hash,
    });
    env.end("b", 1);
    assert_eq!(env.states(), "b=retrying");
    env.tell(vec![tell(TaskState::Blocked, &[])]);
    env.pass(Span::secs(3600));
    assert_eq!((env.states().as_str(), env.held.len()), ("b=blocked", 0));
    env.tell(vec![done]);
    assert_eq!(env.states(), "b=running");
    env.end("b", 1);
    env.tell(vec![tell(TaskState::Lost, &[])]);
    env.pass(Span::secs(3600));
    assert_eq!((env.states().as_str(), env.held.len()), ("b=aborted", 0));
    env.check_replay();
}
