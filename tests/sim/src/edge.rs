//! The shell around an agent's core: its steps, its service manager, and the carrying out of its
//! actions.

use crate::fault::Kind;
use crate::machine::{Agent, Doom};
use crate::plan::{Moment, Planted};
use crate::queue::{MS, SEC, Time};
use crate::shell::{Act, Acts, Core, Shell};
use crate::tap::{Ailment, EdgeNote, EdgeTap, Ended, Handle};
use crate::trace::Lane;
use crate::truth::EdgeTruth;
use crate::world::{Ev, World};
use edge_core::driver::{Driver, DriverError};
use edge_core::event::{Action, Boot, Event};
use shared::ids::{AttemptRef, Incarnation};
use shared::wire::{INVENTORY_PARTS, Up};
use std::collections::BTreeSet;

impl World {
    /// Puts an event before the agent of `m`.
    pub fn tell(&mut self, m: usize, event: Event) {
        if let Event::Heard { message, .. } = &event {
            crate::check::on_hear_down(self, m, message);
        }
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        agent.inbox.push(event);
        self.poke(m, 0);
    }

    /// The agent of `m` takes a step soon.
    fn poke(&mut self, m: usize, after: Time) {
        let process = self.machines[m].process;
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        if agent.step_at.is_none() {
            let at = agent.free_at.max(self.t + after);
            agent.step_at = Some(at);
            self.queue.at(at, Ev::Step(m, process));
        }
    }

    /// The agent of `m` starts, if its machine runs.
    pub(crate) fn start(&mut self, m: usize, process: u64) {
        if self.is_liar(m) {
            self.liar_starts();
            return;
        }
        let machine = &self.machines[m];
        let off = !machine.power || machine.destroyed || machine.agent.is_some();
        let unknown = machine.node.is_none() || machine.life == usize::MAX;
        if off || machine.process != process || unknown {
            return;
        }
        self.end_old_processes(m);
        self.write_unknown_fact(m);
        let handle: Handle<EdgeNote> = Handle::default();
        let driver = self.open_driver(m, &handle);
        self.read_notes(m, &handle, usize::MAX);
        let Some(driver) = driver else {
            let machine = &mut self.machines[m];
            machine.penance = (machine.penance * 2).clamp(SEC, 60 * SEC);
            let (at, process) = (self.t + machine.penance, machine.process);
            self.queue.at(at, Ev::Start(m, process));
            return;
        };
        let boot = self.boot_event(m, BTreeSet::new());
        let shell = self.shell(m, driver, &handle, &boot);
        let machine = &mut self.machines[m];
        self.lives[machine.life].sure_from = machine.clocks.trusted.then_some(self.t);
        machine.since = self.t;
        machine.agent = Some(Agent {
            shell,
            handle,
            inbox: vec![Event::Boot(boot)],
            step_at: None,
            free_at: self.t,
            wake_at: None,
            waiting: std::collections::VecDeque::new(),
            sessions: std::collections::BTreeMap::new(),
            fetching: BTreeSet::new(),
            uploading: std::collections::BTreeMap::new(),
            doom: None,
            skew: false,
        });
        self.carry_agent(m);
        self.gauge_starts(m);
        self.trace
            .say(self.t, Lane::Node(m), || "agent starts".to_owned());
        self.tell_room(m);
        self.watch_cold_boot(m);
    }

    fn watch_cold_boot(&mut self, m: usize) {
        let machine = &self.machines[m];
        let cold = machine.cold && !machine.link.whole();
        let work = !self.lives[machine.life]
            .model
            .startable(&self.flows)
            .is_empty();
        if cold && work {
            self.happened(Kind::ColdBootOffline);
        }
    }

    fn open_driver(&mut self, m: usize, handle: &Handle<EdgeNote>) -> Option<Driver<EdgeTap>> {
        let thorough = self.on_disk();
        let machine = &mut self.machines[m];
        let log = machine.log();
        let store = match machine.medium.open(log) {
            Ok(store) => store,
            Err(error) => {
                self.store_unreadable(m, &error);
                return None;
            }
        };
        let tap = EdgeTap::new(store, handle.clone(), thorough);
        match Driver::open(tap, self.machines[m].config(&self.plan)) {
            Ok(driver) => Some(driver),
            Err(error) => {
                self.store_unreadable(m, &error);
                None
            }
        }
    }

    fn store_unreadable(&mut self, m: usize, error: &edge_core::store::StoreError) {
        self.count_disk_errors(Some(m));
        // a planned sync error may meet the opening itself: then the next start finds everything
        let injected = error.to_string().contains("os error 5");
        if !injected {
            crate::check::reserve::on_refused(self, m, "its store does not open");
        }
        if !self.machines[m].full && !injected {
            let text = format!("the store of gw-{} cannot be opened: {error}", m + 1);
            self.fail("acknowledged_is_durable", text);
        }
    }

    /// The driver in its shell.
    fn shell(
        &mut self,
        m: usize,
        driver: Driver<EdgeTap>,
        handle: &Handle<EdgeNote>,
        boot: &Boot,
    ) -> Box<dyn Shell> {
        let around = self.machines[m].around(self.t);
        let handle = handle.clone();
        let hoards = self.plan.planted == Some(Planted::Hoard);
        match &mut self.carried {
            Some(carried) => carried.by.shell(driver, handle, boot.clone(), around),
            None => Box::new(Core {
                driver,
                handle,
                hoard: hoards.then(Vec::new),
            }),
        }
    }

    fn boot_event(&mut self, m: usize, alive: BTreeSet<AttemptRef>) -> Boot {
        let machine = &self.machines[m];
        Boot {
            boot: machine.boot,
            seed: self.dice.ids.bits(),
            directories: machine.dirs.clone(),
            alive,
            ended: Vec::new(),
            clock_trusted: machine.clocks.trusted,
            clean_stop: std::mem::take(&mut self.machines[m].clean_stop),
        }
    }

    /// A gateway measures its room.
    pub fn tell_room(&mut self, m: usize) {
        self.gauge_room(m);
        let free = self.machines[m].around(self.t).free;
        let wanted = 1 << 20;
        if let Some(agent) = &mut self.machines[m].agent {
            // Before all that is decided on, as the agent's loop does it.
            agent.inbox.insert(0, Event::Room { free, wanted });
            self.poke(m, 0);
        }
    }

    /// The agent of `m` wanted to be woken now.
    pub(crate) fn wake(&mut self, m: usize, process: u64) {
        if self.machines[m].process != process {
            return;
        }
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        if agent.wake_at.is_none_or(|at| at > self.t) {
            return;
        }
        agent.wake_at = None;
        self.tell(m, Event::Wake);
    }

    /// The agent of `m` takes a step: it decides, commits, and its actions are carried out.
    pub(crate) fn step(&mut self, m: usize, process: u64) {
        if self.machines[m].process != process {
            return;
        }
        if let Some(until) = self.stands_still(Some(m)) {
            if let Some(agent) = &mut self.machines[m].agent {
                agent.step_at = Some(until);
                self.queue.at(until, Ev::Step(m, process));
            }
            return;
        }
        self.machines[m].steps += 1;
        crate::check::bounded::on_step(self, Lane::Node(m));
        let around = self.machines[m].around(self.t);
        let busy = self.busy(Some(m));
        self.arm_doom(m);
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        agent.step_at = None;
        agent.free_at = self.t + busy;
        let events = std::mem::take(&mut agent.inbox);
        let count = events.len() as u64;
        let handle = agent.handle.clone();
        let (acts, result) = agent.shell.step(around, events);
        self.trace
            .mark(self.t, Lane::Node(m), 4, count << 32 | acts.len() as u64);
        self.after_step(m, process, &handle, acts, result);
    }

    fn after_step(
        &mut self,
        m: usize,
        process: u64,
        handle: &Handle<EdgeNote>,
        mut acts: Acts,
        result: Result<(), DriverError>,
    ) {
        let doom = self.machines[m].agent.as_mut().and_then(|agent| agent.doom);
        let dead = handle.lock().dead;
        let last_words = self.cut_short(doom, dead, handle, &mut acts);
        self.carry_out(m, process, handle, acts);
        if self.machines[m].process != process {
            return;
        }
        if let Some(doom) = last_words {
            self.die(m, doom);
            return;
        }
        match result {
            Ok(()) => {}
            Err(DriverError::Rebuilt(why)) => self.rebuilt(m, &format!("{why:?}")),
            Err(DriverError::Fatal(why)) => {
                self.trace
                    .say(self.t, Lane::Node(m), || format!("agent gives up: {why:?}"));
                self.exit_and_restart(m);
                return;
            }
        }
        self.arm_wake(m);
    }

    /// Does what a step asked for, and takes notice of its commits, in their order.
    pub(crate) fn carry_out(
        &mut self,
        m: usize,
        process: u64,
        handle: &Handle<EdgeNote>,
        acts: Acts,
    ) {
        let mut read = 0;
        for (act, before) in acts {
            self.read_notes(m, handle, before - read);
            read = before;
            match act {
                Act::Core(action) => self.act(m, process, action),
                Act::Settled(attempts) => self.settled(m, &attempts),
            }
            if self.machines[m].process != process {
                return;
            }
        }
        self.read_notes(m, handle, usize::MAX);
    }

    /// What of the actions is still carried out by an agent that dies in this step, and how it
    /// dies.
    fn cut_short(
        &mut self,
        doom: Option<Doom>,
        dead: bool,
        handle: &Handle<EdgeNote>,
        acts: &mut Acts,
    ) -> Option<Doom> {
        let doom = doom?;
        if dead {
            self.happened(Kind::DeathInCommit);
            let commits = handle.lock().notes.len();
            acts.retain(|(_, before)| *before < commits);
            return Some(doom);
        }
        let Moment::AfterCommit(keep) = doom.moment else {
            return None;
        };
        let first = handle.lock().notes.iter().position(|note| {
            matches!(
                note,
                EdgeNote::Commit {
                    ended: Ended::Done,
                    ..
                }
            )
        })?;
        let after = acts.iter().filter(|(_, before)| *before > first).count();
        if after == 0 {
            return None;
        }
        let done = acts.len() - after;
        acts.truncate(done + (keep as usize).min(after - 1));
        self.happened(Kind::KillAfterCommit);
        Some(doom)
    }

    /// Prepares the next commit of an agent that is to die in it.
    fn arm_doom(&mut self, m: usize) {
        let on_disk = self.on_disk();
        let lies = self.plan.planted == Some(Planted::AcknowledgeBeforeCommit);
        if let (true, Some(agent)) = (lies && self.dice.disk.chance(20), &self.machines[m].agent) {
            agent.handle.lock().ailment = Ailment::Lies;
        }
        let Some(agent) = &self.machines[m].agent else {
            return;
        };
        if agent
            .doom
            .is_some_and(|doom| doom.moment == Moment::InCommit)
        {
            let stored = self.dice.disk.chance(500) || on_disk;
            agent.handle.lock().ailment = Ailment::Dies { stored };
            if on_disk {
                let ops = self.dice.disk.below(40);
                self.machines[m].medium.burn_after(ops);
            }
        }
    }

    fn rebuilt(&mut self, m: usize, why: &str) {
        self.trace
            .say(self.t, Lane::Node(m), || format!("core rebuilt: {why}"));
        let process = self.machines[m].process;
        let alive = self.executing(m, process);
        let boot = self.boot_event(m, alive);
        if let Some(agent) = &mut self.machines[m].agent {
            agent.inbox.insert(0, Event::Boot(boot));
            agent.wake_at = None;
        }
        self.poke(m, 10 * MS);
    }

    fn executing(&self, m: usize, process: u64) -> BTreeSet<AttemptRef> {
        let machine = &self.machines[m];
        let waiting = machine.agent.iter().flat_map(|agent| &agent.waiting);
        machine
            .procs
            .values()
            .filter(|one| one.life == process)
            .map(|one| one.attempt)
            .chain(waiting.map(|launch| launch.attempt))
            .collect()
    }

    fn arm_wake(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        let clocks = machine.clocks;
        let process = machine.process;
        let Some(agent) = &mut machine.agent else {
            return;
        };
        let Some(at) = agent.shell.next_wakeup() else {
            agent.wake_at = None;
            return;
        };
        // timers have a resolution, and an agent is not woken while it is busy
        let at = clocks.when(at).max(agent.free_at);
        if agent
            .wake_at
            .is_none_or(|armed| armed > at || armed < self.t)
        {
            agent.wake_at = Some(at);
            self.queue.at(at, Ev::Wake(m, process));
        }
    }

    /// Takes up to `count` notes from a tap into the truth.
    pub fn read_notes(&mut self, m: usize, handle: &Handle<EdgeNote>, count: usize) {
        let notes: Vec<EdgeNote> = {
            let mut shared = handle.lock();
            let count = count.min(shared.notes.len());
            shared.notes.drain(..count).collect()
        };
        self.count_disk_errors(Some(m));
        for note in notes {
            self.read_note(m, note);
        }
    }

    fn read_note(&mut self, m: usize, note: EdgeNote) {
        self.learn_fired(m, &note);
        let life = self.machines[m].life;
        let truth = &mut self.lives[life];
        let before = truth.facts.len();
        let wrongs = match note {
            EdgeNote::Loaded {
                first,
                facts,
                directives,
                entries,
            } => {
                let mut wrongs = truth.loaded(self.t, facts, directives.number, &self.flows);
                wrongs.extend(truth.compare(&entries));
                crate::check::reserve::on_loaded(self, m, first);
                wrongs
            }
            EdgeNote::Commit {
                ended,
                facts,
                directives,
                pruned,
            } => match ended {
                Ended::Done => {
                    let wrongs = truth.commit(self.t, facts, directives, &self.flows);
                    if let Some(upto) = pruned {
                        crate::check::safe::on_prune(self, m, upto);
                    }
                    crate::check::on_edge_commit(self, m, before);
                    wrongs
                }
                Ended::Refused => {
                    // a simulated disk counts what it refuses
                    if self.machines[m].medium.disk().is_none() {
                        self.happened(Kind::AgentDiskFull);
                        if !self.machines[m].link.whole() {
                            self.happened(Kind::FullOffline);
                        }
                    }
                    crate::check::measured::on_refused(self, m);
                    crate::check::reserve::on_refused(self, m, "a commit is refused");
                    Vec::new()
                }
                Ended::Unknown => {
                    truth.unknown(facts, directives, pruned);
                    self.happened(Kind::AgentCommitFailed);
                    Vec::new()
                }
            },
        };
        self.note_facts(m, before);
        self.fail_all(Lane::Node(m), wrongs);
    }

    /// What runs that were fired do is known before their facts are folded.
    fn learn_fired(&mut self, m: usize, note: &EdgeNote) {
        let EdgeNote::Commit { facts, .. } = note else {
            return;
        };
        if self.people.schedules.is_empty() {
            return;
        }
        for bytes in facts {
            let fact = shared::fact::Fact::decode(0, bytes).ok();
            if let Some(shared::fact::Body::Fired {
                schedule, slice, ..
            }) = fact.map(|fact| fact.body)
            {
                self.fired(schedule, slice.run, Some(m));
            }
        }
    }

    /// New facts get into the index of commit ends and into the timeline.
    fn note_facts(&mut self, m: usize, before: usize) {
        let truth = &self.lives[self.machines[m].life];
        let ends = self.ends.entry(truth.log).or_default();
        for (position, row) in truth.facts.iter().enumerate().skip(before) {
            let number = position as u64 + 1;
            if row.ends {
                let hashes = ends.entry(number).or_default();
                if !hashes.contains(&row.hash) {
                    hashes.push(row.hash);
                }
            }
            self.trace.mark(self.t, Lane::Node(m), 5, number);
            self.trace.say(self.t, Lane::Node(m), || {
                let text = row.fact.as_ref();
                let text = text.map(|fact| crate::tell::fact(&self.flows, &fact.body));
                let text = text.as_deref().unwrap_or("of an unknown kind");
                format!("fact {number} {text}")
            });
        }
    }

    /// The ends of these attempts are durable: their directories go.
    fn settled(&mut self, m: usize, attempts: &[AttemptRef]) {
        for attempt in attempts {
            self.machines[m].dirs.remove(attempt);
        }
    }

    /// Carries out one action.
    fn act(&mut self, m: usize, process: u64, action: Action) {
        match action {
            Action::Dial { session } => {
                crate::check::silent::on_dial(self, m);
                self.dial(m, session);
            }
            Action::Send { session, message } => self.say(m, session, message),
            Action::Hangup { session } => self.hang_up(m, session),
            Action::Begin(launch) => self.begin(m, launch),
            Action::Stop { attempt, grace } => self.stop(m, attempt, grace),
            Action::Fetch { hash, size } => self.fetch(m, hash, size),
            Action::Upload { hash, size } => self.upload(m, hash, size),
            Action::Keep { bytes } => self.keep(m, &bytes),
            Action::Reply { request, reply } => self.local_reply(m, request, reply),
            Action::ForgetRun { run } => {
                self.machines[m]
                    .dirs
                    .retain(|attempt| attempt.slice.run != run);
            }
            // nothing here depends on them; the checkers read the journal
            Action::Settings(_) => {}
            Action::MayDial(may) => {
                if let Some(carried) = &mut self.carried {
                    carried.by.may_dial(m, may);
                }
            }
            Action::NewIncarnation { why } => self.new_incarnation(m, process, &why),
        }
    }

    fn say(&mut self, m: usize, session: u64, mut message: Up) {
        crate::check::silent::on_send(self, m);
        if let Up::Hello(hello) = &mut message
            && m % 3 == 2
        {
            // an agent of an earlier version
            hello.features &= !INVENTORY_PARTS;
        }
        if let (Up::Hello(hello), Some(agent)) = (&mut message, &mut self.machines[m].agent)
            && std::mem::take(&mut agent.skew)
        {
            hello.protocol_min = shared::wire::PROTOCOL_MAX + 1;
            hello.protocol_max = shared::wire::PROTOCOL_MAX + 3;
        }
        self.send_up(m, session, message);
    }

    fn hang_up(&mut self, m: usize, session: u64) {
        if let Some(carried) = &mut self.carried {
            carried.by.hang_up(m, session);
            return;
        }
        let conn = self.machines[m]
            .agent
            .as_ref()
            .and_then(|agent| agent.sessions.get(&session).copied());
        if let Some(conn) = conn {
            self.close(conn, crate::net::Side::Agent, "hung up");
        }
    }

    fn new_incarnation(&mut self, m: usize, process: u64, why: &str) {
        self.kill_agent(m, false);
        debug_assert_ne!(self.machines[m].process, process, "the old process is gone");
        self.succeed(m, why);
        let process = self.machines[m].process;
        self.queue.at(self.t + SEC, Ev::Start(m, process));
    }

    /// An empty store succeeds the one that a machine has; its agent does not run.
    pub(crate) fn succeed(&mut self, m: usize, why: &str) {
        self.trace.say(self.t, Lane::Node(m), || {
            format!("takes a new incarnation: {why}")
        });
        let layer = self.plan.layer;
        let id = Incarnation(self.dice.ids.id());
        let machine = &mut self.machines[m];
        machine.succeeds = Some(machine.incarnation);
        machine.incarnation = id;
        machine.medium = crate::medium::EdgeMedium::new(layer);
        machine.arrived = 0;
        machine.told = 0;
        let log = machine.log();
        machine.life = self.lives.len();
        self.lives.push(EdgeTruth::new(log));
    }

    /// The agent's process is gone. Its connections fall silent.
    pub fn kill_agent(&mut self, m: usize, group: bool) {
        let machine = &mut self.machines[m];
        machine.process += 1;
        machine.idle_since = None;
        let Some(agent) = machine.agent.take() else {
            return;
        };
        if let Some(carried) = &mut self.carried {
            carried.by.agent_dies(m);
        }
        for conn in agent.sessions.values() {
            self.abandon(*conn, crate::net::Side::Agent);
        }
        self.local_gone(m);
        self.gauge_dies(m);
        // handles are closed without a word; what a page cache knows survives
        self.machines[m].medium.freeze();
        self.weigh_agent(m, agent);
        self.machines[m].medium.survive_kill();
        if group {
            self.end_old_processes(m);
        }
    }

    fn exit_and_restart(&mut self, m: usize) {
        self.kill_agent(m, false);
        let machine = &mut self.machines[m];
        machine.penance = (machine.penance * 2).clamp(SEC, 60 * SEC);
        let (at, process) = (self.t + machine.penance, machine.process);
        self.queue.at(at, Ev::Start(m, process));
    }

    /// Somebody dies as planned.
    pub fn die(&mut self, m: usize, doom: Doom) {
        if doom.power {
            self.power_off(m, Some(doom.down));
            return;
        }
        self.happened(if doom.group {
            Kind::GroupKill
        } else {
            Kind::AgentKill
        });
        self.trace
            .say(self.t, Lane::Node(m), || "agent killed".to_owned());
        self.kill_agent(m, doom.group);
        let process = self.machines[m].process;
        self.queue.at(self.t + doom.down, Ev::Start(m, process));
    }

    /// A machine loses its power; with a time, it comes back.
    pub fn power_off(&mut self, m: usize, down: Option<Time>) {
        if !self.machines[m].power {
            return;
        }
        self.happened(Kind::AgentPowerCut);
        self.trace
            .say(self.t, Lane::Node(m), || "power lost".to_owned());
        // processes die before the agent could see anything
        self.end_old_processes(m);
        self.kill_agent_quietly(m);
        let dice = &mut self.dice.disk;
        let machine = &mut self.machines[m];
        machine.power = false;
        machine.off_since = self.t;
        machine.dirs = crate::disk::surviving(&machine.dirs, dice);
        // the mark of a clean stop was not synced
        machine.clean_stop &= dice.chance(500);
        let damage = machine.medium.cut_power(dice);
        self.tally.add_n(Kind::LostWrite, damage.lost);
        self.tally.add_n(Kind::TornWrite, damage.torn);
        if let Some(down) = down {
            self.queue.at(self.t + down, Ev::PowerOn(m));
        }
    }

    /// Like `kill_agent`, but the store's handle must not write anything on its way out.
    fn kill_agent_quietly(&mut self, m: usize) {
        if let Some(agent) = &self.machines[m].agent {
            agent.handle.lock().dead = true;
        }
        self.machines[m].medium.freeze();
        self.kill_agent(m, true);
    }

    /// What a gateway has to tell may be old when it boots.
    fn watch_long_off(&mut self, m: usize) {
        let machine = &self.machines[m];
        let off = self.t - machine.off_since;
        let Some(truth) = self.lives.get(machine.life) else {
            return;
        };
        let head = self.cloud.truth.heads.get(&truth.log);
        let missing = truth.facts.len() as u64 > head.map_or(0, |head| head.number);
        if missing && off > self.plan.fact_window().nanos() {
            self.happened(Kind::OffForLong);
        }
    }

    /// A machine boots.
    pub(crate) fn power_on(&mut self, m: usize) {
        if self.machines[m].power || self.machines[m].destroyed {
            return;
        }
        self.watch_long_off(m);
        let boot = shared::ids::BootId(self.dice.ids.id());
        let machine = &mut self.machines[m];
        machine.power = true;
        machine.boot = boot;
        machine.clocks.booted = self.t;
        machine.cold = !machine.link.whole();
        machine.process += 1;
        let process = machine.process;
        self.trace.say(self.t, Lane::Node(m), || "boots".to_owned());
        self.queue.at(self.t + SEC, Ev::Start(m, process));
    }
}
