//! Who answers what tasks ask, in a rehearsal.

use super::Scene;
use crate::people::Purpose;
use crate::queue::Time;
use crate::rng::Rng;
use crate::world::World;
use cloud_core::event::Request;
use cloud_core::view;
use shared::approval::Approval;
use shared::ids::RunId;
use shared::spec::Type;
use shared::time::{Span, Unix};
use std::collections::BTreeMap;

/// A person at the coordinator who approves what tasks ask, each a while after it is shown there.
pub(super) struct Desk<'a> {
    questions: BTreeMap<&'a str, (usize, &'a Approval)>,
    takes: (Span, Span),
    dice: Rng,
    /// When each question is answered, by run, task and since when it waits;
    /// none: it was.
    due: BTreeMap<(RunId, String, Unix), Option<Time>>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(scene: &'a Scene, seed: u64) -> Self {
        let tasks = scene.workflow.tasks.iter().enumerate();
        let asks = tasks.filter_map(|(n, task)| Some((task.id.as_str(), (n, task.approval()?))));
        Self {
            questions: asks.collect(),
            takes: scene.answers,
            dice: Rng::new(seed).fork("answers", 0),
            due: BTreeMap::new(),
        }
    }

    /// Whether a task asks anything.
    pub(super) fn is_needed(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Looks at what a run waits for.
    pub(super) fn work(&mut self, world: &mut World, run: &view::Run) {
        let id = run.id;
        for wait in &run.waits {
            let task = wait.task.as_deref().unwrap_or_default();
            let Some((number, approval)) = self.questions.get(task) else {
                continue;
            };
            let (least, most) = (self.takes.0.nanos(), self.takes.1.nanos());
            let asked = self.due.len() as u64;
            let mut dice = self.dice.fork("task", *number as u64).fork("asked", asked);
            let key = (id, task.to_owned(), wait.since);
            let due = self.due.entry(key);
            let due = due.or_insert_with(|| Some(world.t + dice.range(least, most.max(least))));
            if due.is_some_and(|due| due <= world.t) {
                *due = None;
                let request = Request::Answer {
                    run: id,
                    task: task.to_owned(),
                    yes: true,
                    input: filled_in(approval),
                    by: "somebody".to_owned(),
                };
                world.ask(request, Purpose::Act);
            }
        }
    }
}

/// Something of its type for each field that has no default.
fn filled_in(approval: &Approval) -> BTreeMap<String, String> {
    let open = approval
        .input
        .iter()
        .filter(|field| field.default.is_none());
    let value = |kind| match kind {
        Type::String => "something",
        Type::Integer | Type::Number => "1",
        Type::Boolean => "true",
    };
    open.map(|field| (field.name.clone(), value(field.kind).to_owned()))
        .collect()
}
