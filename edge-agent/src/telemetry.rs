//! Telemetry at the gateway: one thread measures, keeps the ring and hands pieces to the link. It
//! never holds up the loop or the link; what it loses, it declares.

mod files;
mod gpu;
mod monitor;

use crate::clock;
use crate::looping::Message;
use crate::mailbox::Handle;
use edge_core::event::Event;
use edge_core::pressure::{HoldLimits, Pressure};
use edge_core::telemetry::{Limits, Next, Ring, RingStatus};
pub use files::Files;
use monitor::Monitor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::ids::{BootId, Incarnation};
use shared::telemetry::query::{Collector, Query};
use shared::telemetry::{Receipt, Report, Sample};
use shared::time::Unix;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// What the ring may take while the disk has no room for more work.
const SCARCE_QUOTA: u64 = 64 << 10;
/// How long whoever asks waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a shrink of the ring holds up the loop at most.
const SHRINK: Duration = Duration::from_secs(2);

/// How to measure and keep.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory.
    pub data: PathBuf,
    /// The life of it.
    pub incarnation: Incarnation,
    /// Time between two samples; none: nothing is measured.
    pub every: Option<Duration>,
    /// NVIDIA's management library, if not the system's.
    pub nvml: Option<PathBuf>,
    /// Of the ring.
    pub limits: Limits,
    /// What the loop wants to know of pressure.
    pub hold_above: HoldLimits,
}

/// A question about the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// The newest sample.
    Newest,
    /// Values.
    Values(Query),
    /// Gaps.
    Gaps,
}

#[derive(Debug)]
enum Command {
    Boot(u32),
    Linked(u64, UnboundedSender<Report>),
    Received(u64, Receipt),
    Unlinked(u64),
    Every(Option<Duration>),
    Scarce(bool, SyncSender<()>),
    Ask(Question, SyncSender<Value>),
    Stop,
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub struct Telemetry {
    to: Sender<Command>,
    facts: Arc<AtomicU64>,
    quota: u64,
}

/// Starts the thread. A ring that cannot be opened is no reason not to work.
///
/// # Errors
/// What the system said when it gave no thread.
pub fn start(options: Options, to_loop: Handle) -> io::Result<(Telemetry, JoinHandle<()>)> {
    let (to, from) = channel();
    let facts = Arc::new(AtomicU64::new(0));
    let known = facts.clone();
    let quota = options.limits.quota;
    let keep = move || match open(&options) {
        Ok(ring) => Keeper::new(ring, options, known, to_loop).run(&from),
        Err(error) => tracing::error!(%error, "telemetry is off"),
    };
    let thread = std::thread::Builder::new()
        .name("telemetry".into())
        .spawn(keep)?;
    Ok((Telemetry { to, facts, quota }, thread))
}

fn open(options: &Options) -> Result<Ring<Files>, String> {
    let dir = options.data.join("telemetry");
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
    let files = Files::open(&dir).map_err(|error| failed(&error))?;
    Ring::open(files, options.incarnation, options.limits).map_err(|error| failed(&error))
}

impl Telemetry {
    fn tell(&self, command: Command) {
        // The thread ends after everybody who tells it something.
        let _ = self.to.send(command);
    }

    /// Bytes that it may take of the disk.
    #[must_use]
    pub fn quota(&self) -> u64 {
        self.quota
    }

    /// The number of this boot is known: measuring begins.
    pub fn booted(&self, number: u32) {
        self.tell(Command::Boot(number));
    }

    /// The node's last fact.
    pub fn fact(&self, number: u64) {
        self.facts.store(number, Ordering::Relaxed);
    }

    /// Changes the time between two samples; none: nothing is measured until it is changed again.
    pub fn set_interval(&self, every: Option<Duration>) {
        self.tell(Command::Every(every));
    }

    /// The disk has no room for more work, or has it again. Returns when the ring has given up
    /// what it can, or after a moment.
    pub fn scarce(&self, scarce: bool) {
        let (done, is_done) = sync_channel(1);
        self.tell(Command::Scarce(scarce, done));
        if scarce && is_done.recv_timeout(SHRINK) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("telemetry is slow to make room");
        }
    }

    /// Answers a question, as JSON.
    #[must_use]
    pub fn ask(&self, question: Question) -> Option<Value> {
        let (reply, answer) = sync_channel(1);
        self.tell(Command::Ask(question, reply));
        answer.recv_timeout(PATIENCE).ok()
    }

    /// Saves what is in memory only, and ends the thread.
    pub fn stop(&self) {
        self.tell(Command::Stop);
    }
}

/// Who measures, as the link knows it.
pub trait Measures: std::fmt::Debug + Send + Sync {
    /// A session stands that takes telemetry.
    fn linked(&self, session: u64, to: UnboundedSender<Report>);
    /// The coordinator says what it has.
    fn received(&self, session: u64, receipt: Receipt);
    /// A session is over.
    fn unlinked(&self, session: u64);
}

impl Measures for Telemetry {
    fn linked(&self, session: u64, to: UnboundedSender<Report>) {
        self.tell(Command::Linked(session, to));
    }

    fn received(&self, session: u64, receipt: Receipt) {
        self.tell(Command::Received(session, receipt));
    }

    fn unlinked(&self, session: u64) {
        self.tell(Command::Unlinked(session));
    }
}

/// A session.
struct Link {
    session: u64,
    to: UnboundedSender<Report>,
    /// The coordinator said what it has.
    greeted: bool,
}

struct Keeper {
    ring: Ring<Files>,
    monitor: Option<Monitor>,
    options: Options,
    every: Option<Duration>,
    /// When the next sample is due.
    due: Instant,
    boot: Option<u32>,
    boot_id: BootId,
    facts: Arc<AtomicU64>,
    link: Option<Link>,
    to_loop: Handle,
    /// The pressure that the loop knows of.
    told: Pressure,
    newest: Option<Sample>,
}

impl Keeper {
    fn new(ring: Ring<Files>, options: Options, facts: Arc<AtomicU64>, to_loop: Handle) -> Self {
        Self {
            ring,
            monitor: None,
            every: options.every,
            options,
            due: Instant::now(),
            boot: None,
            boot_id: clock::boot_id(),
            facts,
            link: None,
            to_loop,
            told: Pressure::default(),
            newest: None,
        }
    }

    fn run(mut self, from: &Receiver<Command>) {
        let mut send_due = None;
        loop {
            let sample = self.measures().then_some(self.due);
            let due = [sample, send_due].into_iter().flatten().min();
            let command = match due {
                Some(due) => from.recv_timeout(due.saturating_duration_since(Instant::now())),
                None => from.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match command {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.measures() && Instant::now() >= self.due {
                self.sample();
            }
            send_due = self.send();
        }
        self.ring.save();
    }

    fn measures(&self) -> bool {
        self.every.is_some() && self.boot.is_some()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Boot(number) => self.boot = Some(number),
            Command::Linked(session, to) => {
                self.ring.disconnected();
                self.link = Some(Link {
                    session,
                    to,
                    greeted: false,
                });
            }
            Command::Received(session, receipt) => self.received(session, &receipt),
            Command::Unlinked(session) => {
                if self.link.take_if(|link| link.session == session).is_some() {
                    self.ring.disconnected();
                }
            }
            Command::Every(every) => {
                if every.is_none() {
                    self.ring.switch_off();
                }
                (self.every, self.due) = (every, Instant::now());
            }
            Command::Scarce(scarce, done) => {
                let quota = self.options.limits.quota;
                let least = SCARCE_QUOTA.min(quota);
                self.ring.set_quota(if scarce { least } else { quota });
                // The loop may have gone on.
                let _ = done.try_send(());
            }
            Command::Ask(question, reply) => {
                // Whoever asked may be gone.
                let _ = reply.try_send(self.answer(question));
            }
            Command::Stop => {}
        }
    }

    fn received(&mut self, session: u64, receipt: &Receipt) {
        let Some(link) = self.link.as_mut().filter(|link| link.session == session) else {
            return;
        };
        if receipt.incarnation != self.ring.incarnation() {
            return;
        }
        if link.greeted {
            self.ring.acknowledged(&receipt.ranges);
        } else {
            link.greeted = true;
            self.ring.connected(&receipt.ranges);
        }
    }

    fn sample(&mut self) {
        let (Some(boot), Some(every)) = (self.boot, self.every) else {
            return;
        };
        let now = Instant::now();
        self.due = (self.due + every).max(now);
        let (data, nvml) = (&self.options.data, self.options.nvml.as_deref());
        let monitor = self.monitor.get_or_insert_with(|| Monitor::new(data, nvml));
        let measured = monitor.measure(now);
        let clocks = clock::now();
        let sample = Sample {
            ms: clocks.mono.0 / 1_000_000,
            wall: clocks.wall,
            fact: self.facts.load(Ordering::Relaxed),
            values: measured.values,
        };
        let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        self.ring.record(boot, self.boot_id, every, &sample);
        self.newest = Some(sample);
        let calm = Pressure::default();
        let pressure = measured.pressure.if_notable(&self.options.hold_above);
        if pressure != calm || self.told != calm {
            self.told = pressure;
            self.to_loop.tell(Message::Event(Event::Pressure(pressure)));
        }
    }

    /// Sends what may go. When to go on.
    fn send(&mut self) -> Option<Instant> {
        let link = self.link.as_ref().filter(|link| link.greeted)?;
        loop {
            let now = clock::now().mono.0 / 1_000_000;
            let at = |due: u64| Instant::now() + Duration::from_millis(due.saturating_sub(now));
            match self.ring.next(now) {
                Next::Idle => return self.ring.counts_lost_at().map(at),
                Next::Wait(due) => return Some(at(due)),
                Next::Piece(piece) => {
                    let incarnation = self.ring.incarnation();
                    // A session that has ended says so.
                    let _ = link.to.send(Report { incarnation, piece });
                }
            }
        }
    }

    fn answer(&self, question: Question) -> Value {
        match question {
            Question::Newest => newest(self.newest.as_ref(), &self.ring.status()),
            Question::Values(query) => {
                let who = self.ring.incarnation();
                let since = query.since;
                let mut collector = Collector::new(query);
                // The ring holds each moment once, so nothing needs to be noted before.
                self.ring.visit(|block| {
                    collector.take(who, block);
                    let last = block.points.last().map_or(Unix(0), |point| point.wall);
                    last.0 > since.0.saturating_sub(DAY_MS)
                });
                json!(collector.answer())
            }
            Question::Gaps => {
                let gaps = self.ring.gaps().iter().map(|gap| {
                    json!({
                        "from": gap.range.after.to_string(),
                        "to": gap.range.upto.to_string(),
                        "reason": gap.reason.text(),
                    })
                });
                json!({"gaps": gaps.collect::<Vec<_>>()})
            }
        }
    }
}

/// The wall clock may have been set back by so much within the ring without a value being missed.
const DAY_MS: i64 = 86_400_000;

fn newest(sample: Option<&Sample>, status: &RingStatus) -> Value {
    let values = sample.map(|sample| {
        let values = sample.values.iter();
        let values = values.map(|(key, value)| (key.to_string(), json!(value)));
        json!({
            "at": sample.wall,
            "fact": sample.fact,
            "values": values.collect::<serde_json::Map<_, _>>(),
        })
    });
    json!({"newest": values, "ring": status})
}
