//! Limits of matrices over slices: shares are given once, held by silent nodes, and taken over only
//! when they were given back.

use crate::common::{Env, ended, on, started, task, workflow};
use crate::restore::comes_back;
use cloud_core::event::{Reply, Request};
use shared::directive::{Body as Wish, Limit};
use shared::fact::Body;
use shared::ids::{RunId, SliceRef};
use shared::wire::Refusal;
use shared::workflow::{Matrix, Task, Workflow};

const NODES: [&str; 3] = ["gw-1", "gw-2", "gw-3"];

fn fleet() -> Env {
    let mut env = Env::new();
    NODES.iter().for_each(|name| env.join(name));
    env
}

/// Two members on each node.
fn submit(env: &mut Env, most: Option<u32>, fails: Option<u32>) -> RunId {
    let mut tasks = Vec::new();
    for name in NODES {
        for n in 0..2 {
            let mut member = on(name, task(&format!("{name}-{n}"), &[]));
            member.matrix = Some(0);
            tasks.push(member);
        }
    }
    let matrix = Matrix {
        id: "roll".to_owned(),
        max_parallel: most,
        max_fails: fails,
    };
    env.submit_with(tasks, vec![matrix])
}

/// The last word to a node.
fn word(env: &mut Env, name: &str) -> Option<Limit> {
    let seen = env.agent(name).seen.iter().rev();
    let mut words = seen.filter_map(|directive| match &directive.body {
        Wish::Limit(limit) => Some(*limit),
        _ => None,
    });
    words.next()
}

fn share(env: &mut Env, name: &str) -> u32 {
    word(env, name).map_or(0, |limit| limit.share)
}

fn shares(env: &mut Env) -> [u32; 3] {
    NODES.map(|name| share(env, name))
}

fn slice(env: &mut Env, name: &str) -> SliceRef {
    env.agent(name).last_slice()
}

/// The node answers its last word: so much is held.
fn says(env: &mut Env, name: &str, held: u32) {
    let limit = word(env, name).expect("a word");
    let said = Body::Limited {
        slice: limit.slice,
        matrix: limit.matrix,
        seq: limit.seq,
        held,
    };
    env.tell(name, vec![said]);
}

fn accept_all(env: &mut Env) {
    for name in NODES {
        let slice = slice(env, name);
        env.tell(name, vec![Body::Accepted { slice }]);
    }
}

#[test]
fn what_is_given_is_the_limit_and_goes_on_when_it_was_given_back() {
    let mut env = fleet();
    let run = submit(&mut env, Some(3), None);
    assert_eq!(shares(&mut env), [1, 1, 1]);
    accept_all(&mut env);
    for name in NODES {
        says(&mut env, name, 1);
    }
    let task = "gw-2-1".to_owned();
    let Reply::Explain(why) = env.ask(Request::Explain { run, task }) else {
        panic!()
    };
    assert!(
        why.summary.contains("of roll at most 3 run at once"),
        "{}",
        why.summary
    );
    assert!(why.summary.contains("gw-1 holds 1"), "{}", why.summary);
    // gw-1 is silent: what it holds is nobody else's
    env.hang_up("gw-1");
    let second = slice(&mut env, "gw-2");
    for task in [2, 3] {
        env.tell(
            "gw-2",
            vec![started(second, task, 1), ended(second, task, 1, true)],
        );
    }
    assert_eq!(
        shares(&mut env),
        [1, 1, 1],
        "gw-2 has not said that it holds nothing"
    );
    says(&mut env, "gw-2", 0);
    assert_eq!(shares(&mut env), [1, 1, 2]);
    env.hello("gw-1").expect("a welcome");
    let third = slice(&mut env, "gw-3");
    says(&mut env, "gw-3", 2);
    for task in [4, 5] {
        env.tell(
            "gw-3",
            vec![started(third, task, 1), ended(third, task, 1, true)],
        );
    }
    says(&mut env, "gw-3", 0);
    assert_eq!(share(&mut env, "gw-1"), 2, "all that is left is there");
}

#[test]
fn a_word_under_way_counts_until_it_is_answered() {
    let mut env = fleet();
    let run = submit(&mut env, Some(4), None);
    assert_eq!(shares(&mut env), [2, 1, 1]);
    accept_all(&mut env);
    let first = slice(&mut env, "gw-1");
    for task in [0, 1] {
        let facts = vec![started(first, task, 1), ended(first, task, 1, true)];
        env.tell("gw-1", facts);
    }
    let old = word(&mut env, "gw-2").expect("a word").seq;
    says(&mut env, "gw-1", 0);
    assert_eq!(shares(&mut env)[1..], [2, 2]);
    let (slice, matrix) = (slice(&mut env, "gw-2"), 0);
    let late = Body::Limited {
        slice,
        matrix,
        seq: old,
        held: 0,
    };
    env.tell("gw-2", vec![late]);
    let store = env.store.clone();
    env.restart(store);
    let task = "gw-3-1".to_owned();
    let Reply::Explain(why) = env.ask(Request::Explain { run, task }) else {
        panic!()
    };
    assert!(why.summary.contains("gw-2 holds 2"), "{}", why.summary);
}

#[test]
fn a_node_that_is_away_is_given_no_share_and_a_lost_slice_holds_none() {
    let mut env = fleet();
    env.hang_up("gw-1");
    submit(&mut env, Some(2), None);
    assert_eq!(shares(&mut env), [0, 1, 1]);
    let node = env.agent("gw-2").node;
    let by = "ann".to_owned();
    assert_eq!(env.ask(Request::ForgetNode { node, by }), Reply::Done);
    assert_eq!(share(&mut env, "gw-3"), 2);
}

/// Its last word, that it holds nothing, may never have come.
#[test]
fn a_slice_that_ended_on_a_node_that_is_gone_holds_no_share() {
    let mut env = fleet();
    submit(&mut env, Some(2), None);
    assert_eq!(shares(&mut env), [1, 1, 0]);
    let first = slice(&mut env, "gw-1");
    let mut facts = vec![Body::Accepted { slice: first }];
    for task in [0, 1] {
        facts.extend([started(first, task, 1), ended(first, task, 1, true)]);
    }
    facts.push(Body::SliceDone { slice: first });
    env.tell("gw-1", facts);
    assert_eq!(share(&mut env, "gw-3"), 0, "nothing was given back");
    let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
    assert_eq!(env.ask(Request::ForgetNode { node, by }), Reply::Done);
    assert_eq!(share(&mut env, "gw-3"), 1);
}

#[test]
fn after_too_many_failures_all_slices_are_told_and_what_waits_for_a_node_ends() {
    let mut env = fleet();
    env.hang_up("gw-3");
    let mut tasks = Vec::new();
    for (n, name) in ["gw-1", "gw-2", "gw-9"].into_iter().enumerate() {
        let mut member = on(name, task(&format!("t{n}"), &[]));
        member.matrix = Some(0);
        tasks.push(member);
    }
    let matrix = Matrix {
        id: "roll".to_owned(),
        max_parallel: None,
        max_fails: Some(0),
    };
    let run = env.submit_with(tasks, vec![matrix]);
    let first = slice(&mut env, "gw-1");
    let facts = vec![
        Body::Accepted { slice: first },
        started(first, 0, 1),
        ended(first, 0, 1, false),
        Body::SliceDone { slice: first },
    ];
    env.tell("gw-1", facts);
    assert!(word(&mut env, "gw-2").is_some_and(|limit| limit.stop));
    let Reply::Tasks(tasks) = env.ask(Request::Tasks { run, state: None }) else {
        panic!()
    };
    assert_eq!(tasks[2].state, "skipped");
    assert_eq!(tasks[2].reason.as_deref(), Some("too_many_failed"));
}

fn roll(most: u32) -> Matrix {
    Matrix {
        id: "roll".to_owned(),
        max_parallel: Some(most),
        max_fails: None,
    }
}

/// So many members on each of these nodes.
fn members(names: &[&str], count: u32) -> Vec<Task> {
    let member = |(name, n): (&&str, u32)| {
        let mut member = on(name, task(&format!("{name}-{n}"), &[]));
        member.matrix = Some(0);
        member
    };
    let all = names
        .iter()
        .flat_map(|name| (0..count).map(move |n| (name, n)));
    all.map(member).collect()
}

/// The last word may have been lost in the hole, and nothing else says it again.
#[test]
fn behind_a_hole_in_the_directives_a_slice_is_told_its_share_again() {
    let mut env = Env::new();
    env.join("gw-1");
    env.submit_with(members(&["gw-1"], 2), vec![roll(1)]);
    let slice = slice(&mut env, "gw-1");
    env.tell("gw-1", vec![Body::Accepted { slice }]);
    says(&mut env, "gw-1", 1);
    let backup = env.store.image();
    env.submit(vec![task("later", &[])]);
    (env.agent("gw-1").directive_seal, env.agent("gw-1").ack) = (None, None);
    env.restart(backup);
    assert_eq!(env.hello("gw-1").unwrap_err(), Refusal::Quarantined);
    let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
    env.ask(Request::ReleaseQuarantine { node, by });
    env.hello("gw-1").unwrap();
    let seen = &env.agent("gw-1").seen;
    let mut from_reset = seen.iter().rev();
    let behind = from_reset
        .by_ref()
        .take_while(|d| !matches!(d.body, Wish::Reset { .. }));
    let word = |body: &Wish| matches!(body, Wish::Limit(limit) if limit.slice == slice);
    let words = behind.filter(|d| word(&d.body)).count();
    assert_eq!(words, 1, "{seen:?}");
    assert_eq!(share(&mut env, "gw-1"), 1);
}

/// After a restore each slice may hold all, until it says what it holds: also behind a word of
/// before.
#[test]
fn what_a_slice_says_of_an_earlier_word_frees_what_it_does_not_hold() {
    let mut env = Env::new();
    let names = ["gw-1", "gw-2"];
    names.iter().for_each(|name| env.join(name));
    let flow = Workflow {
        matrices: vec![roll(2)],
        ..workflow(members(&names, 2))
    };
    env.submit_with(flow.tasks.clone(), flow.matrices.clone());
    for name in names {
        let slice = slice(&mut env, name);
        env.tell(name, vec![Body::Accepted { slice }]);
    }
    let backup = env.store.image();
    for name in names {
        says(&mut env, name, 1);
    }
    let early = word(&mut env, "gw-2").expect("a word");
    env.restart(backup);
    for name in names {
        let inventory = env.agent(name).inventory(&flow);
        comes_back(&mut env, name, inventory);
    }
    let first = slice(&mut env, "gw-1");
    let ends = [0, 1].map(|task| [started(first, task, 1), ended(first, task, 1, true)]);
    env.tell("gw-1", ends.concat());
    says(&mut env, "gw-1", 0);
    assert_eq!(share(&mut env, "gw-2"), 1, "it may hold both");
    let Limit {
        slice, matrix, seq, ..
    } = early;
    let held = 1;
    env.tell(
        "gw-2",
        vec![Body::Limited {
            slice,
            matrix,
            seq,
            held,
        }],
    );
    assert_eq!(share(&mut env, "gw-2"), 2);
}
