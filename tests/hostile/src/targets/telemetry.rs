//! What gateways measured: pieces, blocks, and the files on both sides.

use crate::samples::{self, LIFE};
use crate::target::{Bound, Form, Target, Verdict, class};
use edge_core::telemetry::{Limits, Media, MemoryMedia, Ring};
use shared::codec;
use shared::ids::BootId;
use shared::telemetry::{Block, Piece, Range, RangeSet, Receipt, frame};

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "block",
        fed_by: "a node; telemetry files of both sides",
        form: Form::Packed,
        bound: Bound::new(64, 40 << 10),
        cost: 2,
        words: &[],
        seeds: blocks,
        check: check_block,
    },
    Target {
        name: "receipt",
        fed_by: "the coordinator: what it has of the telemetry",
        form: Form::Bytes,
        bound: Bound::new(64, 4096),
        cost: 2,
        words: &[],
        seeds: receipts,
        check: check_receipt,
    },
    Target {
        name: "telemetry-file",
        fed_by: "the agent's disk: telemetry/NUMBER.tel and 0.tel",
        form: Form::Bytes,
        bound: Bound::new(64, 8192),
        cost: 4,
        words: &[],
        seeds: files,
        check: check_file,
    },
];

fn blocks() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..4)
        .filter_map(|level| codec::decompress(&samples::block(level).pack(), 1 << 20).ok())
        .collect();
    all.push(vec![0; 600 << 10]);
    all
}

fn check_block(input: &[u8]) -> Verdict {
    let block = match Block::unpack(input) {
        Ok(block) => block,
        Err(error) => return Ok(class(&error)),
    };
    match Block::unpack(&block.pack()) {
        Ok(again) if again == block => {}
        Ok(_) => return Err("another block when it was packed and unpacked".to_owned()),
        Err(error) => return Err(format!("its own packing cannot be read: {error}")),
    }
    let range = block.range();
    let means = block
        .points
        .iter()
        .flat_map(|p| &p.cells)
        .filter_map(|c| c.mean());
    let sum = means.fold(0_i64, i64::wrapping_add);
    let cut = block.cut(Range::new(range.after, range.after));
    Ok(format!("ok {} {}", cut.points.len(), sum.signum()))
}

fn receipts() -> Vec<Vec<u8>> {
    let at = |boot, ms| shared::telemetry::At { boot, ms };
    let ranges = |n: u64| (0..n).map(move |n| Range::new(at(1, n * 9), at(1, n * 9 + 3)));
    let all = [
        ranges(3).collect(),
        ranges(1000).rev().collect::<Vec<Range>>(),
        vec![Range::new(at(1, 0), at(u32::MAX, u64::MAX))],
    ];
    let receipt = |ranges| Receipt {
        incarnation: LIFE,
        ranges,
    };
    all.into_iter()
        .map(|r| codec::encode(&receipt(r)))
        .collect()
}

fn check_receipt(input: &[u8]) -> Verdict {
    let receipt = match codec::decode::<Receipt>(input) {
        Ok(receipt) => receipt,
        Err(error) => return Ok(class(&error)),
    };
    let mut ring = match Ring::open(MemoryMedia::default(), LIFE, Limits::default()) {
        Ok(ring) => ring,
        Err(error) => return Err(error.to_string()),
    };
    ring.connected(&receipt.ranges);
    ring.acknowledged(&receipt.ranges);
    let set = RangeSet::of(receipt.ranges.iter().copied());
    for range in &receipt.ranges {
        if !set.covers(range) {
            return Err(format!("{range} was put in and is not there"));
        }
    }
    Ok(format!("ok {:?}", set.ranges().len().checked_ilog2()))
}

/// A number of the file, then bodies of frames, each behind its length.
fn files() -> Vec<Vec<u8>> {
    let media = MemoryMedia::default();
    let mut all = Vec::new();
    if let Ok(mut ring) = Ring::open(media.clone(), LIFE, Limits::default()) {
        keep_going(&mut ring);
    }
    for (id, length) in media.list().unwrap_or_default() {
        let bytes = media.read(id, 0, length as usize).unwrap_or_default();
        let mut input = vec![id as u8];
        for found in frame::scan(&bytes) {
            input.extend((found.body.len() as u32).to_le_bytes());
            input.extend_from_slice(found.body);
        }
        all.push(input);
    }
    let gaps = codec::encode(&(1_u32, LIFE, Vec::<shared::telemetry::Gap>::new()));
    let mut input = vec![0];
    input.extend((gaps.len() as u32).to_le_bytes());
    input.extend(gaps);
    all.push(input);
    all
}

fn check_file(input: &[u8]) -> Verdict {
    let Some((id, mut rest)) = input.split_first() else {
        return Ok("empty".to_owned());
    };
    // Frames vouch for their bodies, so each is framed anew; what is left is torn.
    let mut file = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((body, behind)) = behind.split_at_checked(length) else {
            break;
        };
        file.extend(frame::encode(body));
        rest = behind;
    }
    file.extend_from_slice(rest);
    let mut pieces = 0;
    for found in frame::scan(&file) {
        pieces += usize::from(codec::decode::<Piece>(found.body).is_ok());
    }
    let mut media = MemoryMedia::default();
    media
        .append(u32::from(id % 4), &file)
        .map_err(|error| error.to_string())?;
    let mut ring = Ring::open(media, LIFE, Limits::default()).map_err(|error| error.to_string())?;
    keep_going(&mut ring);
    Ok(format!("ok {:?}", pieces.checked_ilog2()))
}

/// Measures a little, saves it and sends it.
fn keep_going<M: Media>(ring: &mut Ring<M>) {
    let begin = samples::block(0);
    for (n, point) in (1..).zip(&begin.points) {
        let sample = shared::telemetry::Sample {
            ms: point.ms,
            wall: point.wall,
            fact: n,
            values: begin.keys.iter().map(|key| (key.clone(), 7)).collect(),
        };
        ring.record(4, BootId([5; 16]), 3000, &sample);
    }
    ring.save();
    ring.connected(&[]);
    for n in 0..50 {
        let _ = ring.next(100_000 + n * 10_000);
    }
    ring.visit(|_| true);
}
