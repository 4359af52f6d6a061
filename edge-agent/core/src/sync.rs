//! A person lets nothing be sent: the coordinator is neither dialled nor told anything until the
//! pause is over; work goes on as without a link.

use crate::agent::{Agent, Effects, Post, Timer};
use crate::driver::Driver;
use crate::event::Action;
use crate::link::Phase;
use crate::slice::Slice;
use crate::state::{Row, State, TaskKey, Touch};
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use shared::fact::{Body, Fact};
use shared::state::TaskState;
use shared::time::{Mono, Span, Stamp, Unix};

/// A session that stands when the pause begins may tell the coordinator of it for so long.
const LAST_WORDS: Span = Span::secs(5);
/// Batches that one look at the backlog reads at most.
const BATCHES: usize = 16;

/// A pause of sending.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncPause {
    /// Who.
    pub by: String,
    /// Since when.
    pub at: Stamp,
    /// It ends by itself after so long; none: when a person says so.
    pub length: Option<Span>,
}

/// A pause of sending, as people see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncPaused {
    /// Who.
    pub by: String,
    /// Since when.
    pub since: Unix,
    /// When it ends by itself, if it does.
    pub until: Option<Unix>,
}

/// The link, and what waits for it. What lies in the journal is counted by [`Driver::backlog`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncStatus {
    /// As in the agent's status.
    pub link: String,
    /// Since when the link is up, or down.
    pub since: Unix,
    /// Why the link is down, for people.
    pub trouble: Option<String>,
    /// Number of the session that stands or is being made.
    pub session: Option<u64>,
    /// A person lets nothing be sent.
    pub paused: Option<SyncPaused>,
    /// Where the log of facts stands.
    pub facts: FactCursors,
    /// Number of the last directive that is applied here.
    pub directives: u64,
    /// Files to be brought to the coordinator.
    pub uploads: u64,
    /// Files that tasks here wait for.
    pub files_missing: u64,
    /// What does not go up now, and why.
    pub held: Vec<Held>,
}

/// Cursors of the log of facts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FactCursors {
    /// Number of the first one that is still here.
    pub first: u64,
    /// Number of the last one.
    pub last: u64,
    /// The coordinator has them up to here.
    pub acknowledged: u64,
    /// Sent in this session up to here.
    pub sent: u64,
    /// In a backup of the coordinator up to here, if it makes some.
    pub safe: Option<u64>,
}

/// Something that does not go up now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// What.
    pub what: String,
    /// Why, for people.
    pub why: String,
}

/// A part of what waits to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// Facts.
    pub facts: u64,
    /// Bytes, as they lie here and are sent: what is packed counts packed.
    pub bytes: u64,
    /// When the first of them happened.
    pub oldest: Option<Unix>,
    /// Number of its last fact.
    pub upto: u64,
}

impl State {
    pub(crate) fn sync_changed(&mut self, fact: &Fact, touch: &mut Touch) {
        self.sync = match &fact.body {
            Body::SyncPaused { by, length } => Some(SyncPause {
                by: by.clone(),
                at: fact.at,
                length: *length,
            }),
            _ => None,
        };
        touch.rows.insert(Row::Core);
        touch.sync = true;
    }
}

impl Agent {
    pub(crate) fn pause_sync(
        &mut self,
        length: Option<Span>,
        by: String,
        fx: &mut Effects,
    ) -> Result<(), String> {
        if !self.config.has_coordinator {
            return Err("this gateway has no coordinator: nothing is sent anyway".to_owned());
        }
        self.emit(Body::SyncPaused { by, length }, fx);
        Ok(())
    }

    pub(crate) fn resume_sync(&mut self, by: String, fx: &mut Effects) {
        if self.state.sync.is_some() {
            self.emit(Body::SyncResumed { by: Some(by) }, fx);
        }
    }

    /// Does what the state asks for: at a start, and after each change.
    pub(crate) fn follow_sync(&mut self, fx: &mut Effects) {
        self.timers.retain(|(_, timer)| *timer != Timer::SyncEnd);
        let may_dial = self.state.sync.is_none();
        fx.after.push(Post::Act(Action::MayDial(may_dial)));
        self.link.last_words = None;
        match self.link.phase {
            Phase::Offline if may_dial => self.dial_now(fx),
            Phase::Offline => {}
            _ if may_dial => {}
            Phase::Dialing(session) | Phase::Greeting(session) => self.fall_silent(session, fx),
            Phase::Online(session) => {
                self.link.last_words = Some(self.state.facts);
                let due = self.now.mono + LAST_WORDS;
                self.timers.insert((due, Timer::LastWords(session)));
            }
        }
        self.arm_sync_end();
    }

    /// The wall clock became trusted, or the pause is a new one.
    pub(crate) fn arm_sync_end(&mut self) {
        self.timers.retain(|(_, timer)| *timer != Timer::SyncEnd);
        if let Some(end) = self.sync_end() {
            self.timers.insert((end, Timer::SyncEnd));
        }
    }

    /// When the pause ends by itself: by the boot clock, and after a reboot by the wall clock, at
    /// the latest its whole length behind the boot.
    fn sync_end(&self) -> Option<Mono> {
        let pause = self.state.sync.as_ref()?;
        let length = pause.length?;
        let booted = self.now.mono.0 / 1_000_000;
        let passed = if pause.at.boot == self.state.boots {
            booted.saturating_sub(pause.at.mono_ms)
        } else {
            let passed = self.now.wall.0.saturating_sub(pause.at.wall.0);
            u64::try_from(passed).unwrap_or(0).max(booted)
        };
        Some(self.now.mono + Span(length.0.saturating_sub(passed)))
    }

    pub(crate) fn sync_end_due(&mut self, fx: &mut Effects) {
        match self.sync_end() {
            Some(end) if end <= self.now.mono => self.emit(Body::SyncResumed { by: None }, fx),
            _ => self.arm_sync_end(),
        }
    }

    /// The coordinator was told, or does not answer.
    pub(crate) fn last_words_due(&mut self, session: u64, fx: &mut Effects) {
        if self.link.last_words.is_some() && self.link.phase == Phase::Online(session) {
            self.fall_silent(session, fx);
        }
    }

    fn fall_silent(&mut self, session: u64, fx: &mut Effects) {
        self.link.last_words = None;
        // Nothing else may be committed for long, and what was acknowledged is not waiting.
        self.link.ack_due = self.link.ack_due.map(|_| self.now.mono);
        self.hang_up(session, "a person paused it", fx);
        self.timers.retain(|(_, timer)| *timer != Timer::Redial);
    }

    pub(crate) fn link_text(&self) -> &'static str {
        match self.link.phase {
            _ if !self.config.has_coordinator => "alone",
            Phase::Online(_) => "online",
            Phase::Offline if self.state.sync.is_some() => "paused",
            Phase::Offline => "offline",
            Phase::Dialing(_) | Phase::Greeting(_) => "connecting",
        }
    }

    pub(crate) fn sync_paused(&self) -> Option<SyncPaused> {
        let pause = self.state.sync.as_ref()?;
        let until = self.sync_end().map(|end| {
            let left = i64::try_from((end - self.now.mono).0).unwrap_or(i64::MAX);
            Unix(self.now.wall.0.saturating_add(left))
        });
        Some(SyncPaused {
            by: pause.by.clone(),
            since: pause.at.wall,
            until,
        })
    }

    /// What a person who asks why a task waits for another gateway is told besides.
    pub(crate) fn silence_told(&self) -> Option<String> {
        let pause = self.sync_paused()?;
        let end = match pause.until {
            Some(until) => format!("until {until}"),
            None => "until `driftless-agent sync resume`".to_owned(),
        };
        let by = pause.by;
        Some(format!(
            "; nothing is heard of other nodes, since {by} paused the link {end}"
        ))
    }

    /// Whether a task waits for one that is not on this node.
    pub(crate) fn waits_elsewhere(&self, slice: &Slice, key: TaskKey) -> bool {
        let mut needs = slice.task(key.pos).needs.iter();
        slice.slot(key.pos).state == TaskState::Blocked
            && needs.any(|need| slice.position(*need).is_none() && slice.end_of(*need).is_none())
    }

    /// The link, and what waits for it.
    #[must_use]
    pub fn sync_status(&self) -> SyncStatus {
        let (link, now) = (&self.link, self.now);
        let since = i64::try_from((now.mono - link.since).0).unwrap_or(i64::MAX);
        SyncStatus {
            link: self.link_text().to_owned(),
            since: Unix(now.wall.0.saturating_sub(since)),
            trouble: link.trouble.clone(),
            session: match link.phase {
                Phase::Offline => None,
                Phase::Dialing(n) | Phase::Greeting(n) | Phase::Online(n) => Some(n),
            },
            paused: self.sync_paused(),
            facts: FactCursors {
                first: link.facts_first,
                last: self.state.facts,
                acknowledged: link.acked,
                sent: link.sent.max(link.acked),
                safe: link.safe,
            },
            directives: self.state.directives,
            uploads: self.files.backlog() as u64,
            files_missing: self.files.wanted.len() as u64,
            held: self.held_back(),
        }
    }

    fn held_back(&self) -> Vec<Held> {
        let mut held = Vec::new();
        let mut hold = |what: &str, why: String| {
            held.push(Held {
                what: what.to_owned(),
                why,
            });
        };
        let link = &self.link;
        match (self.sync_paused(), &link.trouble) {
            _ if !self.config.has_coordinator => {
                hold("everything", "this gateway has no coordinator".to_owned());
            }
            (Some(pause), _) => {
                let end = match pause.until {
                    Some(until) => format!("until {until}"),
                    None => "until `sync resume`".to_owned(),
                };
                hold("everything", format!("{} paused it {end}", pause.by));
            }
            (None, why) if !link.online() => {
                let why = why.as_deref().unwrap_or("the coordinator is being dialled");
                hold("everything", why.to_owned());
            }
            _ => {}
        }
        let (acked, last) = (link.acked, self.state.facts);
        if link.online() && link.may_send().is_none() && link.sent < last {
            let text =
                format!("the coordinator has not acknowledged what was sent behind fact {acked}");
            hold("facts", text);
        }
        if link.online() && acked < last {
            let text = "facts go first; it follows behind them".to_owned();
            hold("telemetry and evidence of decisions", text);
        }
        if let Some(safe) = link.safe.filter(|safe| *safe < acked) {
            let text = format!("facts behind {safe} are in no backup of the coordinator yet");
            hold("pruning here", text);
        }
        held
    }
}

impl<S: Store> Driver<S> {
    /// A part of the facts behind `after`: the first commits, as many as are read quickly; none if
    /// nothing follows. `after` is what is acknowledged, or the last fact of the part before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn backlog(&mut self, after: u64) -> Result<Option<Backlog>, StoreError> {
        let mut part = Backlog {
            upto: after,
            ..Backlog::default()
        };
        for _ in 0..BATCHES {
            let next = match self.store().packed_after(part.upto)? {
                Some(packed) => {
                    let first = packed.after.number;
                    let bytes = packed.entries.len() as u64;
                    if part.oldest.is_none() {
                        part.oldest = self.happened(first)?;
                    }
                    Some((first, packed.head.number, bytes))
                }
                None => self.store().facts_after(part.upto)?.map(|batch| {
                    let bytes = batch.entries.iter().map(|entry| entry.len() as u64).sum();
                    let first = batch.after.number;
                    if part.oldest.is_none() {
                        part.oldest = time_of(first + 1, batch.entries.first());
                    }
                    (first, batch.head().number, bytes)
                }),
            };
            match next {
                Some((first, last, bytes)) if last > part.upto => {
                    part.facts += last - first.max(part.upto);
                    part.bytes += bytes;
                    part.upto = last;
                }
                _ => break,
            }
        }
        Ok((part.upto > after).then_some(part))
    }

    /// When the fact behind `after` happened.
    fn happened(&mut self, after: u64) -> Result<Option<Unix>, StoreError> {
        let batch = self.store().facts_after(after)?;
        Ok(batch.and_then(|batch| time_of(batch.after.number + 1, batch.entries.first())))
    }
}

fn time_of(number: u64, entry: Option<&Vec<u8>>) -> Option<Unix> {
    let fact = Fact::decode(number, entry?).ok()?;
    Some(fact.at.wall)
}
