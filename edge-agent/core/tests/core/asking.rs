//! Questions to people: one answer counts, nothing behind them starts before, and the answer is
//! found again.

use crate::env::*;
use edge_core::event::{Action, Local, LocalReply};
use shared::approval::{Answer, Approval, Field, Via};
use shared::directive::Body as Wish;
use shared::explain::Reason;
use shared::fact::Body;
use shared::ids::{SliceRef, TaskIdx};
use shared::spec::Type;
use shared::time::{Span, Unix};
use shared::workflow::{Action as Does, Output, Task, Workflow};
use std::collections::BTreeMap;

fn asks(id: &str, needs: &[u32]) -> Task {
    let mut it = task(id, needs);
    it.inputs.clear();
    it.outputs = vec![Output {
        name: id.to_owned(),
        path: "answer.json".to_owned(),
    }];
    it.action = Does::Approval(Box::new(Approval {
        prompt: "ship it?".to_owned(),
        input: vec![Field {
            name: "grade".to_owned(),
            kind: Type::Integer,
            default: Some("1".to_owned()),
        }],
        default: None,
    }));
    it
}

/// `before`, then a question, then `after`, which reads the answer.
fn flow() -> Workflow {
    workflow(vec![
        task("before", &[]),
        asks("ask", &[0]),
        task("after", &[1]),
    ])
}

fn here(yes: bool, input: &[(&str, &str)]) -> Local {
    Local::Answer {
        run: RUN,
        task: TaskIdx(1),
        yes,
        input: input
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect(),
        by: "ann".to_owned(),
    }
}

fn there(slice: SliceRef, yes: bool) -> Wish {
    Wish::Answer {
        slice,
        task: TaskIdx(1),
        answer: Answer {
            yes,
            input: BTreeMap::new(),
            by: "bob".to_owned(),
            at: Unix(7),
            via: Via::Coordinator,
        },
    }
}

fn answers(env: &Env) -> Vec<(bool, String, Option<Reason>)> {
    let of = |body| match body {
        Body::Answered { answer, not, .. } => Some((answer.yes, answer.by, not)),
        _ => None,
    };
    env.facts().into_iter().filter_map(of).collect()
}

#[test]
fn a_question_waits_in_no_slot_and_its_answer_lets_the_next_task_read_it() {
    let mut env = Env::new();
    env.submit(&flow());
    let early = env.local(2, here(true, &[]));
    assert!(matches!(early, LocalReply::Refused(why) if why.contains("waits for no answer")));
    env.end("before", 0);
    env.pass(Span(10));
    assert_eq!(env.states(), "before=succeeded ask=blocked after=blocked");
    assert_eq!(
        (env.reason("ask").as_str(), env.held.len()),
        ("waits_for_person", 0)
    );
    let waits = env.driver.agent().waits();
    assert_eq!((waits.len(), waits[0].what.as_str()), (1, "ship it?"));
    assert!(waits[0].since.is_some() && waits[0].command.contains("answer"));
    env.check_replay();
    env.power_cut();
    let wrong = env.local(3, here(true, &[("grade", "x")]));
    assert!(matches!(wrong, LocalReply::Refused(why) if why.contains("not of type")));
    assert_eq!(
        env.local(4, here(true, &[("grade", "5")])),
        LocalReply::Done
    );
    assert_eq!(env.held_ids(), "after");
    let keep = |action: &&Action| {
        matches!(action, Action::Keep { bytes }
            if String::from_utf8_lossy(bytes).contains("\"grade\":5"))
    };
    assert!(env.actions.iter().any(|action| keep(&action)));
    let again = env.local(5, here(false, &[]));
    assert!(
        matches!(again, LocalReply::Refused(why) if why.contains("answered already: yes, by ann"))
    );
    assert!(env.driver.agent().waits().is_empty());
    env.check_replay();
    env.crash();
    assert!(
        env.actions.iter().any(|action| keep(&action)),
        "the file is laid down again"
    );
}

#[test]
fn of_answers_from_both_sides_the_first_one_recorded_counts() {
    let mut env = Env::new();
    let id = slice(0, 7);
    env.assigned(assign(id, &flow(), &[0, 1, 2]));
    env.tell(vec![there(id, true)]);
    env.end("before", 0);
    env.pass(Span(10));
    assert_eq!(
        answers(&env),
        [(true, "bob".to_owned(), Some(Reason::WaitsForTasks))]
    );
    assert_eq!(env.local(4, here(false, &[])), LocalReply::Done);
    env.tell(vec![there(id, true)]);
    env.pass(Span(10));
    let late = (true, "bob".to_owned(), Some(Reason::ImpossibleTransition));
    assert_eq!(answers(&env)[1..], [(false, "ann".to_owned(), None), late]);
    assert_eq!(env.states(), "before=succeeded ask=failed after=aborted");
    assert_eq!(env.reason("ask"), "rejected");
    env.check_replay();
}

#[test]
fn an_answer_waits_for_the_slice_that_it_is_for() {
    let mut env = Env::new();
    let (old, new) = (slice(0, 7), slice(0, 8));
    env.assigned(assign(old, &workflow(vec![task("before", &[])]), &[0]));
    let mut next = assign(new, &flow(), &[1, 2]);
    next.upstream = vec![upstream(0, shared::state::TaskState::Succeeded, &[1])];
    env.tell(vec![Wish::Assign(next), there(new, true), there(old, true)]);
    assert!(answers(&env).is_empty(), "the slice before has not ended");
    env.gone("before");
    env.pass(Span(10));
    assert_eq!(answers(&env).len(), 1, "{:?}", env.facts());
    let refused = |body: &Body| matches!(body, Body::Refused { slice: Some(s), .. } if *s == old);
    assert!(env.facts().iter().any(refused));
}

#[test]
fn a_deadline_answers_by_default_or_fails() {
    for (default, state, reason) in [
        (Some(true), "succeeded", "approved_by_default"),
        (Some(false), "failed", "rejected_by_default"),
        (None, "failed", "deadline_passed"),
    ] {
        let mut env = Env::new();
        let mut ask = asks("ask", &[]);
        ask.deadline = Some(Unix(env.now.wall.0 + 5000));
        if let Does::Approval(approval) = &mut ask.action {
            approval.default = default;
        }
        env.submit(&workflow(vec![ask]));
        env.pass(Span(4990));
        assert_eq!(env.states(), "ask=blocked");
        env.crash();
        env.pass(Span(100));
        assert_eq!(env.states(), format!("ask={state}"));
        assert_eq!(env.reason("ask"), reason);
        env.check_replay();
    }
}

#[test]
fn a_cancel_ends_a_question() {
    let mut env = Env::new();
    env.submit(&workflow(vec![asks("ask", &[])]));
    let what = Local::Cancel {
        run: RUN,
        by: "ann".to_owned(),
        why: String::new(),
    };
    assert_eq!(env.local(3, what), LocalReply::Done);
    env.pass(Span(10));
    assert_eq!(env.states(), "ask=cancelled");
}
