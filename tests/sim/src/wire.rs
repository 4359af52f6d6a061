//! Sessions: dialling, sending, arriving, and every way in which a session ends.

use crate::fault::Kind;
use crate::net::{Connection, Side, Stream};
use crate::queue::{HOUR, MIN, SEC, Time};
use crate::trace::Lane;
use crate::world::{Ev, World};
use cloud_core::event::{Conn, Input};
use edge_core::event::Event;
use shared::inventory::InventoryPart;
use shared::log::Head;
use shared::wire::{Down, LogId, Refusal, Up};

/// Chance of a thousand that a gateway is cut off behind its inventory, with facts still to bring.
const SILENT_BEHIND: u64 = 500;
/// Chance of a thousand that a session ends behind a part of an inventory that is not the last.
const PART_CUT: u64 = 50;
/// Not behind parts from this one on: a large inventory would never come through.
const CUT_PARTS: u32 = 16;

impl World {
    /// The time a message of machine `m` takes now.
    pub fn delay(&mut self, m: usize) -> Time {
        let net = self.plan.net;
        let mut delay =
            net.delay + self.dice.net.below(net.jitter + 1) + self.machines[m].link.slow;
        if !self.calm && self.dice.net.chance(net.spikes) {
            delay *= 10;
            self.happened(Kind::DelaySpike);
        }
        delay
    }

    /// A connection with nobody at the other end: on it an old hello is said again.
    pub fn replayed_connection(&mut self, m: usize, log: LogId) -> u64 {
        self.last_conn += 1;
        let connection = Connection {
            machine: m,
            log,
            life: u64::MAX,
            cloud_life: self.cloud.process,
            session: 0,
            agent_open: false,
            cloud_open: true,
            greeted: true,
            late: false,
            issuer: self.machines[m].renewal.issuer,
            up: crate::net::Lane::default(),
            down: crate::net::Lane::default(),
        };
        self.conns.insert(self.last_conn, connection);
        self.last_conn
    }

    /// Whether the agent of `m` and the coordinator have a session.
    #[must_use]
    pub fn has_session(&self, m: usize) -> bool {
        let (process, cloud) = (self.machines[m].process, self.cloud.process);
        let theirs = |one: &&Connection| one.machine == m && one.life == process;
        let mut open = self.conns.values().filter(theirs);
        open.any(|one| one.greeted && one.agent_open && one.cloud_open && one.cloud_life == cloud)
    }

    /// An agent dials.
    pub fn dial(&mut self, m: usize, session: u64) {
        if let Some(carried) = &mut self.carried {
            carried.by.dial(m, session);
            return;
        }
        let delay = 2 * self.delay(m);
        let process = self.machines[m].process;
        self.queue
            .at(self.t + delay, Ev::Dialled(m, process, session));
    }

    fn lives(&self, m: usize, process: u64) -> bool {
        let talks = self.machines[m].agent.is_some() || self.is_liar(m);
        self.machines[m].process == process && talks
    }

    /// A dial succeeds or not.
    pub(crate) fn dialled(&mut self, m: usize, process: u64, session: u64) {
        if !self.lives(m, process) {
            return;
        }
        let reachable = self.machines[m].link.whole();
        if !reachable {
            self.felt_cut(m);
        }
        let heard = reachable && self.cloud.engine.is_some() && self.cloud.deaf == 0;
        self.liar_renews(m);
        if heard && self.know_each_other(m) && !self.turns_away(m) {
            self.connect(m, session);
        } else {
            if reachable && self.cloud.deaf > 0 {
                self.happened(Kind::DialRefused);
            }
            self.queue
                .at(self.t + 5 * SEC, Ev::DialFailed(m, process, session));
        }
    }

    fn connect(&mut self, m: usize, session: u64) {
        self.last_conn += 1;
        let conn = self.last_conn;
        let connection = Connection {
            machine: m,
            log: self.machines[m].log(),
            life: self.machines[m].process,
            cloud_life: self.cloud.process,
            session,
            agent_open: true,
            cloud_open: true,
            greeted: false,
            late: false,
            issuer: self.machines[m].renewal.issuer,
            up: crate::net::Lane::default(),
            down: crate::net::Lane::default(),
        };
        self.conns.insert(conn, connection);
        self.trace.mark(self.t, Lane::Node(m), 1, session);
        self.trace.say(self.t, Lane::Node(m), || {
            format!("linked, session {session}")
        });
        if let Some(agent) = &mut self.machines[m].agent {
            agent.sessions.insert(session, conn);
        }
        if self.is_liar(m) {
            self.liar_linked(conn);
        }
        self.tell(m, Event::Linked { session });
    }

    /// A dial is given up.
    pub(crate) fn dial_failed(&mut self, m: usize, process: u64, session: u64) {
        if self.lives(m, process) {
            let why = "no answer".to_owned();
            self.tell(m, Event::Unlinked { session, why });
        }
    }

    /// An agent sends a message.
    pub fn send_up(&mut self, m: usize, session: u64, message: Up) {
        crate::check::on_send_up(self, m, &message);
        if self.carried.is_some() {
            return self.say_up(m, session, message);
        }
        let Some(conn) = self.machines[m]
            .agent
            .as_ref()
            .and_then(|agent| agent.sessions.get(&session).copied())
        else {
            return;
        };
        let stream = Stream::of_up(&message);
        let size = || shared::codec::encode(&message).len();
        let at = self.t + self.delay(m) + self.queue_on_line(m, Side::Cloud, stream, size);
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if !connection.agent_open {
            return;
        }
        let half = !connection.cloud_open;
        let at = connection.up.put(stream, at, message);
        if half {
            self.happened(Kind::HalfOpen);
        }
        self.queue.at(at, Ev::Up(conn, stream));
    }

    /// The coordinator sends a message.
    pub fn send_down(&mut self, conn: u64, message: Down) {
        if let Down::Refuse(refuse) = &message {
            self.trace.say(self.t, Lane::Cloud, || {
                format!("refuses a caller: {}", refuse.text)
            });
            let returned = self
                .conns
                .get(&conn)
                .is_some_and(|connection| self.machines[connection.machine].returned.is_some());
            match refuse.reason {
                Refusal::Protocol => self.happened(Kind::VersionSkew),
                Refusal::NotEnrolled if returned => self.happened(Kind::GoneReturned),
                _ => {}
            }
        }
        crate::check::on_send_down(self, conn, &message);
        if self.carried.is_some() {
            return self.say_down(conn, message);
        }
        let Some(m) = self.conns.get(&conn).map(|connection| connection.machine) else {
            return;
        };
        let stream = Stream::of_down(&message);
        let size = || shared::codec::encode(&message).len();
        let at = self.t + self.delay(m) + self.queue_on_line(m, Side::Agent, stream, size);
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if !connection.cloud_open {
            return;
        }
        let half = !connection.agent_open;
        let welcome = match &message {
            Down::Welcome(welcome) => {
                connection.late = welcome.want_inventory && conn.is_multiple_of(3);
                Some(welcome.features)
            }
            _ => None,
        };
        let at = connection.down.put(stream, at, message);
        if half {
            self.happened(Kind::HalfOpen);
        }
        self.queue.at(at, Ev::Down(conn, stream));
        if let Some(features) = welcome {
            self.books_begin(conn, features);
        }
    }

    /// A message arrives at the coordinator.
    pub(crate) fn arrives_up(&mut self, conn: u64, stream: Stream) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        let m = connection.machine;
        if !self.machines[m].link.reaches(Side::Cloud) {
            connection.up.stall(stream);
            self.felt_cut(m);
            return;
        }
        if connection.late && stream == Stream::Facts && self.cloud.went_back && !self.calm {
            self.queue.at(self.t + SEC, Ev::Up(conn, stream));
            return;
        }
        let Some((message, overtook)) = connection.up.take(stream) else {
            return;
        };
        if !connection.cloud_open || self.cloud.engine.is_none() {
            self.lost_up(&message);
            return;
        }
        if overtook {
            self.happened(Kind::Reorder);
        }
        let doubles = self.plan.net.doubles;
        let twice = (message.facts().is_some()
            || matches!(message, Up::Applied(_) | Up::Telemetry(_)))
            && !self.calm
            && self.dice.net.chance(doubles);
        if twice {
            self.deliver_up(conn, message.clone());
        }
        self.deliver_up(conn, message);
    }

    fn deliver_up(&mut self, conn: u64, message: Up) {
        let Some(m) = self.conns.get(&conn).map(|one| one.machine) else {
            return;
        };
        self.trace.mark(self.t, Lane::Cloud, 2, conn);
        if self.is_liar(m) {
            self.watch_lie(conn, &message);
        }
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if let Some((after, Head { number: last, .. })) = message.facts() {
            if after.number < self.machines[m].arrived {
                self.tally.add(Kind::Duplicate);
            }
            self.machines[m].arrived = self.machines[m].arrived.max(last);
        }
        let input = match message {
            Up::Telemetry(report) => return self.piece_arrives(conn, report),
            Up::InventoryPart(part) => return self.part_arrives(conn, part),
            Up::Hello(hello) if !connection.greeted => {
                connection.greeted = true;
                let secret = self.dice.ids.id();
                if self.people.replaced.remove(&self.machines[m].log()) {
                    self.tally.add(Kind::LateReturn);
                }
                let machine = &mut self.machines[m];
                machine.hello = Some(hello.clone());
                Input::Hello {
                    conn: Conn(conn),
                    node: machine.node.unwrap_or_default(),
                    name: machine.name.clone(),
                    certificate: machine.certificate(),
                    hello,
                    secret,
                }
            }
            message => Input::Heard {
                conn: Conn(conn),
                message,
            },
        };
        let whole =
            matches!(&input, Input::Heard { message, .. } if matches!(message, Up::Inventory(_)));
        self.tell_cloud(input);
        if whole {
            self.inventory_is_here(conn, m);
        }
    }

    /// The coordinator gets a part of an inventory, and the link may take the next one; or the
    /// session ends between the two.
    fn part_arrives(&mut self, conn: u64, part: InventoryPart) {
        let Some((m, life)) = self.conns.get(&conn).map(|one| (one.machine, one.life)) else {
            return;
        };
        let (session, number, last) = (part.session, part.part, part.last);
        self.happened(Kind::InventoryParts);
        self.tell_cloud(Input::Heard {
            conn: Conn(conn),
            message: Up::InventoryPart(part),
        });
        if last {
            self.inventory_is_here(conn, m);
            return;
        }
        if !self.calm && number < CUT_PARTS && self.dice.net.chance(PART_CUT) {
            self.happened(Kind::InventoryCut);
            self.reset_session(m);
        } else if self.lives(m, life) {
            self.tell(m, Event::PartTaken { session });
        }
    }

    /// The facts may come that waited for the inventory. Sometimes the gateway is away for long,
    /// before they are here.
    fn inventory_is_here(&mut self, conn: u64, m: usize) {
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.late = false;
        }
        let head = self.cloud.truth.heads.get(&self.machines[m].log());
        let here = head.map_or(0, |head| head.number);
        if self.is_liar(m) {
            return;
        }
        let had = self.machines[m].hello.as_ref();
        let missing = had.is_some_and(|hello| hello.facts.number > here);
        if !self.calm && self.cloud.went_back && missing && self.dice.net.chance(SILENT_BEHIND) {
            self.happened(Kind::SilentBehindInventory);
            let lasts = self.dice.net.range(30 * MIN, 3 * HOUR);
            self.cut(m, true, true);
            self.queue.at(self.t + lasts, Ev::Healed(m, true, true));
        }
    }

    /// A message arrives at a gateway.
    pub(crate) fn arrives_down(&mut self, conn: u64, stream: Stream) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        let (m, session, life) = (connection.machine, connection.session, connection.life);
        if !self.machines[m].link.reaches(Side::Agent) {
            connection.down.stall(stream);
            self.felt_cut(m);
            return;
        }
        let Some((message, overtook)) = connection.down.take(stream) else {
            return;
        };
        if !connection.agent_open || !self.lives(m, life) {
            self.lost_down(m, &message);
            return;
        }
        if self.is_liar(m) {
            return self.liar_hears(conn, message);
        }
        if overtook {
            self.happened(Kind::Reorder);
        }
        let repeats = matches!(message, Down::Ack(_) | Down::Directives(_));
        let doubles = self.plan.net.doubles;
        let times = if repeats && !self.calm && self.dice.net.chance(doubles) {
            2
        } else {
            1
        };
        for _ in 0..times {
            if let Down::Directives(batch) = &message {
                if batch.after.number < self.machines[m].told {
                    self.tally.add(Kind::Duplicate);
                    self.tally.add(Kind::StaleDirectives);
                }
                let last = batch.head().number;
                self.machines[m].told = self.machines[m].told.max(last);
            }
            self.trace.mark(self.t, Lane::Node(m), 3, conn);
            match &message {
                Down::Welcome(welcome) => self.gauge_linked(m, session, welcome.features),
                Down::Telemetry(receipt) => {
                    self.receipt_arrives(m, session, receipt);
                    continue;
                }
                _ => {}
            }
            let message = message.clone();
            self.tell(m, Event::Heard { session, message });
        }
    }

    pub(crate) fn felt_cut(&mut self, m: usize) {
        let link = &mut self.machines[m].link;
        if !std::mem::replace(&mut link.felt, true) {
            let kind = if link.cuts_up > 0 && link.cuts_down > 0 {
                Kind::Partition
            } else {
                Kind::OneWayCut
            };
            self.happened(kind);
        }
    }

    pub(crate) fn lost_up(&mut self, message: &Up) {
        self.happened(Kind::MessageLoss);
        if message.facts().is_some() {
            self.happened(Kind::LostFacts);
        }
    }

    pub(crate) fn lost_down(&mut self, m: usize, message: &Down) {
        self.happened(Kind::MessageLoss);
        if matches!(message, Down::Ack(_)) {
            self.happened(Kind::LostAck);
            self.trace.say(self.t, Lane::Node(m), || {
                "an acknowledgement was lost".to_owned()
            });
        }
    }

    /// `side` closes the connection; the other one hears of it, or falls silent by itself.
    pub fn close(&mut self, conn: u64, side: Side, why: &str) {
        if self.carried.is_some() {
            return self.close_carried(conn, side, why);
        }
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if !connection.is_open(side) {
            return;
        }
        let m = connection.machine;
        match side {
            Side::Agent => connection.agent_open = false,
            Side::Cloud => connection.cloud_open = false,
        }
        self.clear_line(conn, side);
        let after = self.conns.get(&conn).map_or(0, |connection| match side {
            Side::Agent => connection.up.last_arrival(),
            Side::Cloud => connection.down.last_arrival(),
        });
        self.end_side(conn, side, why);
        let at = (self.t + self.delay(m)).max(after + 1);
        self.queue.at(at, Ev::Closed(conn, side.other()));
    }

    /// A side learns that the connection is over.
    fn end_side(&mut self, conn: u64, side: Side, why: &str) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        let (m, session, life) = (connection.machine, connection.session, connection.life);
        match side {
            Side::Agent => connection.agent_open = false,
            Side::Cloud => connection.cloud_open = false,
        }
        let cloud_life = connection.cloud_life;
        let over = !connection.agent_open && !connection.cloud_open;
        let why = why.to_owned();
        match side {
            Side::Agent if self.lives(m, life) => {
                if let Some(agent) = &mut self.machines[m].agent {
                    agent.sessions.remove(&session);
                }
                self.trace.say(self.t, Lane::Node(m), || {
                    format!("session {session} ended: {why}")
                });
                self.gauge_unlinked(m, session);
                self.liar_unlinked(conn);
                self.tell(m, Event::Unlinked { session, why });
            }
            Side::Cloud if self.cloud.engine.is_some() && self.cloud.process == cloud_life => {
                self.watch_race(conn, m);
                let conn = Conn(conn);
                self.tell_cloud(Input::Gone { conn, why });
            }
            _ => {}
        }
        if over {
            self.drop_connection(conn);
        }
    }

    /// The coordinator closes the connections that are like this.
    pub(crate) fn end_sessions(&mut self, why: &str, which: impl Fn(&Connection) -> bool) {
        let found = self.conns.iter().filter(|(_, one)| which(one));
        let found: Vec<u64> = found.map(|(conn, _)| *conn).collect();
        for conn in found {
            self.close(conn, Side::Cloud, why);
        }
    }

    pub(crate) fn watch_race(&mut self, conn: u64, m: usize) {
        let newer = self
            .conns
            .range(conn + 1..)
            .any(|(_, other)| other.machine == m && other.greeted && other.cloud_open);
        if newer {
            self.happened(Kind::TeardownRace);
        }
    }

    fn drop_connection(&mut self, conn: u64) {
        let Some(mut connection) = self.conns.remove(&conn) else {
            return;
        };
        if let Some(carried) = &mut self.carried {
            let session = (connection.machine, connection.life, connection.session);
            carried.said.over(conn, session);
        }
        for message in connection.up.lose() {
            self.lost_up(&message);
        }
        for message in connection.down.lose() {
            self.lost_down(connection.machine, &message);
        }
    }

    /// A side hears that the other one closed.
    pub(crate) fn close_arrives(&mut self, conn: u64, side: Side) {
        let Some(connection) = self.conns.get(&conn) else {
            return;
        };
        let m = connection.machine;
        if self.machines[m].link.reaches(side) {
            self.end_side(conn, side, "closed by the peer");
        } else {
            // the word is lost; the side falls silent
            let at = self.t + self.plan.net.idle;
            self.queue.at(at, Ev::Silent(conn, side, 0));
        }
    }

    /// A side gives the connection up when nothing has come for the idle time.
    pub(crate) fn silent(&mut self, conn: u64, side: Side, since: Time) {
        let Some(connection) = self.conns.get(&conn) else {
            return;
        };
        if !connection.is_open(side) {
            return;
        }
        let link = &self.machines[connection.machine].link;
        let still = !link.reaches(side) && link.changed(side) == since;
        let peer_gone = !connection.is_open(side.other());
        if still || peer_gone {
            self.close(conn, side, "idle timeout");
        }
    }

    /// The process of `side` is gone: it says nothing any more, its peer will notice by the
    /// silence.
    pub fn abandon(&mut self, conn: u64, side: Side) {
        self.clear_line(conn, side);
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        match side {
            Side::Agent => connection.agent_open = false,
            Side::Cloud => connection.cloud_open = false,
        }
        if connection.agent_open || connection.cloud_open {
            let at = self.t + self.plan.net.idle;
            if self.carried.is_none() {
                self.queue.at(at, Ev::Silent(conn, side.other(), 0));
            }
        } else {
            self.drop_connection(conn);
        }
    }

    /// Both sides lose the session at once.
    pub fn reset_session(&mut self, m: usize) {
        if self.carried.is_some() {
            return self.reset_carried(m);
        }
        let live: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, one)| one.machine == m && one.agent_open && one.cloud_open)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in live {
            self.happened(Kind::SessionReset);
            let Some(connection) = self.conns.get_mut(&conn) else {
                continue;
            };
            let up = connection.up.lose();
            let down = connection.down.lose();
            up.iter().for_each(|message| self.lost_up(message));
            down.iter().for_each(|message| self.lost_down(m, message));
            self.end_side(conn, Side::Agent, "reset");
            // the coordinator may hear of it much later
            let late = self
                .dice
                .net
                .log_range(crate::queue::MS, self.plan.net.idle);
            self.queue.at(self.t + late, Ev::Closed(conn, Side::Cloud));
        }
    }

    /// Directions of a link die.
    pub fn cut(&mut self, m: usize, up: bool, down: bool) {
        let t = self.t;
        let link = &mut self.machines[m].link;
        if up {
            link.cuts_up += 1;
            link.changed_up = if link.cuts_up == 1 {
                t
            } else {
                link.changed_up
            };
        }
        if down {
            link.cuts_down += 1;
            link.changed_down = if link.cuts_down == 1 {
                t
            } else {
                link.changed_down
            };
        }
        link.felt = false;
        link.recent.push_back(t);
        while link.recent.len() > 3 {
            link.recent.pop_front();
        }
        let flapping =
            link.recent.len() == 3 && link.recent.front().is_some_and(|first| t - first < 2 * MIN);
        if flapping {
            self.happened(Kind::FlappingLink);
        }
        self.trace.say(t, Lane::Node(m), || match (up, down) {
            (true, true) => "link cut".to_owned(),
            (true, false) => "link cut upwards".to_owned(),
            _ => "link cut downwards".to_owned(),
        });
        self.watch_silence(m);
    }

    fn watch_silence(&mut self, m: usize) {
        if self.carried.is_some() {
            return;
        }
        let idle = self.plan.net.idle;
        let conns: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, one)| one.machine == m)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            for side in [Side::Agent, Side::Cloud] {
                let link = &self.machines[m].link;
                if !link.reaches(side) {
                    let since = link.changed(side);
                    self.queue.at(since + idle, Ev::Silent(conn, side, since));
                }
            }
        }
    }

    /// Directions of a link live again.
    pub fn heal(&mut self, m: usize, up: bool, down: bool) {
        let t = self.t;
        let link = &mut self.machines[m].link;
        if up && link.cuts_up > 0 {
            link.cuts_up -= 1;
            link.changed_up = t;
        }
        if down && link.cuts_down > 0 {
            link.cuts_down -= 1;
            link.changed_down = t;
        }
        if link.whole() {
            self.machines[m].cold = false;
            self.trace.say(t, Lane::Node(m), || "link whole".to_owned());
        }
        let conns: Vec<u64> = self
            .conns
            .iter()
            .filter(|(_, one)| one.machine == m)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            self.release(conn, m);
        }
    }

    fn release(&mut self, conn: u64, m: usize) {
        const STREAMS: [Stream; 4] = [
            Stream::Control,
            Stream::Facts,
            Stream::Details,
            Stream::Inventory,
        ];
        let at = self.t + self.delay(m);
        let link = self.machines[m].link.clone();
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        let up = if link.reaches(Side::Cloud) {
            connection.up.release()
        } else {
            [0; 4]
        };
        let down = if link.reaches(Side::Agent) {
            connection.down.release()
        } else {
            [0; 4]
        };
        for (stream, n) in STREAMS.into_iter().zip(up) {
            (0..n).for_each(|_| self.queue.at(at, Ev::Up(conn, stream)));
        }
        for (stream, n) in STREAMS.into_iter().zip(down) {
            (0..n).for_each(|_| self.queue.at(at, Ev::Down(conn, stream)));
        }
    }
}
