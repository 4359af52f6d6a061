//! Entries of both logs, batches of them, and inventories.

use super::variant;
use crate::samples::{self, LIFE, NODE};
use crate::target::{Bound, Form, Target, Verdict, class};
use cloud_core::offered::Offered;
use shared::codec;
use shared::directive::{Body as Wish, Directive};
use shared::fact::{Body, Fact};
use shared::inventory::{InventoryPart, Item, Reader};
use shared::log::{Batch, Direction, Entries, Head, LAST_NUMBER, PackedBatch};
use shared::schedule::Order;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "fact",
        fed_by: "a node; both stores; backups",
        form: Form::Bytes,
        bound: Bound::new(64, 8192),
        cost: 1,
        words: &[],
        seeds: samples::facts,
        check: check_fact,
    },
    Target {
        name: "directive",
        fed_by: "the coordinator; both stores; backups",
        form: Form::Bytes,
        bound: Bound::new(64, 8192),
        cost: 1,
        words: &[],
        seeds: samples::directives,
        check: check_directive,
    },
    Target {
        name: "batch",
        fed_by: "both sides: facts up, directives down",
        form: Form::Bytes,
        bound: Bound::new(64, 8192),
        cost: 1,
        words: &[],
        seeds: batches,
        check: check_batch,
    },
    Target {
        name: "packed-batch",
        fed_by: "a node: facts; both stores: segments",
        form: Form::Packed,
        bound: Bound::new(64, 48 << 10),
        cost: 2,
        words: &[],
        seeds: packed,
        check: check_packed,
    },
    Target {
        name: "inventory",
        fed_by: "a node: the parts of its inventory",
        form: Form::Bytes,
        bound: Bound::new(64, 8192),
        cost: 2,
        words: &[],
        seeds: parts,
        check: check_parts,
    },
];

fn check_fact(input: &[u8]) -> Verdict {
    let Ok(fact) = Fact::decode(1, input) else {
        return Ok("unreadable".to_owned());
    };
    let bytes = fact.encode();
    if Fact::decode(1, &bytes).as_ref() != Ok(&fact) {
        return Err("it is another value when it was encoded and decoded".to_owned());
    }
    let more = match &fact.body {
        Body::Submitted { workflow, .. } => super::workflow::unpacked(workflow)?,
        Body::ScheduleAsked {
            what: Order::Set { workflow, .. },
            ..
        } => super::workflow::unpacked(workflow)?,
        _ => String::new(),
    };
    Ok(format!("ok {} {more}", variant(&fact.body)))
}

fn check_directive(input: &[u8]) -> Verdict {
    let Ok(directive) = Directive::decode(1, input) else {
        return Ok("unreadable".to_owned());
    };
    let bytes = directive.encode();
    if Directive::decode(1, &bytes).as_ref() != Ok(&directive) {
        return Err("it is another value when it was encoded and decoded".to_owned());
    }
    let more = match &directive.body {
        Wish::Assign(assign) => match &assign.workflow {
            Some(packed) => super::workflow::unpacked(packed)?,
            None => String::new(),
        },
        Wish::Schedule {
            what: Order::Set { workflow, .. },
            ..
        } => super::workflow::unpacked(workflow)?,
        _ => String::new(),
    };
    Ok(format!("ok {} {more}", variant(&directive.body)))
}

/// Heads that a reader may have.
fn heads(after: Head, last: Head) -> [Head; 5] {
    let number = |number: u64| Head {
        number: number.min(LAST_NUMBER),
        ..after
    };
    [
        Head::origin(NODE, LIFE, Direction::Up),
        after,
        last,
        number(after.number + 1),
        number(u64::MAX),
    ]
}

/// What readers make of a batch of facts.
pub(super) fn offered(batch: Batch) -> String {
    let mut said = Vec::new();
    for known in heads(batch.after, batch.head()) {
        said.push(variant(&batch.offer(known)));
    }
    let memory = Offered::from(batch).memory();
    format!("{said:?} {:?}", memory.checked_ilog2())
}

/// What readers make of facts that came packed.
pub(super) fn offered_packed(batch: PackedBatch) -> Verdict {
    match Offered::unpack(batch) {
        Ok(offered) => Ok(format!("{:?}", offered.memory().checked_ilog2())),
        Err(error) => Ok(class(&error)),
    }
}

/// What readers make of a batch of directives.
pub(super) fn directed(batch: &Batch) -> String {
    let mut said = Vec::new();
    for known in heads(batch.after, batch.head()) {
        said.push(variant(&batch.offer(known)));
    }
    let mut read = 0;
    for (n, bytes) in (1..).zip(&batch.entries) {
        read += usize::from(Directive::decode(n, bytes).is_ok());
    }
    format!("{said:?} {:?}", read.checked_ilog2())
}

fn batches() -> Vec<Vec<u8>> {
    let up = Head::origin(NODE, LIFE, Direction::Up);
    let down = Head::origin(NODE, LIFE, Direction::Down);
    let far = Head {
        number: LAST_NUMBER - 1,
        ..up
    };
    let short = |n: usize| vec![samples::facts()[n].clone(), b"x".to_vec()];
    let all = [
        Batch::new(up, samples::facts()),
        Batch::new(down, samples::directives()),
        Batch::new(far, short(0)),
        Batch::new(up, short(3)),
        Batch::new(up, Vec::new()),
        Batch::new(up, vec![vec![0; 20]; 300]),
    ];
    all.iter().map(codec::encode).collect()
}

fn check_batch(input: &[u8]) -> Verdict {
    match codec::decode::<Batch>(input) {
        Ok(batch) => {
            super::comes_back(&batch)?;
            let one = directed(&batch);
            Ok(format!("ok {one} {}", offered(batch)))
        }
        Err(error) => Ok(class(&error)),
    }
}

fn packed() -> Vec<Vec<u8>> {
    let all = [
        samples::facts(),
        samples::directives(),
        Vec::new(),
        vec![vec![0; 20]; 1000],
        vec![vec![0; 300_000]],
    ];
    let mut all: Vec<Vec<u8>> = all.iter().map(codec::encode).collect();
    // more than any batch unpacks to
    all.push(vec![0; 40 << 20]);
    all
}

fn check_packed(input: &[u8]) -> Verdict {
    let entries = match Entries::unpack(input) {
        Ok(entries) => entries,
        Err(error) => return Ok(class(&error)),
    };
    let after = Head::origin(NODE, LIFE, Direction::Up);
    let own: Vec<Vec<u8>> = entries.iter().map(<[u8]>::to_vec).collect();
    let again = PackedBatch::new(after, after.then_all(&own), &own);
    if Entries::unpack(&again.entries).as_ref() != Ok(&entries) {
        return Err("other entries when they were packed and unpacked".to_owned());
    }
    let said = offered_packed(again)?;
    Ok(format!("ok {said}"))
}

/// Two bytes that say how the stream is cut, then the stream.
fn parts() -> Vec<Vec<u8>> {
    let stream = samples::inventory();
    let mut all: Vec<Vec<u8>> = [[1, 0], [64, 0], [0, 4], [255, 255]]
        .iter()
        .map(|cut| [cut, &stream[..]].concat())
        .collect();
    let mut claim = vec![1, 0];
    claim.extend((64_u32 << 20).to_le_bytes());
    claim.extend([0; 300]);
    all.push(claim);
    all
}

fn check_parts(input: &[u8]) -> Verdict {
    let Some((size, stream)) = input.split_first_chunk::<2>() else {
        return Ok("empty".to_owned());
    };
    let size = usize::from(u16::from_le_bytes(*size))
        .max(stream.len() / 64)
        .max(1);
    let mut reader = Reader::new(7);
    let (mut items, count) = (Vec::new(), stream.len().div_ceil(size));
    for (n, bytes) in (0_u32..).zip(stream.chunks(size)) {
        let part = InventoryPart {
            session: 7,
            part: n,
            last: n as usize + 1 == count,
            bytes: bytes.to_vec(),
        };
        match reader.take(&part) {
            Ok(more) => items.extend(more),
            Err(error) => return Ok(class(&error)),
        }
    }
    let mut again = Vec::new();
    items.iter().for_each(|item| item.put(&mut again));
    let part = InventoryPart {
        session: 7,
        part: 0,
        last: true,
        bytes: again,
    };
    if Reader::new(7).take(&part).as_ref() != Ok(&items) {
        return Err("other items when they were put and read again".to_owned());
    }
    let mut said = Vec::new();
    for item in items.iter().take(4) {
        said.push(match item {
            Item::Workflow(packed) => super::workflow::unpacked(packed)?,
            Item::Run(run) => format!("run {}", run.slices.len().min(2)),
        });
    }
    Ok(format!("ok {said:?}"))
}
