//! Directives are sent as far ahead of their confirmation as the window goes, and no farther.

use crate::common::{Env, all_done, task};
use cloud_core::event::Request;
use shared::directive::Body as Wanted;
use shared::ids::RunId;
use shared::limits::ENTRIES_PER_COMMIT;
use shared::wire::Up;

/// Directives ahead of what was confirmed, by whole batches.
const WINDOW: u64 = 4 * ENTRIES_PER_COMMIT as u64;

fn pauses(env: &mut Env, run: RunId, count: usize) {
    for n in 0..count {
        let (on, by) = (n % 2 == 0, "ann".to_owned());
        env.ask(Request::Pause { run, on, by });
    }
}

fn confirm(env: &mut Env) {
    let head = env.agent("gw-1").directives;
    env.say("gw-1", Up::Applied(head));
}

#[test]
fn a_node_that_confirms_nothing_is_not_flooded_and_gets_the_rest_in_order() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    pauses(&mut env, run, 9001);
    let got = env.agent("gw-1").directives.number;
    assert_eq!(got, WINDOW, "one directive a commit, so exactly the window");
    confirm(&mut env);
    let got = env.agent("gw-1").directives.number;
    let batch = ENTRIES_PER_COMMIT as u64;
    assert!(
        (2 * WINDOW..2 * WINDOW + batch).contains(&got),
        "{got} after the first confirmation"
    );
    confirm(&mut env);
    assert_eq!(env.agent("gw-1").directives.number, 9002, "no gap, no fork");
    let last = env.agent("gw-1").seen.last().unwrap().body.clone();
    assert!(matches!(last, Wanted::Pause { on: true, .. }), "{last:?}");
    env.ask(Request::Pause {
        run,
        on: false,
        by: "ann".to_owned(),
    });
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    assert_eq!(env.run(run).state, "succeeded");
}

#[test]
fn a_lie_about_what_was_applied_opens_no_window() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    pauses(&mut env, run, 5000);
    let mut head = env.agent("gw-1").directives;
    assert_eq!(head.number, WINDOW);
    head.hash.0[0] ^= 1;
    env.say("gw-1", Up::Applied(head));
    head.number += 900;
    env.say("gw-1", Up::Applied(head));
    assert_eq!(env.agent("gw-1").directives.number, WINDOW);
    assert_eq!(env.node("gw-1").unconfirmed, 5001);
}

#[test]
fn a_new_session_goes_on_where_the_node_stands() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    pauses(&mut env, run, 6000);
    env.hang_up("gw-1");
    env.hello("gw-1").unwrap();
    assert_eq!(
        env.agent("gw-1").directives.number,
        6001,
        "its hello says what it has applied"
    );
    assert_eq!(env.agent("gw-1").seen.len(), 6001, "nothing came twice");
}
