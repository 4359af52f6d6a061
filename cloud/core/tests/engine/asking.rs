//! Questions to people: an answer from here is a wish, the owner says which one counts.

use crate::common::{Env, all_done, on, task, workflow};
use cloud_core::event::{Refused, Reply, Request};
use cloud_core::view;
use shared::approval::{Answer, Approval, Via};
use shared::directive::Body as Wanted;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{RunId, SliceRef, TaskIdx};
use shared::state::TaskState;
use shared::time::{Span, Unix};
use shared::workflow::{Action, Disconnect, Task};
use std::collections::BTreeMap;

pub(crate) fn asks(id: &str) -> Task {
    let mut it = task(id, &[]);
    it.action = Action::Approval(Box::new(Approval {
        prompt: "ship it?".to_owned(),
        input: Vec::new(),
        default: None,
    }));
    it.disconnect = Disconnect {
        lost_after: Some(Span::secs(600)),
        replace: true,
    };
    it
}

fn asking(slice: SliceRef) -> Vec<Body> {
    let (task, to, reason) = (TaskIdx(0), TaskState::Blocked, Reason::WaitsForPerson);
    let moved = Body::Moved {
        slice,
        task,
        to,
        reason,
    };
    vec![Body::Accepted { slice }, moved]
}

fn answered(slice: SliceRef, answer: Answer, not: Option<Reason>) -> Body {
    let task = TaskIdx(0);
    Body::Answered {
        slice,
        task,
        answer,
        not,
    }
}

fn from(by: &str, yes: bool, via: Via) -> Answer {
    Answer {
        yes,
        input: BTreeMap::new(),
        by: by.to_owned(),
        at: Unix(7),
        via,
    }
}

fn say(env: &mut Env, run: RunId, by: &str, yes: bool) -> Reply {
    env.ask(Request::Answer {
        run,
        task: "ask".to_owned(),
        yes,
        input: BTreeMap::new(),
        by: by.to_owned(),
    })
}

/// The answers that a node was sent, each with the slice that it is for.
fn sent(env: &mut Env, node: &str) -> Vec<(SliceRef, Answer)> {
    let of = |body: &Wanted| match body {
        Wanted::Answer { slice, answer, .. } => Some((*slice, answer.clone())),
        _ => None,
    };
    env.agent(node)
        .seen
        .iter()
        .filter_map(|d| of(&d.body))
        .collect()
}

fn shown(task: &view::Task) -> Vec<(&str, Option<bool>)> {
    task.answers
        .iter()
        .map(|a| (a.by.as_str(), a.counts))
        .collect()
}

#[test]
fn an_answer_goes_to_the_owner_and_counts_when_its_fact_says_so() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![asks("ask"), task("after", &[0])]);
    let slice = env.agent("gw-1").last_slice();
    let early = say(&mut env, run, "ann", true);
    assert!(matches!(early, Reply::Refused(Refused::State(why)) if why.contains("does not wait")));
    env.tell("gw-1", asking(slice));
    assert!(env.waits().contains(&"ship it?".to_owned()));
    assert_eq!(say(&mut env, run, "ann", true), Reply::Done);
    let second = say(&mut env, run, "bob", false);
    assert!(matches!(second, Reply::Refused(Refused::State(why)) if why.contains("on its way")));
    let (at, answer) = sent(&mut env, "gw-1").pop().unwrap();
    assert_eq!((at, answer.by.as_str()), (slice, "ann"));
    assert_eq!(shown(&env.task(run, "ask")), [("ann", None)]);
    // somebody at the gateway was faster
    let cid = from("cid", false, Via::Gateway);
    let late = Some(Reason::ImpossibleTransition);
    env.tell(
        "gw-1",
        vec![answered(slice, cid, None), answered(slice, answer, late)],
    );
    let view = env.task(run, "ask");
    assert_eq!(
        (view.state.as_str(), view.reason.as_deref()),
        ("failed", Some("rejected"))
    );
    assert_eq!(shown(&view), [("ann", Some(false)), ("cid", Some(true))]);
    let after = say(&mut env, run, "ann", true);
    assert!(
        matches!(after, Reply::Refused(Refused::State(why)) if why.contains("answered already"))
    );
    env.restart(env.store.clone());
    assert_eq!(
        shown(&env.task(run, "ask")),
        [("ann", Some(false)), ("cid", Some(true))]
    );
}

#[test]
fn an_answer_on_its_way_follows_the_slice_and_a_late_one_of_the_former_owner_does_not_count() {
    let mut env = Env::new();
    env.join("gw-1");
    let run = env.submit(vec![asks("ask")]);
    let old = env.agent("gw-1").last_slice();
    env.tell("gw-1", asking(old));
    env.hang_up("gw-1");
    assert_eq!(say(&mut env, run, "ann", true), Reply::Done);
    env.join("gw-2");
    env.pass(Span::secs(600));
    let (new, answer) = sent(&mut env, "gw-2").pop().unwrap();
    assert!(new.epoch > old.epoch);
    env.hello("gw-1").unwrap();
    let cid = from("cid", false, Via::Gateway);
    env.tell("gw-1", vec![answered(old, cid, None)]);
    assert_eq!(env.task(run, "ask").state, "blocked");
    let mut facts = asking(new);
    facts.push(answered(new, answer, None));
    facts.push(Body::SliceDone { slice: new });
    env.tell("gw-2", facts);
    assert_eq!(env.run(run).state, "succeeded");
    let view = env.task(run, "ask");
    assert_eq!(shown(&view), [("ann", Some(true)), ("cid", Some(false))]);
    assert_eq!(view.answers[1].reason.as_deref(), Some("superseded"));
    assert!(view.outputs[0].size > 0);
    assert!(env.waits().is_empty());
}

/// Found by seed 31860: that a task asks was told in a hole of the facts, and what it needs was
/// known to be over only behind that, from another node. Nobody saw the question here.
#[test]
fn a_question_that_a_hole_hides_is_open_once_all_that_its_task_needs_is_over() {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let mut question = on("gw-1", asks("ask"));
    question.needs = vec![TaskIdx(0)];
    let flow = vec![on("gw-2", task("a", &[])), question];
    let run = env.submit(flow.clone());
    let slice = env.agent("gw-1").last_slice();
    let state = env.agent("gw-1").inventory(&workflow(flow)).slices;
    let (task, to, reason) = (TaskIdx(1), TaskState::Blocked, Reason::WaitsForPerson);
    let moved = Body::Moved {
        slice,
        task,
        to,
        reason,
    };
    drop(
        env.agent("gw-1")
            .commit(vec![Body::Accepted { slice }, moved]),
    );
    let hole = Body::Reset {
        from: 1,
        to: 2,
        why: "compacted".to_owned(),
        slices: state,
    };
    env.tell("gw-1", vec![hole]);
    env.hello("gw-1").unwrap();
    let shown = env.task(run, "ask");
    assert_eq!(shown.reason.as_deref(), Some("waits_for_tasks"));
    assert!(env.waits().is_empty());
    let before = env.agent("gw-2").assigns().pop().unwrap();
    env.tell("gw-2", all_done(&before));
    let shown = env.task(run, "ask");
    assert_eq!(shown.reason.as_deref(), Some("waits_for_person"));
    assert_eq!(env.waits(), ["ship it?"]);
    assert_eq!(say(&mut env, run, "ann", true), Reply::Done);
    assert_eq!(sent(&mut env, "gw-1").pop().unwrap().0, slice);
}
