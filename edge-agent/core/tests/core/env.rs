//! One world for all tests of the core: a driver on a store in memory, an executor that does what
//! it is told, and a coordinator that keeps what it hears.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use edge_core::driver::{Driver, DriverError};
use edge_core::event::{Action, Boot, Config, Event, Launch, Local, LocalReply, ProcessEnd};
use edge_core::memory::{Disk, MemStore};
use edge_core::view;
use shared::codec;
use shared::directive::{Assign, Body as Wish, Directive, Upstream};
use shared::explain::Reason;
use shared::fact::{Acknowledged, Body, Fact, OutputFile};
use shared::ids::{
    AttemptRef, BootId, Epoch, Generation, Hash, Incarnation, NodeId, RunId, SliceRef, TaskIdx,
};
use shared::log::{Batch, Direction, Head};
use shared::time::{Mono, Now, Span, Stamp, Unix};
use shared::wire::{Ack, Down, Up, Welcome};
use shared::workflow::{
    Disconnect, FORMAT, Input, OnExhausted, Output, Placement, Resources, Retry, SideEffects,
    Source, Task, TriggerRule, Workflow,
};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const NODE: NodeId = NodeId([1; 16]);
pub(crate) const LIFE: Incarnation = Incarnation([2; 16]);
pub(crate) const RUN: RunId = RunId([7; 16]);

pub(crate) fn config() -> Config {
    Config {
        node: NODE,
        incarnation: LIFE,
        succeeds: None,
        name: "gw-7".to_owned(),
        labels: BTreeMap::new(),
        capacity: Resources {
            cpu_milli: 2000,
            memory: 1 << 30,
            ..Resources::default()
        },
        slots: 2,
        redial: (Span(1000), Span(60_000)),
        snapshot_interval: Span::secs(10),
        fact_window: Span::secs(3600),
        inventory_part: shared::limits::INVENTORY_PART_BYTES,
        has_coordinator: true,
        version: "test".to_owned(),
        scheduler: shared::config::scheduler::Scheduler::default(),
    }
}

/// A task that needs others, with one output named like it.
pub(crate) fn task(id: &str, needs: &[u32]) -> Task {
    let input = |need: &u32| Input {
        name: format!("from{need}"),
        path: format!("from{need}"),
        source: Source::Task {
            task: TaskIdx(*need),
            output: 0,
        },
    };
    Task {
        id: id.to_owned(),
        description: String::new(),
        action: shared::workflow::Action::Argv(vec!["true".to_owned()]),
        env: BTreeMap::new(),
        workdir: String::new(),
        stdin: None,
        needs: needs.iter().copied().map(TaskIdx).collect(),
        inputs: needs.iter().map(input).collect(),
        outputs: vec![Output {
            name: id.to_owned(),
            path: id.to_owned(),
        }],
        resources: Resources {
            cpu_milli: 1000,
            ..Resources::default()
        },
        priority: 0,
        retry: Retry {
            max_attempts: 3,
            initial_interval: Span::secs(10),
            backoff_milli: 2000,
            max_interval: Span::secs(60),
            jitter_milli: 0,
            retry_on: Vec::new(),
            no_retry_on: Vec::new(),
            on_exhausted: OnExhausted::Fail,
        },
        timeout: None,
        deadline: None,
        kill_grace: Span::secs(5),
        crash_limit: 3,
        side_effects: SideEffects::None,
        when: None,
        trigger_rule: TriggerRule::AllSuccess,
        placement: Placement::default(),
        disconnect: Disconnect::default(),
        batch: None,
        upward_rank: 1,
        matrix: None,
        retry_left: shared::workflow::RetryLeft::default(),
    }
}

pub(crate) fn workflow(tasks: Vec<Task>) -> Workflow {
    Workflow {
        format: FORMAT,
        name: "flow".to_owned(),
        description: String::new(),
        labels: BTreeMap::new(),
        params: BTreeMap::new(),
        tasks,
        matrices: Vec::new(),
        schedule: None,
    }
}

pub(crate) fn slice(number: u32, epoch: u64) -> SliceRef {
    SliceRef {
        run: RUN,
        slice: number,
        epoch: Epoch(epoch),
    }
}

pub(crate) fn assign(id: SliceRef, flow: &Workflow, tasks: &[u32]) -> Assign {
    let (packed, hash) = codec::pack(flow);
    Assign {
        slice: id,
        workflow_hash: hash,
        workflow: Some(packed),
        tasks: tasks.iter().copied().map(TaskIdx).collect(),
        attempts_used: Vec::new(),
        done: Vec::new(),
        upstream: Vec::new(),
        paused: false,
    }
}

pub(crate) fn file(n: u8) -> OutputFile {
    OutputFile {
        hash: Hash([n; 32]),
        size: 10,
    }
}

pub(crate) fn upstream(task: u32, state: shared::state::TaskState, files: &[u8]) -> Upstream {
    Upstream {
        task: TaskIdx(task),
        state,
        outputs: files.iter().copied().map(file).collect(),
    }
}

pub(crate) struct Env {
    pub(crate) disk: Disk,
    pub(crate) config: Config,
    pub(crate) driver: Driver<MemStore>,
    pub(crate) now: Now,
    pub(crate) boot: BootId,
    /// Of its random numbers.
    pub(crate) seed: u64,
    /// Attempts that the executor holds, in the order they came.
    pub(crate) held: Vec<Launch>,
    /// Attempts whose directory exists.
    pub(crate) directories: BTreeSet<AttemptRef>,
    pub(crate) actions: Vec<Action>,
    pub(crate) session: Option<u64>,
    /// What the coordinator has.
    pub(crate) directives: Head,
    pub(crate) replies: BTreeMap<u64, LocalReply>,
}

impl Env {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        let disk = Disk::new(NODE, LIFE);
        let mut env = Self::on(disk, config);
        env.start(false);
        env
    }

    pub(crate) fn on(disk: Disk, config: Config) -> Self {
        let driver = Driver::open(MemStore::new(disk.clone()), config.clone()).unwrap();
        Self {
            disk,
            config,
            driver,
            now: Now {
                mono: Mono(1_000_000_000),
                wall: Unix(1_700_000_000_000),
            },
            boot: BootId([1; 16]),
            seed: 42,
            held: Vec::new(),
            directories: BTreeSet::new(),
            actions: Vec::new(),
            session: None,
            directives: Head::origin(NODE, LIFE, Direction::Down),
            replies: BTreeMap::new(),
        }
    }

    pub(crate) fn boot_event(&self, clean: bool) -> Event {
        Event::Boot(Boot {
            boot: self.boot,
            seed: self.seed,
            directories: self.directories.clone(),
            alive: self.held.iter().map(|launch| launch.attempt).collect(),
            ended: Vec::new(),
            clock_trusted: true,
            clean_stop: clean,
        })
    }

    pub(crate) fn start(&mut self, clean: bool) {
        let boot = self.boot_event(clean);
        self.run(vec![boot]).unwrap();
    }

    /// The agent dies; its processes with it.
    pub(crate) fn crash(&mut self) {
        self.held.clear();
        self.session = None;
        self.actions.clear();
        self.driver = Driver::open(MemStore::new(self.disk.clone()), self.config.clone()).unwrap();
        self.start(false);
    }

    /// The machine loses its power.
    pub(crate) fn power_cut(&mut self) {
        self.boot.0[0] += 1;
        self.now.mono = Mono(1_000_000_000);
        self.crash();
    }

    pub(crate) fn run(&mut self, events: Vec<Event>) -> Result<(), DriverError> {
        let mut actions = Vec::new();
        let result = self
            .driver
            .run(self.now, events, &mut |action| actions.push(action));
        for action in actions {
            match &action {
                Action::Begin(launch) => {
                    self.held.push(launch.clone());
                    if !launch.queue {
                        self.directories.insert(launch.attempt);
                    }
                }
                Action::Dial { session } => self.session = Some(*session),
                Action::Reply { request, reply } => {
                    self.replies.insert(*request, reply.clone());
                }
                _ => {}
            }
            self.actions.push(action);
        }
        result
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.run(vec![event]).unwrap();
    }

    pub(crate) fn stamp(&self) -> Stamp {
        let boot = self.driver.agent().state().boots;
        Stamp {
            boot,
            mono_ms: self.now.mono.0 / 1_000_000,
            wall: self.now.wall,
        }
    }

    /// Time passes, with every wake-up in between.
    pub(crate) fn pass(&mut self, span: Span) {
        let end = self.now.mono + span;
        while let Some(wake) = self.driver.next_wakeup().filter(|wake| *wake <= end) {
            let ahead = wake - self.now.mono;
            self.now.wall.0 += ahead.0 as i64;
            self.now.mono = self.now.mono.max(wake);
            self.event(Event::Wake);
        }
        self.now.wall.0 += (end - self.now.mono).0 as i64;
        self.now.mono = end;
    }

    pub(crate) fn process_end(
        &self,
        attempt: AttemptRef,
        exit: i32,
        outputs: Vec<OutputFile>,
    ) -> ProcessEnd {
        ProcessEnd {
            attempt,
            began: Some(self.stamp()),
            exit: Some(exit),
            reason: if exit == 0 {
                Reason::ExitedZero
            } else {
                Reason::ExitedNonzero
            },
            text: String::new(),
            outputs,
            cpu_ms: 1,
            peak_memory: 1,
        }
    }

    /// The held attempt of a task ends.
    pub(crate) fn end(&mut self, id: &str, exit: i32) {
        let at = self.held.iter().position(|launch| launch.task.id == id);
        let launch = self
            .held
            .remove(at.unwrap_or_else(|| panic!("{id} does not run")));
        let n = launch.attempt.task.0 as u8 + 100;
        let outputs = if exit == 0 { vec![file(n)] } else { Vec::new() };
        let end = self.process_end(launch.attempt, exit, outputs);
        self.event(Event::Ended(end));
    }

    /// How often a file was to be brought.
    pub(crate) fn uploads(&self) -> usize {
        let upload = |action: &&Action| matches!(action, Action::Upload { .. });
        self.actions.iter().filter(upload).count()
    }

    /// A stopped attempt is gone; one that waited never began.
    pub(crate) fn gone(&mut self, id: &str) {
        let at = self
            .held
            .iter()
            .position(|launch| launch.task.id == id)
            .unwrap();
        let launch = self.held.remove(at);
        let mut end = self.process_end(launch.attempt, -15, Vec::new());
        end.reason = Reason::Signalled;
        if launch.queue {
            (end.reason, end.began, end.exit) = (Reason::NeverBegan, None, None);
        }
        self.event(Event::Ended(end));
    }

    pub(crate) fn local(&mut self, request: u64, what: Local) -> LocalReply {
        self.event(Event::Local { request, what });
        self.replies
            .remove(&request)
            .expect("a reply after the commit")
    }

    pub(crate) fn submit(&mut self, flow: &Workflow) {
        let workflow = codec::pack(flow).0;
        let what = Local::Submit {
            run: RUN,
            workflow,
            by: "ann".to_owned(),
        };
        assert_eq!(self.local(1, what), LocalReply::Done);
    }

    /// Joins the link: dial, hello, welcome from a coordinator that has `facts`.
    pub(crate) fn join(&mut self, facts: Head) {
        self.join_as(facts, |_| {});
    }

    /// Joins the link with a welcome that is changed before, once it dials.
    pub(crate) fn join_as(&mut self, facts: Head, change: impl FnOnce(&mut Welcome)) {
        while self.driver.agent().status().link == "offline" {
            self.pass(Span(100));
        }
        let session = self.session.expect("it dials");
        self.event(Event::Linked { session });
        let mut welcome = Welcome {
            protocol: 1,
            features: 0,
            session,
            generation: Generation(5),
            secret: [3; 16],
            facts: Acknowledged {
                head: facts,
                safe: 0,
            },
            directives: self.directives,
            want_inventory: false,
            now: self.now.wall,
        };
        change(&mut welcome);
        self.hear(Down::Welcome(Box::new(welcome)));
    }

    pub(crate) fn hear(&mut self, message: Down) {
        let session = self.session.unwrap();
        self.event(Event::Heard { session, message });
    }

    pub(crate) fn ack(&mut self, head: Head) {
        let (generation, seal) = (Generation(5), [0; 32]);
        self.hear(Down::Ack(Ack {
            generation,
            head,
            seal,
            safe: 0,
        }));
    }

    /// The coordinator writes directives.
    pub(crate) fn tell(&mut self, wishes: Vec<Wish>) {
        let (at, generation) = (self.now.wall, Generation(5));
        let encode = |body| {
            Directive {
                at,
                generation,
                body,
            }
            .encode()
        };
        let batch = Batch::new(self.directives, wishes.into_iter().map(encode).collect());
        self.directives = batch.head();
        self.hear(Down::Directives(batch));
    }

    /// Links up with a coordinator that has nothing yet, and assigns a slice.
    pub(crate) fn assigned(&mut self, wish: Assign) {
        self.join(Head::origin(NODE, LIFE, Direction::Up));
        self.tell(vec![Wish::Assign(wish)]);
    }

    pub(crate) fn facts(&self) -> Vec<Body> {
        let decode = |(n, bytes): (u64, Vec<u8>)| Fact::decode(n, &bytes).unwrap().body;
        self.disk.facts().into_iter().map(decode).collect()
    }

    pub(crate) fn sent(&self) -> Vec<&Up> {
        self.actions
            .iter()
            .filter_map(|action| match action {
                Action::Send { message, .. } => Some(message),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn stopped(&self) -> usize {
        self.actions
            .iter()
            .filter(|action| matches!(action, Action::Stop { .. }))
            .count()
    }

    /// `id=state` of every task, in order.
    pub(crate) fn states(&self) -> String {
        let tasks: Vec<view::Task> = self.driver.agent().ps(true);
        let text: Vec<_> = tasks
            .iter()
            .map(|task| format!("{}={}", task.task, task.state))
            .collect();
        text.join(" ")
    }

    pub(crate) fn held_ids(&self) -> String {
        let ids: Vec<_> = self
            .held
            .iter()
            .map(|launch| launch.task.id.as_str())
            .collect();
        ids.join(" ")
    }

    pub(crate) fn reason(&self, id: &str) -> String {
        let tasks = self.driver.agent().ps(true);
        tasks
            .into_iter()
            .find(|task| task.task == id)
            .map(|task| task.reason)
            .unwrap_or_default()
    }

    /// What a fresh start would load is what is in memory.
    pub(crate) fn check_replay(&self) {
        let again = Driver::open(MemStore::new(self.disk.copy()), self.config.clone()).unwrap();
        let of = |driver: &Driver<MemStore>| driver.agent().state().all_awake();
        let (live, replayed) = (of(&self.driver), of(&again));
        if live.facts == replayed.facts && live.directives == replayed.directives {
            let (live, replayed) = (format!("{live:#?}"), format!("{replayed:#?}"));
            let before: Vec<_> = live.lines().zip(replayed.lines()).collect();
            if let Some(at) = before.iter().position(|(one, other)| one != other) {
                panic!("replay differs: {:#?}", &before[at.saturating_sub(12)..=at]);
            }
        }
    }
}
