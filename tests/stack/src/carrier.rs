//! The shells' ends of the link in the world of `sim`: each agent's process has the link task of
//! `edge-agent`, the coordinator's has the door and the sessions of `cloud`.

use crate::datagrams::{COORDINATOR, Here, Net, Owner, Seen};
use crate::pace::{Clock, Pace};
use crate::turns::{Looping, Slips};
use certs::{Authority, Enrolled, NodeKey};
use cloud::{Came as FromLink, Linked, LinkedOptions};
use cloud_core::event::{Conn, Input};
use contents::Dir;
use edge_agent::clock::Clocks as AgentClocks;
use edge_agent::linking::{self, LinkCommand, LinkOptions};
use edge_agent::looping::Message;
use edge_agent::mailbox::Handle;
use edge_agent::telemetry::Measures;
use edge_core::driver::Driver;
use edge_core::event::Boot;
use link::Settings;
use shared::telemetry::{Receipt, Report};
use shared::time::Span;
use shared::wire::{Down, Up};
use sim::carried::{Came, Carrier, Place, Who, Word};
use sim::machine::Clocks;
use sim::plan::Plan;
use sim::queue::{MS, Time};
use sim::rng::Rng;
use sim::shell::{Around, Shell};
use sim::tap::{EdgeNote, EdgeTap, Handle as TapHandle};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Certificates are good for longer than any clock of the world jumps.
const GOOD_FOR: Span = Span::secs(20 * 365 * 86_400);
/// Messages that are taken from an agent's queue at once: all that it holds.
const ALL: usize = 4096;
/// One message of so many meets a planted mistake.
pub(crate) const MISTAKEN: u64 = 100;

/// A mistake in the link, for controls: it must be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A message of an agent is lost while its session lives.
    LosesUp,
    /// A message of the coordinator is lost while its session lives.
    LosesDown,
    /// A message of an agent is sent twice.
    RepeatsUp,
    /// A message of the coordinator is sent twice.
    RepeatsDown,
    /// An agent's loop never hears of an attempt's end.
    LosesEnd,
    /// It does not hand an attempt to its executor.
    LosesBegin,
}

impl Mistake {
    /// Those in the link.
    pub const OF_THE_LINK: &'static [Self] = &[
        Self::LosesUp,
        Self::LosesDown,
        Self::RepeatsUp,
        Self::RepeatsDown,
    ];
    /// Those in an agent's loop.
    pub const OF_THE_LOOP: &'static [Self] = &[Self::LosesEnd, Self::LosesBegin];
}

/// What was on the network of a world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Datagrams that were sent.
    pub datagrams: u64,
    /// Of these, lost, without a cut.
    pub lost: u64,
    /// Arrived twice.
    pub twice: u64,
    /// Ended at a cut.
    pub cut: u64,
    /// Too large for the way.
    pub too_large: u64,
    /// To an address that a gateway did not have any more.
    pub unknown: u64,
    /// Times that a gateway's address changed.
    pub moved: u64,
    /// Sessions that began with a hello.
    pub sessions: u64,
}

impl Figures {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.lost += other.lost;
        self.twice += other.twice;
        self.cut += other.cut;
        self.too_large += other.too_large;
        self.unknown += other.unknown;
        self.moved += other.moved;
        self.sessions += other.sessions;
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            datagrams,
            lost,
            twice,
            cut,
            too_large,
            unknown,
            moved,
            sessions,
        } = self;
        write!(
            f,
            "{sessions} sessions, {datagrams} datagrams: {lost} lost, {twice} twice, {cut} ended at a cut, \
             {too_large} too large, {unknown} to an address of before; {moved} addresses changed"
        )
    }
}

/// Clocks of all machines, as the world set them last.
#[derive(Debug)]
struct Times {
    clock: Clock,
    machines: Vec<Clocks>,
    cloud: Clocks,
}

type Shared<T> = Arc<Mutex<T>>;

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the link says to who measures, and the way of pieces.
#[derive(Debug, Default)]
struct Gauge {
    words: Vec<Word>,
    pieces: Option<(u64, UnboundedSender<Report>)>,
}

#[derive(Debug, Clone, Default)]
struct Measuring(Shared<Gauge>);

impl Measures for Measuring {
    fn linked(&self, session: u64, to: UnboundedSender<Report>) {
        let mut gauge = lock(&self.0);
        gauge.pieces = Some((session, to));
        gauge.words.push(Word::Linked(session));
    }

    fn received(&self, session: u64, receipt: Receipt) {
        lock(&self.0).words.push(Word::Received(session, receipt));
    }

    fn unlinked(&self, session: u64) {
        let mut gauge = lock(&self.0);
        let _ = gauge.pieces.take_if(|(known, _)| *known == session);
        gauge.words.push(Word::Unlinked(session));
    }
}

/// An agent's process, as far as it is the link's.
#[derive(Debug)]
struct Agent {
    life: u64,
    commands: UnboundedSender<LinkCommand>,
    handle: Handle,
    gauge: Measuring,
}

/// The shells of one world.
#[derive(Debug)]
pub struct Shells {
    agents: BTreeMap<usize, Agent>,
    cloud: Option<Linked>,
    net: Net,
    times: Shared<Times>,
    authority: Arc<Authority>,
    /// Which permit let a key in.
    permits: BTreeMap<[u8; 32], u64>,
    files: BTreeMap<usize, Dir>,
    idle: Duration,
    mistake: Option<Mistake>,
    seed: u64,
    /// Loops so far.
    loops: u64,
    dice: Rng,
    came: Vec<Came>,
    sessions: u64,
    figures: Shared<Figures>,
    pace: Pace,
    /// Keys and certificates; behind everything that may use them.
    dir: TempDir,
}

fn directory() -> std::io::Result<TempDir> {
    // in memory where there is such a place: keys are written durably
    let memory = Path::new("/dev/shm");
    let made = tempfile::tempdir_in(memory);
    made.or_else(|_| tempfile::tempdir())
}

impl Shells {
    /// The shells of `plan`, with a mistake in the link or not. What was on the network is in
    /// `figures` when they are dropped.
    ///
    /// # Panics
    /// When the machine has no room for a runtime, a key or a directory.
    #[must_use]
    pub fn new(plan: &Plan, mistake: Option<Mistake>, figures: Shared<Figures>) -> Self {
        let pace = Pace::new().expect("a runtime without threads and sockets");
        let clock = pace.clock();
        let still = Clocks {
            booted: 0,
            off: 0,
            trusted: true,
        };
        let net = {
            let _in_it = pace.enter();
            Net::new(plan.seed, plan.net, clock)
        };
        Self {
            agents: BTreeMap::new(),
            cloud: None,
            net,
            times: Arc::new(Mutex::new(Times {
                clock,
                machines: Vec::new(),
                cloud: still,
            })),
            authority: Arc::new(Authority::ephemeral().expect("a key can be made")),
            permits: BTreeMap::new(),
            files: BTreeMap::new(),
            idle: Duration::from_nanos(plan.net.idle),
            mistake,
            seed: plan.seed,
            loops: 0,
            dice: Rng::new(plan.seed).fork("mistakes", 0),
            came: Vec::new(),
            sessions: 0,
            figures,
            pace,
            dir: directory().expect("a directory for keys"),
        }
    }

    /// The directory with the certificate of an agent, which is issued if it is not there.
    fn pki(&mut self, who: &Who) -> PathBuf {
        let pki = self.dir.path().join(format!("pki-{}", who.key));
        if !pki.exists() {
            let enrolled = self.enrol(&pki, who);
            let subject = enrolled.credential.subject();
            let key = subject.expect("it was issued just now").key;
            self.permits.insert(key, who.key);
        }
        pki
    }

    fn enrol(&self, pki: &Path, who: &Who) -> Enrolled {
        const WHY: &str = "a key can be made and certified";
        let key = NodeKey::open_or_create(pki).expect(WHY);
        let request = key.request().expect(WHY);
        let (now, authority) = (certs::WRITTEN, &self.authority);
        let issued = authority.node(&request, who.node, &who.name, now, GOOD_FOR);
        let trusted = authority.fingerprint();
        key.keep(pki, &issued.expect(WHY), trusted, now).expect(WHY)
    }

    fn files(&mut self, m: usize) -> Dir {
        let root = self.dir.path().join(format!("files-{m}"));
        let open = || Dir::open(&root, 1 << 20).expect("a directory for files");
        self.files.entry(m).or_insert_with(open).clone()
    }

    fn command(&self, m: usize, command: LinkCommand) {
        if let Some(agent) = self.agents.get(&m) {
            // the task ends behind its agent
            let _ = agent.commands.send(command);
        }
    }

    /// How often a message is given to the link: once, but for a planted mistake.
    fn times(&mut self, loses: Mistake, repeats: Mistake) -> usize {
        let planted = self.mistake.filter(|one| [loses, repeats].contains(one));
        match planted {
            Some(mistake) if self.dice.below(MISTAKEN) == 0 => match mistake == loses {
                true => 0,
                false => 2,
            },
            _ => 1,
        }
    }

    fn gather(&mut self) {
        for (m, agent) in &self.agents {
            let words = std::mem::take(&mut lock(&agent.gauge.0).words);
            self.came
                .extend(words.into_iter().map(|word| Came::Gauge(*m, word)));
            for message in agent.handle.take(ALL) {
                if let Message::Event(event) = message {
                    self.came.push(Came::Agent(*m, event));
                }
            }
        }
        let from_link = self.cloud.as_mut().map(Linked::take);
        for came in from_link.unwrap_or_default() {
            let came = self.sort(came);
            self.came.push(came);
        }
        let (cut, refused) = self.net.news();
        self.came.extend(cut.into_iter().map(Came::Cut));
        self.came.extend((0..refused).map(|_| Came::Refused));
    }

    fn sort(&mut self, came: FromLink) -> Came {
        match came {
            FromLink::Input(input, from) => match (&input, self.owner(from)) {
                (Input::Hello { certificate, .. }, Some(from)) => {
                    self.sessions += 1;
                    let key = self.permits.get(&certificate.key).copied();
                    let input = Box::new(input);
                    Came::Hello { from, key, input }
                }
                _ => Came::Cloud(Box::new(input)),
            },
            FromLink::Measures(conn) => Came::Measures(conn.0),
            FromLink::Piece(conn, report) => Came::Piece(conn.0, report),
        }
    }

    fn owner(&self, from: Option<SocketAddr>) -> Owner {
        self.net.owner(from?)
    }
}

impl Carrier for Shells {
    fn shell(
        &mut self,
        driver: Driver<EdgeTap>,
        handle: TapHandle<EdgeNote>,
        boot: Boot,
        around: Around,
    ) -> Box<dyn Shell> {
        self.loops += 1;
        let dice = Rng::new(self.seed).fork("loops", self.loops);
        let slips = Slips::new(self.mistake, dice);
        Box::new(Looping::new(driver, handle, boot, around, slips))
    }

    fn agent_starts(&mut self, m: usize, who: &Who) {
        let (pki, files) = (self.pki(who), self.files(m));
        let (times, gauge) = (Arc::clone(&self.times), Measuring::default());
        let options = LinkOptions {
            coordinators: vec![COORDINATOR.to_string()],
            pki,
            data: self.dir.path().to_owned(),
            files,
            idle_timeout: self.idle,
            telemetry: Arc::new(gauge.clone()),
            ground: Some(Here::new(&self.net, Some((m, who.life)))),
            clocks: AgentClocks::new(move || {
                let times = lock(&times);
                let clocks = times.machines.get(m).copied().unwrap_or(times.cloud);
                clocks.now(times.clock.time())
            }),
        };
        let (commands, taken) = unbounded_channel();
        let handle = Handle::default();
        let _in_it = self.pace.enter();
        tokio::spawn(linking::serve(options, handle.clone(), taken));
        let agent = Agent {
            life: who.life,
            commands,
            handle,
            gauge,
        };
        self.agents.insert(m, agent);
    }

    fn agent_dies(&mut self, m: usize) {
        if let Some(agent) = self.agents.remove(&m) {
            // first, so that its tasks say nothing on their way out
            self.net.forget(Some((m, agent.life)));
            agent.handle.close();
        }
    }

    fn cloud_starts(&mut self, life: u64) {
        let times = Arc::clone(&self.times);
        let wall = move || {
            let times = lock(&times);
            times.cloud.now(times.clock.time()).wall
        };
        let options = LinkedOptions {
            ground: Here::new(&self.net, None),
            listen: COORDINATOR,
            authority: Arc::clone(&self.authority),
            clock: certs::Clock::new(wall),
            dir: self.dir.path().join("coordinator"),
            after: life * 1_000_000,
            settings: Settings {
                idle: Span(self.idle.as_millis() as u64),
                ..Settings::coordinator()
            },
        };
        let _in_it = self.pace.enter();
        self.cloud = Some(Linked::start(options).expect("the coordinator's end of the link"));
    }

    fn cloud_dies(&mut self) {
        self.net.forget(None);
        self.cloud = None;
    }

    fn dial(&mut self, m: usize, session: u64) {
        self.command(m, LinkCommand::Dial { session });
    }

    fn hang_up(&mut self, m: usize, session: u64) {
        self.command(m, LinkCommand::Hangup { session });
    }

    fn may_dial(&mut self, m: usize, may: bool) {
        self.command(m, LinkCommand::MayDial(may));
    }

    fn up(&mut self, m: usize, session: u64, message: Up) {
        for _ in 0..self.times(Mistake::LosesUp, Mistake::RepeatsUp) {
            let message = message.clone();
            if let Up::Telemetry(report) = message {
                let agent = self.agents.get(&m);
                if let Some(agent) = agent
                    && let Some((known, to)) = &lock(&agent.gauge.0).pieces
                    && *known == session
                {
                    let _ = to.send(report); // the session is ending
                }
                continue;
            }
            let message = Box::new(message);
            self.command(m, LinkCommand::Send { session, message });
        }
    }

    fn down(&mut self, conn: u64, message: Down) {
        for _ in 0..self.times(Mistake::LosesDown, Mistake::RepeatsDown) {
            if let Some(cloud) = &mut self.cloud {
                cloud.send(Conn(conn), message.clone());
            }
        }
    }

    fn close(&mut self, conn: u64, why: &str) {
        if let Some(cloud) = &mut self.cloud {
            cloud.close(Conn(conn), why.to_owned());
        }
    }

    fn set(&mut self, places: &[Place], cloud: Clocks, deaf: bool) {
        let mut times = lock(&self.times);
        times.cloud = cloud;
        times.machines.clear();
        times.machines.extend(places.iter().map(|one| one.clocks));
        drop(times);
        self.net.set(places, deaf);
    }

    fn move_address(&mut self, m: usize) {
        self.net.move_address(m);
    }

    fn calm(&mut self) {
        self.net.calm();
    }

    fn run(&mut self, until: Time) -> Option<Time> {
        loop {
            let (now, there) = self.pace.step(until / MS);
            self.gather();
            if !self.came.is_empty() {
                return Some(now * MS);
            }
            if there {
                return None;
            }
        }
    }

    fn take(&mut self) -> Vec<Came> {
        std::mem::take(&mut self.came)
    }

    fn shape(&self) -> u64 {
        self.net.shape()
    }
}

impl Drop for Shells {
    fn drop(&mut self) {
        let seen: Seen = self.net.seen();
        *lock(&self.figures) = Figures {
            datagrams: seen.sent,
            lost: seen.lost,
            twice: seen.twice,
            cut: seen.cut,
            too_large: seen.too_large,
            unknown: seen.unknown,
            moved: seen.moved,
            sessions: self.sessions,
        };
    }
}
