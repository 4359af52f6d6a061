//! A UDP relay that stands for the network between agents and coordinator: each agent dials a lane
//! of its own, and each direction of a lane can be cut, thinned, slowed, narrowed, doubled, or
//! given a new port. Used by the demo, as a process of its own ([`process`]), and by the end-to-end
//! tests, inside the test.
//!
//! Invariant: it never looks into packets; whatever it does could happen to any path on the
//! Internet.

mod conditions;
mod lane;
pub mod log;
pub mod process;

pub use conditions::{Conditions, QUEUE};
pub use lane::Traffic;

use lane::Lane;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the agent to the coordinator.
    Up,
    /// From the coordinator to the agent.
    Down,
}

/// A running relay; it ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    lanes: Vec<Arc<Lane>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Relay {
    /// A relay to the coordinator at `target` with one lane an agent, all of them open. `seed`
    /// decides which packets are lost, doubled or late where conditions say so.
    ///
    /// # Errors
    /// Where sockets or threads cannot be had.
    pub fn start(target: SocketAddr, lanes: usize, seed: u64) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let made = (0..lanes).map(|n| runtime.block_on(Lane::open(target, seed ^ n as u64)));
        let lanes = made.collect::<io::Result<Vec<_>>>()?;
        let (stop, stopped) = oneshot::channel();
        let serving = lanes.clone();
        let thread = std::thread::Builder::new()
            .name("relay".into())
            .spawn(move || {
                runtime.block_on(async {
                    for lane in serving {
                        tokio::spawn(lane.serve());
                    }
                    // The sender says stop by going away as well.
                    let _ = stopped.await;
                });
                runtime.shutdown_background();
            })?;
        Ok(Self {
            lanes,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Number of lanes.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Where the agent of lane `lane` finds the coordinator.
    ///
    /// # Panics
    /// If there is no such lane.
    #[must_use]
    pub fn address(&self, lane: usize) -> SocketAddr {
        self.lanes[lane].address()
    }

    /// Sets the conditions of one direction.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn set(&self, lane: usize, direction: Direction, conditions: Conditions) {
        self.lanes[lane].set(direction, conditions);
    }

    /// Pulls the cable: nothing passes any more, in either direction.
    pub fn cut(&self, lane: usize) {
        self.set(lane, Direction::Up, Conditions::CUT);
        self.set(lane, Direction::Down, Conditions::CUT);
    }

    /// What the agent sends still arrives, what the coordinator answers does not.
    pub fn mute(&self, lane: usize) {
        self.set(lane, Direction::Down, Conditions::CUT);
    }

    /// Plugs the cable in again: everything passes.
    pub fn join(&self, lane: usize) {
        self.set(lane, Direction::Up, Conditions::OPEN);
        self.set(lane, Direction::Down, Conditions::OPEN);
    }

    /// Gives the agent a new address as the coordinator sees it, as a NAT that forgot its mapping
    /// does.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn rebind(&self, lane: usize) {
        self.lanes[lane].rebind();
    }

    /// What has passed and what was dropped so far: up, then down.
    ///
    /// # Panics
    /// If there is no such lane.
    #[must_use]
    pub fn traffic(&self, lane: usize) -> [Traffic; 2] {
        self.lanes[lane].traffic()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}
