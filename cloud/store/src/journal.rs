//! Walks the logs of a store: the facts and directives of every node, the events and the audit
//! record; recomputes the chains and says the first entry that does not fit. Fed with the rows of a
//! snapshot or of a backup, in their order; one segment lies in memory at a time.

use crate::{is_number, log_key, number_be, segment, split_hash};
use cloud_core::node::Node;
use cloud_core::record::{self, Audited};
use cloud_core::store::{AggregateId, Segment};
use shared::codec::{DecodeError, decode};
use shared::directive::Directive;
use shared::fact::{Body, Fact};
use shared::ids::{Hash, Incarnation, NodeId};
use shared::log::{Direction, Head};
use shared::wire::LogId;
use std::collections::BTreeMap;

/// Numbers of the tables, as `snapshot::Snapshot::each` gives them.
const AGGREGATES: u8 = 1;
const ROWS: u8 = 2;
const FACTS: u8 = 5;
const DIRECTIVES: u8 = 6;

/// An entry of one of the logs.
#[derive(Debug)]
pub enum Entry {
    /// A fact; none if this version cannot read it.
    Fact(LogId, Head, Option<Box<Fact>>),
    /// A directive; none if this version cannot read it.
    Directive(LogId, Head, Option<Box<Directive>>),
    /// An event.
    Event(u64, record::Event),
    /// An operator's action.
    Audit(u64, Audited),
}

/// What became of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `fact`, `directive`, `event` or `audit`.
    pub log: &'static str,
    /// Whose it is, with the name of the node; none for events and the audit record.
    pub whose: Option<(LogId, String)>,
    /// Number of the first entry that is there; 0 if none is.
    pub first: u64,
    /// The last entry.
    pub last: u64,
    /// Its chained hash; none where entries are not chained.
    pub hash: Option<Hash>,
    /// Entries that this version cannot read.
    pub unreadable: u64,
    /// The first thing that does not fit.
    pub broken: Option<String>,
}

/// A log as far as it was read.
#[derive(Debug, Default)]
struct Log {
    first: u64,
    last: Option<Head>,
    unreadable: u64,
    broken: Option<String>,
}

impl Log {
    fn wrong(&mut self, text: String) {
        self.broken.get_or_insert(text);
    }
}

/// The walk. See the module.
#[derive(Debug, Default)]
pub struct Walk {
    nodes: BTreeMap<NodeId, Node>,
    record: record::Head,
    logs: BTreeMap<(LogId, bool), Log>,
    events: Log,
    audit: Log,
}

/// Called with each entry; its error ends the walk.
pub type Each<'a, E> = dyn FnMut(Entry) -> Result<(), E> + 'a;

impl Walk {
    /// Takes the next row.
    ///
    /// # Errors
    /// Those of `each`; what is broken is told at the end.
    pub fn row<E>(
        &mut self,
        table: u8,
        key: &[u8],
        value: &[u8],
        each: &mut Each<'_, E>,
    ) -> Result<(), E> {
        match table {
            AGGREGATES => {
                self.aggregate(key, value);
                Ok(())
            }
            ROWS => self.record_row(key, value, each),
            FACTS => self.segment(key, value, each),
            DIRECTIVES => self.directive(key, value, each),
            _ => Ok(()),
        }
    }

    fn aggregate(&mut self, key: &[u8], value: &[u8]) {
        let head = value.get(8..).unwrap_or_default();
        match AggregateId::from_key(key) {
            Some(AggregateId::Node(node)) => {
                if let Ok(known) = shared::codec::decode_extended(head) {
                    self.nodes.insert(node, known);
                }
            }
            Some(AggregateId::Record) => {
                self.record = decode(head).unwrap_or_default();
            }
            _ => {}
        }
    }

    fn record_row<E>(&mut self, key: &[u8], value: &[u8], each: &mut Each<'_, E>) -> Result<(), E> {
        let Some(name) = key.strip_prefix(&AggregateId::Record.key()[..]) else {
            return Ok(());
        };
        let name = String::from_utf8_lossy(name);
        let mut letters = name.chars();
        let kind = letters.next();
        let Ok(first) = u64::from_str_radix(letters.as_str(), 16) else {
            return Ok(());
        };
        match kind {
            Some(record::EVENTS) => {
                let entries = decode(value);
                list(
                    &mut self.events,
                    "event",
                    first,
                    entries,
                    &mut |n, event| each(Entry::Event(n, event)),
                )
            }
            Some(record::AUDIT) => {
                let entries = decode(value);
                list(&mut self.audit, "entry", first, entries, &mut |n, entry| {
                    each(Entry::Audit(n, entry))
                })
            }
            _ => Ok(()),
        }
    }

    fn segment<E>(&mut self, key: &[u8], value: &[u8], each: &mut Each<'_, E>) -> Result<(), E> {
        let Some((log, first)) = address(key) else {
            return Ok(());
        };
        let state = self.logs.entry((log, false)).or_default();
        let found = match segment::decode(value) {
            Ok(found) if key == log_key(found.log, found.after.number + 1) => found,
            Ok(_) => {
                state.wrong(format!("facts {first} and on are those of another place"));
                return Ok(());
            }
            Err(_) => {
                state.wrong(format!("the facts from {first} on cannot be read"));
                state.last = None;
                return Ok(());
            }
        };
        follows(state, &found);
        let mut head = found.after;
        for bytes in found.entries.iter() {
            head = head.then(bytes);
            let fact = Fact::decode(head.number, bytes).ok();
            state.unreadable += u64::from(fact.is_none());
            each(Entry::Fact(log, head, fact.map(Box::new)))?;
        }
        if head != found.head {
            state.wrong(match head.number == first {
                true => format!("fact {first} is not the one that was recorded"),
                false => format!(
                    "one of the facts {first} to {} is not the one that was recorded",
                    head.number
                ),
            });
        }
        state.last = Some(found.head);
        Ok(())
    }

    fn directive<E>(&mut self, key: &[u8], value: &[u8], each: &mut Each<'_, E>) -> Result<(), E> {
        let Some((log, number)) = address(key) else {
            return Ok(());
        };
        let state = self.logs.entry((log, true)).or_default();
        let Some((hash, bytes)) = split_hash(value).filter(|_| is_number(number)) else {
            state.wrong(format!("directive {number} cannot be read"));
            state.last = None;
            return Ok(());
        };
        let stored = Head { number, hash };
        if state.first == 0 {
            state.first = number;
            // What was before the first one is gone, and its hash with it.
            if number == 1 {
                state.last = Some(Head::origin(log.node, log.incarnation, Direction::Down));
            }
        }
        if let Some(last) = state.last {
            if last.number + 1 != number {
                state.wrong(format!("{} is followed by {number}", last.number));
            } else if last.then(bytes) != stored {
                state.wrong(format!(
                    "directive {number} is not the one that was written"
                ));
            }
        }
        state.last = Some(stored);
        let wish = Directive::decode(number, bytes).ok();
        state.unreadable += u64::from(wish.is_none());
        each(Entry::Directive(log, stored, wish.map(Box::new)))
    }

    /// What became of each log.
    #[must_use]
    pub fn finish(mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for ((log, down), mut state) in self.logs {
            let known = self.nodes.get(&log.node);
            let current = known.filter(|node| node.incarnation == Some(log.incarnation));
            let end = current.map(|node| if down { node.directives } else { node.facts });
            if let (Some(end), Some(last)) = (end, state.last)
                && end != last
            {
                state.wrong(format!(
                    "it ends at {}, and the node's state names {}",
                    last.number, end.number
                ));
            }
            let name = known.map(|node| node.name.clone()).unwrap_or_default();
            let kind = if down { "directive" } else { "fact" };
            verdicts.push(verdict(kind, Some((log, name)), state, true));
        }
        for (kind, state, end) in [
            ("event", &mut self.events, self.record.events),
            ("audit", &mut self.audit, self.record.audit),
        ] {
            let mut state = std::mem::take(state);
            let last = state.last.map_or(0, |last| last.number);
            if state.broken.is_none() && last != end {
                state.wrong(format!("it ends at {last}, and {end} were written"));
            }
            verdicts.push(verdict(kind, None, state, false));
        }
        verdicts
    }
}

fn verdict(
    log: &'static str,
    whose: Option<(LogId, String)>,
    state: Log,
    chained: bool,
) -> Verdict {
    Verdict {
        log,
        whose,
        first: state.first,
        last: state.last.map_or(0, |last| last.number),
        hash: state.last.filter(|_| chained).map(|last| last.hash),
        unreadable: state.unreadable,
        broken: state.broken,
    }
}

/// Whether a segment continues what was read before it, or declares a hole.
fn follows(state: &mut Log, found: &Segment) {
    let next = found.after.number + 1;
    if state.first == 0 {
        state.first = next;
        let origin = Head::origin(found.log.node, found.log.incarnation, Direction::Up);
        if found.after.number == 0 && found.after != origin {
            state.wrong("the first fact does not begin the log of this node".to_owned());
        }
        return;
    }
    let Some(last) = state.last.filter(|last| *last != found.after) else {
        return;
    };
    let declared = found.after.number > last.number && declares(found, last.number + 1);
    if !declared {
        state.wrong(match last.number == found.after.number {
            true => format!("fact {next} continues another history than {}", last.number),
            false => format!("fact {} is followed by {next}", last.number),
        });
    }
}

/// Whether a segment begins with a reset that says that everything from `from` on is gone.
fn declares(found: &Segment, from: u64) -> bool {
    let first = found.entries.iter().next();
    let fact = first.and_then(|bytes| Fact::decode(found.after.number + 1, bytes).ok());
    match fact.map(|fact| fact.body) {
        Some(Body::Reset {
            from: begin, to, ..
        }) => begin <= from && to >= found.after.number,
        _ => false,
    }
}

/// Whose log a row belongs to, and its number.
fn address(key: &[u8]) -> Option<(LogId, u64)> {
    let node = NodeId(key.get(..16)?.try_into().ok()?);
    let incarnation = Incarnation(key.get(16..32)?.try_into().ok()?);
    Some((LogId { node, incarnation }, number_be(key.get(32..)?)?))
}

/// A row of a list whose entries are numbered and not chained.
fn list<T, E>(
    state: &mut Log,
    name: &str,
    first: u64,
    entries: Result<Vec<T>, DecodeError>,
    each: &mut dyn FnMut(u64, T) -> Result<(), E>,
) -> Result<(), E> {
    let Some(entries) = entries.ok().filter(|_| is_number(first)) else {
        state.wrong(format!("the entries from {first} on cannot be read"));
        state.last = None;
        return Ok(());
    };
    match state.last {
        None if state.first == 0 => state.first = first,
        Some(last) if last.number + 1 != first => {
            state.wrong(format!("{name} {} is followed by {first}", last.number));
        }
        _ => {}
    }
    for (number, entry) in (first..).zip(entries) {
        state.last = Some(Head {
            number,
            ..Head::default()
        });
        each(number, entry)?;
    }
    Ok(())
}
