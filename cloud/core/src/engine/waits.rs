//! What waits for a person, with its age and the command that ends the wait; questions and answers.

use super::Engine;
use crate::node::Node;
use crate::run::Run;
use crate::run::answers::Given;
use crate::schedule::{Owner, Schedule};
use crate::store::Store;
use crate::view;
use shared::approval::Approval;
use shared::ids::{NodeId, TaskIdx};
use shared::schedule::Order;
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

/// As much of a run's id as people write.
fn start_of(run: &Run) -> String {
    run.id.to_string().chars().take(12).collect()
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
        let mut out = self.marks(run);
        self.doubts(run, &mut out);
        if !run.head.state.is_final() {
            self.questions(run, &mut out);
            self.paused_tasks(run, &mut out);
        }
        out
    }

    /// What the run as a whole waits for.
    fn marks(&self, run: &Run) -> Vec<view::Wait> {
        let (head, id) = (&run.head, start_of(run));
        let mut out = Vec::new();
        let mut wait = |what: String, since: Unix, command: String| {
            out.push(self.wait(run, None, what, since, command));
        };
        if let (Some(since), false, false) =
            (head.unplaced_since, head.unplaced_why.is_empty(), head.held)
        {
            let (n, why) = (head.unplaced, &head.unplaced_why);
            let what = format!("{n} tasks wait for a node: {why}");
            wait(what, since, String::new());
        }
        if let (true, Some(hold)) = (head.held, &self.fleet.hold) {
            let n = hold.nodes.len();
            let what = format!("held until {n} nodes were heard: {}", hold.why);
            wait(what, hold.since, "driftless node gone NODE".to_owned());
        }
        if !head.known {
            let what = "known only from facts that name it".to_owned();
            wait(what, head.submitted, format!("driftless run forget {id}"));
        }
        if head.state.is_final() {
            return out;
        }
        if let Some(pause) = &head.pause {
            let what = format!("paused by {}", pause.by);
            wait(what, pause.at, format!("driftless run resume {id}"));
        }
        for (node, by) in &head.paused_at {
            let what = format!("paused by {by} at {}", self.node_name(*node));
            let since = head.paused_since.get(node).unwrap_or(&head.submitted);
            wait(what, *since, format!("driftless-agent resume {id}"));
        }
        out
    }

    fn wait(
        &self,
        run: &Run,
        task: Option<TaskIdx>,
        what: String,
        since: Unix,
        command: String,
    ) -> view::Wait {
        let name = |task: TaskIdx| match &run.body {
            Some(body) => body.workflow.tasks[task.0 as usize].id.clone(),
            None => format!("#{}", task.0),
        };
        let task_name = task.map(name);
        let command = command.replace("TASK", task_name.as_deref().unwrap_or_default());
        let owner = task.and_then(|task| run.owner(task));
        view::Wait {
            run: Some(run.id),
            task: task_name,
            node: owner.map(|node| self.node_name(node)),
            what,
            since,
            command: (!command.is_empty()).then_some(command),
        }
    }

    fn questions(&self, run: &Run, out: &mut Vec<view::Wait>) {
        for (task, since) in &run.head.asking {
            let Some(approval) = run.question(*task) else {
                continue;
            };
            let open = approval.input.iter().filter(|f| f.default.is_none());
            let fields: String = open
                .map(|f| format!(" --input {}={}", f.name, f.kind.text()))
                .collect();
            let mut sent = run.head.answers.get(task).into_iter().flatten();
            let what = match sent.rfind(|given| given.pending()) {
                Some(given) => {
                    let by = &given.answer.by;
                    format!("{} (an answer by {by} is on its way)", approval.prompt)
                }
                None => approval.prompt.clone(),
            };
            let command = format!("driftless answer {} TASK yes|no{fields}", start_of(run));
            out.push(self.wait(run, Some(*task), what, *since, command));
        }
    }

    fn paused_tasks(&self, run: &Run, out: &mut Vec<view::Wait>) {
        if run.count(TaskState::Paused) == 0 {
            return;
        }
        let rows = run.body.iter().flat_map(|b| &b.tasks);
        let paused = (0u32..).zip(rows);
        let paused = paused.filter(|(_, row)| row.state == TaskState::Paused);
        for (task, row) in paused.take(LISTED) {
            let what = "paused: no attempt is left".to_owned();
            let since = row.since.unwrap_or(run.head.submitted);
            let command = format!("driftless-agent resume {} TASK", start_of(run));
            out.push(self.wait(run, Some(TaskIdx(task)), what, since, command));
        }
    }

    /// Tasks in doubt.
    fn doubts(&self, run: &Run, out: &mut Vec<view::Wait>) {
        for (task, since) in &run.head.in_doubt {
            let what = "in doubt: it began, its end is not known, and it may not run twice";
            let command = format!("driftless-agent resume {} TASK", start_of(run));
            out.push(self.wait(run, Some(*task), what.to_owned(), *since, command));
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
        for (id, node) in &self.nodes {
            self.node_waits(*id, node, &mut out);
        }
        if let Some(hold) = &self.fleet.hold {
            for id in &hold.nodes {
                let (mut what, mut command) = ("not heard".to_owned(), "driftless node gone NODE");
                if let Some(node) = self.nodes.get(id).filter(|node| node.owes > 0) {
                    what = format!("fact {} of {} is here", node.facts.number, node.owes);
                }
                if self.links.get(id).is_some_and(|link| link.live.is_some()) {
                    command = "";
                }
                what = format!("{what} since the hold began: {}", hold.why);
                out.push(self.node_wait(*id, what, hold.since, command));
            }
        }
        for schedule in self.schedules.values() {
            out.extend(self.schedule_wait(schedule));
            out.extend(self.declined(schedule));
        }
        out.sort_by(|a, b| (a.since, &a.what).cmp(&(b.since, &b.what)));
        out
    }
    fn node_wait(&self, id: NodeId, what: String, since: Unix, command: &str) -> view::Wait {
        let name = self.node_name(id);
        view::Wait {
            run: None,
            task: None,
            command: Some(command.replace("NODE", &name)),
            node: Some(name),
            what,
            since,
        }
    }

    /// What a node waits for: to be believed, to be given work again, to be let speak again.
    fn node_waits(&self, id: NodeId, node: &Node, out: &mut Vec<view::Wait>) {
        if node.forgotten.is_some() {
            return;
        }
        let mut wait = |what: String, since: Unix, command: &str| {
            out.push(self.node_wait(id, what, since, command));
        };
        if let Some((since, why)) = &node.suspect {
            let what = format!("quarantined: {why}");
            wait(what, *since, "driftless node release NODE");
        }
        if let Some(since) = node.unconfirmed_key {
            let what = "another key speaks for it since a younger certificate was shown: compare \
                        `node get` with `driftless-agent check` there; it gets none of a next \
                        authority before";
            wait(what.to_owned(), since, "driftless node release NODE");
        }
        if let Some((since, by)) = &node.cordoned {
            let how = if node.draining { "drained" } else { "cordoned" };
            let what = format!("{how} by {by}: it is given no work");
            wait(what, *since, "driftless node uncordon NODE");
        }
        // with a length the pause ends by itself
        if let Some((by, since, None)) = &node.sync_paused {
            let what = format!("{by} lets it send nothing");
            wait(what, *since, "driftless-agent sync resume");
        }
    }

    /// A schedule that stands still until a person lets it go on.
    fn schedule_wait(&self, schedule: &Schedule) -> Option<view::Wait> {
        let since = schedule
            .stands_since
            .filter(|_| schedule.dropped.is_none())?;
        let name = &schedule.name;
        let (what, command) = match (&schedule.paused, &schedule.paused_at, &schedule.refused) {
            (Some(by), _, _) => (
                format!("schedule {name} is paused by {by}"),
                format!("driftless schedule resume {name}"),
            ),
            (None, Some(by), _) => (
                format!("schedule {name} is paused by {by} at its gateway"),
                format!("driftless-agent schedule resume {name}"),
            ),
            (None, None, Some((reason, text))) => (
                format!("schedule {name} was refused ({reason}): {text}"),
                "driftless schedule create FILE --replace".to_owned(),
            ),
            (None, None, None) => return None,
        };
        Some(self.owners_wait(schedule, what, since, command))
    }

    /// An order to run slots that the owner of a schedule refused: the schedule itself goes on.
    fn declined(&self, schedule: &Schedule) -> Option<view::Wait> {
        let gone = schedule.dropped.is_some();
        let declined = schedule.declined.as_ref().filter(|_| !gone)?;
        let name = &schedule.name;
        let what = format!("schedule {name} goes on, but its owner refused {declined}");
        let command = match &declined.what {
            Order::Backfill(from, to) => {
                format!("driftless schedule backfill {name} --from {from} --to {to}")
            }
            _ => format!("driftless schedule trigger {name}"),
        };
        Some(self.owners_wait(schedule, what, declined.at, command))
    }

    fn owners_wait(
        &self,
        schedule: &Schedule,
        what: String,
        since: Unix,
        command: String,
    ) -> view::Wait {
        let owner = match schedule.owner {
            Owner::Coordinator => None,
            Owner::Node(node, _) => Some(self.node_name(node)),
        };
        view::Wait {
            run: None,
            task: None,
            node: owner,
            what,
            since,
            command: Some(command),
        }
    }
}
