//! What waits for a person, with its age and the command that ends the wait; questions and answers.

use super::Engine;
use crate::run::Run;
use crate::run::answers::Given;
use crate::store::Store;
use crate::view;
use shared::approval::Approval;
use shared::ids::{NodeId, TaskIdx};
use shared::state::TaskState;
use shared::time::Unix;

/// Tasks of one run that are listed one by one.
const LISTED: usize = 100;

/// A question as it is shown.
pub(super) fn question(approval: &Approval, deadline: Option<Unix>) -> view::Question {
    let field = |field: &shared::approval::Field| view::Field {
        name: field.name.clone(),
        kind: field.kind.text().to_owned(),
        default: field.default.clone(),
        required: field.default.is_none(),
    };
    view::Question {
        prompt: approval.prompt.clone(),
        input: approval.input.iter().map(field).collect(),
        default: approval.default,
        deadline,
    }
}

impl<S: Store> Engine<S> {
    /// The answers to a task's question, oldest first.
    pub(super) fn view_answers(&self, run: &Run, task: TaskIdx) -> Vec<view::Answer> {
        let view = |given: &Given| view::Answer {
            yes: given.answer.yes,
            input: given.answer.input.clone(),
            by: given.answer.by.clone(),
            at: given.answer.at,
            via: given.answer.via.text().to_owned(),
            node: given.told.map(|(node, _)| self.node_name(node)),
            counts: (!given.pending()).then_some(given.not.is_none()),
            reason: given.not.map(|reason| reason.text().to_owned()),
        };
        let given = run.head.answers.get(&task).into_iter().flatten();
        given.map(view).collect()
    }

    /// What a run waits for from people.
    pub(super) fn run_waits(&self, run: &Run) -> Vec<view::Wait> {
        let head = &run.head;
        let id = run.id.to_string();
        let id = &id[..12];
        let mut out = Vec::new();
        let mut wait = |task: Option<TaskIdx>, what: String, since: Unix, command: String| {
            let name = |task: TaskIdx| match &run.body {
                Some(body) => body.workflow.tasks[task.0 as usize].id.clone(),
                None => format!("#{}", task.0),
            };
            let command = command.replace("TASK", &task.map(name).unwrap_or_default());
            out.push(view::Wait {
                run: Some(run.id),
                task: task.map(name),
                node: task.and_then(|t| run.owner(t)).map(|n| self.node_name(n)),
                what,
                since,
                command: (!command.is_empty()).then_some(command),
            });
        };
        if let (Some(since), false, false) =
            (head.unplaced_since, head.unplaced_why.is_empty(), head.held)
        {
            let (n, why) = (head.unplaced, &head.unplaced_why);
            let what = format!("{n} tasks wait for a node: {why}");
            wait(None, what, since, String::new());
        }
        if let (true, Some(hold)) = (head.held, &self.fleet.hold) {
            let n = hold.nodes.len();
            let what = format!("held until {n} nodes were heard: {}", hold.why);
            wait(
                None,
                what,
                hold.since,
                "driftless node gone NODE".to_owned(),
            );
        }
        if !head.known {
            let what = "known only from facts that name it".to_owned();
            wait(
                None,
                what,
                head.submitted,
                format!("driftless run forget {id}"),
            );
        }
        if head.state.is_final() {
            self.doubts(run, &mut wait);
            return out;
        }
        if let Some(pause) = &head.pause {
            let what = format!("paused by {}", pause.by);
            wait(None, what, pause.at, format!("driftless run resume {id}"));
        }
        for (node, by) in &head.paused_at {
            let what = format!("paused by {by} at {}", self.node_name(*node));
            wait(
                None,
                what,
                head.submitted,
                format!("driftless-agent resume {id}"),
            );
        }
        self.doubts(run, &mut wait);
        for (task, since) in &head.asking {
            let Some(approval) = run.question(*task) else {
                continue;
            };
            let open = approval.input.iter().filter(|f| f.default.is_none());
            let fields: String = open
                .map(|f| format!(" --input {}={}", f.name, f.kind.text()))
                .collect();
            let sent = head.answers.get(task).into_iter().flatten();
            let what = match sent.filter(|given| given.pending()).next_back() {
                Some(given) => {
                    let by = &given.answer.by;
                    format!("{} (an answer by {by} is on its way)", approval.prompt)
                }
                None => approval.prompt.clone(),
            };
            let command = format!("driftless answer {id} TASK yes|no{fields}");
            wait(Some(*task), what, *since, command);
        }
        if run.count(TaskState::Paused) > 0 {
            let rows = run.body.iter().flat_map(|b| &b.tasks);
            let paused = (0u32..).zip(rows);
            let paused = paused.filter(|(_, row)| row.state == TaskState::Paused);
            for (task, row) in paused.take(LISTED) {
                let what = "paused: no attempt is left".to_owned();
                let since = row.since.unwrap_or(head.submitted);
                let command = format!("driftless-agent resume {id} TASK");
                wait(Some(TaskIdx(task)), what, since, command);
            }
        }
        out
    }

    /// Tasks in doubt.
    fn doubts(&self, run: &Run, wait: &mut impl FnMut(Option<TaskIdx>, String, Unix, String)) {
        let id = run.id.to_string();
        for (task, since) in &run.head.in_doubt {
            let what = "in doubt: it began, its end is not known, and it may not run twice";
            let command = format!("driftless-agent resume {} TASK", &id[..12]);
            wait(Some(*task), what.to_owned(), *since, command);
        }
    }

    /// Everything that waits for a person.
    pub(super) fn waits(&self) -> Vec<view::Wait> {
        let mut out: Vec<view::Wait> = self
            .runs
            .values()
            .filter(|run| run.head.gone.is_none())
            .flat_map(|run| self.run_waits(run))
            .collect();
        let node_wait = |id: NodeId, what: String, since: Unix, verb: &str| {
            let name = self.node_name(id);
            view::Wait {
                run: None,
                task: None,
                command: Some(format!("driftless node {verb} {name}")),
                node: Some(name),
                what,
                since,
            }
        };
        for (id, node) in &self.nodes {
            if let Some((since, why)) = &node.suspect {
                let what = format!("quarantined: {why}");
                out.push(node_wait(*id, what, *since, "release"));
            }
        }
        if let Some(hold) = &self.fleet.hold {
            for id in &hold.nodes {
                let what = format!("not heard since the hold began: {}", hold.why);
                out.push(node_wait(*id, what, hold.since, "gone"));
            }
        }
        out.sort_by(|a, b| (a.since, &a.what).cmp(&(b.since, &b.what)));
        out
    }
}
