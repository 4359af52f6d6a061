//! Real values: those of the first release, and one of each kind that came later.

use crate::first_release;
use shared::approval::{Answer, Via};
use shared::codec;
use shared::config::scheduler::Scheduler;
use shared::directive::{self, Directive};
use shared::explain::Reason;
use shared::fact::{self, Fact};
use shared::ids::{
    BootId, Epoch, Generation, Hash, Incarnation, NodeId, RunId, ScheduleId, SliceRef, TaskIdx,
};
use shared::inventory::{InventoryPart, Item, RunState};
use shared::log::{Direction, Head, PackedBatch};
use shared::schedule::{Cause, Order};
use shared::spec;
use shared::telemetry::{
    At, Block, Content, GapReason, Key, Metric, Piece, Range, Receipt, Report, Sample,
};
use shared::time::{Span, Stamp, Unix};
use shared::wire::{Down, Up};
use shared::workflow::Workflow;
use std::collections::BTreeMap;

pub(crate) use crate::first_release::Sample as Old;

pub(crate) const NODE: NodeId = NodeId([1; 16]);
pub(crate) const LIFE: Incarnation = Incarnation([2; 16]);
const RUN: RunId = RunId([3; 16]);
const SCHEDULE: ScheduleId = ScheduleId([4; 16]);

/// A specification with what the first release did not know.
pub(crate) const SPEC: &str = "\
name: later
schedule: {cron: '*/5 * * * *', timezone: Europe/Berlin, catchup: latest, overlap: forbid}
tasks:
  each:
    matrix: {size: [1, 2], kind: [a, b]}
    max_parallel: 2
    command: [/bin/echo, '${matrix.size}', '${matrix.kind}']
  ask:
    needs: [each]
    approval: {prompt: Go on?, input: {why: {type: string, default: no}}}
    timeout: 1h
";

/// A specification that any node can run, and its tasks are those of [`assign`].
pub(crate) const SIMPLE: &str = "\
name: simple
tasks:
  first: {command: [echo, hello], outputs: [a.txt]}
  second: {command: [cat, a.txt], inputs: [a.txt], timeout: 5m}
  third:
    matrix: {size: [1, 2]}
    max_parallel: 1
    command: [/bin/echo, '${matrix.size}']
  ask:
    needs: [second]
    approval: {prompt: Go on?, input: {why: {type: string, default: no}}}
    timeout: 1h
";

/// The first assignment of the slice that other entries speak of.
fn assign() -> Option<directive::Body> {
    let workflow = compiled(SIMPLE)?;
    let (packed, workflow_hash) = codec::pack(&workflow);
    Some(directive::Body::Assign(directive::Assign {
        slice: slice(),
        workflow_hash,
        workflow: Some(packed),
        tasks: (0..workflow.tasks.len() as u32).map(TaskIdx).collect(),
        attempts_used: vec![(TaskIdx(0), 1)],
        done: Vec::new(),
        upstream: Vec::new(),
        paused: false,
    }))
}

/// What all the messages of the first release are.
pub(crate) fn old() -> Vec<Old> {
    first_release::samples()
        .into_iter()
        .map(|(_, s)| s)
        .collect()
}

/// The compiled form of a specification.
pub(crate) fn compiled(text: &str) -> Option<Workflow> {
    let (none, files) = (BTreeMap::new(), BTreeMap::new());
    spec::submission("f", text, &none, &files, Unix(1_790_000_000_000)).ok()
}

/// Workflows of both formats.
pub(crate) fn workflows() -> Vec<Workflow> {
    let mut all: Vec<Workflow> = specs().iter().filter_map(|text| compiled(text)).collect();
    let old = all.iter().filter_map(|w| w.for_first_release().ok());
    let old: Vec<Workflow> = old.collect();
    all.extend(old);
    all
}

/// Specifications.
pub(crate) fn specs() -> Vec<String> {
    let mut all = vec![
        SIMPLE.to_owned(),
        first_release::SPEC.to_owned(),
        SPEC.to_owned(),
    ];
    for text in [
        include_str!("../../../deploy/examples/fan-out.yaml"),
        include_str!("../../../deploy/examples/nightly-backup.yaml"),
        include_str!("../../../deploy/examples/cold-chain.yaml"),
        include_str!("../../../deploy/examples/weather/weather.yaml"),
    ] {
        all.push(text.to_owned());
    }
    all
}

fn slice() -> SliceRef {
    SliceRef {
        run: RUN,
        slice: 2,
        epoch: Epoch::new(Generation(1_790_000_000), 4),
    }
}

fn answer() -> Answer {
    Answer {
        yes: true,
        input: BTreeMap::from([("why".to_owned(), "late".to_owned())]),
        by: "ana".to_owned(),
        at: Unix(1_790_000_123_000),
        via: Via::Gateway,
    }
}

fn orders() -> Vec<Order> {
    let workflow = compiled(SPEC).map(|w| codec::pack(&w).0);
    vec![
        Order::Set {
            revision: 2,
            workflow: workflow.unwrap_or_default(),
            after: Unix(5),
            paused: true,
        },
        Order::Pause(true),
        Order::Trigger(Unix(60_000)),
        Order::Backfill(Unix(60_000), Unix(120_000)),
        Order::Drop,
    ]
}

/// Bodies of facts that the first release did not know.
fn later_facts() -> Vec<fact::Body> {
    use fact::Body;
    let (slice, by, epoch) = (slice(), || "ana".to_owned(), Epoch(7));
    let skipped = shared::schedule::due::Skipped {
        from: Unix(0),
        to: Unix(60_000),
        count: 2,
        reason: Reason::AgentDied,
    };
    let mut all = vec![
        Body::Answered {
            slice,
            task: TaskIdx(5),
            answer: answer(),
            not: Some(Reason::AgentDied),
        },
        Body::ScheduleDone {
            schedule: SCHEDULE,
            epoch,
            order: 3,
            cursor: Unix(60_000),
            refused: Some((Reason::AgentDied, "no".to_owned())),
        },
        Body::Fired {
            schedule: SCHEDULE,
            epoch,
            slot: Unix(60_000),
            slice,
            cause: Cause::Catchup,
            trusted: true,
            revision: 2,
        },
        Body::SlotsSkipped {
            schedule: SCHEDULE,
            epoch,
            skipped,
        },
        Body::SyncPaused {
            by: by(),
            length: Some(Span(60_000)),
        },
        Body::SyncResumed { by: Some(by()) },
        Body::Limited {
            slice,
            matrix: 0,
            seq: 4,
            held: 2,
        },
    ];
    all.extend(compiled(SIMPLE).map(|workflow| Body::Submitted {
        slice: SliceRef {
            slice: 0,
            epoch: Epoch(0),
            run: RunId([9; 16]),
        },
        workflow: codec::pack(&workflow).0,
        by: by(),
    }));
    all.extend(orders().into_iter().map(|what| Body::ScheduleAsked {
        schedule: SCHEDULE,
        what,
        by: by(),
    }));
    all
}

fn later_directives() -> Vec<directive::Body> {
    use directive::Body;
    let (slice, by, epoch) = (slice(), || "ana".to_owned(), Epoch(7));
    let mut all = vec![
        Body::Answer {
            slice,
            task: TaskIdx(5),
            answer: answer(),
        },
        Body::Configure(Scheduler::default()),
        Body::Retry { run: RUN, by: by() },
        Body::Limit(directive::Limit {
            slice,
            matrix: 0,
            seq: 4,
            share: 2,
            stop: true,
        }),
    ];
    all.extend(assign());
    all.extend((1..).zip(orders()).map(|(order, what)| Body::Schedule {
        schedule: SCHEDULE,
        epoch,
        order,
        what,
        by: by(),
    }));
    all
}

/// Facts of all kinds, encoded.
pub(crate) fn facts() -> Vec<Vec<u8>> {
    let old = old().into_iter().filter(|s| matches!(s, Old::Fact(_)));
    let at = Stamp {
        boot: 9,
        mono_ms: 123_456,
        wall: Unix(1_790_000_123_000),
    };
    let later = later_facts().into_iter().map(|body| {
        let seen = 12;
        Fact { at, seen, body }.encode()
    });
    old.map(|s| s.encode()).chain(later).collect()
}

/// Directives of all kinds, encoded.
pub(crate) fn directives() -> Vec<Vec<u8>> {
    let old = old().into_iter().filter(|s| matches!(s, Old::Directive(_)));
    let later = later_directives().into_iter().map(|body| {
        let (at, generation) = (Unix(1_790_000_100_000), Generation(1_790_000_000));
        Directive {
            at,
            generation,
            body,
        }
        .encode()
    });
    old.map(|s| s.encode()).chain(later).collect()
}

/// A block of a few series.
pub(crate) fn block(level: u8) -> Block {
    let mut block = Block::new(3, BootId([4; 16]), level, 1000);
    for n in 1..20_i64 {
        let key = |k: usize| Key::new(Metric::ALL[k], if k > 20 { "sda1" } else { "" });
        block.push(&Sample {
            ms: 1000 + n.unsigned_abs() * 3000,
            wall: Unix(1_790_000_000_000 + n * 3000),
            fact: n.unsigned_abs(),
            values: (0..24).map(|k| (key(k), n * k as i64)).collect(),
        });
    }
    block
}

/// Pieces of telemetry.
pub(crate) fn pieces() -> Vec<Piece> {
    let at = |ms| At { boot: 3, ms };
    let gap = Piece {
        range: Range::new(at(5), at(1000)),
        content: Content::Gap(GapReason::Quota),
    };
    let blocks = (0..3).map(|level| {
        let block = block(level);
        Piece {
            range: block.range(),
            content: Content::Block(block.pack()),
        }
    });
    std::iter::once(gap).chain(blocks).collect()
}

/// The items of an inventory, as one stream.
pub(crate) fn inventory() -> Vec<u8> {
    let mut stream = Vec::new();
    for workflow in workflows() {
        Item::Workflow(codec::pack(&workflow).0).put(&mut stream);
    }
    let slices = old().into_iter().find_map(|s| match s {
        Old::Up(Up::Inventory(inventory)) => Some(inventory.slices),
        _ => None,
    });
    let run = RunState {
        run: RUN,
        slices: slices.unwrap_or_default(),
        directives: Vec::new(),
    };
    Item::Run(run).put(&mut stream);
    stream
}

/// All messages upwards.
pub(crate) fn up() -> Vec<Up> {
    let mut all: Vec<Up> = old()
        .into_iter()
        .filter_map(|sample| match sample {
            Old::Up(up) => Some(up),
            _ => None,
        })
        .collect();
    let after = Head::origin(NODE, LIFE, Direction::Up);
    let entries = facts();
    all.push(Up::Packed(PackedBatch::new(
        after,
        after.then_all(&entries),
        &entries,
    )));
    all.extend(pieces().into_iter().map(|piece| {
        let incarnation = LIFE;
        Up::Telemetry(Report { incarnation, piece })
    }));
    all.push(Up::InventoryPart(InventoryPart {
        session: 1007,
        part: 0,
        last: true,
        bytes: inventory(),
    }));
    all.push(Up::Room { enough: false });
    all
}

/// All messages downwards.
pub(crate) fn down() -> Vec<Down> {
    let mut all: Vec<Down> = old()
        .into_iter()
        .filter_map(|sample| match sample {
            Old::Down(down) => Some(down),
            _ => None,
        })
        .collect();
    let after = Head::origin(NODE, LIFE, Direction::Down);
    all.push(Down::Directives(shared::log::Batch::new(
        after,
        directives(),
    )));
    let at = |boot, ms| At { boot, ms };
    all.push(Down::Telemetry(Receipt {
        incarnation: LIFE,
        ranges: vec![
            Range::new(at(1, 0), at(1, 9)),
            Range::new(at(2, 3), at(3, 8)),
        ],
    }));
    all.push(Down::Renew {
        within: Span(60_000),
    });
    all
}

/// A hash that no content has.
pub(crate) const NOTHING: Hash = Hash([7; 32]);
