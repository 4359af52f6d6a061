//! What is kept in memory and in the store stays bounded.

use crate::common::{Env, all_done, ended, started, task};
use cloud_core::event::{Reply, Request};
use shared::fact::Body;
use shared::ids::RunId;

/// Bodies of runs that are over which may stay in memory.
const BODIES: usize = 32;

fn finished(env: &mut Env, count: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push(env.submit(vec![task("a", &[]), task("b", &[0])]));
        let assign = env.agent("gw-1").assigns().last().unwrap().clone();
        env.tell("gw-1", all_done(&assign));
    }
    runs
}

#[test]
fn bodies_of_runs_that_are_over_leave_the_memory_and_are_read_again() {
    let mut env = Env::new();
    env.join("gw-1");
    let open = env.submit(vec![task("open", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let runs = finished(&mut env, BODIES);
    assert_eq!(env.engine.loaded(), BODIES + 1);
    let more = finished(&mut env, 1);
    assert_eq!(env.engine.loaded(), 1, "only what is not over");
    for run in runs.iter().chain(&more) {
        assert_eq!(env.run(*run).state, "succeeded");
        assert_eq!(env.task(*run, "b").attempts, 1);
        assert!(env.engine.loaded() <= BODIES + 1);
    }
    env.tell("gw-1", vec![started(slice, 0, 1), ended(slice, 0, 1, true)]);
    assert_eq!(env.task(open, "open").state, "succeeded");
}

#[test]
fn a_run_whose_body_was_put_away_takes_late_facts_and_requests_as_before() {
    let mut env = Env::new();
    env.join("gw-1");
    let first = finished(&mut env, 1)[0];
    let slice = env.agent("gw-1").last_slice();
    finished(&mut env, BODIES);
    env.tell(
        "gw-1",
        vec![started(slice, 0, 2), ended(slice, 0, 2, false)],
    );
    let task = env.task(first, "a");
    assert_eq!(task.state, "succeeded", "its end stands");
    assert_eq!(task.history.len(), 2, "what came late is shown");
    assert_eq!(env.run(first).conflicts.len(), 2);
    let cancel = Request::Cancel {
        run: first,
        by: "ann".to_owned(),
        why: String::new(),
    };
    assert!(matches!(env.ask(cancel), Reply::Refused(_)));
    let task = "b".to_owned();
    let run = first;
    let Reply::Explain(why) = env.ask(Request::Explain { run, task }) else {
        panic!()
    };
    assert_eq!(why.decisions[0].reason, "only_fit");
    let in_doubt = Vec::new();
    env.tell("gw-1", vec![Body::Released { slice, in_doubt }]);
    assert_eq!(env.run(first).conflicts.len(), 3);
}
