//! An engine in memory and agents that say only what a test tells them to.

use crate::medium::{Medium, Opened};
use cloud_core::access::{Caller, Tokens};
use cloud_core::certificate::Certificate;
use cloud_core::engine::Engine;
use cloud_core::event::{Config, Conn, Input, Output, Reply, Request, RequestId};
use cloud_core::store::{AggregateId, Store};
use cloud_core::view;
use shared::directive::{Assign, Body as Wanted, Directive};
use shared::explain::Reason;
use shared::fact::{Body, End, Fact, Outcome, OutputFile, SliceState};
use shared::ids::{
    AttemptRef, BootId, Generation, Hash, Incarnation, NodeId, RunId, SliceRef, TaskIdx,
};
use shared::log::{Batch, Direction, Head};
use shared::state::TaskState;
use shared::time::{Mono, Now, Span, Stamp, Unix};
use shared::wire::{Ack, DirectiveSeal, Down, Hello, Inventory, LogId, Refusal, Up, Welcome};
use shared::workflow::{
    Action, Disconnect, Input as Needed, Matrix, OnExhausted, Output as Made, Placement, Resources,
    Retry, SideEffects, Source, Task, TriggerRule, Workflow,
};
use std::collections::BTreeMap;

pub(crate) const KEY: [u8; 32] = [7; 32];

pub(crate) fn config() -> Config {
    Config {
        seal_key: KEY,
        retention: cloud_core::event::RETENTION,
        decisions_per_run: 100,
        fold_facts: 1000,
        record: cloud_core::record::Limits::default(),
        backups: false,
        scheduler: shared::config::scheduler::Scheduler::default(),
    }
}

pub(crate) fn task(id: &str, needs: &[u32]) -> Task {
    Task {
        id: id.to_owned(),
        description: String::new(),
        action: Action::Argv(vec!["true".to_owned()]),
        env: BTreeMap::new(),
        workdir: String::new(),
        stdin: None,
        needs: needs.iter().map(|n| TaskIdx(*n)).collect(),
        inputs: needs
            .iter()
            .map(|n| Needed {
                name: format!("in{n}"),
                path: format!("in{n}"),
                source: Source::Task {
                    task: TaskIdx(*n),
                    output: 0,
                },
            })
            .collect(),
        outputs: vec![Made {
            name: format!("{id}.out"),
            path: "out".to_owned(),
        }],
        resources: Resources::default(),
        priority: 0,
        retry: Retry {
            max_attempts: 1,
            initial_interval: Span::secs(1),
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
        upward_rank: 0,
        matrix: None,
        retry_left: shared::workflow::RetryLeft::default(),
    }
}

/// On the node with this name.
pub(crate) fn on(name: &str, mut task: Task) -> Task {
    task.placement.node = Some(name.to_owned());
    task
}

pub(crate) fn output(task: TaskIdx) -> OutputFile {
    OutputFile {
        hash: Hash::of(&task.0.to_le_bytes()),
        size: 4,
    }
}

/// An agent as the test plays it.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) succeeds: Option<Incarnation>,
    pub(crate) session: u64,
    /// As in its configuration.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) conn: Conn,
    pub(crate) proof: Option<[u8; 16]>,
    pub(crate) features: u64,
    pub(crate) facts: Vec<Vec<u8>>,
    pub(crate) head: Head,
    pub(crate) directives: Head,
    pub(crate) seen: Vec<Directive>,
    pub(crate) ack: Option<Ack>,
    pub(crate) directive_seal: Option<DirectiveSeal>,
    sealing: Option<DirectiveSeal>,
    /// Of its certificate.
    pub(crate) key: u8,
    /// The authority of its certificate.
    pub(crate) issuer: u8,
}

/// A certificate of this key; that of a later key is younger.
pub(crate) fn certificate(key: u8) -> Certificate {
    Certificate {
        key: [key; 32],
        until: Unix(1_000_000 + i64::from(key)),
        authority: [1; 32],
    }
}

impl Agent {
    pub(crate) fn log(&self) -> LogId {
        LogId {
            node: self.node,
            incarnation: self.incarnation,
        }
    }

    pub(crate) fn reimage(&mut self, incarnation: u8) {
        self.incarnation = Incarnation([incarnation; 16]);
        self.facts.clear();
        self.head = Head::origin(self.node, self.incarnation, Direction::Up);
        self.directives = Head::origin(self.node, self.incarnation, Direction::Down);
        self.seen.clear();
        self.ack = None;
        self.directive_seal = None;
        self.proof = None;
    }

    /// Commits facts of its own; they are not sent yet.
    pub(crate) fn commit(&mut self, bodies: Vec<Body>) -> Batch {
        let after = self.head;
        let entries: Vec<Vec<u8>> = bodies
            .into_iter()
            .map(|body| {
                let at = Stamp {
                    boot: 1,
                    mono_ms: 1000,
                    wall: Unix(1_700_000_500_000),
                };
                let seen = self.directives.number;
                Fact { at, seen, body }.encode()
            })
            .collect();
        self.facts.extend(entries.clone());
        let batch = Batch::new(after, entries);
        self.head = batch.head();
        batch
    }

    pub(crate) fn assigns(&self) -> Vec<Assign> {
        let assign = |d: &Directive| match &d.body {
            Wanted::Assign(assign) => Some(assign.clone()),
            _ => None,
        };
        self.seen.iter().filter_map(assign).collect()
    }

    pub(crate) fn last_slice(&self) -> SliceRef {
        self.assigns().last().unwrap().slice
    }

    pub(crate) fn inventory(&self, workflow: &Workflow) -> Inventory {
        let (packed, hash) = shared::codec::pack(workflow);
        let status = |task: &TaskIdx| shared::fact::TaskStatus {
            task: *task,
            state: TaskState::Blocked,
            attempts: 0,
            outputs: Vec::new(),
        };
        Inventory {
            slices: self
                .assigns()
                .iter()
                .map(|a| SliceState {
                    slice: a.slice,
                    workflow: hash,
                    tasks: a.tasks.iter().map(status).collect(),
                })
                .collect(),
            workflows: vec![packed],
            directives: Vec::new(),
        }
    }
}

pub(crate) fn started(slice: SliceRef, task: u32, number: u32) -> Body {
    let attempt = AttemptRef {
        slice,
        task: TaskIdx(task),
        number,
    };
    Body::Started { attempt }
}

pub(crate) fn ended(slice: SliceRef, task: u32, number: u32, good: bool) -> Body {
    let task = TaskIdx(task);
    let (outcome, reason, state) = if good {
        (Outcome::Succeeded, Reason::ExitedZero, TaskState::Succeeded)
    } else {
        (Outcome::Failed, Reason::AttemptsUsedUp, TaskState::Failed)
    };
    Body::Ended {
        attempt: AttemptRef {
            slice,
            task,
            number,
        },
        end: End {
            outcome,
            reason,
            exit: Some(i32::from(!good)),
            began: None,
            outputs: if good { vec![output(task)] } else { Vec::new() },
            retry_in: None,
            task: state,
            cpu_ms: 1,
            peak_memory: 1,
        },
    }
}

/// Everything a slice does when all goes well.
pub(crate) fn all_done(assign: &Assign) -> Vec<Body> {
    let slice = assign.slice;
    let mut out = vec![Body::Accepted { slice }];
    for task in &assign.tasks {
        out.push(started(slice, task.0, 1));
        out.push(ended(slice, task.0, 1, true));
    }
    out.push(Body::SliceDone { slice });
    out
}

/// The version and the head of an aggregate, as a store has them.
pub(crate) fn head_of(store: &mut impl Store, aggregate: AggregateId) -> (u64, Vec<u8>) {
    let mut found = (0, Vec::new());
    store
        .aggregates(&mut |id, version, head| {
            if id == aggregate {
                found = (version, head.to_vec());
            }
        })
        .unwrap();
    found
}

pub(crate) struct Env {
    pub(crate) engine: Engine<Opened>,
    pub(crate) store: Medium,
    pub(crate) now: Now,
    pub(crate) agents: BTreeMap<String, Agent>,
    pub(crate) closed: Vec<Conn>,
    pub(crate) dropped: Vec<Hash>,
    pub(crate) sent: Vec<(Conn, Down)>,
    pub(crate) replies: BTreeMap<RequestId, Reply>,
    pub(crate) caller: Caller,
    pub(crate) access: Tokens,
    next: u64,
}

impl Env {
    pub(crate) fn new() -> Self {
        Self::over(Medium::new())
    }

    pub(crate) fn over(store: Medium) -> Self {
        let now = Now {
            mono: Mono(1_000_000_000),
            wall: Unix(1_700_000_000_000),
        };
        let engine = Engine::open(store.open(), config(), now, 1).unwrap();
        Self {
            engine,
            store,
            now,
            agents: BTreeMap::new(),
            closed: Vec::new(),
            dropped: Vec::new(),
            sent: Vec::new(),
            replies: BTreeMap::new(),
            caller: Caller::default(),
            access: Tokens::new(),
            next: 1,
        }
    }

    /// The coordinator's process starts again, over this store.
    pub(crate) fn restart(&mut self, store: Medium) {
        self.store = store;
        self.engine = Engine::open(self.store.open(), config(), self.now, 2).unwrap();
    }

    pub(crate) fn pass(&mut self, span: Span) {
        self.now.mono = self.now.mono + span;
        self.now.wall.0 += span.0 as i64;
        self.give(Input::Wake);
    }

    pub(crate) fn give(&mut self, input: Input) {
        self.give_all(vec![input]);
    }

    pub(crate) fn give_all(&mut self, inputs: Vec<Input>) {
        let mut outputs = Vec::new();
        self.engine
            .run(self.now, inputs, &mut |output| outputs.push(output))
            .unwrap();
        for output in outputs {
            match output {
                Output::Send { conn, message } => self.deliver(conn, message),
                Output::Close { conn, .. } => self.closed.push(conn),
                Output::Reply { id, reply } => drop(self.replies.insert(id, *reply)),
                Output::DropFiles(hashes) => self.dropped.extend(hashes),
                Output::Access(tokens) => self.access = tokens,
            }
        }
    }

    /// Agents take directives that continue their log and remember acknowledgements; nothing else.
    fn deliver(&mut self, conn: Conn, message: Down) {
        self.sent.push((conn, message.clone()));
        let Some(agent) = self.agents.values_mut().find(|a| a.conn == conn) else {
            return;
        };
        match message {
            Down::Directives(batch) => {
                let shared::log::Offer::New(from, head) = batch.offer(agent.directives) else {
                    panic!("directives do not continue: {batch:?}");
                };
                for (n, bytes) in batch.entries.iter().enumerate().skip(from) {
                    let number = batch.after.number + 1 + n as u64;
                    agent.seen.push(Directive::decode(number, bytes).unwrap());
                }
                agent.directives = head;
                agent.directive_seal = agent.sealing.filter(|s| s.head == head);
            }
            Down::DirectiveSeal(seal) => agent.sealing = Some(seal),
            Down::Ack(ack) => agent.ack = Some(ack),
            Down::Welcome(welcome) => agent.proof = Some(welcome.secret),
            _ => {}
        }
    }

    pub(crate) fn ask(&mut self, request: Request) -> Reply {
        self.next += 1;
        let id = RequestId(self.next);
        let request = Box::new(request);
        let caller = self.caller.clone();
        self.give(Input::Request {
            id,
            request,
            caller,
        });
        self.replies.remove(&id).expect("every request is answered")
    }

    pub(crate) fn enrol(&mut self, name: &str) -> NodeId {
        let token = format!("token-{name}-{}", self.next);
        let added = self.ask(Request::AddToken {
            by: String::new(),
            record: vec![1],
            id: token.clone(),
            name: None,
            replace: false,
            expires: Unix(i64::MAX),
        });
        assert_eq!(added, Reply::Done);
        let mut node = [0; 16];
        node[..name.len()].copy_from_slice(name.as_bytes());
        let node = NodeId(node);
        let enrolled = self.ask(Request::Enrol {
            token,
            node,
            name: name.to_owned(),
            labels: BTreeMap::from([("kind".to_owned(), "gateway".to_owned())]),
            certificate: certificate(1),
        });
        assert_eq!(enrolled, Reply::Enrolled(node));
        node
    }

    /// Enrols a node and brings it online.
    pub(crate) fn join(&mut self, name: &str) {
        self.install(name);
        self.hello(name).unwrap();
    }

    /// Enrols a node that has not called yet.
    pub(crate) fn install(&mut self, name: &str) {
        let node = self.enrol(name);
        let incarnation = Incarnation([1; 16]);
        let agent = Agent {
            node,
            name: name.to_owned(),
            incarnation,
            key: 1,
            issuer: 1,
            succeeds: None,
            session: 0,
            labels: BTreeMap::from([
                ("kind".to_owned(), "gateway".to_owned()),
                ("site".to_owned(), name.to_owned()),
            ]),
            conn: Conn(0),
            proof: None,
            features: shared::wire::FEATURES & !shared::wire::CONFIGURE,
            facts: Vec::new(),
            head: Head::origin(node, incarnation, Direction::Up),
            directives: Head::origin(node, incarnation, Direction::Down),
            seen: Vec::new(),
            ack: None,
            directive_seal: None,
            sealing: None,
        };
        self.agents.insert(name.to_owned(), agent);
    }

    pub(crate) fn agent(&mut self, name: &str) -> &mut Agent {
        self.agents.get_mut(name).unwrap()
    }

    pub(crate) fn conn(&mut self) -> Conn {
        self.next += 1;
        Conn(self.next)
    }

    /// Dials as this agent; the answer, or none if it is not there yet.
    pub(crate) fn dial(&mut self, agent: &Agent, conn: Conn) -> Option<Result<Welcome, Refusal>> {
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            features: agent.features,
            version: "test".to_owned(),
            node: agent.node,
            name: agent.name.clone(),
            incarnation: agent.incarnation,
            boot: BootId([1; 16]),
            session: agent.session,
            proof: agent.proof,
            facts_first: 1,
            facts: agent.head,
            directives: agent.directives,
            ack: agent.ack,
            generation: Generation(0),
            now: Now::default(),
            clock_trusted: true,
            labels: agent.labels.clone(),
            capacity: Resources {
                cpu_milli: 4000,
                ..Resources::default()
            },
            succeeds: agent.succeeds,
            directive_seal: agent.directive_seal,
        };
        let mut secret = [9; 16];
        secret[..8].copy_from_slice(&conn.0.to_le_bytes());
        self.give(Input::Hello {
            conn,
            node: agent.node,
            name: agent.name.clone(),
            certificate: Certificate {
                authority: [agent.issuer; 32],
                ..certificate(agent.key)
            },
            hello: Box::new(hello),
            secret,
        });
        self.answer(conn)
    }

    pub(crate) fn answer(&self, conn: Conn) -> Option<Result<Welcome, Refusal>> {
        self.sent.iter().rev().find_map(|(c, down)| match down {
            Down::Welcome(welcome) if *c == conn => Some(Ok((**welcome).clone())),
            Down::Refuse(refuse) if *c == conn => Some(Err(refuse.reason)),
            _ => None,
        })
    }

    pub(crate) fn hello(&mut self, name: &str) -> Result<Welcome, Refusal> {
        let conn = self.conn();
        let agent = self.agent(name);
        agent.session += 1;
        agent.conn = conn;
        let agent = agent.clone();
        self.dial(&agent, conn).expect("an answer at once")
    }

    pub(crate) fn hang_up(&mut self, name: &str) {
        let conn = self.agent(name).conn;
        self.give(Input::Gone {
            conn,
            why: "cut".to_owned(),
        });
    }

    pub(crate) fn say(&mut self, name: &str, message: Up) {
        let conn = self.agent(name).conn;
        self.give(Input::Heard { conn, message });
    }

    /// Commits facts and sends them.
    pub(crate) fn tell(&mut self, name: &str, bodies: Vec<Body>) {
        let batch = self.agent(name).commit(bodies);
        self.say(name, Up::Facts(batch));
    }

    /// Sends all facts behind `after` again.
    /// A gateway accepts the slice that it was given last, and starts its first task.
    pub(crate) fn takes_up(&mut self, name: &str) -> SliceRef {
        let slice = self.agent(name).last_slice();
        self.tell(name, vec![Body::Accepted { slice }, started(slice, 0, 1)]);
        slice
    }

    pub(crate) fn resend(&mut self, name: &str, after: Head) {
        let agent = self.agent(name);
        let entries = agent.facts[after.number as usize..].to_vec();
        self.say(name, Up::Facts(Batch::new(after, entries)));
    }

    pub(crate) fn submit(&mut self, tasks: Vec<Task>) -> RunId {
        self.submit_with(tasks, Vec::new())
    }

    pub(crate) fn submit_with(&mut self, tasks: Vec<Task>, matrices: Vec<Matrix>) -> RunId {
        self.next += 1;
        let mut run = RunId([0xaa; 16]);
        run.0[..8].copy_from_slice(&self.next.to_le_bytes());
        let reply = self.ask(Request::Submit {
            run,
            workflow: shared::codec::pack(&Workflow {
                matrices,
                ..workflow(tasks)
            })
            .0,
            by: "ann".to_owned(),
            idempotency_key: None,
        });
        assert_eq!(reply, Reply::Submitted(run));
        run
    }

    pub(crate) fn run(&mut self, run: RunId) -> view::Run {
        match self.ask(Request::Run { run }) {
            Reply::Run(run) => *run,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn task(&mut self, run: RunId, task: &str) -> view::Task {
        let task = task.to_owned();
        match self.ask(Request::Task { run, task }) {
            Reply::Task(task) => *task,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn node(&mut self, name: &str) -> view::Node {
        let name = name.to_owned();
        match self.ask(Request::Node { name }) {
            Reply::Node(node) => *node,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn waits(&mut self) -> Vec<String> {
        match self.ask(Request::Waits) {
            Reply::Waits(waits) => waits.into_iter().map(|w| w.what).collect(),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn workflow(tasks: Vec<Task>) -> Workflow {
    Workflow {
        format: shared::workflow::FORMAT,
        name: "test".to_owned(),
        description: String::new(),
        labels: BTreeMap::new(),
        params: BTreeMap::new(),
        tasks,
        matrices: Vec::new(),
        schedule: None,
    }
}
