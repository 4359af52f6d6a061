//! Compiled workflows of both formats, and what is done with one that was decoded.

use crate::samples;
use crate::target::{Bound, Form, Target, Verdict, class};
use shared::codec;
use shared::config::scheduler::Scheduler;
use shared::graph::{self, Format};
use shared::schedule::{Calendar, workflow_of};
use shared::time::Unix;
use shared::workflow::Workflow;

/// Bytes of a workflow that a target unpacks: production allows 128 MiB, with a schedule 16 MiB.
const MOST: usize = 4 << 20;

pub(super) const TARGETS: &[Target] = &[Target {
    name: "workflow",
    fed_by: "clients: submissions; both sides: assigns, facts, stores, backups",
    form: Form::Packed,
    bound: Bound::new(256, 64 << 10).within(5),
    cost: 4,
    words: &[],
    seeds: workflows,
    check: unpacked,
}];

fn workflows() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = samples::workflows().iter().map(Workflow::encode).collect();
    all.push(vec![0; 5 << 20]);
    all
}

/// What becomes of a packed workflow.
pub(super) fn unpacked(packed: &[u8]) -> Verdict {
    let workflow = match codec::unpack_within(packed, MOST) {
        Ok((workflow, _)) => workflow,
        Err(error) => return Ok(class(&error)),
    };
    let bytes = workflow.encode();
    match Workflow::decode(&bytes) {
        Ok(again) if again == workflow => {}
        _ => return Err("another workflow when it was encoded and decoded".to_owned()),
    }
    if let Ok(old) = workflow.for_first_release() {
        match Workflow::decode(&old.encode()) {
            Ok(again) if again.tasks.len() == workflow.tasks.len() => {}
            _ => return Err("its form for the first release cannot be read".to_owned()),
        }
    }
    if let Err(why) = cloud_core::audit::workflow(&workflow) {
        return Ok(format!("ok unsound {}", class(&why)));
    }
    used(&workflow)
}

/// What is done with a sound workflow.
pub(super) fn used(workflow: &Workflow) -> Verdict {
    let edges: usize = workflow.tasks.iter().map(|task| task.needs.len()).sum();
    let path = graph::critical_path(workflow).len();
    let known = graph::estimates(workflow).iter().flatten().count();
    if workflow.tasks.len() <= 200 {
        for format in [Format::Text, Format::Dot, Format::Json, Format::Svg] {
            let _ = graph::render(workflow, format).len();
        }
    }
    for task in workflow.tasks.iter().take(20) {
        let _ = task.retry_under(&Scheduler::default());
        let _ = workflow.matrix_of(shared::ids::TaskIdx(0));
    }
    let slots = match workflow.schedule.as_ref().map(Calendar::new) {
        None => "none".to_owned(),
        Some(Err(_)) => "bad schedule".to_owned(),
        Some(Ok(calendar)) => {
            let mut at = Unix(1_790_000_000_000);
            for _ in 0..3 {
                match calendar.next(at) {
                    Some(next) if next > at => at = next,
                    Some(_) => return Err("a slot that is not behind the one before".to_owned()),
                    None => break,
                }
            }
            for extreme in [i64::MIN, -1, 0, i64::MAX] {
                let _ = calendar.next(Unix(extreme));
            }
            let newest = calendar.newest(Unix(0), at, 5).len();
            let _ = workflow_of(workflow, at, at).tasks.len();
            format!("slots {newest}")
        }
    };
    let tasks = workflow.tasks.len().checked_ilog2();
    Ok(format!(
        "ok {tasks:?} {:?} {} {} {slots}",
        edges.checked_ilog2(),
        path.min(3),
        known.min(2)
    ))
}
