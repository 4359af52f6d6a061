//! The shell around the coordinator's engine.

use crate::authority::Authorities;
use crate::fault::Kind;
use crate::machine::{Clocks, Doom};
use crate::medium::CloudMedium;
use crate::net::Side;
use crate::plan::{Layer, Moment, Plan};
use crate::queue::{SEC, Time};
use crate::rng::Rng;
use crate::tap::{Ailment, CloudNote, CloudTap, Ended, Handle};
use crate::trace::Lane;
use crate::truth::CloudTruth;
use crate::world::{Ev, World};
use cloud_core::engine::Engine;
use cloud_core::event::{Config, Input, Output};
use shared::ids::{Hash, NodeId, ScheduleId};
use shared::time::Span;
use std::collections::{BTreeMap, BTreeSet};

/// A copy of the coordinator's disk.
#[derive(Debug)]
pub struct CloudImage {
    /// The store.
    pub medium: CloudMedium,
    /// The truth about it.
    pub truth: CloudTruth,
    /// The files.
    pub files: BTreeMap<Hash, u64>,
    /// The authorities of the fleet.
    pub authorities: Authorities,
}

/// The coordinator's machine.
pub struct Cloud {
    /// It has power.
    pub power: bool,
    /// Its clocks.
    pub clocks: Clocks,
    /// The store's disk.
    pub medium: CloudMedium,
    /// The engine, while the process runs.
    pub engine: Option<Engine<CloudTap>>,
    /// The world's end of the tap.
    pub handle: Handle<CloudNote>,
    /// Number of the process's life.
    pub process: u64,
    /// What it will be told at its next step.
    pub inbox: Vec<Input>,
    /// When its next step is.
    pub step_at: Option<Time>,
    /// It is busy until then.
    pub free_at: Time,
    /// Its machine stands still until then.
    pub frozen_until: Time,
    /// When it will be woken.
    pub wake_at: Option<Time>,
    /// The file store.
    pub files: BTreeMap<Hash, u64>,
    /// The authorities of the fleet, in its directory.
    pub authorities: Authorities,
    /// When its process started.
    pub since: Time,
    /// Slots that should have been decided: since when, behind which one, by schedule.
    pub undecided: BTreeMap<ScheduleId, (Time, i64)>,
    /// So many reasons not to answer dials.
    pub deaf: u32,
    /// The disk is full.
    pub full: bool,
    /// How it is going to die.
    pub doom: Option<Doom>,
    /// What is durable in its store.
    pub truth: CloudTruth,
    /// A copy of its disk that somebody keeps.
    pub image: Option<CloudImage>,
    /// Backups of it.
    pub backups: crate::backup::Shelf,
    /// An entry of an unknown kind is to be written for this gateway while the process is down.
    pub unknown_directive: Option<usize>,
    /// The key of seals.
    pub seal_key: [u8; 32],
    /// It went back to an older image.
    pub went_back: bool,
    /// In such a way that nothing told it so.
    pub put_back: bool,
    /// Who called since it went back.
    pub heard: BTreeSet<NodeId>,
    /// Its wall clock was set.
    pub clock_stepped: bool,
    /// Commits take so much longer, at most.
    pub disk_slow: Time,
    /// What stands still behind a restore.
    pub standing: crate::check::held::Standing,
    /// It was restored of an older backup than the newest.
    pub older: bool,
    /// Pause before the next start after a fatal error.
    pub penance: Time,
    /// Steps since the world looked around.
    pub steps: u64,
    /// What gateways measured of themselves.
    pub books: crate::measure::Books,
}

impl std::fmt::Debug for Cloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cloud").finish_non_exhaustive()
    }
}

impl Cloud {
    /// A new one.
    #[must_use]
    pub fn new(layer: Layer, root: &Rng) -> Self {
        let mut rng = root.fork("cloud", 0);
        let mut seal_key = [0; 32];
        seal_key[..16].copy_from_slice(&rng.id());
        Self {
            power: true,
            clocks: Clocks {
                booted: 0,
                off: 0,
                trusted: true,
            },
            medium: CloudMedium::new(layer),
            engine: None,
            handle: Handle::default(),
            process: 0,
            inbox: Vec::new(),
            step_at: None,
            free_at: 0,
            frozen_until: 0,
            wake_at: None,
            files: BTreeMap::new(),
            authorities: Authorities::default(),
            since: 0,
            undecided: BTreeMap::new(),
            deaf: 0,
            full: false,
            doom: None,
            truth: CloudTruth::default(),
            image: None,
            backups: crate::backup::Shelf::default(),
            unknown_directive: None,
            seal_key,
            went_back: false,
            put_back: false,
            heard: BTreeSet::new(),
            standing: crate::check::held::Standing::default(),
            clock_stepped: false,
            disk_slow: 0,
            older: false,
            penance: 0,
            steps: 0,
            books: crate::measure::Books::default(),
        }
    }

    fn config(&self, plan: &Plan) -> Config {
        let retention = plan.leaving.and_then(|leaving| leaving.retention);
        Config {
            seal_key: self.seal_key,
            // else long enough that no clock jump makes a run leave
            retention: retention.unwrap_or(Span::secs(10_000 * 86_400)),
            decisions_per_run: 1000,
            fold_facts: 20,
            record: record_limits(),
            backups: plan.backups.is_some(),
            scheduler: shared::config::scheduler::Scheduler::default(),
        }
    }
}

impl World {
    /// Puts an input before the coordinator.
    pub fn tell_cloud(&mut self, input: Input) {
        if self.cloud.engine.is_none() {
            return;
        }
        if let Input::Hello { node, .. } = &input {
            crate::check::held::on_heard(self, *node);
            self.cloud.heard.insert(*node);
        }
        self.cloud.inbox.push(input);
        if self.cloud.step_at.is_none() {
            let at = self.cloud.free_at.max(self.t);
            self.cloud.step_at = Some(at);
            self.queue.at(at, Ev::CloudStep(self.cloud.process));
        }
    }

    /// The coordinator's process starts.
    pub(crate) fn cloud_start(&mut self, process: u64) {
        if !self.cloud.power || self.cloud.engine.is_some() || self.cloud.process != process {
            return;
        }
        let handle: Handle<CloudNote> = Handle::default();
        // when the faults stop it is back sooner than was planned
        self.cloud.clocks.booted = self.cloud.clocks.booted.min(self.t);
        let now = self.cloud.clocks.now(self.t);
        let seed = self.dice.ids.bits();
        let config = self.cloud.config(&self.plan);
        let opened = self.cloud.medium.open().and_then(|mut store| {
            crate::check::acknowledged_is_durable::inspect_cloud(self, store.as_mut());
            self.write_unknown_directive(store.as_mut());
            Engine::open(CloudTap::new(store, handle.clone()), config, now, seed)
        });
        self.cloud.handle = handle;
        self.read_cloud_notes(usize::MAX);
        match opened {
            Ok(engine) => {
                self.cloud.engine = Some(engine);
                if let Some(carried) = &mut self.carried {
                    carried.by.cloud_starts(process);
                }
                self.trace
                    .say(self.t, Lane::Cloud, || "coordinator starts".to_owned());
                self.cloud.inbox.clear();
                self.cloud.step_at = None;
                self.cloud.wake_at = None;
                self.cloud.free_at = self.t;
                self.cloud.since = self.t;
                self.reset_old_sessions();
                self.tell_files();
                self.tell_cloud(Input::Wake);
                self.ask_all_again();
            }
            Err(error) => {
                let injected = error.to_string().contains("os error 5");
                if !self.cloud.full && !injected {
                    let text = format!("the coordinator's store cannot be opened: {error}");
                    self.fail("acknowledged_is_durable", text);
                }
                self.cloud_pause();
            }
        }
    }

    /// The engine learns at every start what is in the file store.
    fn tell_files(&mut self) {
        let files = self.cloud.files.iter();
        let files: Vec<(Hash, u64)> = files.map(|(hash, size)| (*hash, *size)).collect();
        for (hash, size) in files {
            self.tell_cloud(Input::FileFound { hash, size });
        }
    }

    /// Old connections are answered with a stateless reset.
    fn reset_old_sessions(&mut self) {
        if self.carried.is_some() {
            return;
        }
        let process = self.cloud.process;
        let old: Vec<(u64, usize)> = self
            .conns
            .iter()
            .filter(|(_, one)| one.agent_open && one.cloud_life != process)
            .map(|(conn, one)| (*conn, one.machine))
            .collect();
        for (conn, m) in old {
            let at = self.t + self.delay(m);
            self.queue.at(at, Ev::Closed(conn, Side::Agent));
        }
    }

    fn cloud_pause(&mut self) {
        self.cloud.process += 1;
        self.cloud.penance = (self.cloud.penance * 2).clamp(SEC, 60 * SEC);
        let at = self.t + self.cloud.penance;
        self.queue.at(at, Ev::CloudStart(self.cloud.process));
    }

    /// The coordinator wanted to be woken now.
    pub(crate) fn cloud_wake(&mut self, process: u64) {
        if self.cloud.process == process && self.cloud.wake_at.is_some_and(|at| at <= self.t) {
            self.cloud.wake_at = None;
            self.tell_cloud(Input::Wake);
        }
    }

    /// The coordinator takes its step.
    pub(crate) fn cloud_step(&mut self, process: u64) {
        if self.cloud.process != process {
            return;
        }
        if let Some(until) = self.stands_still(None) {
            self.cloud.step_at = Some(until);
            self.queue.at(until, Ev::CloudStep(process));
            return;
        }
        self.cloud.steps += 1;
        self.cloud.truth.buried_now.clear();
        crate::check::bounded::on_step(self, Lane::Cloud);
        self.arm_cloud_doom();
        let now = self.cloud.clocks.now(self.t);
        let busy = self.busy(None);
        let inputs = std::mem::take(&mut self.cloud.inbox);
        self.people.operations = crate::operate::operations(&inputs);
        self.cloud.step_at = None;
        self.cloud.free_at = self.t + busy;
        let handle = self.cloud.handle.clone();
        let Some(engine) = &mut self.cloud.engine else {
            return;
        };
        let mut outputs: Vec<(Output, usize)> = Vec::new();
        let count = inputs.len() as u64;
        let result = engine.run(now, inputs, &mut |output| {
            outputs.push((output, handle.lock().notes.len()));
        });
        self.trace
            .mark(self.t, Lane::Cloud, 9, count << 32 | outputs.len() as u64);
        let doom = self.cloud.doom;
        let last_words = self.cut_cloud_short(doom, &handle, &mut outputs);
        let mut read = 0;
        for (output, before) in outputs {
            self.read_cloud_notes(before - read);
            read = before;
            self.perform(output);
        }
        self.read_cloud_notes(usize::MAX);
        if let Some(doom) = last_words {
            self.cloud_dies(doom);
            return;
        }
        if let Err(error) = result {
            self.trace.say(self.t, Lane::Cloud, || {
                format!("coordinator gives up: {error}")
            });
            self.kill_cloud();
            self.cloud_pause();
            return;
        }
        self.arm_cloud_wake();
    }

    fn arm_cloud_wake(&mut self) {
        let Some(at) = self.cloud.engine.as_ref().and_then(Engine::next_wakeup) else {
            return;
        };
        let at = self.cloud.clocks.when(at).max(self.cloud.free_at);
        if self
            .cloud
            .wake_at
            .is_none_or(|armed| armed > at || armed < self.t)
        {
            self.cloud.wake_at = Some(at);
            self.queue.at(at, Ev::CloudWake(self.cloud.process));
        }
    }

    fn arm_cloud_doom(&mut self) {
        if self
            .cloud
            .doom
            .is_some_and(|doom| doom.moment == Moment::InCommit)
        {
            let stored = self.dice.disk.chance(500) || self.on_disk();
            self.cloud.handle.lock().ailment = Ailment::Dies { stored };
            if let Some(disk) = self.cloud.medium.disk() {
                disk.burn_after(self.dice.disk.below(60));
            }
        }
    }

    fn cut_cloud_short(
        &mut self,
        doom: Option<Doom>,
        handle: &Handle<CloudNote>,
        outputs: &mut Vec<(Output, usize)>,
    ) -> Option<Doom> {
        let doom = doom?;
        let (dead, notes) = {
            let shared = handle.lock();
            (shared.dead, shared.notes.len())
        };
        if dead {
            self.happened(Kind::DeathInCommit);
            outputs.retain(|(_, before)| *before < notes);
            return Some(doom);
        }
        let Moment::AfterCommit(keep) = doom.moment else {
            return None;
        };
        let after = outputs.iter().filter(|(_, before)| *before > 0).count();
        if after == 0 {
            return None;
        }
        let before = outputs.len() - after;
        outputs.truncate(before + (keep as usize).min(after - 1));
        self.happened(Kind::KillAfterCommit);
        Some(doom)
    }

    fn read_cloud_notes(&mut self, count: usize) {
        let notes: Vec<CloudNote> = {
            let mut shared = self.cloud.handle.lock();
            let count = count.min(shared.notes.len());
            shared.notes.drain(..count).collect()
        };
        self.count_disk_errors(None);
        for note in notes {
            let (ended, transactions) = match note {
                CloudNote::Loaded(found) => {
                    crate::check::acknowledged_is_durable::settle_open(self, &found);
                    continue;
                }
                CloudNote::Commit {
                    ended,
                    transactions,
                } => (ended, transactions),
            };
            match ended {
                Ended::Done => crate::check::on_cloud_commit(self, &transactions),
                Ended::Refused => self.happened(Kind::CoordinatorDiskFull),
                Ended::Unknown => self.happened(Kind::CoordinatorCommitFailed),
            }
            let wrongs = self.cloud.truth.commit(ended, transactions);
            self.fail_all(Lane::Cloud, wrongs);
            self.watch_moves();
            crate::check::safe::look_at_holes(self);
            crate::check::forgotten::look(self);
        }
    }

    fn watch_moves(&mut self) {
        for log in std::mem::take(&mut self.cloud.truth.former) {
            let silent = self
                .machines
                .iter()
                .any(|one| one.log() == log && !one.link.whole());
            if silent {
                self.happened(Kind::Replaced);
                self.people.replaced.insert(log);
            }
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { conn, message } => self.send_down(conn.0, message),
            Output::Close { conn, why } => self.close(conn.0, Side::Cloud, &why),
            Output::Reply { id, reply } => self.answered(id.0, *reply),
            Output::Access(_) => {}
            Output::DropFiles(hashes) => {
                for hash in hashes {
                    self.cloud.files.remove(&hash);
                }
            }
        }
    }

    /// The coordinator's process is gone.
    pub fn kill_cloud(&mut self) {
        self.cloud.process += 1;
        self.cloud.doom = None;
        self.cloud.inbox.clear();
        self.cloud.step_at = None;
        self.books_close(false);
        let Some(engine) = self.cloud.engine.take() else {
            return;
        };
        // the handle is closed without a word; what a page cache knows survives
        if let Some(disk) = self.cloud.medium.disk() {
            disk.burn_after(0);
            drop(engine);
            disk.survive_kill();
        } else {
            self.weigh_cloud(engine);
        }
        if let Some(carried) = &mut self.carried {
            carried.by.cloud_dies();
        }
        let conns: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, one)| one.cloud_open)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            self.abandon(conn, Side::Cloud);
        }
    }

    /// The coordinator dies as planned.
    pub fn cloud_dies(&mut self, doom: Doom) {
        if self.cloud.engine.is_none() {
            return;
        }
        if doom.power {
            self.cloud_power_off(doom.down);
            return;
        }
        self.happened(Kind::CoordinatorKill);
        self.trace
            .say(self.t, Lane::Cloud, || "coordinator killed".to_owned());
        self.kill_cloud();
        let at = self.t + doom.down;
        self.queue.at(at, Ev::CloudStart(self.cloud.process));
    }

    /// The coordinator's machine loses its power.
    pub fn cloud_power_off(&mut self, down: Time) {
        self.happened(Kind::CoordinatorPowerCut);
        self.trace.say(self.t, Lane::Cloud, || {
            "coordinator's power lost".to_owned()
        });
        self.cloud.handle.lock().dead = true;
        if let Some(disk) = self.cloud.medium.disk() {
            disk.burn_after(0);
        }
        self.kill_cloud();
        self.books_close(true);
        self.cloud.process += 1;
        if let Some(disk) = self.cloud.medium.disk() {
            let damage = disk.cut_power(&mut self.dice.disk);
            self.tally.add_n(Kind::LostWrite, damage.lost);
            self.tally.add_n(Kind::TornWrite, damage.torn);
        }
        let at = self.t + down;
        self.cloud.clocks.booted = at;
        self.queue.at(at, Ev::CloudStart(self.cloud.process));
    }
}

/// Bytes of events, and of the audit record: small, so that the windows move.
pub const RECORD_BYTES: u64 = 6_000;

fn record_limits() -> cloud_core::record::Limits {
    cloud_core::record::Limits {
        events: RECORD_BYTES,
        audit: RECORD_BYTES,
        ..cloud_core::record::Limits::default()
    }
}
