//! One lane: the socket that its agent dials, and one socket towards the coordinator for each
//! address that the agent sends from.

use crate::Direction;
use crate::conditions::{Conditions, Rng};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Largest datagram.
const DATAGRAM: usize = 65_536;
/// Addresses of one agent that are remembered; the table is emptied when there are more.
const FLOWS: usize = 64;

/// Packets and bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets that were passed on.
    pub passed: u64,
    /// Bytes of those.
    pub passed_bytes: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

#[derive(Debug)]
struct State {
    conditions: [Conditions; 2],
    traffic: [Traffic; 2],
    rng: Rng,
    /// When the last packet has passed that a rate holds back.
    free: [Instant; 2],
    /// Raised by each rebinding: older flows are given up.
    binding: u64,
}

/// One lane.
#[derive(Debug)]
pub(crate) struct Lane {
    target: SocketAddr,
    front: UdpSocket,
    address: SocketAddr,
    state: Mutex<State>,
}

/// The way to the coordinator for one address of the agent.
#[derive(Debug)]
struct Flow {
    back: Arc<UdpSocket>,
    binding: u64,
    answers: JoinHandle<()>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl Lane {
    /// Binds a free port of loopback.
    pub(crate) async fn open(target: SocketAddr, seed: u64) -> io::Result<Arc<Self>> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = front.local_addr()?;
        let state = State {
            conditions: [Conditions::OPEN; 2],
            traffic: [Traffic::default(); 2],
            rng: Rng(seed),
            free: [Instant::now(); 2],
            binding: 0,
        };
        Ok(Arc::new(Self {
            target,
            front,
            address,
            state: Mutex::new(state),
        }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, direction: Direction, conditions: Conditions) {
        self.state().conditions[direction as usize] = conditions;
    }

    pub(crate) fn rebind(&self) {
        self.state().binding += 1;
    }

    pub(crate) fn traffic(&self) -> [Traffic; 2] {
        self.state().traffic
    }

    /// Passes packets on until the runtime ends.
    pub(crate) async fn serve(self: Arc<Self>) {
        let mut flows: BTreeMap<SocketAddr, Flow> = BTreeMap::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            // Errors of earlier sends come back here (nobody listens there now); the next packet
            // may do better.
            let Ok((length, agent)) = self.front.recv_from(&mut buffer).await else {
                continue;
            };
            let binding = self.state().binding;
            if flows.get(&agent).is_none_or(|flow| flow.binding != binding) {
                if flows.len() >= FLOWS {
                    flows.clear();
                }
                let Ok(flow) = self.clone().flow(agent, binding).await else {
                    continue;
                };
                flows.insert(agent, flow);
            }
            if let Some(flow) = flows.get(&agent) {
                self.ask(&flow.back, &buffer[..length]).await;
            }
        }
    }

    async fn flow(self: Arc<Self>, agent: SocketAddr, binding: u64) -> io::Result<Flow> {
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        back.connect(self.target).await?;
        let from = back.clone();
        let answers = tokio::spawn(async move {
            let mut buffer = vec![0; DATAGRAM];
            loop {
                match from.recv(&mut buffer).await {
                    Ok(length) => self.answer(agent, &buffer[..length]).await,
                    // Nobody listens there now.
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        Ok(Flow {
            back,
            binding,
            answers,
        })
    }

    async fn answer(self: &Arc<Self>, agent: SocketAddr, packet: &[u8]) {
        for late in self
            .judge(Direction::Down, packet.len())
            .into_iter()
            .flatten()
        {
            if late.is_zero() {
                // A packet that cannot be sent is a packet lost.
                let _ = self.front.send_to(packet, agent).await;
            } else {
                let (lane, packet) = (self.clone(), packet.to_vec());
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    if !lane.is_cut(Direction::Down) {
                        let _ = lane.front.send_to(&packet, agent).await;
                    }
                });
            }
        }
    }

    /// A cut also takes what is under way.
    fn is_cut(&self, direction: Direction) -> bool {
        self.state().conditions[direction as usize] == Conditions::CUT
    }

    async fn ask(self: &Arc<Self>, to: &Arc<UdpSocket>, packet: &[u8]) {
        for late in self
            .judge(Direction::Up, packet.len())
            .into_iter()
            .flatten()
        {
            if late.is_zero() {
                // A packet that cannot be sent is a packet lost.
                let _ = to.send(packet).await;
            } else {
                let (lane, to, packet) = (self.clone(), to.clone(), packet.to_vec());
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    if !lane.is_cut(Direction::Up) {
                        let _ = to.send(&packet).await;
                    }
                });
            }
        }
    }

    /// Decides about one packet, and counts it.
    fn judge(&self, direction: Direction, length: usize) -> [Option<Duration>; 2] {
        let mut state = self.state();
        let conditions = state.conditions[direction as usize];
        let mut copies = conditions.copies(&mut state.rng, length);
        if copies[0].is_some() {
            let free = &mut state.free[direction as usize];
            let turn = conditions.turn(free, Instant::now(), length);
            copies = copies.map(|late| Some(late? + turn?));
        }
        let traffic = &mut state.traffic[direction as usize];
        if copies[0].is_some() {
            traffic.passed += 1;
            traffic.passed_bytes += length as u64;
        } else {
            traffic.dropped += 1;
        }
        copies
    }
}
