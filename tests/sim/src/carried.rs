//! Sessions that something else carries than `net` and `wire`: layer 3, where the link of the real
//! shells does. The world keeps telling what everybody wants said, and what happens to the links.

use crate::check::carried::Said;
use crate::fault::Kind;
use crate::machine::{Clocks, certificate};
use crate::net::{Connection, Lane as Way, Side};
use crate::queue::{SEC, Time};
use crate::shell::{Around, Shell};
use crate::tap::{EdgeNote, EdgeTap, Handle};
use crate::trace::{Lane, Sort};
use crate::world::{Ev, World};
use cloud_core::event::Input;
use edge_core::driver::Driver;
use edge_core::event::{Boot, Event};
use shared::ids::NodeId;
use shared::telemetry::{Receipt, Report};
use shared::wire::{Down, Hello, LogId, TELEMETRY, Up};

/// Carries messages between the shells of the world.
pub trait Carrier {
    /// What takes the steps of an agent that starts.
    fn shell(
        &mut self,
        driver: Driver<EdgeTap>,
        handle: Handle<EdgeNote>,
        boot: Boot,
        around: Around,
    ) -> Box<dyn Shell>;
    /// An agent's process begins.
    fn agent_starts(&mut self, m: usize, who: &Who);
    /// It is gone, without a word.
    fn agent_dies(&mut self, m: usize);
    /// The coordinator's process begins.
    fn cloud_starts(&mut self, life: u64);
    /// It is gone, without a word.
    fn cloud_dies(&mut self);
    /// An agent dials.
    fn dial(&mut self, m: usize, session: u64);
    /// An agent hangs up.
    fn hang_up(&mut self, m: usize, session: u64);
    /// An agent's link may dial by itself, or not.
    fn may_dial(&mut self, m: usize, may: bool);
    /// An agent says something.
    fn up(&mut self, m: usize, session: u64, message: Up);
    /// The coordinator says something.
    fn down(&mut self, conn: u64, message: Down);
    /// The coordinator closes a connection.
    fn close(&mut self, conn: u64, why: &str);
    /// How the links are from now on; `deaf`: the coordinator answers nobody who dials.
    fn set(&mut self, places: &[Place], cloud: Clocks, deaf: bool);
    /// The address of a gateway, as others see it, changes.
    fn move_address(&mut self, m: usize);
    /// No faults any more, beside those that it is told of.
    fn calm(&mut self);
    /// Lets time pass until `until` at the longest. When something came meanwhile: that moment.
    fn run(&mut self, until: Time) -> Option<Time>;
    /// What came.
    fn take(&mut self) -> Vec<Came>;
    /// Everything that was under way, as one number.
    fn shape(&self) -> u64;
}

/// An agent's process.
#[derive(Debug, Clone)]
pub struct Who {
    /// Its life.
    pub life: u64,
    /// The node in its certificate.
    pub node: NodeId,
    /// The name in it.
    pub name: String,
    /// Which permit let its key in.
    pub key: u64,
}

/// The place of a gateway in the network.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its clocks.
    pub clocks: Clocks,
    /// What it sends arrives.
    pub up: bool,
    /// What is sent to it arrives.
    pub down: bool,
    /// All that takes so much longer.
    pub slow: Time,
}

/// Something that came.
#[derive(Debug)]
pub enum Came {
    /// To an agent.
    Agent(usize, Event),
    /// To who measures there.
    Gauge(usize, Word),
    /// A hello, from a life of an agent, and which permit let the key in that it was said with.
    Hello {
        /// The machine and the life of its agent that sent it.
        from: (usize, u64),
        /// Which permit let the key in.
        key: Option<u64>,
        /// For the coordinator.
        input: Box<Input>,
    },
    /// To the coordinator.
    Cloud(Box<Input>),
    /// The coordinator welcomed a session that brings telemetry.
    Measures(u64),
    /// A piece of it.
    Piece(u64, Box<Report>),
    /// Something was lost because a link is cut.
    Cut(usize),
    /// A dial was not answered.
    Refused,
}

/// What the link says to who measures.
#[derive(Debug, Clone)]
pub enum Word {
    /// A session takes telemetry.
    Linked(u64),
    /// The coordinator has this.
    Received(u64, Receipt),
    /// A session is over.
    Unlinked(u64),
}

/// Carrier and what was said by it.
pub struct Carried {
    /// The carrier.
    pub by: Box<dyn Carrier>,
    /// What was said and is not heard.
    pub said: Said,
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carried").finish_non_exhaustive()
    }
}

impl World {
    /// From now on `by` carries all messages.
    pub fn carry_with(&mut self, by: Box<dyn Carrier>) {
        let said = Said::default();
        self.carried = Some(Box::new(Carried { by, said }));
    }

    /// Lets the carrier go on until `until` at the longest; whether something came.
    pub(crate) fn carry(&mut self, until: Time) -> bool {
        let Some(mut carried) = self.carried.take() else {
            return false;
        };
        let places: Vec<Place> = self.machines.iter().map(place).collect();
        carried
            .by
            .set(&places, self.cloud.clocks, self.cloud.deaf > 0);
        let at = carried.by.run(until);
        let came = carried.by.take();
        self.carried = Some(carried);
        if let Some(at) = at {
            self.t = self.t.max(at);
        }
        let something = !came.is_empty();
        came.into_iter().for_each(|one| self.comes(one));
        something
    }

    fn comes(&mut self, came: Came) {
        match came {
            Came::Agent(m, event) => self.agent_hears(m, event),
            Came::Gauge(m, word) => self.gauge_hears(m, word),
            Came::Hello { from, key, input } => self.hello_comes(from, key, *input),
            Came::Cloud(input) => self.cloud_hears(*input),
            Came::Measures(conn) => self.books_begin(conn, TELEMETRY),
            Came::Piece(conn, report) => {
                self.trace.mark(self.t, Lane::Cloud, 2, conn);
                let message = Up::Telemetry((*report).clone());
                crate::check::carried::on_up(self, conn, &message);
                self.piece_arrives(conn, *report);
            }
            Came::Cut(m) => self.felt_cut(m),
            Came::Refused => self.happened(Kind::DialRefused),
        }
    }

    fn agent_hears(&mut self, m: usize, event: Event) {
        self.trace.mark(self.t, Lane::Node(m), 3, 0);
        match &event {
            Event::Linked { session } => {
                let session = *session;
                self.trace.mark(self.t, Lane::Node(m), 1, session);
                self.trace.say(self.t, Lane::Node(m), || {
                    format!("linked, session {session}")
                });
                if let Some(agent) = &mut self.machines[m].agent {
                    // its connection is not known before the hello is there
                    agent.sessions.insert(session, 0);
                }
            }
            Event::Unlinked { session, why } => self.session_ends(m, *session, why),
            Event::Heard { session, message } => {
                crate::check::carried::on_down(self, m, *session, message);
                if let Down::Directives(batch) = message {
                    if batch.after.number < self.machines[m].told {
                        self.tally.add(Kind::StaleDirectives);
                    }
                    let last = batch.head().number;
                    self.machines[m].told = self.machines[m].told.max(last);
                }
            }
            Event::PartTaken { .. } => self.happened(Kind::InventoryParts),
            _ => {}
        }
        self.tell(m, event);
    }

    fn session_ends(&mut self, m: usize, session: u64, why: &str) {
        self.trace.say(self.t, Lane::Node(m), || {
            format!("session {session} ended: {why}")
        });
        let agent = self.machines[m].agent.as_mut();
        if let Some(conn) = agent.and_then(|agent| agent.sessions.remove(&session)) {
            self.abandon(conn, Side::Agent);
        }
    }

    fn gauge_hears(&mut self, m: usize, word: Word) {
        match word {
            Word::Linked(session) => self.gauge_linked(m, session, TELEMETRY),
            Word::Received(session, receipt) => {
                let message = Down::Telemetry(receipt.clone());
                crate::check::carried::on_down(self, m, session, &message);
                self.receipt_arrives(m, session, &receipt);
            }
            Word::Unlinked(session) => self.gauge_unlinked(m, session),
        }
    }

    /// A hello arrives: the certificate that it was said with is the world's own of that key.
    fn hello_comes(&mut self, from: (usize, u64), key: Option<u64>, input: Input) {
        let Input::Hello {
            conn,
            node,
            name,
            hello,
            ..
        } = input
        else {
            return;
        };
        let m = from.0;
        crate::check::carried::on_hello(self, from, key, (node, &name));
        self.connected(conn.0, from, node, &hello);
        let message = Up::Hello(hello.clone());
        crate::check::carried::on_up(self, conn.0, &message);
        self.machines[m].hello = Some(hello.clone());
        if self.people.replaced.remove(&self.machines[m].log()) {
            self.tally.add(Kind::LateReturn);
        }
        let secret = self.dice.ids.id();
        self.tell_cloud(Input::Hello {
            conn,
            node,
            name,
            certificate: certificate(key.unwrap_or_default()),
            hello,
            secret,
        });
    }

    fn connected(&mut self, conn: u64, (m, life): (usize, u64), node: NodeId, hello: &Hello) {
        let session = hello.session;
        let alive = self.machines[m].process == life;
        let mut agent_open = false;
        if let Some(agent) = self.machines[m].agent.as_mut().filter(|_| alive)
            && let Some(known) = agent.sessions.get_mut(&session)
        {
            *known = conn;
            agent_open = true;
        }
        let connection = Connection {
            machine: m,
            log: LogId {
                node,
                incarnation: hello.incarnation,
            },
            life,
            cloud_life: self.cloud.process,
            session,
            agent_open,
            cloud_open: true,
            greeted: true,
            late: false,
            issuer: self.machines[m].renewal.issuer,
            up: Way::default(),
            down: Way::default(),
        };
        self.conns.insert(conn, connection);
    }

    fn cloud_hears(&mut self, input: Input) {
        match &input {
            Input::Gone { conn, why } => {
                self.trace.say(self.t, Lane::Cloud, || {
                    format!("connection {} is gone: {why}", conn.0)
                });
                if let Some(m) = self.conns.get(&conn.0).map(|one| one.machine) {
                    self.watch_race(conn.0, m);
                }
                self.abandon(conn.0, Side::Cloud);
            }
            Input::Heard { conn, message } => {
                self.trace.mark(self.t, Lane::Cloud, 2, conn.0);
                crate::check::carried::on_up(self, conn.0, message);
            }
            Input::Offered { conn, batch } => {
                self.trace.mark(self.t, Lane::Cloud, 2, conn.0);
                let (after, last) = crate::check::carried::on_facts(self, conn.0, batch);
                if let Some(m) = self.conns.get(&conn.0).map(|one| one.machine) {
                    if after < self.machines[m].arrived {
                        self.tally.add(Kind::Duplicate);
                    }
                    self.machines[m].arrived = self.machines[m].arrived.max(last);
                }
            }
            _ => {}
        }
        self.tell_cloud(input);
    }

    /// An agent says something in a session that it takes for alive.
    pub(crate) fn say_up(&mut self, m: usize, session: u64, message: Up) {
        let agent = self.machines[m].agent.as_ref();
        if !agent.is_some_and(|agent| agent.sessions.contains_key(&session)) {
            return;
        }
        let life = self.machines[m].process;
        if let Some(carried) = &mut self.carried {
            carried.said.up(self.t, (m, life, session), &message);
            carried.by.up(m, session, message);
        }
    }

    /// The coordinator says something.
    pub(crate) fn say_down(&mut self, conn: u64, message: Down) {
        if !self.conns.get(&conn).is_some_and(|one| one.cloud_open) {
            return;
        }
        if let Some(carried) = &mut self.carried {
            carried.said.down(self.t, conn, &message);
            carried.by.down(conn, message);
        }
    }

    /// A side closes a session: its shell tells it when that is done.
    pub(crate) fn close_carried(&mut self, conn: u64, side: Side, why: &str) {
        let Some(one) = self.conns.get(&conn) else {
            return;
        };
        let (m, session) = (one.machine, one.session);
        if let Some(carried) = &mut self.carried {
            match side {
                Side::Agent => carried.by.hang_up(m, session),
                Side::Cloud => carried.by.close(conn, why),
            }
        }
    }

    /// The address of a gateway changes; or nothing passes until both sides have given its session
    /// up.
    pub(crate) fn reset_carried(&mut self, m: usize) {
        if !self.has_session(m) {
            return;
        }
        self.happened(Kind::SessionReset);
        if self.dice.net.chance(500) {
            self.trace.note(self.t, Lane::Node(m), Sort::Talk, || {
                "its address changes".to_owned()
            });
            if let Some(carried) = &mut self.carried {
                carried.by.move_address(m);
            }
        } else {
            self.cut(m, true, true);
            let lasts = self.plan.net.idle + 2 * SEC;
            self.queue.at(self.t + lasts, Ev::Healed(m, true, true));
        }
    }

    /// The agent of `m` starts.
    pub(crate) fn carry_agent(&mut self, m: usize) {
        let machine = &self.machines[m];
        let who = Who {
            life: machine.process,
            node: machine.node.unwrap_or_default(),
            name: machine.name.clone(),
            key: machine.key,
        };
        if let Some(carried) = &mut self.carried {
            carried.by.agent_starts(m, &who);
        }
    }

    /// The number of everything that was under way in the carrier.
    pub(crate) fn carried_shape(&self) -> u64 {
        self.carried.as_ref().map_or(0, |one| one.by.shape())
    }
}

fn place(machine: &crate::machine::Machine) -> Place {
    Place {
        clocks: machine.clocks,
        up: machine.link.reaches(Side::Cloud),
        down: machine.link.reaches(Side::Agent),
        slow: machine.link.slow,
    }
}
