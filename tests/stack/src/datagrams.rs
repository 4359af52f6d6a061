//! The network: UDP sockets in memory. Datagrams are delayed, overtake each other, are lost, come
//! twice, do not fit, pass one way only, and change their address on the way.

use crate::pace::Clock;
use link::Ground;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use sim::carried::Place;
use sim::plan::NetPlan;
use sim::queue::MS;
use sim::rng::{Rng, fnv, mix};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::time::{Sleep, sleep_until};

/// Where the coordinator listens.
pub(crate) const COORDINATOR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 7000);

/// Whose socket it is: a machine and a life of its agent; none for the coordinator.
pub(crate) type Owner = Option<(usize, u64)>;

/// How datagrams fare, beside what the world says of links.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// Of a thousand.
    lost: u64,
    /// Of a thousand.
    twice: u64,
    /// Of a thousand: takes ten times as long.
    late: u64,
    /// Largest that passes.
    largest: usize,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives = 0,
    Twice = 1,
    Lost = 2,
    Cut = 3,
    TooLarge = 4,
    Refused = 5,
    /// Nobody has that address any more.
    Unknown = 6,
}

/// What was seen on the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Datagrams that were sent.
    pub(crate) sent: u64,
    /// Of these, lost by the weather.
    pub(crate) lost: u64,
    /// Arrived twice.
    pub(crate) twice: u64,
    /// Lost by a cut.
    pub(crate) cut: u64,
    /// Did not fit.
    pub(crate) too_large: u64,
    /// Sent to an address that a gateway does not have any more.
    pub(crate) unknown: u64,
    /// Times that a gateway's address changed.
    pub(crate) moved: u64,
}

#[derive(Debug)]
struct Datagram {
    from: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Inbox {
    owner: Owner,
    /// The socket's number: another life of the coordinator has the same address.
    number: u64,
    /// As others see it; none before it sent something.
    outside: Option<SocketAddr>,
    /// By the millisecond at which it arrives, in the order of sending.
    waiting: BTreeMap<(u64, u64), Datagram>,
    timer: Pin<Box<Sleep>>,
    reader: Option<Waker>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    clock: Clock,
    plan: NetPlan,
    weather: Weather,
    places: Vec<Place>,
    /// Links whose cut was told since it began.
    told_cut: Vec<bool>,
    deaf: bool,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    /// Addresses as others see them, of all sockets that ever were.
    outside: BTreeMap<SocketAddr, (SocketAddr, Owner)>,
    last_port: u16,
    order: u64,
    shape: u64,
    seen: Seen,
    /// Machines at which a cut was felt, and dials that were not answered.
    news: (Vec<usize>, u64),
}

/// The network of one world.
#[derive(Debug, Clone)]
pub(crate) struct Net(Arc<Mutex<State>>);

impl Net {
    pub(crate) fn new(seed: u64, plan: NetPlan, clock: Clock) -> Self {
        let mut rng = Rng::new(seed).fork("datagrams", 0);
        let rough = plan.spikes + plan.doubles > 0;
        let weather = Weather {
            lost: if rough { rng.below(60) } else { 0 },
            twice: plan.doubles,
            late: plan.spikes,
            largest: [1200, 1280, 1400, 1452, 1500][rng.below(5) as usize],
        };
        Self(Arc::new(Mutex::new(State {
            rng,
            clock,
            plan,
            weather,
            places: Vec::new(),
            told_cut: Vec::new(),
            deaf: false,
            inboxes: BTreeMap::new(),
            outside: BTreeMap::new(),
            last_port: 20_000,
            order: 0,
            shape: mix(seed),
            seen: Seen::default(),
            news: (Vec::new(), 0),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How links are from now on.
    pub(crate) fn set(&self, places: &[Place], deaf: bool) {
        let mut state = self.state();
        state.told_cut.resize(places.len(), false);
        for (m, place) in places.iter().enumerate() {
            let before = state.places.get(m);
            if before.is_none_or(|one| (one.up, one.down) != (place.up, place.down)) {
                state.told_cut[m] = false;
            }
        }
        state.places.clear();
        state.places.extend_from_slice(places);
        state.deaf = deaf;
    }

    /// Only what the world says happens from now on.
    pub(crate) fn calm(&self) {
        let weather = &mut self.state().weather;
        (weather.lost, weather.twice, weather.late) = (0, 0, 0);
    }

    /// The sockets of an owner are gone: nothing leaves and nothing reaches them.
    pub(crate) fn forget(&self, owner: Owner) {
        self.state().inboxes.retain(|_, one| one.owner != owner);
    }

    /// The gateway has another address from its next datagram on.
    pub(crate) fn move_address(&self, m: usize) {
        let mut state = self.state();
        state.seen.moved += 1;
        let theirs = |one: &&mut Inbox| one.owner.is_some_and(|(machine, _)| machine == m);
        for inbox in state.inboxes.values_mut().filter(theirs) {
            inbox.outside = None;
        }
    }

    /// Whose address it is or was.
    pub(crate) fn owner(&self, outside: SocketAddr) -> Owner {
        self.state().outside.get(&outside).and_then(|known| known.1)
    }

    /// One number for all that was sent.
    pub(crate) fn shape(&self) -> u64 {
        self.state().shape
    }

    pub(crate) fn seen(&self) -> Seen {
        self.state().seen
    }

    /// Machines whose cut was felt, and dials that were not answered, since the last call.
    pub(crate) fn news(&self) -> (Vec<usize>, u64) {
        std::mem::take(&mut self.state().news)
    }

    fn bind(&self, wanted: SocketAddr, owner: Owner) -> Arc<Socket> {
        let mut state = self.state();
        let address = match owner {
            None => wanted,
            Some((m, _)) => {
                state.last_port = state.last_port.wrapping_add(1).max(1024);
                let ip = Ipv4Addr::new(192, 168, m as u8, 2);
                SocketAddr::from((ip, state.last_port))
            }
        };
        let timer = Box::pin(sleep_until(state.clock.at(0)));
        state.order += 1;
        let number = state.order;
        let inbox = Inbox {
            owner,
            number,
            outside: owner.is_none().then_some(address),
            waiting: BTreeMap::new(),
            timer,
            reader: None,
        };
        state.inboxes.insert(address, inbox);
        Arc::new(Socket {
            net: self.clone(),
            address,
            number,
        })
    }
}

impl State {
    fn send(&mut self, from: (SocketAddr, u64), to: SocketAddr, bytes: &[u8]) {
        // the process is gone: what its tasks still send goes nowhere
        let Some((source, owner)) = self.outside_of(from) else {
            return;
        };
        let target = match to == COORDINATOR {
            true => Some(COORDINATOR),
            false => {
                let inside = self.outside.get(&to).map(|known| known.0);
                let is_there = |at: &SocketAddr| {
                    let inbox = self.inboxes.get(at);
                    inbox.is_some_and(|inbox| inbox.outside == Some(to))
                };
                inside.filter(is_there)
            }
        };
        let machine = match owner {
            Some((m, _)) => Some(m),
            None => self
                .outside
                .get(&to)
                .and_then(|known| known.1)
                .map(|(m, _)| m),
        };
        let fate = self.fate(owner.is_some(), machine, bytes, target.is_some());
        self.count(fate, machine);
        let now = self.clock.ms();
        for word in [now, port(source), port(to), bytes.len() as u64, fate as u64] {
            self.shape = mix(self.shape ^ word);
        }
        let (Some(target), Fate::Arrives | Fate::Twice) = (target, fate) else {
            return;
        };
        for _ in 0..=usize::from(fate == Fate::Twice) {
            let at = now + self.delay(machine).div_ceil(MS);
            self.order += 1;
            let order = self.order;
            let Some(inbox) = self.inboxes.get_mut(&target) else {
                return;
            };
            let datagram = Datagram {
                from: source,
                bytes: bytes.to_vec(),
            };
            inbox.waiting.insert((at, order), datagram);
            if let Some(reader) = inbox.reader.take() {
                reader.wake();
            }
        }
    }

    /// The address of a sender as others see it, and whose it is.
    fn outside_of(&mut self, (inside, number): (SocketAddr, u64)) -> Option<(SocketAddr, Owner)> {
        let inbox = self.inboxes.get_mut(&inside)?;
        if inbox.number != number {
            return None;
        }
        let owner = inbox.owner;
        if let Some(known) = inbox.outside {
            return Some((known, owner));
        }
        self.last_port = self.last_port.wrapping_add(1).max(1024);
        let m = owner.map_or(0, |(m, _)| m);
        let outside = SocketAddr::from((Ipv4Addr::new(10, 1, m as u8, 1), self.last_port));
        inbox.outside = Some(outside);
        self.outside.insert(outside, (inside, owner));
        Some((outside, owner))
    }

    fn fate(&mut self, up: bool, machine: Option<usize>, bytes: &[u8], known: bool) -> Fate {
        let place = machine.and_then(|m| self.places.get(m));
        let passes = place.is_none_or(|place| if up { place.up } else { place.down });
        // dice fall whatever else is so: a cut changes nothing of the rest
        let lost = self.rng.chance(self.weather.lost);
        let twice = self.rng.chance(self.weather.twice);
        // long headers are those of handshakes
        let dials = up && bytes.first().is_some_and(|first| first & 0x80 != 0);
        match () {
            () if !passes => Fate::Cut,
            () if bytes.len() > self.weather.largest => Fate::TooLarge,
            () if self.deaf && dials => Fate::Refused,
            () if !known => Fate::Unknown,
            () if lost => Fate::Lost,
            () if twice => Fate::Twice,
            () => Fate::Arrives,
        }
    }

    fn count(&mut self, fate: Fate, machine: Option<usize>) {
        let seen = &mut self.seen;
        seen.sent += 1;
        match fate {
            Fate::Arrives => {}
            Fate::Twice => seen.twice += 1,
            Fate::Lost => seen.lost += 1,
            Fate::TooLarge => seen.too_large += 1,
            Fate::Unknown => seen.unknown += 1,
            Fate::Refused => self.news.1 += 1,
            Fate::Cut => {
                seen.cut += 1;
                if let Some(m) = machine
                    && let Some(told) = self.told_cut.get_mut(m)
                    && !std::mem::replace(told, true)
                {
                    self.news.0.push(m);
                }
            }
        }
    }

    fn delay(&mut self, machine: Option<usize>) -> u64 {
        let slow = machine.and_then(|m| self.places.get(m));
        let slow = slow.map_or(0, |place| place.slow);
        let delay = self.plan.delay + self.rng.below(self.plan.jitter + 1) + slow;
        match self.rng.chance(self.weather.late) {
            true => delay * 10,
            false => delay,
        }
    }
}

fn port(address: SocketAddr) -> u64 {
    let text = match address {
        SocketAddr::V4(address) => u64::from(u32::from(*address.ip())),
        SocketAddr::V6(address) => fnv(0, &address.ip().octets()),
    };
    text << 16 | u64::from(address.port())
}

/// The network as one process sees it.
#[derive(Debug)]
pub(crate) struct Here {
    net: Net,
    owner: Owner,
}

impl Here {
    pub(crate) fn new(net: &Net, owner: Owner) -> Arc<Self> {
        let net = net.clone();
        Arc::new(Self { net, owner })
    }
}

impl Ground for Here {
    fn socket(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(self.net.bind(address, self.owner))
    }

    fn seed(&self) -> [u8; 32] {
        let mut state = self.net.state();
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&state.rng.id());
        seed[16..].copy_from_slice(&state.rng.id());
        seed
    }
}

#[derive(Debug)]
struct Socket {
    net: Net,
    address: SocketAddr,
    number: u64,
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        let mut state = self.net.state();
        for bytes in transmit.contents.chunks(size.max(1)) {
            state.send((self.address, self.number), transmit.destination, bytes);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.net.state();
        let (now, clock) = (state.clock.ms(), state.clock);
        let inbox = state.inboxes.get_mut(&self.address);
        let Some(inbox) = inbox.filter(|inbox| inbox.number == self.number) else {
            return Poll::Pending;
        };
        let mut taken = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let due = inbox.waiting.first_entry();
            let Some(due) = due.filter(|entry| entry.key().0 <= now) else {
                break;
            };
            let datagram = due.remove();
            let length = datagram.bytes.len();
            buf[..length].copy_from_slice(&datagram.bytes);
            *meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (datagram.from, length, length);
            taken += 1;
        }
        if taken > 0 {
            return Poll::Ready(Ok(taken));
        }
        inbox.reader = Some(cx.waker().clone());
        if let Some(((at, _), _)) = inbox.waiting.first_key_value() {
            inbox.timer.as_mut().reset(clock.at(*at));
            if inbox.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
