//! Faults as they strike.

use crate::disk::Full;
use crate::fault::Kind;
use crate::machine::{Doom, Image, Machine};
use crate::medium::EdgeMedium;
use crate::plan::{Moment, What};
use crate::queue::{MIN, MS, SEC, Time, US};
use crate::tap::{Ailment, Ended};
use crate::trace::{Lane, Sort};
use crate::world::{Ev, World};
use cloud_core::event::{Conn, Input};
use cloud_core::store::{AggregateId, Entry, Transaction};
use edge_core::event::Event;
use edge_core::store::Commit;
use shared::ids::Incarnation;
use shared::spec::fleet::Node;
use shared::time::Stamp;
use shared::wire::LogId;

impl World {
    /// A fault of the plan strikes.
    pub(crate) fn strike(&mut self, position: usize) {
        if self.calm {
            return;
        }
        let what = self.plan.faults[position].what;
        self.trace.mark(self.t, Lane::World, 12, position as u64);
        let lane = what.node().map_or(Lane::Cloud, Lane::Node);
        self.trace
            .note(self.t, lane, Sort::Fault, || format!("fault: {what}"));
        match what {
            What::Cut { node, dead, lasts } => {
                self.cut(node, dead.0, dead.1);
                self.queue
                    .at(self.t + lasts, Ev::Healed(node, dead.0, dead.1));
            }
            What::Reset(node) => self.reset_session(node),
            What::Drain { node, on } => self.drain(node, on),
            What::Slow { node, by, lasts } => {
                self.machines[node].link.slow += by;
                self.queue.at(self.t + lasts, Ev::Fast(node, by));
            }
            What::RefuseDials(lasts) => {
                self.cloud.deaf += 1;
                self.queue.at(self.t + lasts, Ev::Answers);
            }
            What::Kill {
                node,
                group,
                moment,
                down,
            } => {
                let power = false;
                self.doom(
                    node,
                    Doom {
                        moment,
                        power,
                        group,
                        down,
                    },
                );
            }
            What::Stop { node, down } => self.stop_agent(node, down),
            What::Power { .. } | What::SitePower { .. } | What::Blackout(_) => {
                self.strike_power(what);
            }
            What::Freeze { node, freeze } => self.freeze(node, freeze),
            What::CloudKill { moment, down } => self.doom_cloud(moment, false, down),
            What::CloudPower { moment, down } => self.doom_cloud(moment, true, down),
            What::Clock { node, by } => self.jump(node, by),
            What::Full { .. }
            | What::SlowDisk { .. }
            | What::CommitFails(_)
            | What::SyncFails(_) => {
                self.strike_disk(what);
            }
            _ => self.strike_history(what),
        }
    }

    fn strike_power(&mut self, what: What) {
        match what {
            What::Power {
                node,
                moment,
                down,
                untrusted,
                offline,
            } => {
                if let Some(lasts) = offline {
                    self.cut(node, true, true);
                    self.queue
                        .at(self.t + down + lasts, Ev::Healed(node, true, true));
                }
                if untrusted {
                    self.untrust(node);
                }
                let (power, group) = (true, true);
                self.doom(
                    node,
                    Doom {
                        moment,
                        power,
                        group,
                        down,
                    },
                );
            }
            What::SitePower { node, down } => self.site_power(node, down),
            What::Blackout(down) => {
                self.happened(Kind::Blackout);
                for m in 0..self.machines.len() {
                    self.power_off(m, Some(down));
                }
                if self.cloud.engine.is_some() {
                    self.cloud_power_off(down);
                }
            }
            _ => {}
        }
    }

    /// The power of a whole site fails.
    fn site_power(&mut self, node: usize, down: Time) {
        let site = self.machines[node].labels.get("site").cloned();
        let on: Vec<usize> = (0..self.machines.len())
            .filter(|m| self.machines[*m].power)
            .collect();
        let (there, others): (Vec<usize>, Vec<usize>) = on
            .into_iter()
            .partition(|m| self.machines[*m].labels.get("site") == site.as_ref());
        if there.len() > 1 && !others.is_empty() {
            self.happened(Kind::SitePowerCut);
        }
        for m in there {
            self.power_off(m, Some(down));
        }
    }

    fn untrust(&mut self, m: usize) {
        self.happened(Kind::ClockUntrusted);
        self.unsure(m, None);
        let clocks = &mut self.machines[m].clocks;
        clocks.trusted = false;
        // without a battery the clock begins at the build's date
        clocks.off = -(300 * 24 * 3_600_000);
        // the time service sets it some minutes after, also where faults have stopped by then
        self.queue.at(self.t + 10 * MIN, Ev::ClockIsSet(m));
    }

    /// The time service set the clock, and tells so.
    pub(crate) fn clock_is_set(&mut self, m: usize) {
        let clocks = &mut self.machines[m].clocks;
        (clocks.off, clocks.trusted) = (0, true);
        self.trace
            .say(self.t, Lane::Node(m), || "its clock is set".to_owned());
        self.unsure(m, Some(self.t + 10 * SEC));
        self.tell(m, Event::Clock { trusted: true });
    }

    /// From when on the clock of facts is the one that slots go by.
    fn unsure(&mut self, m: usize, from: Option<Time>) {
        if let Some(life) = self.lives.get_mut(self.machines[m].life) {
            life.sure_from = from;
        }
    }

    fn doom(&mut self, m: usize, doom: Doom) {
        let disk = self.machines[m].medium.disk().is_some();
        let Some(agent) = &mut self.machines[m].agent else {
            return;
        };
        if doom.moment == Moment::Now {
            self.die(m, doom);
            return;
        }
        let _ = disk;
        agent.doom = Some(doom);
    }

    fn doom_cloud(&mut self, moment: Moment, power: bool, down: Time) {
        let group = true;
        let doom = Doom {
            moment,
            power,
            group,
            down,
        };
        if self.cloud.engine.is_none() {
            return;
        }
        if moment == Moment::Now {
            self.cloud_dies(doom);
        } else {
            self.cloud.doom = Some(doom);
        }
    }

    fn jump(&mut self, node: Option<usize>, by: i64) {
        let clocks = match node {
            Some(m) => &mut self.machines[m].clocks,
            None => {
                self.cloud.clock_stepped = true;
                &mut self.cloud.clocks
            }
        };
        clocks.off = (clocks.off + by).clamp(-(500 * 86_400_000), 500 * 86_400_000);
        self.happened(if by > 0 {
            Kind::ClockForward
        } else {
            Kind::ClockBack
        });
    }

    fn strike_disk(&mut self, what: What) {
        match what {
            What::Full {
                node: Some(m),
                lasts,
            } => {
                self.machines[m].full = true;
                if let Some(disk) = self.machines[m].medium.disk() {
                    disk.fill_up(Full {
                        copies: self.dice.disk.chance(500),
                        others: self.dice.disk.chance(200),
                    });
                } else if let Some(agent) = &self.machines[m].agent {
                    agent.handle.lock().ailment = Ailment::Full;
                }
                self.tell_room(m);
                self.queue.at(self.t + lasts, Ev::Room(Some(m)));
            }
            What::Full { node: None, lasts } => {
                self.cloud.full = true;
                if let Some(disk) = self.cloud.medium.disk() {
                    disk.set_quota(Some(disk.used()));
                } else {
                    self.cloud.handle.lock().ailment = Ailment::Full;
                }
                self.queue.at(self.t + lasts, Ev::Room(None));
            }
            What::SlowDisk { node, by, lasts } => {
                *self.disk_delay(node) += by;
                self.queue.at(self.t + lasts, Ev::DiskFast(node, by));
            }
            What::CommitFails(node) => self.fail_commit(node),
            What::SyncFails(node) => self.fail_sync(node),
            _ => {}
        }
    }

    /// By how much commits of a disk take longer.
    pub(crate) fn disk_delay(&mut self, whose: Option<usize>) -> &mut Time {
        match whose {
            Some(m) => &mut self.machines[m].disk_slow,
            None => &mut self.cloud.disk_slow,
        }
    }

    /// How long a step keeps somebody busy: what comes meanwhile waits, and shares the next commit.
    pub(crate) fn busy(&mut self, whose: Option<usize>) -> Time {
        let usual = self.dice.cpu.below(2 * MS) + 50 * US;
        match *self.disk_delay(whose) {
            0 => usual,
            slow => {
                self.happened(Kind::SlowDisk);
                usual + self.dice.cpu.below(slow)
            }
        }
    }

    fn fail_commit(&mut self, node: Option<usize>) {
        let stored = self.dice.disk.chance(500);
        let ailment = Ailment::Fails { stored };
        match node {
            Some(m) => {
                if let Some(agent) = &self.machines[m].agent {
                    agent.handle.lock().ailment = ailment;
                }
            }
            None => self.cloud.handle.lock().ailment = ailment,
        }
    }

    fn fail_sync(&mut self, node: Option<usize>) {
        let disk = match node {
            Some(m) => self.machines[m].medium.disk(),
            None => self.cloud.medium.disk(),
        };
        match disk {
            Some(disk) => disk.fail_next_sync(),
            None => self.fail_commit(node),
        }
    }

    /// Counts what a disk refused, of a gateway or of the coordinator.
    pub(crate) fn count_disk_errors(&mut self, whose: Option<usize>) {
        let (disk, full) = match whose {
            Some(m) => (self.machines[m].medium.disk(), Kind::AgentDiskFull),
            None => (self.cloud.medium.disk(), Kind::CoordinatorDiskFull),
        };
        let Some(disk) = disk else { return };
        let (syncs, refused) = (disk.take_failed_syncs(), disk.take_refused());
        let given_back = disk.take_given_back();
        (0..syncs).for_each(|_| self.happened(Kind::SyncFailed));
        (0..refused).for_each(|_| self.happened(full));
        (0..given_back).for_each(|_| self.happened(Kind::ReserveGivenBack));
        if let (Some(m), true) = (whose, refused > 0) {
            crate::check::reserve::on_full(self, m, given_back > 0);
        }
    }

    /// Somebody cleaned up a disk.
    pub(crate) fn make_room(&mut self, whose: Option<usize>) {
        match whose {
            Some(m) => {
                if std::mem::take(&mut self.machines[m].full) {
                    self.machines[m].full_until = self.t;
                }
                if let Some(disk) = self.machines[m].medium.disk() {
                    disk.set_quota(None);
                }
                if let Some(agent) = &self.machines[m].agent {
                    agent.handle.no_longer_full();
                }
                self.tell_room(m);
            }
            None => {
                self.cloud.full = false;
                if let Some(disk) = self.cloud.medium.disk() {
                    disk.set_quota(None);
                }
                self.cloud.handle.no_longer_full();
            }
        }
    }

    fn strike_history(&mut self, what: What) {
        if what
            .node()
            .is_some_and(|m| self.machines[m].returned.is_some())
        {
            // nobody works on what should not be there
            return;
        }
        match what {
            What::KeepImage(Some(m)) => self.keep_image(m),
            What::KeepImage(None) => self.keep_cloud_image(),
            What::PutBack { node, down } => self.put_back(node, down),
            What::CopyDisk { node, lasts } => self.copy_disk(node, lasts),
            What::CloudPutBack(down) => self.cloud_put_back(down),
            What::Restore { back, accept, down } => self.restore(back, accept, down),
            What::Reimage { node, down } => self.reimage(node, down),
            What::CutStore { node, down } => self.cut_store(node, down),
            What::Rot { node, down } => self.rot(node, down),
            What::Return { node, lasts } => self.gone_returns(node, lasts),
            What::Skew(m) => {
                if let Some(agent) = &mut self.machines[m].agent {
                    agent.skew = true;
                }
            }
            What::UnknownFact(m) => self.plan_unknown_fact(m),
            What::UnknownDirective(m) => {
                self.cloud.unknown_directive = Some(m);
                self.doom_cloud(Moment::Now, false, SEC);
            }
            What::ReplayHello(m) => self.replay_hello(m),
            What::Destroy { node, after } => self.destroy(node, after),
            _ => {}
        }
    }

    /// A disk can be copied while it is at rest: what is on it is what a power cut would leave.
    fn image_of(&mut self, m: usize) -> Option<Image> {
        let machine = &self.machines[m];
        if machine.life == usize::MAX || machine.destroyed {
            return None;
        }
        Some(Image {
            medium: machine.medium.copy(),
            incarnation: machine.incarnation,
            succeeds: machine.succeeds,
            dirs: machine.dirs.clone(),
            files: machine.files.clone(),
            renewal: machine.renewal.on_disk(),
            life: machine.life,
            truth: self.lives[machine.life].clone(),
        })
    }

    fn keep_image(&mut self, m: usize) {
        self.machines[m].image = self.image_of(m);
    }

    pub(crate) fn put_back(&mut self, m: usize, down: Time) {
        let Some(image) = self.machines[m].image.take() else {
            return;
        };
        if self.machines[m].destroyed {
            return;
        }
        self.power_off(m, None);
        let grown = self.lives[image.life].facts.len() > image.truth.facts.len();
        self.take_image(m, image);
        if grown {
            self.happened(Kind::DiskWentBack);
        }
        self.trace.say(self.t, Lane::Node(m), || {
            "an older disk is put back".to_owned()
        });
        self.queue.at(self.t + down, Ev::PowerOn(m));
    }

    /// The disk of `m` is from now on what `image` holds: a new branch of history.
    fn take_image(&mut self, m: usize, image: Image) {
        let machine = &mut self.machines[m];
        machine.medium = image.medium;
        machine.incarnation = image.incarnation;
        machine.succeeds = image.succeeds;
        machine.dirs = image.dirs;
        machine.files = image.files;
        machine.renewal = image.renewal;
        machine.life = self.lives.len();
        let mut truth = image.truth;
        truth.branched = true;
        self.lives.push(truth);
    }

    fn copy_disk(&mut self, m: usize, lasts: Time) {
        if self.machines[m].copy_of.is_some() {
            return;
        }
        let Some(image) = self.image_of(m) else {
            return;
        };
        let n = self.machines.len();
        let original = &self.machines[m];
        let described = Node {
            name: original.name.clone(),
            labels: original.labels.clone(),
            capacity: original.capacity.clone(),
        };
        let who = (original.boot, original.incarnation);
        let copy = Machine {
            node: original.node,
            key: original.key,
            renewal: original.renewal.on_disk(),
            slots: original.slots,
            copy_of: Some(m),
            clocks: original.clocks,
            succeeds: original.succeeds,
            off_since: self.t,
            ..Machine::new(n, described, self.plan.layer, who)
        };
        let live = original.agent.is_some();
        self.machines.push(copy);
        self.take_image(n, image);
        let original = self.machines[m].life;
        self.lives[original].branched = true;
        if live {
            self.happened(Kind::DiskCopied);
        }
        self.queue.at(self.t + 10 * SEC, Ev::PowerOn(n));
        self.queue.at(self.t + lasts, Ev::CopyEnds(n));
    }

    /// Who was declared gone is there again: it works on by itself, and is turned away.
    fn gone_returns(&mut self, m: usize, lasts: Time) {
        let machine = &self.machines[m];
        let is_gone = machine.destroyed && machine.copy_of.is_none();
        if !is_gone || !self.is_declared_gone(m) || machine.life == usize::MAX {
            return;
        }
        self.machines[m].destroyed = false;
        self.machines[m].returned = Some(self.t);
        self.queue.at(self.t + SEC, Ev::PowerOn(m));
        self.queue.at(self.t + lasts, Ev::CopyEnds(m));
    }

    /// A copy, or who was declared gone, is switched off for good.
    pub(crate) fn switch_off_for_good(&mut self, m: usize) {
        if self.machines[m].destroyed {
            return;
        }
        self.power_off(m, None);
        self.machines[m].destroyed = true;
    }

    fn keep_cloud_image(&mut self) {
        self.cloud.image = Some(crate::cloud::CloudImage {
            medium: self.cloud.medium.copy(),
            truth: self.cloud.truth.clone(),
            files: self.cloud.files.clone(),
            authorities: self.cloud.authorities,
        });
    }

    pub(crate) fn cloud_put_back(&mut self, down: Time) {
        let Some(image) = self.cloud.image.take() else {
            return;
        };
        if self.cloud.engine.is_some() {
            self.cloud_power_off(down);
        }
        let grown = self.cloud.truth.versions != image.truth.versions;
        self.cloud.medium = image.medium;
        self.cloud.truth = image.truth;
        self.cloud.authorities = image.authorities;
        self.cloud.files.extend(image.files);
        self.cloud.went_back = true;
        self.cloud.put_back = true;
        self.cloud.heard.clear();
        crate::check::held::on_put_back(self);
        self.people.closed.forget();
        if grown {
            self.happened(Kind::CoordinatorWentBack);
        }
        self.trace.say(self.t, Lane::Cloud, || {
            "an older disk of the coordinator is put back".to_owned()
        });
    }

    pub(crate) fn reimage(&mut self, m: usize, down: Time) {
        if self.machines[m].destroyed || self.machines[m].node.is_none() {
            return;
        }
        self.power_off(m, None);
        self.happened(Kind::Reimaged);
        self.trace
            .say(self.t, Lane::Node(m), || "gets an empty disk".to_owned());
        if let Some(life) = self.lives.get_mut(self.machines[m].life) {
            life.emptied = true;
        }
        let id = Incarnation(self.dice.ids.id());
        let layer = self.plan.layer;
        let machine = &mut self.machines[m];
        machine.process += 1;
        machine.medium = EdgeMedium::new(layer);
        machine.incarnation = id;
        machine.succeeds = None;
        machine.dirs.clear();
        machine.files.clear();
        machine.image = None;
        machine.arrived = 0;
        machine.told = 0;
        machine.clocks.booted = self.t + down;
        // until it is enrolled again
        machine.life = usize::MAX;
        self.enrol(m, true);
    }

    /// Only who it is is left on the disk: the next start is one of a new incarnation.
    fn cut_store(&mut self, m: usize, down: Time) {
        let machine = &self.machines[m];
        if machine.destroyed || machine.node.is_none() || machine.life == usize::MAX {
            return;
        }
        self.power_off(m, None);
        self.happened(Kind::StoreCut);
        let life = self.machines[m].life;
        self.lives[life].emptied = true;
        self.succeed(m, "its store is cut to nothing");
        self.queue.at(self.t + down, Ev::PowerOn(m));
    }

    fn plan_unknown_fact(&mut self, m: usize) {
        if self.machines[m].agent.is_none() {
            return;
        }
        self.machines[m].unknown_fact = true;
        let doom = Doom {
            moment: Moment::Now,
            power: false,
            group: false,
            down: 5 * SEC,
        };
        self.die(m, doom);
    }

    /// A newer version of the agent wrote an entry before it was taken off again.
    pub fn write_unknown_fact(&mut self, m: usize) {
        if !std::mem::take(&mut self.machines[m].unknown_fact) {
            return;
        }
        let log = self.machines[m].log();
        let Ok(mut store) = self.machines[m].medium.open(log) else {
            return;
        };
        let Ok(loaded) = store.load() else {
            return;
        };
        let life = self.machines[m].life;
        let wrongs =
            self.lives[life].loaded(self.t, loaded.facts, loaded.directives.number, &self.flows);
        self.fail_all(Lane::Node(m), wrongs);
        let seen = self.lives[life].model.directives;
        let bytes = unknown_fact(&mut self.dice.ids, Stamp::default(), seen);
        let head = loaded.facts.then(&bytes);
        let commit = Commit {
            facts: vec![bytes.clone()],
            facts_head: Some(head),
            ..Commit::default()
        };
        if store.commit(&commit).is_ok() {
            self.lives[life].commit(self.t, vec![bytes], Vec::new(), &self.flows);
            let log = self.lives[life].log;
            let ends = self.ends.entry(log).or_default();
            ends.entry(head.number).or_default().push(head.hash);
            self.happened(Kind::UnknownFact);
        }
    }

    /// A newer version of the coordinator wrote a directive before it was taken off again.
    pub fn write_unknown_directive(&mut self, store: &mut dyn cloud_core::store::Store) {
        let Some(m) = self.cloud.unknown_directive.take() else {
            return;
        };
        let Some(node) = self.machines[m].node else {
            return;
        };
        let mut found = None;
        let id = AggregateId::Node(node);
        let read = store.aggregates(&mut |other, version, head| {
            if other == id {
                found = shared::codec::decode::<cloud_core::node::Node>(head)
                    .ok()
                    .map(|head| (version, head));
            }
        });
        let (Ok(()), Some((version, mut head))) = (read, found) else {
            return;
        };
        let Some(log) = head.log(node) else {
            return;
        };
        let bytes = shared::codec::encode(&(0_i64, 1_u64, 200_u32, self.dice.ids.id()));
        head.directives = head.directives.then(&bytes);
        let entry = Entry {
            head: head.directives,
            bytes,
        };
        let transaction = Transaction {
            directives: vec![(log, entry)],
            ..Transaction::of(id, version, shared::codec::encode(&head))
        };
        if store.commit(std::slice::from_ref(&transaction)).is_ok() {
            self.happened(Kind::UnknownDirective);
            let wrongs = self.cloud.truth.commit(Ended::Done, vec![transaction]);
            self.fail_all(Lane::Cloud, wrongs);
        }
    }

    fn replay_hello(&mut self, m: usize) {
        let machine = &self.machines[m];
        let (Some(hello), Some(node)) = (machine.hello.clone(), machine.node) else {
            return;
        };
        if self.cloud.engine.is_none() || !self.know_each_other(m) {
            return;
        }
        let (name, certificate) = (machine.name.clone(), machine.certificate());
        self.happened(Kind::ReplayedHello);
        // a number that no message can be sent on: the replayer only listens
        let incarnation = hello.incarnation;
        let conn = Conn(self.replayed_connection(m, LogId { node, incarnation }));
        let secret = self.dice.ids.id();
        self.tell_cloud(Input::Hello {
            conn,
            node,
            name,
            certificate,
            hello,
            secret,
        });
        self.trace.say(self.t, Lane::World, || {
            format!("an old hello of gw-{} is said again", m + 1)
        });
        self.queue.at(
            self.t + 10 * SEC + MS,
            Ev::Silent(conn.0, crate::net::Side::Cloud, 0),
        );
    }

    fn destroy(&mut self, m: usize, after: Time) {
        if self.machines[m].destroyed {
            return;
        }
        self.power_off(m, None);
        self.machines[m].destroyed = true;
        self.trace
            .say(self.t, Lane::Node(m), || "is destroyed".to_owned());
        self.queue.at(self.t + after, Ev::Forget(m));
    }
}

/// A fact of a kind that only a later version knows.
fn unknown_fact(rng: &mut crate::rng::Rng, at: Stamp, seen: u64) -> Vec<u8> {
    shared::codec::encode(&(at, seen, 200_u32, rng.id()))
}
