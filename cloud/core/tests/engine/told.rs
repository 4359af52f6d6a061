//! What people and programs are told: words, counts, who did what, what waits.

use crate::common::*;
use cloud_core::access::Role;
use cloud_core::change::NodeChange;
use cloud_core::event::{Cursor, Refused, Reply, Request, ScheduleAsk};
use cloud_core::record::{Limits, What};
use cloud_core::store::AggregateId;
use cloud_core::view::Audited;
use shared::fact::Body;
use shared::ids::{NodeId, RunId, ScheduleId, SliceRef};
use shared::schedule::{Catchup, Overlap, Rule, Schedule};
use shared::state::TaskState;
use shared::time::{Span, Stamp, Unix};
use shared::workflow::Workflow;
use std::collections::BTreeMap;

fn audit(env: &mut Env, limit: usize) -> Vec<Audited> {
    match env.ask(Request::Audit { after: 0, limit }) {
        Reply::Audit(entries) => entries,
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_are_those_of_the_documents() {
    let words: Vec<&str> = Role::ALL.iter().map(|role| role.text()).collect();
    assert_eq!(words, ["viewer", "operator", "admin"]);
    assert_eq!(Role::from_text("operator"), Some(Role::Operator));
    let (run, states) = (RunId([1; 16]), Vec::new());
    assert_eq!(What::Tasks { run, states }.kind(), "tasks");
    assert_eq!(What::RunForgotten { run }.kind(), "run_forgotten");
    let Limits {
        events,
        audit,
        audit_age,
    } = Limits::default();
    let mib = 1 << 20;
    assert_eq!(
        (events, audit, audit_age),
        (16 * mib, 16 * mib, Span::secs(400 * 86_400))
    );
}

#[test]
fn every_aggregate_is_found_by_its_key() {
    for one in [
        AggregateId::Fleet,
        AggregateId::Node(NodeId([1; 16])),
        AggregateId::Run(RunId([2; 16])),
        AggregateId::Record,
        AggregateId::Schedule(ScheduleId([3; 16])),
    ] {
        assert_eq!(AggregateId::from_key(&one.key()), Some(one));
    }
    assert_eq!(AggregateId::from_key(&[5; 17]), None);
}

#[test]
fn figures_count_sessions_and_name_every_state() {
    let mut env = Env::new();
    for name in ["gw-1", "gw-2", "gw-3"] {
        env.join(name);
    }
    env.hang_up("gw-2");
    env.submit(vec![on("gw-1", task("a", &[]))]);
    let Reply::Figures(figures) = env.ask(Request::Figures) else {
        panic!("no figures");
    };
    assert_eq!(figures.sessions, 2);
    assert_eq!(figures.tasks.len(), TaskState::ALL.len());
    assert_eq!(figures.tasks.values().sum::<u64>(), 1);
    assert_eq!(figures.nodes.values().sum::<u64>(), 3);
}

#[test]
fn a_change_of_a_node_is_in_the_audit_record() {
    let mut env = Env::new();
    env.join("gw-1");
    let node = env.agent("gw-1").node;
    let set = |value: Option<&str>| value.map(str::to_owned);
    let labels = [("site", set(Some("north"))), ("old", set(None))];
    let labels = labels.map(|(name, value)| (name.to_owned(), value));
    let changes = [
        (NodeChange::Cordon, "node cordon", ""),
        (NodeChange::Uncordon, "node uncordon", ""),
        (
            NodeChange::Label(BTreeMap::from(labels)),
            "node label",
            "old- site=north",
        ),
    ];
    for (change, what, detail) in changes {
        let by = "ann".to_owned();
        assert_eq!(
            env.ask(Request::ChangeNode { node, change, by }),
            Reply::Done
        );
        let all = audit(&mut env, 1000);
        let last = all.last().expect("it is recorded");
        assert_eq!((last.what.as_str(), last.detail.as_str()), (what, detail));
        assert_eq!((last.who.as_str(), last.result.as_str()), ("ann", "done"));
        assert!(last.about.contains("gw-1") || last.about.contains(&node.to_string()));
    }
    // whoever asks for none gets one
    assert_eq!(audit(&mut env, 0).len(), 1);
}

#[test]
fn a_run_that_is_over_cannot_be_paused() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let assign = env.agent("gw-1").assigns()[0].clone();
    env.tell("gw-1", all_done(&assign));
    assert!(env.run(run).ended.is_some());
    let by = "ann".to_owned();
    let reply = env.ask(Request::Pause { run, on: true, by });
    assert!(
        matches!(reply, Reply::Refused(Refused::State(_))),
        "{reply:?}"
    );
}

#[test]
fn a_run_that_is_tried_again_has_no_end_until_it_is_over() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let failed = ended(slice, 0, 1, false);
    let facts = vec![
        Body::Accepted { slice },
        started(slice, 0, 1),
        failed,
        Body::SliceDone { slice },
    ];
    env.tell("gw-1", facts);
    assert!(env.run(run).ended.is_some());
    let by = "ann".to_owned();
    let reply = env.ask(Request::Retry {
        run,
        from: None,
        by,
    });
    assert!(!matches!(reply, Reply::Refused(_)), "{reply:?}");
    assert_eq!(env.run(run).ended, None);
}

#[test]
fn a_run_shows_its_description_and_labels() {
    let mut env = Env::new();
    let run = RunId([7; 16]);
    let described = Workflow {
        description: "what it is for".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "north".to_owned())]),
        ..workflow(vec![task("a", &[])])
    };
    let reply = env.ask(Request::Submit {
        run,
        workflow: shared::codec::pack(&described).0,
        by: "ann".to_owned(),
        idempotency_key: None,
    });
    assert_eq!(reply, Reply::Submitted(run));
    let shown = env.run(run);
    assert_eq!(
        (shown.description, shown.labels),
        (described.description, described.labels)
    );
}

#[test]
fn a_node_that_never_called_has_no_facts_and_is_behind_none() {
    let mut env = Env::new();
    env.install("gw-1");
    let shown = env.node("gw-1").as_of;
    assert_eq!((shown.fact, shown.behind), (0, 0));
}

#[test]
fn only_runs_that_changed_since_are_told_again() {
    let mut env = Env::new();
    env.join("gw-1");
    env.submit(vec![task("a", &[])]);
    let since = |env: &mut Env, version| match env.ask(Request::RunsChangedSince { version }) {
        Reply::Changed { version, runs } => (version, runs.len()),
        other => panic!("{other:?}"),
    };
    let (version, first) = since(&mut env, 0);
    assert_eq!(first, 1);
    assert_eq!(since(&mut env, version), (version, 0));
    let second = env.submit(vec![task("b", &[])]);
    let (later, told) = since(&mut env, version);
    assert!(later > version && told == 1, "{second} alone is new");
}

#[test]
fn a_pause_at_a_gateway_waits_for_a_person() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let (on, by) = (true, "bob".to_owned());
    env.tell("gw-1", vec![Body::PausedHere { run, on, by }]);
    let waits = env.waits();
    let told = |wait: &String| wait.contains("paused by bob at gw-1");
    assert!(waits.iter().any(told), "{waits:?}");
}

/// A task that went well and says when it began, a quarter of a second before.
fn took_a_while(slice: SliceRef) -> Body {
    let mut body = ended(slice, 0, 1, true);
    if let Body::Ended { end, .. } = &mut body {
        end.began = Some(Stamp {
            boot: 1,
            mono_ms: 750,
            wall: Unix(1_700_000_499_750),
        });
    }
    body
}

#[test]
fn what_tasks_took_before_is_known_of_those_that_went_well() {
    let mut env = Env::new();
    env.join("gw-1");
    env.submit(vec![task("a", &[])]);
    let slice = env.agent("gw-1").last_slice();
    let facts = vec![
        Body::Accepted { slice },
        started(slice, 0, 1),
        took_a_while(slice),
        Body::SliceDone { slice },
    ];
    env.tell("gw-1", facts);
    let workflow = "test".to_owned();
    let Reply::Ground(ground) = env.ask(Request::Ground { workflow }) else {
        panic!("no ground");
    };
    assert_eq!(ground.history, (BTreeMap::from([("a".to_owned(), 250)]), 1));
}

#[test]
fn whoever_was_declared_gone_is_told_so() {
    let mut env = Env::new();
    env.join("gw-1");
    let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
    assert_eq!(env.ask(Request::ForgetNode { node, by }), Reply::Done);
    assert!(env.hello("gw-1").is_err());
}

#[test]
fn facts_that_do_not_count_are_an_event() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let run = env.submit(vec![on("gw-1", task("a", &[]))]);
    let slice = env.agent("gw-1").last_slice();
    env.tell("gw-2", vec![started(slice, 0, 1)]);
    let request = Request::Events {
        after: None,
        limit: 1000,
    };
    let Reply::Events { events, .. } = env.ask(request) else {
        panic!("no events");
    };
    let told = format!("{events:?}");
    assert!(told.contains("conflict"), "{told}");
    assert_eq!(env.run(run).conflicts.len(), 1);
}

#[test]
fn a_backup_tells_those_who_are_connected_what_is_safe() {
    let mut env = Env::new();
    env.join("gw-1");
    env.submit(vec![task("a", &[])]);
    env.takes_up("gw-1");
    let (node, incarnation) = (env.agent("gw-1").node, env.agent("gw-1").incarnation);
    assert_eq!(env.agent("gw-1").ack.map(|ack| ack.safe), Some(0));
    let facts = 1;
    let done = env.ask(Request::BackupDone {
        by: String::new(),
        at: env.now.wall,
        place: "here".to_owned(),
        cursors: vec![Cursor {
            node,
            incarnation,
            facts,
        }],
    });
    assert_eq!(done, Reply::Done);
    assert_eq!(env.agent("gw-1").ack.map(|ack| ack.safe), Some(1));
}

#[test]
fn a_schedule_that_is_paused_waits_for_a_person() {
    let mut env = Env::new();
    let mut flow = workflow(vec![task("a", &[])]);
    flow.schedule = Some(Schedule {
        rule: Rule::Every(Span::secs(60)),
        timezone: "UTC".to_owned(),
        catchup: Catchup::Latest,
        max_catchup: 1,
        starting_deadline: None,
        overlap: Overlap::Forbid,
        jitter: Span(0),
    });
    let schedule = ScheduleId([5; 16]);
    let made = env.ask(Request::CreateSchedule {
        schedule,
        name: flow.name.clone(),
        workflow: shared::codec::pack(&flow).0,
        node: None,
        replace: false,
        by: "ann".to_owned(),
    });
    assert!(!matches!(made, Reply::Refused(_)), "{made:?}");
    assert_eq!(env.waits(), Vec::<String>::new());
    let (name, by) = (schedule.to_string(), "ann".to_owned());
    let ask = ScheduleAsk::Pause(true);
    env.ask(Request::AskSchedule { name, ask, by });
    assert_eq!(env.waits(), ["schedule test is paused by ann"]);
}

fn figures(env: &mut Env) -> cloud_core::view::Figures {
    match env.ask(Request::Figures) {
        Reply::Figures(figures) => *figures,
        other => panic!("{other:?}"),
    }
}

#[test]
fn figures_name_every_state_before_there_is_a_run_and_begin_at_nothing() {
    let mut env = Env::new();
    let tasks = figures(&mut env).tasks;
    assert_eq!(tasks.len(), TaskState::ALL.len());
    assert_eq!(tasks.values().sum::<u64>(), 0);
    env.join("gw-1");
    env.submit(vec![task("a", &[])]);
    assert_eq!(figures(&mut env).not_applied, 0);
}

#[test]
fn facts_per_second_are_those_of_the_last_two_seconds() {
    let mut env = Env::new();
    env.join("gw-1");
    let rate = |env: &mut Env| match env.ask(Request::SyncStatus {
        name: "gw-1".to_owned(),
    }) {
        Reply::SyncStatus(status) => status.classes[0].per_second,
        other => panic!("{other:?}"),
    };
    let run = env.submit(vec![task("a", &[])]);
    let some = |count: usize| {
        let (on, by) = (true, "bob".to_owned());
        vec![Body::PausedHere { run, on, by }; count]
    };
    env.tell("gw-1", some(3));
    assert_eq!(rate(&mut env), 3);
    env.pass(Span::secs(1));
    env.tell("gw-1", some(1));
    env.tell("gw-1", some(1));
    assert_eq!(rate(&mut env), 3);
    env.pass(Span::secs(1));
    assert_eq!(rate(&mut env), 2);
    env.pass(Span::secs(10));
    assert_eq!(rate(&mut env), 0);
}

#[test]
fn what_left_a_node_that_was_declared_gone_did_not_leave_because_it_was_silent() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![task("a", &[])]);
    let (node, by) = (env.agent("gw-1").node, "ann".to_owned());
    assert_eq!(env.ask(Request::ForgetNode { node, by }), Reply::Done);
    let task = "a".to_owned();
    let Reply::Explain(why) = env.ask(Request::Explain { run, task }) else {
        panic!("no explanation");
    };
    let mut moved = why.decisions.iter().filter(|d| d.action == "moved");
    let decision = moved.next().expect("it is told");
    assert_eq!(decision.reason, "node_forgotten");
    let silence = "silence_ms=0".to_owned();
    assert!(decision.evidence.contains(&silence), "{decision:?}");
}

#[test]
fn nobody_is_told_to_declare_a_node_gone_that_is_connected() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    env.submit(vec![on("gw-1", task("a", &[]))]);
    env.takes_up("gw-1");
    env.restart(backup);
    env.hello("gw-1").expect("it is welcome");
    let waits = match env.ask(Request::Waits) {
        Reply::Waits(waits) => waits,
        other => panic!("{other:?}"),
    };
    let command = |node: &str| {
        let mut of_node = waits.iter().filter(|w| w.node.as_deref() == Some(node));
        let wait = of_node.next().expect("the hold waits for it");
        wait.command.clone().unwrap_or_default()
    };
    assert_eq!(command("gw-1"), "");
    assert_eq!(command("gw-2"), "driftless node gone gw-2");
}
