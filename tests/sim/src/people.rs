//! People and their programs: submissions, cancels, pauses, permits. Whoever gets no answer asks
//! again.

use crate::deed::Deed;
use crate::fault::Kind;
use crate::machine::Machine;
use crate::queue::SEC;
use crate::trace::Lane;
use crate::truth::EdgeTruth;
use crate::workload::{node_labels, node_name};
use crate::world::{Ev, World};
use cloud_core::event::{Input, Refused, Reply, Request, RequestId};
use cloud_core::settings::Scope;
use cloud_core::view;
use edge_core::event::{Event, Local, LocalReply};
use shared::ids::{BootId, Incarnation, NodeId, RunId};
use shared::spec::fleet::Node;
use shared::time::Unix;
use shared::workflow::Resources;
use std::collections::BTreeMap;

/// Why something was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A permit for a gateway.
    Permit(usize),
    /// The enrolment of a gateway.
    Enrol(usize),
    /// A run.
    Submit(RunId),
    /// A certificate for a gateway, asked for in this life of its agent.
    Certify(usize, u64),
    /// A step of the exchange of the authority.
    Exchange,
    /// Who carries the next authority.
    Carriers,
    /// Whatever: only the answer counts.
    Act,
    /// The nodes, to free those in quarantine.
    Tidy,
    /// What waits for a person, to answer questions.
    Questions,
    /// That a run runs again.
    Retry(RunId),
    /// For the checkers, from time to time.
    Watch,
    /// What counts of a run, for the checkers.
    Count(RunId),
    /// For the checkers, who wait for it.
    View,
    /// What is left on a drained node.
    Left,
    /// A schedule, or something of it.
    Schedule(usize),
}

/// A request that is not answered.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What.
    pub request: Request,
    /// Why.
    pub purpose: Purpose,
}

/// Requests under way.
#[derive(Debug, Default)]
pub struct People {
    /// What they will do.
    pub deeds: Vec<Deed>,
    /// Without an answer, by number.
    pub asks: BTreeMap<u64, Ask>,
    /// Number of the last request.
    pub last: u64,
    /// Local requests without an answer: machine, run if it is a submission.
    pub local: BTreeMap<u64, (usize, Option<RunId>)>,
    /// Runs that were submitted (their submission may not be answered yet).
    pub submitted: std::collections::BTreeSet<RunId>,
    /// The last answers for the checkers.
    pub views: Vec<Reply>,
    /// Gateways that wait for their new identity before they start.
    pub permits: u64,
    /// Nodes that an operator declared gone.
    pub forgotten: std::collections::BTreeSet<NodeId>,
    /// Nodes whose slices were placed again while they were silent.
    pub replaced: std::collections::BTreeSet<shared::wire::LogId>,
    /// Runs of which the coordinator said last that they wait for a person.
    pub waiting: std::collections::BTreeSet<RunId>,
    /// Runs of which a person cancelled something.
    pub cancelled: std::collections::BTreeSet<RunId>,
    /// Tasks that a person let run again.
    pub resumed: std::collections::BTreeSet<(RunId, shared::ids::TaskIdx)>,
    /// Schedules that somebody made, or wanted to: their number in the plan.
    pub schedules: BTreeMap<shared::ids::ScheduleId, usize>,
    /// Runs of schedules.
    pub fired: std::collections::BTreeSet<RunId>,
    /// Schedules that somebody took away.
    pub unscheduled: std::collections::BTreeSet<usize>,
    /// What people keep off nodes, as far as they were told that it holds.
    pub closed: crate::operate::Closed,
    /// What the coordinator's turn does with nodes, in order: number of the request, and node.
    pub operations: Vec<(u64, NodeId)>,
    /// Both sides are being compared: nobody does anything meanwhile.
    pub away: bool,
}

impl World {
    /// Machine `n` stands there, without power and unknown to anybody.
    pub fn add_machine(&mut self, n: usize) {
        let incarnation = Incarnation(self.dice.ids.id());
        let mut dice = self.dice.ids.fork("machine", n as u64);
        let capacity = Resources {
            cpu_milli: 1000 * dice.range(1, 4) as u32,
            memory: 4 << 30,
            disk: 1 << 40,
            ..Resources::default()
        };
        let drawn = Node {
            name: node_name(n),
            labels: node_labels(n),
            capacity,
        };
        let described = self.plan.fleet.get(n).cloned().unwrap_or(drawn);
        let boot = BootId(self.dice.ids.id());
        let gone = self.plan.gone.agents.contains(&n);
        let machine = Machine {
            power: !gone,
            destroyed: gone,
            ..Machine::new(n, described, self.plan.layer, (boot, incarnation))
        };
        if let Some(disk) = machine.medium.disk() {
            disk.lie(self.plan.lying_disk, self.dice.disk.fork("lies", n as u64));
        }
        self.machines.push(machine);
    }

    /// Somebody makes a permit for gateway `m` and enrols it.
    pub fn enrol(&mut self, m: usize, replace: bool) {
        self.people.permits += 1;
        let id = format!("token-{}", self.people.permits);
        // a disk that is new gets a new key
        self.machines[m].key = self.people.permits;
        let certificate = self.new_certificate(m, self.cloud.authorities.present);
        self.take_certificate(m, certificate);
        let name = self.machines[m].name.clone();
        let request = Request::AddToken {
            by: String::new(),
            record: id.clone().into_bytes(),
            id: id.clone(),
            name: Some(name.clone()),
            replace,
            expires: Unix(i64::MAX),
        };
        self.ask(request, Purpose::Permit(m));
        let request = Request::Enrol {
            token: id,
            node: NodeId(self.dice.ids.id()),
            name,
            labels: self.machines[m].labels.clone(),
            certificate,
        };
        self.ask(request, Purpose::Enrol(m));
    }

    /// Gateway `m` is cut out: what its enrolment would have drawn is drawn.
    pub(crate) fn never_enrol(&mut self) {
        self.people.permits += 1;
        self.dice.ids.id();
    }

    /// Somebody asks the coordinator for something.
    pub fn ask(&mut self, request: Request, purpose: Purpose) {
        self.people.last += 1;
        let id = self.people.last;
        self.people.closed.asked(&request);
        let ask = Ask { request, purpose };
        self.people.asks.insert(id, ask);
        self.ask_again(id);
    }

    /// A request without an answer is sent, again and again.
    pub(crate) fn ask_again(&mut self, id: u64) {
        let Some(ask) = self.people.asks.get(&id) else {
            return;
        };
        let input = Input::Request {
            id: RequestId(id),
            request: Box::new(ask.request.clone()),
            caller: caller(),
        };
        self.tell_cloud(input);
        self.queue.at(self.t + 20 * SEC, Ev::AskAgain(id));
    }

    /// The coordinator is back: everybody asks again at once.
    pub fn ask_all_again(&mut self) {
        let ids: Vec<u64> = self.people.asks.keys().copied().collect();
        for id in ids {
            let Some(ask) = self.people.asks.get(&id) else {
                continue;
            };
            let input = Input::Request {
                id: RequestId(id),
                request: Box::new(ask.request.clone()),
                caller: caller(),
            };
            self.tell_cloud(input);
        }
    }

    /// The coordinator answered.
    pub fn answered(&mut self, id: u64, reply: Reply) {
        let Some(ask) = self.people.asks.remove(&id) else {
            return;
        };
        self.trace.mark(self.t, Lane::Cloud, 10, id);
        if let Reply::Refused(why) = &reply {
            self.trace.say(self.t, Lane::Cloud, || {
                format!("refused {:?}: {why}", ask.purpose)
            });
        }
        if matches!(&reply, Reply::Refused(why) if why.to_string().contains("try again")) {
            // the program that asked does so
            self.people.asks.insert(id, ask);
            return;
        }
        crate::check::recorded::on_answer(self, &ask.request, &reply);
        self.operated(id, &ask.request, &reply);
        match (ask.purpose, reply) {
            (Purpose::Enrol(m), Reply::Enrolled(node)) => self.enrolled(m, node),
            (Purpose::Enrol(m), Reply::Refused(Refused::Token(_))) => {
                // its answer was lost with the coordinator; a new permit is needed
                self.enrol(m, true);
            }
            (Purpose::Certify(m, process), reply) => {
                self.certified((m, process), &ask.request, &reply);
            }
            (Purpose::Submit(run), Reply::Submitted(accepted)) => {
                if accepted != run {
                    self.fail("applied_once_in_order", format!("{run} became {accepted}"));
                }
                self.cloud.truth.promised.insert(run);
                self.trace
                    .say(self.t, Lane::Cloud, || format!("run {run} is accepted"));
            }
            (Purpose::Submit(run), other) => {
                self.fail(
                    "bounded",
                    format!("submission of {run} was answered {other:?}"),
                );
            }
            (Purpose::Exchange, reply) => self.exchanged(&ask.request, &reply),
            (Purpose::Carriers, Reply::Carriers(carriers)) => self.carriers(&carriers),
            (Purpose::Tidy, Reply::Nodes(nodes)) => self.tidy(&nodes),
            (Purpose::Retry(run), Reply::Done) => {
                self.happened(Kind::Retried);
                self.people.cancelled.remove(&run);
            }
            (Purpose::Questions, Reply::Waits(waits)) => self.answer_there(&waits),
            (Purpose::Left, Reply::NodeWork(work)) => crate::check::placed::on_left(self, &work),
            (Purpose::Schedule(n), reply) => self.schedule_answered(n, &reply),
            (Purpose::Watch, reply) => crate::check::on_view(self, &reply),
            (Purpose::Count(run), Reply::Tasks(tasks)) => {
                crate::check::counted_once::on_tasks(self, run, &tasks);
            }
            (Purpose::View, reply) => {
                crate::check::on_view(self, &reply);
                self.people.views.push(reply);
            }
            _ => {}
        }
    }

    fn enrolled(&mut self, m: usize, node: NodeId) {
        let machine = &mut self.machines[m];
        if machine.node.is_some_and(|known| known != node) {
            self.fail(
                "one_owner",
                format!("gw-{} was enrolled as somebody else", m + 1),
            );
            return;
        }
        machine.node = Some(node);
        let (process, power) = (machine.process, machine.power);
        if !self.is_liar(m) {
            // what the Byzantine one says is no history that is judged
            let log = self.machines[m].log();
            self.machines[m].life = self.lives.len();
            self.lives.push(EdgeTruth::new(log));
        }
        if power {
            self.queue.at(self.t, Ev::Start(m, process));
        } else {
            self.power_on(m);
        }
    }

    /// Puts what people will do into the queue, but for what is cut out.
    pub fn plan_people(&mut self) {
        for (at, deed) in crate::deed::draw(&self.plan, &mut self.dice.people) {
            let position = self.people.deeds.len();
            self.people.deeds.push(deed);
            if !self.plan.gone.deeds.contains(&position) {
                self.queue.at(self.plan.gone.when(at), Ev::Person(position));
            }
        }
    }

    /// A person does something.
    pub(crate) fn person(&mut self, position: usize) {
        if self.people.away {
            let later = self.t + 10 * crate::queue::MIN;
            self.queue.at(later, Ev::Person(position));
            return;
        }
        let deed = self.people.deeds[position];
        let (lane, sort) = crate::tell::place(&self.plan, deed);
        self.trace
            .note(self.t, lane, sort, || crate::tell::deed(&self.plan, deed));
        match deed {
            Deed::Submit(n) => self.submit(n, position),
            Deed::Cancel(n) => self.cancel(n),
            Deed::Pause(n, on) => self.pause(n, on),
            Deed::Resume(m) => self.resume(m),
            Deed::Answer(m) => self.answer(m),
            Deed::Retry(n) => self.retry(n),
            Deed::Forget(n) => {
                let (run, by) = (self.plan.runs[n].run, "somebody".to_owned());
                self.ask(Request::ForgetRun { run, by }, Purpose::Act);
            }
            Deed::AnswerThere => self.ask(Request::Waits, Purpose::Questions),
            Deed::Configure(n) => self.configure(n),
            Deed::Operate(n) => self.operate(n),
            Deed::Exchange(planned) => self.begin_exchange(planned),
            Deed::Schedule(n) => self.make_schedule(n, position),
            Deed::AskSchedule(n, act) => self.ask_schedule(n, act),
            Deed::PauseSync(m, length) => {
                self.happened(Kind::SyncPaused);
                let by = "somebody here".to_owned();
                self.ask_local(m, None, Local::PauseSync { length, by });
            }
            Deed::ResumeSync(m) => {
                let by = "somebody here".to_owned();
                self.ask_local(m, None, Local::ResumeSync { by });
            }
        }
    }

    /// An operator changes or unsets what holds where specifications say nothing: for all, for a
    /// site, or for one gateway, which may be away.
    fn configure(&mut self, n: u64) {
        let mut dice = self.dice.people.fork("setting", n);
        let machine = &self.machines[dice.below(self.machines.len() as u64) as usize];
        let scope = match (dice.below(3), machine.node, machine.labels.iter().next()) {
            (0, Some(node), _) => Scope::Node(node),
            (1, _, Some((key, value))) => Scope::Label {
                key: key.clone(),
                value: value.clone(),
            },
            _ => Scope::Fleet,
        };
        let (name, value) = match dice.below(3) {
            0 => ("max_retries", dice.below(4).to_string()),
            1 => ("backoff_duration", format!("{}s", dice.range(1, 30))),
            _ => (
                "resource_monitor_interval",
                format!("{}s", dice.range(1, 9)),
            ),
        };
        let request = Request::Configure {
            scope,
            name: name.to_owned(),
            value: (!dice.chance(250)).then_some(value),
            by: "somebody".to_owned(),
        };
        self.ask(request, Purpose::Act);
    }

    /// Somebody lets what failed of a run run again, if it is over.
    fn retry(&mut self, n: usize) {
        let run = self.plan.runs[n].run;
        if !self.people.submitted.contains(&run) {
            return;
        }
        let tasks = &self.plan.runs[n].workflow.tasks;
        let task = self.dice.people.below(tasks.len() as u64) as usize;
        let named = self.dice.people.chance(300);
        let from = named.then(|| tasks[task].id.clone());
        if named {
            // a person's word lets even what is in doubt run again
            let task = shared::ids::TaskIdx(task as u32);
            self.people.resumed.insert((run, task));
        }
        let by = "somebody".to_owned();
        self.ask(Request::Retry { run, from, by }, Purpose::Retry(run));
    }

    /// Somebody at gateway `m` answers questions.
    fn answer(&mut self, m: usize) {
        let Some(agent) = &self.machines[m].agent else {
            return;
        };
        let agent = agent.shell.agent();
        let asks = |wait: &edge_core::waits::Wait| wait.command.contains(" answer ");
        let open: Vec<_> = agent
            .waits()
            .into_iter()
            .filter(asks)
            .filter_map(|wait| Some((wait.run?, agent.find(wait.run?, &wait.task?)?)))
            .collect();
        for (run, task) in open {
            if !self.dice.people.chance(400) {
                continue;
            }
            let what = Local::Answer {
                run,
                task,
                yes: self.dice.people.chance(800),
                input: BTreeMap::new(),
                by: "somebody here".to_owned(),
            };
            self.ask_local(m, None, what);
        }
    }

    /// Somebody answers questions at the coordinator.
    fn answer_there(&mut self, waits: &[view::Wait]) {
        let asks = |wait: &&view::Wait| {
            let command = wait.command.as_deref().unwrap_or_default();
            command.contains(" answer ")
        };
        for wait in waits.iter().filter(asks) {
            let (Some(run), Some(task)) = (wait.run, wait.task.clone()) else {
                continue;
            };
            if self.dice.people.chance(200) {
                let request = Request::Answer {
                    run,
                    task,
                    yes: self.dice.people.chance(800),
                    input: BTreeMap::new(),
                    by: "somebody there".to_owned(),
                };
                self.ask(request, Purpose::Act);
            }
        }
    }

    fn submit(&mut self, n: usize, position: usize) {
        let run = &self.plan.runs[n];
        let (id, workflow) = (run.run, run.packed.clone());
        let by = "somebody".to_owned();
        let Some(m) = run.local else {
            self.people.submitted.insert(id);
            let request = Request::Submit {
                run: id,
                workflow,
                by,
                idempotency_key: Some(id.to_string()),
            };
            self.ask(request, Purpose::Submit(id));
            return;
        };
        if self.machines[m].destroyed {
            return;
        }
        if self.machines[m].agent.is_none() {
            self.queue.at(self.t + 60 * SEC, Ev::Person(position));
            return;
        }
        self.people.submitted.insert(id);
        self.happened(Kind::LocalSubmit);
        let what = Local::Submit {
            run: id,
            workflow,
            by,
        };
        self.ask_local(m, Some(id), what);
    }

    pub(crate) fn ask_local(&mut self, m: usize, run: Option<RunId>, what: Local) {
        self.people.last += 1;
        let request = self.people.last;
        self.people.local.insert(request, (m, run));
        self.tell(m, Event::Local { request, what });
    }

    /// An agent answered a local request.
    pub fn local_reply(&mut self, m: usize, request: u64, reply: LocalReply) {
        let Some((_, run)) = self.people.local.remove(&request) else {
            return;
        };
        self.trace.mark(self.t, Lane::Node(m), 11, request);
        match (run, reply) {
            (Some(run), LocalReply::Done) => {
                let life = self.machines[m].life;
                self.lives[life].promised.insert(run);
                crate::check::acknowledged_is_durable::on_local_submit(self, m, run);
            }
            (_, LocalReply::Refused(why)) => {
                self.trace.say(self.t, Lane::Node(m), || {
                    format!("local request refused: {why}")
                });
            }
            _ => {}
        }
    }

    /// The agent of `m` is gone: whoever waited for an answer submits again later.
    pub fn local_gone(&mut self, m: usize) {
        let lost: Vec<u64> = self
            .people
            .local
            .iter()
            .filter(|(_, (at, _))| *at == m)
            .map(|(request, _)| *request)
            .collect();
        for request in lost {
            let Some((_, Some(run))) = self.people.local.remove(&request) else {
                continue;
            };
            let position =
                self.people.deeds.iter().position(
                    |deed| matches!(deed, Deed::Submit(n) if self.plan.runs[*n].run == run),
                );
            if let Some(position) = position {
                self.queue.at(self.t + 60 * SEC, Ev::Person(position));
            }
        }
    }

    fn cancel(&mut self, n: usize) {
        let run = &self.plan.runs[n];
        let (id, local) = (run.run, run.local);
        if !self.people.submitted.contains(&id) {
            return;
        }
        self.happened(Kind::Cancelled);
        self.people.cancelled.insert(id);
        let by = "somebody".to_owned();
        let why = "a change of mind".to_owned();
        match local {
            Some(m) if self.dice.people.chance(500) => {
                let what = Local::Cancel { run: id, by, why };
                self.ask_local(m, None, what);
            }
            _ => self.ask(Request::Cancel { run: id, by, why }, Purpose::Act),
        }
    }

    fn pause(&mut self, n: usize, on: bool) {
        let run = &self.plan.runs[n];
        let (id, local) = (run.run, run.local);
        if !self.people.submitted.contains(&id) {
            return;
        }
        if on {
            self.happened(Kind::Paused);
        }
        let by = "somebody".to_owned();
        match local {
            Some(m) => self.ask_local(m, None, Local::Pause { run: id, on, by }),
            None => self.ask(Request::Pause { run: id, on, by }, Purpose::Act),
        }
    }

    /// Somebody at gateway `m` lets tasks run again that wait for a person.
    fn resume(&mut self, m: usize) {
        let Some(agent) = &self.machines[m].agent else {
            return;
        };
        let waiting: Vec<_> = agent
            .shell
            .agent()
            .ps(true)
            .into_iter()
            .filter(|task| task.state == "paused" || task.state == "lost")
            .map(|task| (task.run, task.index))
            .collect();
        for (run, task) in waiting {
            if !self.dice.people.chance(500) {
                continue;
            }
            self.happened(Kind::Resumed);
            self.people.resumed.insert((run, task));
            let by = "somebody".to_owned();
            self.ask_local(m, None, Local::Resume { run, task, by });
        }
    }

    /// An operator frees what is in quarantine, and gives nodes work again.
    fn tidy(&mut self, nodes: &[view::Node]) {
        for node in nodes {
            self.open_node(node);
            let by = "operator".to_owned();
            if node.state == "quarantined" {
                self.trace
                    .say(self.t, Lane::Cloud, || format!("{} is freed", node.name));
                self.ask(
                    Request::ReleaseQuarantine { node: node.id, by },
                    Purpose::Act,
                );
            }
        }
    }

    /// Whether an operator declared a gateway gone, be it that the coordinator knows that or not.
    pub(crate) fn is_declared_gone(&self, m: usize) -> bool {
        let forgotten = &self.people.forgotten;
        self.machines[m]
            .node
            .is_some_and(|node| forgotten.contains(&node))
    }

    /// An operator declares a gateway gone.
    pub(crate) fn forget_node(&mut self, m: usize) {
        let Some(node) = self.machines[m].node else {
            return;
        };
        if self.people.forgotten.insert(node) {
            self.happened(Kind::Forgotten);
        }
        crate::check::held::on_heard(self, node);
        // said again where the coordinator's store may have gone back behind it
        let by = "operator".to_owned();
        self.ask(Request::ForgetNode { node, by }, Purpose::Act);
    }
}

/// Who asks.
pub(crate) fn caller() -> cloud_core::access::Caller {
    cloud_core::access::Caller {
        token: Some("people".to_owned()),
        from: "sim".to_owned(),
    }
}
