//! One value of every kind of message and entry that the first release knew. Kinds that came later
//! have no place here; fields that came later have the value that stands for "as before".

use shared::codec;
use shared::directive::{self, Assign, Directive, Upstream};
use shared::explain::{Decision, DecisionKind, Evidence, Reason};
use shared::fact::{self, Acknowledged, End, Fact, Outcome, OutputFile, SliceState, TaskStatus};
use shared::ids::{
    AttemptRef, BootId, Epoch, Generation, Hash, Incarnation, NodeId, RunId, SliceRef, TaskIdx,
};
use shared::log::{Batch, Direction, Head};
use shared::state::TaskState;
use shared::time::{Mono, Now, Span, Stamp, Unix};
use shared::wire::{
    Ack, Detail, DirectiveSeal, Down, Hello, Inventory, Refusal, Refuse, Up, Welcome,
};
use shared::workflow::Resources;
use std::collections::BTreeMap;

/// A value with the type that it is read as.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Sample {
    /// Agent to coordinator.
    Up(Up),
    /// Coordinator to agent.
    Down(Down),
    /// An entry of the log upwards.
    Fact(Fact),
    /// An entry of the log downwards.
    Directive(Directive),
}

impl Sample {
    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Up(value) => codec::encode(value),
            Self::Down(value) => codec::encode(value),
            Self::Fact(value) => value.encode(),
            Self::Directive(value) => value.encode(),
        }
    }

    /// Reads `bytes` as the type of this value.
    pub(crate) fn read(&self, bytes: &[u8]) -> Result<Self, String> {
        let bad = |error: codec::DecodeError| error.to_string();
        match self {
            Self::Up(_) => codec::decode(bytes).map(Self::Up).map_err(bad),
            Self::Down(_) => codec::decode(bytes).map(Self::Down).map_err(bad),
            Self::Fact(_) => Fact::decode(1, bytes)
                .map(Self::Fact)
                .map_err(|error| error.to_string()),
            Self::Directive(_) => Directive::decode(1, bytes)
                .map(Self::Directive)
                .map_err(|error| error.to_string()),
        }
    }
}

const RUN: RunId = RunId([3; 16]);
const NODE: NodeId = NodeId([1; 16]);
const LIFE: Incarnation = Incarnation([2; 16]);

/// The specification whose compiled form is kept as `workflow`.
pub(crate) const SPEC: &str = "
name: skew
description: every field that the first release knew
labels: {team: field}
params: {month: {type: integer, default: 7}}
tasks:
  read:
    command: [/bin/echo, '${params.month}']
    outputs: [{name: table, path: out/table.csv}]
    resources: {cpu: 0.5, memory: 64MiB, gpu: 0.25, custom: {camera: 1}}
    retry: {max_attempts: 3, initial_interval: 2s, no_retry_on: [3], on_exhausted: pause}
    timeout: 5m
    placement: {labels: {role: gateway}, site: plant-3}
    disconnect: {lost_after: 1h, replace: true}
  shape:
    shell: cat table > shaped
    inputs: [table]
    env: {MODE: night}
    priority: 7
    when: params.month == 7
    side_effects: at_most_once
  tidy:
    command: [/bin/true]
    needs: [shape]
    trigger_rule: all_done
";

fn slice() -> SliceRef {
    let epoch = Epoch::new(Generation(1_790_000_000), 4);
    SliceRef {
        run: RUN,
        slice: 2,
        epoch,
    }
}

fn attempt() -> AttemptRef {
    AttemptRef {
        slice: slice(),
        task: TaskIdx(5),
        number: 3,
    }
}

fn stamp() -> Stamp {
    Stamp {
        boot: 9,
        mono_ms: 123_456,
        wall: Unix(1_790_000_123_000),
    }
}

fn output() -> OutputFile {
    OutputFile {
        hash: Hash([7; 32]),
        size: 4096,
    }
}

fn state() -> SliceState {
    SliceState {
        slice: slice(),
        workflow: Hash([8; 32]),
        tasks: vec![TaskStatus {
            task: TaskIdx(5),
            state: TaskState::Succeeded,
            attempts: 2,
            outputs: vec![output()],
        }],
    }
}

fn head(number: u64) -> Head {
    Head {
        number,
        hash: Hash([number as u8; 32]),
    }
}

fn batch(direction: Direction) -> Batch {
    let origin = Head::origin(NODE, LIFE, direction);
    Batch::new(origin, vec![b"one".to_vec(), b"two".to_vec()])
}

fn ack() -> Ack {
    Ack {
        generation: Generation(1_790_000_000),
        head: head(41),
        seal: [5; 32],
        safe: 17,
    }
}

fn seal() -> DirectiveSeal {
    DirectiveSeal {
        generation: Generation(1_790_000_000),
        head: head(12),
        seal: [6; 32],
    }
}

fn capacity() -> Resources {
    Resources {
        cpu_milli: 4000,
        memory: 8 << 30,
        disk: 100 << 30,
        gpu_milli: 1000,
        custom: BTreeMap::from([("camera".to_owned(), 2)]),
    }
}

fn upstream() -> Upstream {
    Upstream {
        task: TaskIdx(1),
        state: TaskState::Succeeded,
        outputs: vec![output()],
    }
}

fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        features: 0,
        version: "0.1.0".to_owned(),
        node: NODE,
        name: "gw-7".to_owned(),
        incarnation: LIFE,
        boot: BootId([4; 16]),
        session: 1007,
        proof: Some([9; 16]),
        facts_first: 3,
        facts: head(41),
        directives: head(12),
        ack: Some(ack()),
        generation: Generation(1_790_000_000),
        now: Now {
            mono: Mono(5_000_000_000),
            wall: Unix(1_790_000_123_000),
        },
        clock_trusted: true,
        labels: BTreeMap::from([("site".to_owned(), "plant-3".to_owned())]),
        capacity: capacity(),
        succeeds: Some(Incarnation([10; 16])),
        directive_seal: Some(seal()),
    }
}

fn detail() -> Detail {
    Detail {
        fact: 40,
        task: Some((slice(), TaskIdx(5))),
        decision: Decision {
            action: DecisionKind::Held,
            reason: Reason::AgentDied,
            confidence_milli: 900,
            evidence: vec![Evidence::new("cpu", 3)],
            repeats: 2,
        },
    }
}

fn up() -> Vec<(&'static str, Up)> {
    vec![
        ("up.hello", Up::Hello(Box::new(hello()))),
        ("up.facts", Up::Facts(batch(Direction::Up))),
        ("up.applied", Up::Applied(head(12))),
        ("up.pong", Up::Pong { nonce: 77 }),
        (
            "up.inventory",
            Up::Inventory(Inventory {
                slices: vec![state()],
                workflows: vec![vec![1, 2, 3]],
                directives: vec![directive(directive::Body::Forget { run: RUN })],
            }),
        ),
        ("up.details", Up::Details(vec![detail()])),
        ("up.want_directives", Up::WantDirectives { from: 13 }),
    ]
}

fn down() -> Vec<(&'static str, Down)> {
    vec![
        (
            "down.welcome",
            Down::Welcome(Box::new(Welcome {
                protocol: 1,
                features: 0,
                session: 1007,
                generation: Generation(1_790_000_000),
                secret: [11; 16],
                facts: Acknowledged {
                    head: head(41),
                    safe: 17,
                },
                directives: head(12),
                want_inventory: true,
                now: Unix(1_790_000_124_000),
            })),
        ),
        (
            "down.refuse",
            Down::Refuse(Refuse {
                reason: Refusal::Quarantined,
                text: "a second machine calls".to_owned(),
                retry_after: Some(Span(5000)),
            }),
        ),
        ("down.directives", Down::Directives(batch(Direction::Down))),
        ("down.ack", Down::Ack(ack())),
        ("down.ping", Down::Ping { nonce: 77 }),
        ("down.want_facts", Down::WantFacts { from: 42 }),
        (
            "down.file_ready",
            Down::FileReady {
                hash: Hash([7; 32]),
            },
        ),
        ("down.directive_seal", Down::DirectiveSeal(seal())),
    ]
}

fn end() -> End {
    End {
        outcome: Outcome::Succeeded,
        reason: Reason::AgentDied,
        exit: Some(0),
        began: Some(stamp()),
        outputs: vec![output()],
        retry_in: Some(Span(2000)),
        task: TaskState::Succeeded,
        cpu_ms: 1234,
        peak_memory: 5 << 20,
    }
}

fn ends(slice: SliceRef) -> Vec<(&'static str, fact::Body)> {
    use fact::Body;
    vec![
        ("fact.cancel_done", Body::CancelDone { slice }),
        (
            "fact.released",
            Body::Released {
                slice,
                in_doubt: vec![TaskIdx(5)],
            },
        ),
        (
            "fact.submitted",
            Body::Submitted {
                slice,
                workflow: vec![1, 2, 3],
                by: "ana".to_owned(),
            },
        ),
        (
            "fact.cancelled_here",
            Body::CancelledHere {
                run: RUN,
                by: "ana".to_owned(),
                why: "late".to_owned(),
            },
        ),
        (
            "fact.paused_here",
            Body::PausedHere {
                run: RUN,
                on: true,
                by: "ana".to_owned(),
            },
        ),
        (
            "fact.reset",
            Body::Reset {
                from: 3,
                to: 9,
                why: "gone".to_owned(),
                slices: vec![state()],
            },
        ),
        (
            "fact.dropped",
            Body::Dropped {
                class: "logs".to_owned(),
                count: 12,
                why: "quota".to_owned(),
            },
        ),
        ("fact.slice_done", Body::SliceDone { slice }),
        ("fact.pause_done", Body::PauseDone { slice, on: true }),
    ]
}

fn facts() -> Vec<(&'static str, fact::Body)> {
    use fact::Body;
    let slice = slice();
    let mut all = vec![
        (
            "fact.booted",
            Body::Booted {
                boot: BootId([4; 16]),
                unclean: true,
                rebooted: true,
            },
        ),
        ("fact.accepted", Body::Accepted { slice }),
        (
            "fact.refused",
            Body::Refused {
                directive: 12,
                slice: Some(slice),
                reason: Reason::AgentDied,
                text: "no room".to_owned(),
            },
        ),
        ("fact.started", Body::Started { attempt: attempt() }),
        (
            "fact.ended",
            Body::Ended {
                attempt: attempt(),
                end: end(),
            },
        ),
        (
            "fact.moved",
            Body::Moved {
                slice,
                task: TaskIdx(5),
                to: TaskState::Skipped,
                reason: Reason::AgentDied,
            },
        ),
    ];
    all.extend(ends(slice));
    all
}

fn directive(body: directive::Body) -> Directive {
    Directive {
        at: Unix(1_790_000_100_000),
        generation: Generation(1_790_000_000),
        body,
    }
}

fn directives() -> Vec<(&'static str, directive::Body)> {
    use directive::Body;
    let (slice, by) = (slice(), || "ana".to_owned());
    vec![
        (
            "directive.assign",
            Body::Assign(Assign {
                slice,
                workflow_hash: Hash([8; 32]),
                workflow: Some(vec![1, 2, 3]),
                tasks: vec![TaskIdx(1), TaskIdx(5)],
                attempts_used: vec![(TaskIdx(5), 1)],
                done: vec![upstream()],
                upstream: vec![upstream()],
                paused: true,
            }),
        ),
        (
            "directive.upstream",
            Body::Upstream {
                slice,
                upstream: upstream(),
            },
        ),
        (
            "directive.cancel",
            Body::Cancel {
                run: RUN,
                by: by(),
                why: "late".to_owned(),
            },
        ),
        (
            "directive.pause",
            Body::Pause {
                run: RUN,
                on: true,
                by: by(),
            },
        ),
        ("directive.release", Body::Release { slice }),
        ("directive.forget", Body::Forget { run: RUN }),
        (
            "directive.reset",
            Body::Reset {
                why: "forked".to_owned(),
                slices: vec![slice],
            },
        ),
    ]
}

/// All of them, by name.
pub(crate) fn samples() -> Vec<(&'static str, Sample)> {
    let fact = |body| {
        Sample::Fact(Fact {
            at: stamp(),
            seen: 12,
            body,
        })
    };
    let mut all = Vec::new();
    all.extend(up().into_iter().map(|(n, v)| (n, Sample::Up(v))));
    all.extend(down().into_iter().map(|(n, v)| (n, Sample::Down(v))));
    all.extend(facts().into_iter().map(|(n, v)| (n, fact(v))));
    let wish = |(n, v)| (n, Sample::Directive(directive(v)));
    all.extend(directives().into_iter().map(wish));
    all
}
