//! What decoded messages do behind the decoder: a coordinator's engine hears a node, an agent hears
//! a coordinator. Both are real, on a store in memory, and know a run.

use super::variant;
use crate::first_release::Sample;
use crate::samples::{self, LIFE, NODE};
use crate::target::{Bound, Form, Target, Verdict, class};
use cloud_core::access::Caller;
use cloud_core::certificate::Certificate;
use cloud_core::engine::Engine;
use cloud_core::event::{Config, Conn, Input, Output, Request, RequestId};
use cloud_core::memory::MemStore;
use cloud_core::store::Store as _;
use edge_core::driver::Driver;
use edge_core::event::{Action, Boot, Event};
use edge_core::memory::{Disk, MemStore as EdgeStore};
use edge_core::store::Store;
use shared::codec;
use shared::config::scheduler::Scheduler;
use shared::directive::{Assign, Body as Wish, Directive};
use shared::explain::Reason;
use shared::fact::{Acknowledged, Body, End, Fact, Outcome, OutputFile, SliceState};
use shared::ids::{AttemptRef, BootId, Generation, RunId};
use shared::log::{Batch, Direction, Head};
use shared::state::TaskState;
use shared::time::{Mono, Now, Span, Stamp, Unix};
use shared::wire::{Down, Hello, LogId, Up, Welcome};
use shared::workflow::Resources;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "engine-facts",
        fed_by: "a node: entries that continue its log, folded by the engine",
        form: Form::Bytes,
        bound: Bound::new(256, 32 << 10).within(5),
        cost: 10,
        words: &[],
        seeds: told_facts,
        check: check_engine_facts,
    },
    Target {
        name: "engine-up",
        fed_by: "a node: messages of its session, and hellos",
        form: Form::Bytes,
        bound: Bound::new(256, 64 << 10).within(5),
        cost: 10,
        words: &[],
        seeds: || samples::up().iter().map(codec::encode).collect(),
        check: check_engine_up,
    },
    Target {
        name: "agent-directives",
        fed_by: "the coordinator: entries that continue its log, decided on by the agent",
        form: Form::Bytes,
        bound: Bound::new(256, 32 << 10).within(5),
        cost: 10,
        words: &[],
        seeds: told_directives,
        check: check_agent_directives,
    },
    Target {
        name: "agent-down",
        fed_by: "the coordinator: messages of a session",
        form: Form::Bytes,
        bound: Bound::new(256, 32 << 10).within(5),
        cost: 10,
        words: &[],
        seeds: || samples::down().iter().map(codec::encode).collect(),
        check: check_agent_down,
    },
];

/// Lists of entries: each alone, all, and some in another order.
fn lists(entries: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<Vec<u8>>> = entries.iter().map(|entry| vec![entry.clone()]).collect();
    all.push(entries.to_vec());
    all.push(entries.iter().rev().cloned().collect());
    all.iter().map(codec::encode).collect()
}

/// Facts about the slices that the coordinator assigns, beside those of all kinds.
fn told_facts() -> Vec<Vec<u8>> {
    let (assigned, log) = (
        RefCell::new(Vec::new()),
        LogId {
            node: NODE,
            incarnation: LIFE,
        },
    );
    let entries = coordinator().and_then(|mut store| {
        let entries = store.directives(log, 0, 1000, 8 << 20);
        entries.map_err(|error| error.to_string())
    });
    for entry in entries.expect("a coordinator that assigns") {
        if let Ok(Directive {
            body: Wish::Assign(assign),
            ..
        }) = Directive::decode(entry.head.number, &entry.bytes)
        {
            assigned.borrow_mut().push(assign);
        }
    }
    let at = Stamp {
        boot: 1,
        mono_ms: 5000,
        wall: NOW.wall,
    };
    let mut all = lists(&samples::facts());
    for assign in assigned.into_inner() {
        let fact = |body| Fact { at, seen: 1, body }.encode();
        all.push(codec::encode(
            &played(&assign).into_iter().map(fact).collect::<Vec<_>>(),
        ));
    }
    all
}

/// What a node tells of a slice when all goes well.
fn played(assign: &Assign) -> Vec<Body> {
    let slice = assign.slice;
    let mut all = vec![Body::Accepted { slice }];
    for task in &assign.tasks {
        let attempt = AttemptRef {
            slice,
            task: *task,
            number: 1,
        };
        let outputs = vec![OutputFile {
            hash: samples::NOTHING,
            size: 4,
        }];
        all.push(Body::Started { attempt });
        all.push(Body::Ended {
            attempt,
            end: End {
                outcome: Outcome::Succeeded,
                reason: Reason::ExitedZero,
                exit: Some(0),
                began: None,
                outputs: outputs.clone(),
                retry_in: None,
                task: TaskState::Succeeded,
                cpu_ms: 1,
                peak_memory: 1,
            },
        });
    }
    all.push(Body::SliceDone { slice });
    all.push(Body::Reset {
        from: 1,
        to: all.len() as u64,
        why: "lost".to_owned(),
        slices: vec![SliceState {
            slice,
            workflow: assign.workflow_hash,
            tasks: Vec::new(),
        }],
    });
    all
}

/// An assignment before each other directive, beside those of all kinds.
fn told_directives() -> Vec<Vec<u8>> {
    let entries = samples::directives();
    let is_whole = |entry: &&Vec<u8>| {
        let told = Directive::decode(1, entry).map(|told| told.body);
        matches!(told, Ok(Wish::Assign(assign)) if assign.workflow.is_some())
    };
    let assign = entries.iter().find(is_whole).cloned();
    let assign = assign.expect("an assignment with its workflow");
    let both = entries
        .iter()
        .map(|entry| codec::encode(&vec![&assign, entry]));
    let mut all = lists(&entries);
    all.extend(both);
    all
}

/// Rows and marks that an agent wrote which was assigned a slice.
pub(super) fn agent_written() -> Result<Vec<(bool, String, Vec<u8>)>, String> {
    let disk = Disk::new(NODE, LIFE);
    let mut agent = Agent::start(disk.clone())?;
    agent.join()?;
    let entries = samples::directives();
    let batch = Batch::new(Head::origin(NODE, LIFE, Direction::Down), entries);
    agent.hear(Down::Directives(batch))?;
    agent.pass(Span::secs(60))?;
    let mut store = EdgeStore::new(disk);
    let loaded = store.load().map_err(|error| error.to_string())?;
    let marks = loaded.marks.into_iter();
    let mut all: Vec<_> = marks.map(|(name, value)| (false, name, value)).collect();
    let each = &mut |name: &str, value: &[u8]| all.push((true, name.to_owned(), value.to_vec()));
    store
        .each_row("", each)
        .map_err(|error| error.to_string())?;
    Ok(all)
}

pub(super) const NOW: Now = Now {
    mono: Mono(1_000_000_000),
    wall: Unix(1_790_000_200_000),
};
const CONN: Conn = Conn(1);

pub(super) fn engine_config() -> Config {
    Config {
        seal_key: [7; 32],
        retention: cloud_core::event::RETENTION,
        decisions_per_run: 100,
        fold_facts: 1000,
        record: cloud_core::record::Limits::default(),
        backups: false,
        scheduler: Scheduler::default(),
    }
}

fn certificate() -> Certificate {
    Certificate {
        key: [1; 32],
        until: Unix(1_900_000_000_000),
        authority: [1; 32],
    }
}

fn give(engine: &mut Engine<MemStore>, now: Now, input: Input) -> Result<Vec<Output>, String> {
    let mut out = Vec::new();
    let ran = engine.run(now, vec![input], &mut |output| out.push(output));
    ran.map_err(|error| format!("the engine ends: {error}"))?;
    Ok(out)
}

pub(super) fn ask(engine: &mut Engine<MemStore>, request: Request) -> Result<Vec<Output>, String> {
    let input = Input::Request {
        id: RequestId(1),
        request: Box::new(request),
        caller: Caller::default(),
    };
    give(engine, NOW, input)
}

fn hello() -> Hello {
    let known = samples::old().into_iter().find_map(|sample| match sample {
        Sample::Up(Up::Hello(hello)) => Some(*hello),
        _ => None,
    });
    let mut hello = known.expect("the first release said hello");
    hello.features = shared::wire::FEATURES;
    hello.facts_first = 1;
    hello.facts = Head::origin(NODE, LIFE, Direction::Up);
    hello.directives = Head::origin(NODE, LIFE, Direction::Down);
    (hello.ack, hello.succeeds, hello.directive_seal) = (None, None, None);
    hello.generation = Generation(0);
    hello.proof = None;
    hello
}

fn said_hello(engine: &mut Engine<MemStore>, hello: Hello) -> Result<Vec<Output>, String> {
    let input = Input::Hello {
        conn: CONN,
        node: NODE,
        name: "gw-7".to_owned(),
        certificate: certificate(),
        hello: Box::new(hello),
        secret: [9; 16],
    };
    give(engine, NOW, input)
}

/// A coordinator that has a node and a run; and one whose run was told by the node.
pub(super) fn coordinator() -> Result<MemStore, String> {
    let store = MemStore::new();
    let mut engine =
        Engine::open(store.clone(), engine_config(), NOW, 1).map_err(|error| error.to_string())?;
    ask(
        &mut engine,
        Request::AddToken {
            record: vec![1],
            id: "t".to_owned(),
            name: None,
            replace: false,
            expires: Unix(i64::MAX),
            by: "ana".to_owned(),
        },
    )?;
    ask(
        &mut engine,
        Request::Enrol {
            token: "t".to_owned(),
            node: NODE,
            name: "gw-7".to_owned(),
            labels: BTreeMap::new(),
            certificate: certificate(),
        },
    )?;
    said_hello(&mut engine, hello())?;
    for (n, workflow) in (3_u8..).zip(samples::workflows()) {
        if workflow.schedule.is_some() {
            continue;
        }
        let submit = Request::Submit {
            run: RunId([n; 16]),
            workflow: codec::pack(&workflow).0,
            by: "ana".to_owned(),
            idempotency_key: None,
        };
        ask(&mut engine, submit)?;
    }
    let mut schedule = samples::compiled(samples::SPEC);
    if let Some(workflow) = schedule.take() {
        ask(
            &mut engine,
            Request::CreateSchedule {
                schedule: shared::ids::ScheduleId([4; 16]),
                name: workflow.name.clone(),
                workflow: codec::pack(&workflow).0,
                node: Some("gw-7".to_owned()),
                replace: false,
                by: "ana".to_owned(),
            },
        )?;
    }
    Ok(store)
}

thread_local! {
    static COORDINATOR: RefCell<Option<MemStore>> = const { RefCell::new(None) };
    static AGENT: RefCell<Option<Disk>> = const { RefCell::new(None) };
}

/// That coordinator once more, with a session of its node.
pub(super) fn with_engine(
    work: impl FnOnce(&mut Engine<MemStore>, &mut Vec<Output>) -> Verdict,
) -> Verdict {
    let known = COORDINATOR.with_borrow_mut(|known| match known {
        Some(store) => Ok(store.image()),
        None => coordinator().map(|store| known.insert(store).image()),
    })?;
    let mut engine =
        Engine::open(known.clone(), engine_config(), NOW, 2).map_err(|error| error.to_string())?;
    let mut out = said_hello(&mut engine, hello())?;
    let said = work(&mut engine, &mut out)?;
    let later = Now {
        mono: NOW.mono + Span::secs(100),
        wall: Unix(NOW.wall.0 + 100_000),
    };
    give(&mut engine, later, Input::Wake)?;
    for request in [
        Request::Nodes,
        Request::Waits,
        Request::Runs { state: None },
    ] {
        ask(&mut engine, request)?;
    }
    // What it wrote is what it starts from.
    Engine::open(known.image(), engine_config(), later, 3)
        .map_err(|error| format!("its own store cannot be opened: {error}"))?;
    Ok(said)
}

fn sent(out: &[Output]) -> String {
    let mut kinds = BTreeSet::new();
    for output in out {
        kinds.insert(match output {
            Output::Send { message, .. } => variant(message),
            other => variant(other),
        });
    }
    format!("{kinds:?}")
}

fn check_engine_facts(input: &[u8]) -> Verdict {
    let entries = match codec::decode::<Vec<Vec<u8>>>(input) {
        Ok(entries) => entries,
        Err(error) => return Ok(class(&error)),
    };
    with_engine(|engine, _| {
        let batch = Batch::new(Head::origin(NODE, LIFE, Direction::Up), entries);
        let message = Up::Facts(batch);
        let mut out = give(
            engine,
            NOW,
            Input::Heard {
                conn: CONN,
                message,
            },
        )?;
        out.extend(give(engine, NOW, Input::Wake)?);
        let conflicts = ask(engine, Request::Conflicts { run: None })?;
        Ok(format!("ok {} {:?}", sent(&out), conflicts.len()))
    })
}

fn check_engine_up(input: &[u8]) -> Verdict {
    let message = match codec::decode::<Up>(input) {
        Ok(message) => message,
        Err(error) => return Ok(class(&error)),
    };
    with_engine(|engine, _| {
        let kind = variant(&message);
        let out = match message {
            Up::Hello(hello) => said_hello(engine, *hello)?,
            Up::InventoryPart(mut part) => {
                // as if this session had asked for it
                part.session = 1007;
                let message = Up::InventoryPart(part);
                give(
                    engine,
                    NOW,
                    Input::Heard {
                        conn: CONN,
                        message,
                    },
                )?
            }
            message => give(
                engine,
                NOW,
                Input::Heard {
                    conn: CONN,
                    message,
                },
            )?,
        };
        Ok(format!("ok {kind} {}", sent(&out)))
    })
}

pub(super) fn agent_config() -> edge_core::event::Config {
    edge_core::event::Config {
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
        scheduler: Scheduler::default(),
    }
}

/// An agent with a session.
pub(super) struct Agent<S: Store> {
    pub(super) driver: Driver<S>,
    now: Now,
    session: u64,
    actions: Vec<Action>,
}

impl Agent<EdgeStore> {
    fn start(disk: Disk) -> Result<Self, String> {
        let driver = Driver::open(EdgeStore::new(disk), agent_config());
        Self::boot(driver.map_err(|error| error.to_string())?)
    }
}

impl<S: Store> Agent<S> {
    pub(super) fn boot(driver: Driver<S>) -> Result<Self, String> {
        let mut agent = Self {
            driver,
            now: NOW,
            session: 0,
            actions: Vec::new(),
        };
        agent.event(Event::Boot(Boot {
            boot: BootId([1; 16]),
            seed: 42,
            directories: BTreeSet::new(),
            alive: BTreeSet::new(),
            ended: Vec::new(),
            clock_trusted: true,
            clean_stop: false,
        }))?;
        Ok(agent)
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        let Self {
            driver,
            now,
            session,
            actions,
        } = self;
        let ran = driver.run(*now, vec![event], &mut |action| {
            if let Action::Dial { session: number } = &action {
                *session = *number;
            }
            actions.push(action);
        });
        ran.map_err(|error| format!("the agent ends: {error}"))
    }

    pub(super) fn pass(&mut self, span: Span) -> Result<(), String> {
        let end = self.now.mono + span;
        for _ in 0..200 {
            let Some(wake) = self.driver.next_wakeup().filter(|wake| *wake <= end) else {
                break;
            };
            self.now.mono = self.now.mono.max(wake);
            self.event(Event::Wake)?;
        }
        self.now.mono = end;
        Ok(())
    }

    pub(super) fn join(&mut self) -> Result<(), String> {
        for _ in 0..100 {
            if self.session > 0 {
                break;
            }
            self.pass(Span(1000))?;
        }
        let session = self.session;
        self.event(Event::Linked { session })?;
        let welcome = Welcome {
            protocol: 1,
            features: shared::wire::FEATURES,
            session,
            generation: Generation(1_790_000_000),
            secret: [3; 16],
            facts: Acknowledged {
                head: Head::origin(NODE, LIFE, Direction::Up),
                safe: 0,
            },
            directives: Head::origin(NODE, LIFE, Direction::Down),
            want_inventory: true,
            now: NOW.wall,
        };
        self.hear(Down::Welcome(Box::new(welcome)))
    }

    pub(super) fn hear(&mut self, message: Down) -> Result<(), String> {
        let session = self.session;
        self.event(Event::Heard { session, message })
    }
}

/// An agent with a session, on a disk that a start can read afterwards.
fn with_agent(work: impl FnOnce(&mut Agent<EdgeStore>) -> Verdict) -> Verdict {
    let disk = AGENT.with_borrow_mut(|known| {
        let new = || Disk::new(NODE, LIFE);
        known.get_or_insert_with(new).copy()
    });
    let mut agent = Agent::start(disk.clone())?;
    agent.join()?;
    agent.actions.clear();
    let said = work(&mut agent)?;
    agent.pass(Span::secs(60))?;
    let _ = agent.driver.agent().ps(true).len();
    let kinds: BTreeSet<String> = agent.actions.iter().map(variant).collect();
    Agent::start(disk.copy()).map_err(|error| format!("its own store: {error}"))?;
    Ok(format!("{said} {kinds:?}"))
}

fn check_agent_directives(input: &[u8]) -> Verdict {
    let entries = match codec::decode::<Vec<Vec<u8>>>(input) {
        Ok(entries) => entries,
        Err(error) => return Ok(class(&error)),
    };
    with_agent(|agent| {
        let batch = Batch::new(Head::origin(NODE, LIFE, Direction::Down), entries);
        agent.hear(Down::Directives(batch))?;
        let (facts, directives) = agent.driver.heads();
        Ok(format!(
            "ok {} {:?}",
            directives.number.min(30),
            facts.number.min(30)
        ))
    })
}

fn check_agent_down(input: &[u8]) -> Verdict {
    let message = match codec::decode::<Down>(input) {
        Ok(message) => message,
        Err(error) => return Ok(class(&error)),
    };
    with_agent(|agent| {
        let kind = variant(&message);
        agent.hear(message)?;
        Ok(format!("ok {kind}"))
    })
}
