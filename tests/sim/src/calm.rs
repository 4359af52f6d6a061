//! The liveness phase: faults stop, dead nodes come back or are forgotten, and everything must come
//! to rest.

use crate::check::{applied_once_in_order, convergence};
use crate::people::Purpose;
use crate::queue::{HOUR, MIN, SEC, Time};
use crate::trace::{Lane, Sort};
use crate::truth::EdgeTruth;
use crate::world::{Ev, World};
use cloud_core::event::{Reply, Request};
use cloud_core::view;
use shared::fact::{Body as Said, Fact};
use shared::ids::RunId;
use std::collections::BTreeMap;

/// Of so many tasks of each run the coordinator is asked why they are as they are.
const EXPLAINED: usize = 6;

/// States and outputs, by the names of tasks.
fn ends(tasks: &[view::Task]) -> BTreeMap<String, (String, Vec<String>)> {
    let end = |task: &view::Task| {
        let outputs = task.outputs.iter().map(|file| file.hash.clone()).collect();
        (task.task.clone(), (task.state.clone(), outputs))
    };
    tasks.iter().map(end).collect()
}

impl World {
    /// Runs the whole seed: safety first, then liveness.
    pub fn run_to_the_end(&mut self) {
        let calm_at = self.plan.calm_at;
        if let Some(end) = self.plan.stop_at {
            self.run_until(end.min(calm_at));
            if end < calm_at {
                return;
            }
        }
        self.run_until(calm_at);
        if self.violations.is_empty() {
            self.calm_down();
            self.settle();
        }
    }

    fn calm_down(&mut self) {
        self.calm = true;
        if let Some(carried) = &mut self.carried {
            carried.by.calm();
        }
        self.trace.note(self.t, Lane::World, Sort::Phase, || {
            "faults stop".to_owned()
        });
        self.cloud.deaf = 0;
        self.cloud.doom = None;
        self.cloud.disk_slow = 0;
        self.cloud.handle.lock().ailment = crate::tap::Ailment::None;
        self.make_room(None);
        self.liar_leaves();
        for m in 0..self.machines.len() {
            if self.machines[m].copy_of.is_some() || self.is_declared_gone(m) {
                self.switch_off_for_good(m);
            }
            self.machines[m].link.slow = 0;
            self.machines[m].disk_slow = 0;
            self.machines[m].link.slow_until = self.t;
            self.machines[m].link.cuts_up = self.machines[m].link.cuts_up.min(1);
            self.machines[m].link.cuts_down = self.machines[m].link.cuts_down.min(1);
            self.heal(m, true, true);
            self.make_room(Some(m));
            if let Some(agent) = &mut self.machines[m].agent {
                agent.doom = None;
                agent.handle.lock().ailment = crate::tap::Ailment::None;
            }
            self.revive(m);
        }
        self.revive_cloud();
        if self.plan.schedules.len() > self.plan.gone.schedules.len() {
            // slots go on for a while without faults
            self.run_until(self.t + 15 * MIN);
        }
        for n in 0..self.plan.runs.len() {
            self.go_on(n);
        }
    }

    /// Nobody leaves a link paused.
    fn speak(&mut self, m: usize) {
        let life = self.machines[m].life;
        let silent = |truth: &EdgeTruth| truth.silent.is_some();
        if self.lives.get(life).is_some_and(silent) {
            let position = self.people.deeds.len();
            self.people.deeds.push(crate::deed::Deed::ResumeSync(m));
            self.queue.at(self.t + MIN, Ev::Person(position));
        }
    }

    fn revive(&mut self, m: usize) {
        if self.machines[m].destroyed {
            if self.machines[m].copy_of.is_none() {
                self.forget_node(m);
            }
            return;
        }
        if self.machines[m].node.is_none() || self.machines[m].life == usize::MAX {
            return;
        }
        if self.machines[m].power {
            let process = self.machines[m].process;
            self.queue.at(self.t + 5 * SEC, Ev::Start(m, process));
        } else {
            self.queue.at(self.t + 5 * SEC, Ev::PowerOn(m));
        }
    }

    fn revive_cloud(&mut self) {
        if self.cloud.engine.is_none() {
            self.queue
                .at(self.t + 5 * SEC, Ev::CloudStart(self.cloud.process));
        }
    }

    /// Nobody leaves a run paused.
    fn go_on(&mut self, n: usize) {
        let run = &self.plan.runs[n];
        if run.pause.is_none() || !self.people.submitted.contains(&run.run) {
            return;
        }
        let position = self.people.deeds.len();
        self.people.deeds.push(crate::deed::Deed::Pause(n, false));
        self.queue.at(self.t + MIN, Ev::Person(position));
    }

    /// How long everything may take to come to rest: idle timeout and backoff, and all work one
    /// after another.
    fn bound(&self) -> Time {
        let work: Time = self
            .flows
            .values()
            .flat_map(|run| run.habits.iter().zip(&run.workflow.tasks))
            .map(|(habit, task)| {
                let longest = task.timeout.map_or(2 * habit.length, |limit| limit.nanos());
                let attempts = u64::from(task.retry.max_attempts);
                attempts * (longest + task.kill_grace.nanos() + task.retry.max_interval.nanos())
            })
            .sum();
        2 * HOUR + work
    }

    fn settle(&mut self) {
        let end = self.t + self.bound();
        let mut quiet = 0;
        while self.violations.is_empty() {
            self.run_until(self.t + 2 * MIN);
            if !self.violations.is_empty() {
                return;
            }
            self.ask_who_waits();
            (0..self.machines.len()).for_each(|m| self.speak(m));
            self.end_schedules();
            let mut restless = convergence::restless(self);
            quiet = if restless.is_empty() { quiet + 1 } else { 0 };
            if quiet >= 2 {
                restless = self.disturbed();
                if restless.is_empty() {
                    self.compare();
                    return;
                }
            }
            if let Some(first) = restless.first() {
                self.trace
                    .say(self.t, Lane::World, || format!("no rest: {first}"));
                if self.t > end {
                    self.give_up(&restless);
                    return;
                }
            }
            self.ask(Request::Nodes, Purpose::Tidy);
            self.run_until(self.t + 30 * SEC);
        }
    }

    /// What is not at rest as the coordinator sees it, or does not stay so when nobody does
    /// anything any more.
    fn disturbed(&mut self) -> Vec<String> {
        let seen = self.seen_restless();
        if !seen.is_empty() {
            return seen;
        }
        self.people.away = true;
        // what was measured comes behind the facts, and is acknowledged within a minute
        self.run_until(self.t + 5 * MIN);
        // an answer that somebody gave just before lets work go on
        let restless = convergence::restless(self);
        self.people.away = restless.is_empty();
        restless
    }

    /// Which runs wait for a person, by the list that people see.
    fn ask_who_waits(&mut self) {
        let reply = self.view(Request::Runs { state: None });
        let runs = reply
            .as_ref()
            .and_then(convergence::runs)
            .unwrap_or_default();
        let waits = runs.iter().filter(|run| !run.waits.is_empty());
        self.people.waiting = waits.map(|run| run.id).collect();
    }

    /// What is not at rest as the coordinator shows it.
    fn seen_restless(&mut self) -> Vec<String> {
        let runs = self.view(Request::Runs { state: None });
        let mut seen = match runs.as_ref().and_then(convergence::runs) {
            Some(runs) => convergence::unsettled(runs),
            None => vec!["the coordinator shows no runs".to_owned()],
        };
        let nodes = self.view(Request::Nodes);
        seen.extend(convergence::settings(self, nodes.as_ref()));
        seen
    }

    fn give_up(&mut self, restless: &[String]) {
        self.describe(restless);
        let text = format!("{} things are not at rest; {}", restless.len(), restless[0]);
        self.fail("convergence", text);
    }

    /// For the timeline: what is not at rest, and how the coordinator sees it.
    fn describe(&mut self, restless: &[String]) {
        for text in restless {
            self.trace.say(self.t, Lane::World, || text.clone());
        }
        for truth in &self.lives {
            for model in truth.model.slices.values() {
                let Some(flow) = self.flows.get(&model.slice.run) else {
                    continue;
                };
                for (task, known) in model
                    .tasks
                    .iter()
                    .filter(|(_, task)| !task.state.is_final())
                {
                    self.trace.say(self.t, Lane::World, || {
                        format!(
                            "  {} {:?} task {} is {}: {}",
                            truth.log.incarnation,
                            model.slice,
                            task.0,
                            known.state,
                            model.needs(&flow.workflow, *task)
                        )
                    });
                }
            }
        }
        for request in [Request::Nodes, Request::Waits] {
            let reply = self.view(request);
            self.trace
                .say(self.t, Lane::Cloud, || format!("{reply:#?}"));
        }
        let runs: Vec<RunId> = self.people.submitted.iter().copied().collect();
        for run in runs {
            let state = self.view(Request::Run { run });
            let Some(Reply::Run(state)) = state else {
                continue;
            };
            self.trace.say(self.t, Lane::Cloud, || {
                format!("run {run} is {} {:?}", state.state, state.tasks)
            });
            let Some(Reply::Tasks(tasks)) = self.view(Request::Tasks { run, state: None }) else {
                continue;
            };
            for task in tasks.iter().filter(|task| task.state != "succeeded") {
                self.trace.say(self.t, Lane::Cloud, || {
                    format!(
                        "  {} {} at {:?} {:?} {:?}",
                        task.task, task.state, task.node, task.overlay, task.reason
                    )
                });
            }
        }
    }

    /// Asks the coordinator and waits for the answer.
    pub fn view(&mut self, request: Request) -> Option<Reply> {
        self.people.views.clear();
        self.ask(request, Purpose::View);
        for _ in 0..60 {
            self.run_until(self.t + 2 * SEC);
            if !self.people.views.is_empty() || !self.violations.is_empty() {
                break;
            }
        }
        self.people.views.pop()
    }

    /// Both sides are compared.
    fn compare(&mut self) {
        crate::check::measured::at_rest(self);
        let fired = crate::check::scheduled::at_rest(self);
        let runs: Vec<RunId> = self.people.submitted.iter().copied().chain(fired).collect();
        for run in runs {
            if !self.violations.is_empty() {
                return;
            }
            match self.view(Request::Tasks { run, state: None }) {
                Some(Reply::Tasks(tasks)) => {
                    self.outcome.insert(run, ends(&tasks));
                    applied_once_in_order::at_rest(self, run, &tasks);
                    crate::check::counted_once::at_rest(self, run, &tasks);
                    self.explained_there(run, &tasks);
                }
                Some(Reply::Refused(why)) => self.missing(run, &why.to_string()),
                _ => self.fail(
                    "convergence",
                    format!("the tasks of run {run} are not shown"),
                ),
            }
        }
    }

    /// The coordinator explains some tasks of a run.
    fn explained_there(&mut self, run: RunId, tasks: &[view::Task]) {
        let mut dice = self.dice.people.fork("explain", self.t);
        let count = tasks.len().min(EXPLAINED);
        for _ in 0..count {
            let task = &tasks[dice.below(tasks.len() as u64) as usize];
            let request = Request::Explain {
                run,
                task: task.task.clone(),
            };
            let reply = self.view(request);
            // behind a broken promise nobody waits for an answer
            if self.cloud.truth.buried.contains(&run) || !self.violations.is_empty() {
                return;
            }
            crate::check::explained::on_explain(self, task, reply);
        }
    }

    fn missing(&mut self, run: RunId, why: &str) {
        if self.cloud.truth.buried.contains(&run) {
            return;
        }
        let stands =
            |truth: &EdgeTruth| truth.promised.contains(&run) && !self.is_untold(truth, run);
        let there = |one: &&crate::machine::Machine| !one.destroyed && one.life != usize::MAX;
        let mut lives = self.machines.iter().filter(there);
        let promised = self.cloud.truth.promised.contains(&run)
            || lives.any(|one| stands(&self.lives[one.life]));
        if promised {
            self.fail(
                "acknowledged_is_durable",
                format!("run {run} is gone: {why}"),
            );
        }
    }

    /// Whether nobody is left who could tell of a run that a gateway promised, since the
    /// coordinator's store went back to before it heard of it. What the gateway forgot stays so.
    /// What it gave up as it was asked to (a run of its own that had been lost by its silence) is
    /// in no inventory either: where the newest backup held that it began, and an older one was
    /// restored, no fact says so any more.
    pub(crate) fn is_untold(&self, truth: &EdgeTruth, run: RunId) -> bool {
        let given_up = || {
            let heard = crate::check::scheduled::settled(self).into_iter();
            let mut left = heard.map(|(_, life)| life).chain([truth]);
            truth.was_asked_back(run)
                && self.began_in_a_hole(run)
                && !left.any(|life| life.model.has_of(run))
        };
        self.cloud.went_back && (truth.model.is_forgotten(run) || given_up())
    }

    /// Whether that a gateway began a run of its own was among the facts that a restored
    /// coordinator never got again.
    pub(crate) fn began_in_a_hole(&self, run: RunId) -> bool {
        let holes = &self.cloud.truth.holes;
        let mut lives = self
            .lives
            .iter()
            .filter_map(|life| Some((life, holes.get(&life.log)?)));
        let begins = |fact: &Fact| match &fact.body {
            Said::Submitted { slice, .. } | Said::Fired { slice, .. } => slice.run == run,
            _ => false,
        };
        lives.any(|(life, holes)| {
            let mut rows = holes.iter().flat_map(|hole| {
                let facts = hole.known as usize..hole.to.number as usize;
                life.facts.get(facts).unwrap_or_default()
            });
            rows.any(|row| row.fact.as_ref().is_some_and(begins))
        })
    }
}
