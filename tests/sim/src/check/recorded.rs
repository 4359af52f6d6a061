//! What happened is told once, in order, with the commit that it is about.

use crate::truth::{Wrong, wrong};
use crate::world::World;
use cloud_core::event::{About, Reply, Request};
use cloud_core::record::{AUDIT, Audited, EVENTS, Event, Head, RECORD, What};
use cloud_core::store::{AggregateId, Store, Transaction};
use std::collections::BTreeMap;

/// The invariant.
pub const DEFINITION: &str = "Events and audit entries are numbered without gap and without \
    repetition, through restarts and failures of the coordinator's store; the windows are bounded; \
    an action that was answered is in the audit record.";

/// How the audit record says that a request was sent before; it is no event then.
const REPEATED: &str = "sent again: nothing more was done";

/// Actions by what they are and what they are done to.
type Actions = BTreeMap<(String, String), u64>;

/// What is durable of the record.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    events: u64,
    audit: u64,
    done: Actions,
    /// Those of them that were sent again and did nothing more.
    repeated: Actions,
    told: Actions,
    answered: Actions,
}

impl Recorded {
    /// A transaction became durable.
    pub fn apply(&mut self, tx: &Transaction) -> Vec<Wrong> {
        let mut out = Vec::new();
        if tx.aggregate != AggregateId::Record {
            return out;
        }
        for (name, value) in &tx.rows {
            let Some(value) = value else { continue };
            let last = match name.chars().next() {
                Some(AUDIT) => &mut self.audit,
                _ => &mut self.events,
            };
            if *name != cloud_core::record::row(name.chars().next().unwrap_or(EVENTS), *last + 1) {
                out.push(broken(format!("row {name} follows number {last}")));
            }
            if name.starts_with(AUDIT) {
                let entries: Vec<Audited> = shared::codec::decode(value).unwrap_or_default();
                *last += entries.len() as u64;
                for entry in entries.iter().filter(|entry| entry.refused.is_none()) {
                    *self.done.entry(key(entry)).or_default() += 1;
                    if entry.detail.ends_with(REPEATED) {
                        *self.repeated.entry(key(entry)).or_default() += 1;
                    }
                }
            } else {
                let entries: Vec<Event> = shared::codec::decode(value).unwrap_or_default();
                *last += entries.len() as u64;
                for event in &entries {
                    if let What::Action(entry) = &event.what {
                        *self.told.entry(key(entry)).or_default() += 1;
                    }
                }
            }
        }
        let head: Head = shared::codec::decode(&tx.head).unwrap_or_default();
        if (head.events, head.audit) != (self.events, self.audit) {
            out.push(broken(format!(
                "the head says {head:?}, the rows end at {} and {}",
                self.events, self.audit
            )));
        }
        let told = |(key, done): (&(String, String), &u64)| {
            let count = |all: &Actions| all.get(key).copied().unwrap_or(0);
            *done == count(&self.told) + count(&self.repeated)
        };
        let known = self.told.keys().all(|key| self.done.contains_key(key));
        if !(known && self.done.iter().all(told)) {
            out.push(broken(
                "an action is audited and not told, or told and not audited",
            ));
        }
        out
    }
}

fn broken(text: impl Into<String>) -> Wrong {
    wrong("recorded", text)
}

/// Whether it may be about a node: the record has its name, the request its id.
fn may_name_a_node(what: &str) -> bool {
    what.starts_with("node") || what.starts_with("config")
}

fn key(entry: &Audited) -> (String, String) {
    let about = if may_name_a_node(&entry.what) {
        String::new()
    } else {
        entry.about.clone()
    };
    (entry.what.clone(), about)
}

/// The coordinator answered a person.
pub fn on_answer(world: &mut World, request: &Request, reply: &Reply) {
    let (Some(action), false) = (request.action(), matches!(reply, Reply::Refused(_))) else {
        return;
    };
    let about = match (reply, action.about) {
        (Reply::Submitted(run), _) => run.to_string(),
        (_, About::Run(run)) => run.to_string(),
        (_, About::Name(name)) if !may_name_a_node(action.what) => name.to_owned(),
        _ => String::new(),
    };
    let key = (action.what.to_owned(), about);
    let record = &mut world.cloud.truth.record;
    let answered = record.answered.entry(key.clone()).or_default();
    *answered += 1;
    let (answered, done) = (*answered, record.done.get(&key).copied().unwrap_or(0));
    if answered > done {
        let text = format!("{key:?} was answered {answered} times and audited {done} times");
        world.fail("recorded", text);
    }
}

/// What is on the disk of a coordinator that is about to start.
pub fn inspect(truth: &Recorded, limit: u64, store: &mut dyn Store) -> Vec<Wrong> {
    let mut out = Vec::new();
    for (prefix, last) in [(EVENTS, truth.events), (AUDIT, truth.audit)] {
        let (mut next, mut bytes, mut largest) = (None, 0, 0);
        let read = store.rows(RECORD, &prefix.to_string(), &mut |name, value| {
            let first = u64::from_str_radix(&name[1..], 16).unwrap_or(0);
            let entries = match prefix {
                AUDIT => shared::codec::decode::<Vec<Audited>>(value).map(|list| list.len()),
                _ => shared::codec::decode::<Vec<Event>>(value).map(|list| list.len()),
            };
            if next.is_some_and(|next| next != first) {
                out.push(broken(format!(
                    "row {name} is there, {next:?} should follow"
                )));
            }
            next = Some(first + entries.unwrap_or(0) as u64);
            bytes += value.len() as u64;
            largest = largest.max(value.len() as u64);
        });
        if let Err(error) = read {
            out.push(broken(error.to_string()));
        }
        if last > 0 && next != Some(last + 1) {
            out.push(broken(format!(
                "'{prefix}' ends before {next:?}, {last} was durable"
            )));
        }
        if bytes > limit + largest {
            out.push(broken(format!("'{prefix}' has {bytes} bytes")));
        }
    }
    out
}
