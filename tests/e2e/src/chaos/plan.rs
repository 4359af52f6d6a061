//! The plan of a scenario: everything that follows from its seed.

use super::draw::Rng;
use super::flow::{Flow, Source};
use super::strike::{self, Fault, Strike};
use std::fmt;

/// Everything that follows from a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Number of gateways.
    pub gateways: usize,
    /// How long faults strike, in milliseconds.
    pub window_ms: u64,
    /// The workflows.
    pub flows: Vec<Flow>,
    /// The faults, in the order in which they begin.
    pub strikes: Vec<Strike>,
}

impl Plan {
    /// Draws the plan of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0);
        let gateways = 2 + rng.index(2);
        let window_ms = rng.within(8_000, 12_000);
        let mut sources = vec![Source::Coordinator(0)];
        if rng.chance(50) {
            sources.push(Source::Coordinator(rng.within(0, window_ms / 2)));
        }
        if rng.chance(40) {
            sources.push(Source::Gateway(rng.index(gateways)));
        }
        let flows = sources.into_iter().zip(1..).map(|(source, part)| {
            let name = format!("chaos-{seed}-{part}");
            Flow::draw(&mut Rng::new(seed, part), name, source, gateways)
        });
        Self {
            seed,
            gateways,
            window_ms,
            flows: flows.collect(),
            strikes: strike::draw(&mut Rng::new(seed, 100), gateways, window_ms),
        }
    }

    /// Whether one of these faults strikes a gateway.
    #[must_use]
    pub fn strikes(&self, node: usize, faults: &[Fault]) -> bool {
        let hits = |strike: &Strike| strike.node == node && faults.contains(&strike.fault);
        self.strikes.iter().any(hits)
    }

    /// Whether some disk is full for a while: a gateway may refuse work then.
    #[must_use]
    pub fn fills_a_disk(&self) -> bool {
        (0..self.gateways).any(|node| self.strikes(node, &[Fault::FullDisk]))
    }

    /// One line: how much there is of what.
    #[must_use]
    pub fn summary(&self) -> String {
        let tasks: usize = self.flows.iter().map(|flow| flow.tasks.len()).sum();
        format!(
            "{} gateways, {} workflows with {tasks} tasks, {} faults in {} s",
            self.gateways,
            self.flows.len(),
            self.strikes.len(),
            Seconds(self.window_ms)
        )
    }
}

/// Milliseconds, shown as seconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.summary())?;
        for flow in &self.flows {
            let whence = match flow.source {
                Source::Coordinator(ms) => format!("at the coordinator after {} s", Seconds(ms)),
                Source::Gateway(node) => format!("at gw-{node}"),
            };
            let moves = if flow.movable { ", movable" } else { "" };
            let count = flow.tasks.len();
            writeln!(
                f,
                "  {}: {count} tasks, submitted {whence}{moves}",
                flow.name
            )?;
        }
        for strike in &self.strikes {
            let (from, to) = (Seconds(strike.from_ms), Seconds(strike.to_ms));
            writeln!(f, "  {from} to {to} s: {strike}")?;
        }
        Ok(())
    }
}
