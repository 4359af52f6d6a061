//! What is kept in memory and in the store stays bounded.

use crate::common::{Env, all_done, ended, output, started, task, workflow};
use cloud_core::access::Caller;
use cloud_core::engine::{TOMBSTONES, UNNAMED};
use cloud_core::event::{Input, Reply, Request, RequestId};
use cloud_core::plan::plan;
use cloud_core::store::{AggregateId, Store, request_event};
use shared::fact::Body;
use shared::ids::{Epoch, Hash, RunId, SliceRef, TaskIdx};
use shared::limits::{ENTRIES_PER_COMMIT, LABEL_BYTES, LABELS};
use shared::time::{Span, Unix};
use shared::wire::{Refusal, Up};
use std::collections::BTreeMap;

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

/// Which requests of this life of the store are remembered, of the first hundred.
fn remembered(env: &mut Env, life: shared::ids::Generation) -> Vec<u32> {
    let known = |n: &u32| {
        let found = env.engine.store().event(&request_event(life, *n));
        found.unwrap().is_some()
    };
    (0..100).filter(known).collect()
}

#[test]
fn ids_of_requests_go_when_their_end_is_known_and_those_of_submissions_stay() {
    let mut env = Env::new();
    env.join("gw-1");
    let packed = shared::codec::pack(&workflow(vec![task("a", &[])])).0;
    let submit = |run: u8| Request::Submit {
        run: RunId([run; 16]),
        workflow: packed.clone(),
        by: "ann".to_owned(),
        idempotency_key: Some("monthly".to_owned()),
    };
    let run = RunId([5; 16]);
    assert_eq!(env.ask(submit(5)), Reply::Submitted(run));
    let life = env.engine.generation();
    for n in 0..20 {
        let (on, by) = (n % 2 == 0, "ann".to_owned());
        assert_eq!(env.ask(Request::Pause { run, on, by }), Reply::Done);
        assert_eq!(remembered(&mut env, life).len(), 1, "only the last one");
    }
    let store = env.store.clone();
    env.restart(store);
    assert!(remembered(&mut env, life).is_empty(), "of an earlier life");
    assert_eq!(env.ask(submit(6)), Reply::Submitted(run), "the first one");
}

pub(crate) fn bytes_of(env: &mut Env, id: AggregateId) -> Option<usize> {
    let mut found = None;
    let each = &mut |other, _, head: &[u8]| {
        if other == id {
            found = Some(head.len());
        }
    };
    env.engine.store().aggregates(each).unwrap();
    found
}

fn unknown(n: usize) -> SliceRef {
    let mut run = RunId([0x77; 16]);
    run.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SliceRef {
        run,
        slice: 0,
        epoch: Epoch(5),
    }
}

/// Runs known from one fact each, forgotten at the node's confirmation.
pub(crate) fn forgotten(env: &mut Env, runs: std::ops::Range<usize>) {
    let facts = runs.clone().map(|n| started(unknown(n), 0, 1));
    env.tell("gw-1", facts.collect());
    let forget = |n: usize| Input::Request {
        id: RequestId(1_000_000 + n as u64),
        request: Box::new(Request::ForgetRun {
            run: unknown(n).run,
            by: "ann".to_owned(),
        }),
        caller: Caller::default(),
    };
    env.give_all(runs.map(forget).collect());
    env.pass(Span(1));
    let head = env.agent("gw-1").directives;
    env.say("gw-1", Up::Applied(head));
}

#[test]
fn the_oldest_tombstones_go_and_nothing_of_them_is_left() {
    let mut env = Env::new();
    env.join("gw-1");
    let node = AggregateId::Node(env.agent("gw-1").node);
    let batch = ENTRIES_PER_COMMIT;
    for from in (0..TOMBSTONES).step_by(batch) {
        forgotten(&mut env, from..from + batch);
    }
    let tombstone = |n| AggregateId::Run(unknown(n).run);
    assert!(bytes_of(&mut env, tombstone(0)).is_some());
    forgotten(&mut env, TOMBSTONES..TOMBSTONES + batch);
    assert_eq!(bytes_of(&mut env, tombstone(0)), None, "the oldest is gone");
    assert_eq!(bytes_of(&mut env, tombstone(batch - 1)), None);
    assert!(
        bytes_of(&mut env, tombstone(batch)).is_some(),
        "no more than needed"
    );
    let size = bytes_of(&mut env, node).unwrap();
    assert!(size < 4096, "{size} bytes are kept of the node");
    let store = env.store.clone();
    env.restart(store);
    env.hello("gw-1").unwrap();
    let acknowledged = env.agent("gw-1").ack.unwrap().head.number;
    env.tell("gw-1", vec![started(unknown(batch), 0, 2)]);
    assert!(matches!(
        env.ask(Request::Run {
            run: unknown(batch).run
        }),
        Reply::Refused(_)
    ));
    env.tell("gw-1", vec![started(unknown(0), 0, 2)]);
    let again = env.run(unknown(0).run);
    assert_eq!(again.state, "unknown_run", "it does not come back as a run");
    assert_eq!(env.agent("gw-1").ack.unwrap().head.number, acknowledged + 2);
    let (run, by) = (unknown(0).run, "ann".to_owned());
    assert_eq!(env.ask(Request::ForgetRun { run, by }), Reply::Done);
    let head = env.agent("gw-1").directives;
    env.say("gw-1", Up::Applied(head));
    let gone = env.ask(Request::Run { run });
    assert!(matches!(gone, Reply::Refused(_)), "{gone:?}");
}

#[test]
fn files_that_were_sent_and_never_named_go_after_a_day() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    env.submit(vec![task("a", &[])]);
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    let (named, unnamed) = (output(TaskIdx(0)).hash, Hash::of(b"never submitted"));
    for hash in [named, unnamed] {
        env.give(Input::FileStored { hash, size: 4 });
    }
    env.hang_up("gw-2");
    let came = env.now.mono;
    env.pass(Span::secs(1));
    let due = env.engine.next_wakeup().unwrap();
    assert_eq!(due, came + UNNAMED);
    env.pass(due - env.now.mono);
    assert!(env.dropped.is_empty(), "gw-2 may still name it");
    env.hello("gw-2").unwrap();
    let due = env.engine.next_wakeup().unwrap();
    env.pass(due - env.now.mono);
    assert_eq!(env.dropped, [unnamed]);
    let late = Request::AddToken {
        by: String::new(),
        record: Vec::new(),
        id: "t".to_owned(),
        name: None,
        replace: false,
        expires: Unix(0),
    };
    assert_eq!(env.ask(late), Reply::Done);
    env.pass(UNNAMED);
    assert_eq!(env.dropped, [unnamed], "what a run names stays");
}

#[test]
fn a_plan_of_very_many_tasks_names_other_nodes_of_the_first_and_of_the_one_that_is_asked_for() {
    let mut env = Env::new();
    for n in 0..20 {
        env.join(&format!("gw-{n}"));
    }
    let tasks = (0..2000).map(|n| task(&format!("t{n}"), &[]));
    let flow = workflow(tasks.collect());
    let asked = Request::Ground {
        workflow: flow.name.clone(),
    };
    let Reply::Ground(ground) = env.ask(asked) else {
        panic!("no ground");
    };
    let made = plan(flow, &ground, Some("t1990")).unwrap();
    let named = |task: usize| made.tasks[task].elsewhere.len();
    assert_eq!(
        (named(0), named(1989), named(1990), named(1991)),
        (19, 0, 19, 0)
    );
    let all: usize = made.tasks.iter().map(|task| task.elsewhere.len()).sum();
    assert!(all <= 20_019, "{all}");
    assert!(made.tasks.iter().all(|task| task.node.is_some()));
    assert!(plan(workflow(Vec::new()), &ground, None).is_err());
}

/// A label that was taken out of a gateway's configuration stayed here for ever, and nothing
/// limited how many there were.
#[test]
fn a_nodes_labels_are_those_of_its_last_hello_and_not_too_many() {
    let mut env = Env::new();
    env.join("gw-1");
    let labels = |rows: &[(&str, &str)]| -> BTreeMap<String, String> {
        let row = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        rows.iter().map(row).collect()
    };
    let now = labels(&[("line", "3"), ("site", "gw-1")]);
    env.agent("gw-1").labels = now.clone();
    env.hello("gw-1").unwrap();
    assert_eq!(env.node("gw-1").labels, now, "`kind` is gone");
    let many = (0..=LABELS).map(|n| (n.to_string(), String::new()));
    let long = labels(&[("a", &"b".repeat(LABEL_BYTES))]);
    for bad in [many.collect(), long] {
        env.agent("gw-1").labels = bad;
        assert_eq!(env.hello("gw-1").unwrap_err(), Refusal::Malformed);
    }
    assert_eq!(env.node("gw-1").labels, now);
}

/// Each life that is closed is remembered, and its runs are told: one broken gateway made them
/// without end.
#[test]
fn a_node_that_begins_anew_again_and_again_waits_for_a_person() {
    let mut env = Env::new();
    env.join("gw-1");
    env.hang_up("gw-1");
    let begin_anew = |env: &mut Env, life: u8| {
        let agent = env.agent("gw-1");
        let before = agent.incarnation;
        agent.reimage(life);
        agent.succeeds = Some(before);
        let welcome = env.hello("gw-1");
        env.hang_up("gw-1");
        welcome.map(drop)
    };
    for life in 2..66 {
        begin_anew(&mut env, life).unwrap();
    }
    let refused = begin_anew(&mut env, 66).unwrap_err();
    assert_eq!(refused, Refusal::Quarantined);
    let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
    env.ask(Request::ReleaseQuarantine { node, by });
    env.hello("gw-1").unwrap();
}
