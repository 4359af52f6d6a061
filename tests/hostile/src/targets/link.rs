//! What comes over the link before anybody knows what it is: frames and their messages.

use super::{comes_back, variant};
use crate::samples;
use crate::target::{Bound, Form, Target, Verdict, class};
use link::bulk::Wish;
use link::enrol::{EnrolAsk, EnrolRefusal, EnrolReply, EnrolRequest};
use link::frame::{self, Kind, Partial};
use link::logs::{LogAnswer, LogAsk, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::ids::RunId;
use shared::inventory::Reader;
use shared::limits::{FRAME_BYTES, HELLO_BYTES};
use shared::telemetry::{Block, Content, RangeSet};
use shared::wire::{Down, Up};
use std::collections::BTreeMap;
use std::fmt::Debug;

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "frame",
        fed_by: "any peer: every stream of a connection, before and after the hello",
        form: Form::Bytes,
        bound: Bound::new(64, 8192),
        cost: 1,
        words: &[],
        seeds: frames,
        check: check_frame,
    },
    Target {
        name: "up",
        fed_by: "a node: control, facts, telemetry and inventory streams",
        form: Form::Bytes,
        bound: Bound::new(64, 48 << 10),
        cost: 1,
        words: &[],
        seeds: || samples::up().iter().map(shared::codec::encode).collect(),
        check: check_up,
    },
    Target {
        name: "down",
        fed_by: "the coordinator: control stream",
        form: Form::Bytes,
        bound: Bound::new(64, 8192),
        cost: 1,
        words: &[],
        seeds: || samples::down().iter().map(shared::codec::encode).collect(),
        check: check_down,
    },
    Target {
        name: "enrol",
        fed_by: "anybody who can reach the port: questions; a coordinator: answers",
        form: Form::Bytes,
        bound: Bound::new(64, 8192),
        cost: 1,
        words: &[],
        seeds: enrolments,
        check: check_enrol,
    },
];

/// Kinds with what their frames hold, by the first byte of an input.
const KINDS: [Kind; 10] = [
    Kind::Control,
    Kind::Facts,
    Kind::FileAsk,
    Kind::FileAnswer,
    Kind::EnrolAsk,
    Kind::EnrolAnswer,
    Kind::LogAsk,
    Kind::LogAnswer,
    Kind::Telemetry,
    Kind::Inventory,
];

/// A byte that says what is due (kind, direction, limit, piece), then what comes.
fn frames() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut put = |way: u8, frame: Result<Vec<u8>, frame::FrameError>| {
        let frame = frame.unwrap_or_default();
        all.push([&[way], &frame[..]].concat());
    };
    for up in samples::up() {
        put(0, frame::encode(Kind::Control, &up));
        put(1, frame::encode(Kind::Facts, &up));
        put(8, frame::encode(Kind::Telemetry, &up));
        put(9, frame::encode(Kind::Inventory, &up));
    }
    for down in samples::down() {
        put(16, frame::encode(Kind::Control, &down));
    }
    for wish in wishes() {
        put(2, frame::encode(Kind::FileAsk, &wish));
    }
    for ask in asks() {
        put(4, frame::encode(Kind::EnrolAsk, &ask));
    }
    for reply in replies() {
        put(5, frame::encode(Kind::EnrolAnswer, &reply));
    }
    put(6, frame::encode(Kind::LogAsk, &log_ask()));
    for answer in log_answers() {
        put(7, frame::encode(Kind::LogAnswer, &answer));
    }
    all
}

fn wishes() -> [Wish; 2] {
    let hash = samples::NOTHING;
    [
        Wish::Get { hash, from: 300 },
        Wish::Put { hash, size: 70_000 },
    ]
}

fn log_ask() -> LogAsk {
    LogAsk {
        run: RunId([3; 16]),
        task: 5,
        epoch: 7,
        number: 2,
        stream: Stream::Err,
        from: 300,
    }
}

fn log_answers() -> [LogAnswer; 2] {
    [
        LogAnswer::Piece(b"a line\n".repeat(40)),
        LogAnswer::Missing("there is none".to_owned()),
    ]
}

fn asks() -> [EnrolAsk; 2] {
    let request = super::text::request();
    [
        EnrolAsk::Enrol(EnrolRequest {
            version: "0.1.0".to_owned(),
            token: super::text::token().1,
            name: "gw-7".to_owned(),
            request: request.clone(),
            labels: BTreeMap::from([("site".to_owned(), "plant-3".to_owned())]),
        }),
        EnrolAsk::Renew { request },
    ]
}

fn replies() -> Vec<EnrolReply> {
    vec![
        EnrolReply::Refused(EnrolRefusal::NameTaken {
            name: "gw-7".to_owned(),
        }),
        EnrolReply::Refused(EnrolRefusal::Busy),
        EnrolReply::Enrolled {
            node: samples::NODE,
            issued: super::text::issued(),
            now: shared::time::Unix(1_790_000_000_000),
        },
    ]
}

/// Reads frames as they come in pieces; what became of the last one.
fn read<T: DeserializeOwned + Serialize + PartialEq + Debug>(
    bytes: &[u8],
    kind: Kind,
    limit: usize,
    piece: usize,
) -> Verdict {
    let (mut partial, mut rest) = (Partial::default(), bytes);
    let mut last = "nothing".to_owned();
    loop {
        let missing = match partial.missing(kind, limit) {
            Ok(missing) => missing,
            Err(error) => return Ok(class(&error)),
        };
        let begun = rest.len() < bytes.len();
        if missing == 0 && begun {
            match partial.take::<T>(kind) {
                Ok(value) => {
                    comes_back(&value)?;
                    last = format!("ok {}", variant(&value));
                }
                Err(error) => return Ok(class(&error)),
            }
            continue;
        }
        if rest.is_empty() {
            return Ok(last);
        }
        let (now, later) = rest.split_at(missing.min(piece).min(rest.len()));
        partial.feed(now);
        rest = later;
    }
}

fn check_frame(input: &[u8]) -> Verdict {
    let Some((way, bytes)) = input.split_first() else {
        return Ok("empty".to_owned());
    };
    let kind = KINDS[usize::from(way & 15) % KINDS.len()];
    let limit = [FRAME_BYTES, HELLO_BYTES][usize::from(way >> 7)];
    let piece = [65_536, 7][usize::from(way >> 6 & 1)];
    match kind {
        Kind::Control if way & 16 != 0 => read::<Down>(bytes, kind, limit, piece),
        Kind::Control | Kind::Facts | Kind::Telemetry | Kind::Inventory => {
            read::<Up>(bytes, kind, limit, piece)
        }
        Kind::FileAsk | Kind::FileAnswer => read::<Wish>(bytes, kind, limit, piece),
        Kind::EnrolAsk => read::<EnrolAsk>(bytes, kind, limit, piece),
        Kind::EnrolAnswer => read::<EnrolReply>(bytes, kind, limit, piece),
        Kind::LogAsk => read::<LogAsk>(bytes, kind, limit, piece),
        Kind::LogAnswer => read::<LogAnswer>(bytes, kind, limit, piece),
    }
}

fn check_up(input: &[u8]) -> Verdict {
    let up = match shared::codec::decode::<Up>(input) {
        Ok(up) => up,
        Err(error) => return Ok(class(&error)),
    };
    comes_back(&up)?;
    let kind = variant(&up);
    let more = match up {
        Up::Facts(batch) => super::entries::offered(batch),
        Up::Packed(batch) => super::entries::offered_packed(batch)?,
        Up::Telemetry(report) => match report.piece.content {
            Content::Block(bytes) => match Block::unpack(&bytes) {
                Ok(block) => variant(&block),
                Err(error) => class(&error),
            },
            Content::Gap(reason) => reason.text().to_owned(),
        },
        Up::InventoryPart(part) => match Reader::new(part.session).take(&part) {
            Ok(items) => format!("{} items", items.len().min(3)),
            Err(error) => class(&error),
        },
        _ => String::new(),
    };
    Ok(format!("ok {kind} {more}"))
}

fn check_down(input: &[u8]) -> Verdict {
    let down = match shared::codec::decode::<Down>(input) {
        Ok(down) => down,
        Err(error) => return Ok(class(&error)),
    };
    comes_back(&down)?;
    let kind = variant(&down);
    let more = match down {
        Down::Directives(batch) => super::entries::directed(&batch),
        Down::Telemetry(receipt) => {
            let set = RangeSet::of(receipt.ranges);
            format!("{} ranges", set.ranges().len().min(3))
        }
        _ => String::new(),
    };
    Ok(format!("ok {kind} {more}"))
}

/// Questions behind a 0, answers behind a 1.
fn enrolments() -> Vec<Vec<u8>> {
    let asks = asks()
        .into_iter()
        .map(|ask| shared::codec::encode(&(0_u8, ask)));
    let replies = replies()
        .into_iter()
        .map(|reply| shared::codec::encode(&(1_u8, reply)));
    asks.chain(replies).collect()
}

fn check_enrol(input: &[u8]) -> Verdict {
    match input.split_first() {
        Some((0, bytes)) => match shared::codec::decode::<EnrolAsk>(bytes) {
            Ok(ask) => {
                comes_back(&ask)?;
                let (EnrolAsk::Enrol(EnrolRequest { request, .. }) | EnrolAsk::Renew { request }) =
                    &ask;
                Ok(format!(
                    "ok {} {}",
                    variant(&ask),
                    super::text::judged(request)
                ))
            }
            Err(error) => Ok(class(&error)),
        },
        Some((_, bytes)) => match shared::codec::decode::<EnrolReply>(bytes) {
            Ok(reply) => {
                comes_back(&reply)?;
                Ok(format!("ok {}", variant(&reply)))
            }
            Err(error) => Ok(class(&error)),
        },
        None => Ok("empty".to_owned()),
    }
}
