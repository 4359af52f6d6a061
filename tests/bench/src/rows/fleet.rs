//! What a connected agent costs the coordinator, with live telemetry: memory and CPU beside bare
//! QUIC connections that carry messages of the same number and sizes. And what an agent needs with
//! a long time behind it.

use super::resync;
use crate::bare::{Clients, Server};
use crate::cloud::Coordinator;
use crate::figure::{Figure, Goal};
use crate::gateway::Gateway;
use crate::place::Place;
use crate::proc::Proc;
use crate::swarm::{ANSWER, REPORT, Swarm};
use anyhow::{Result, anyhow};
use std::time::Duration;

/// An agent's telemetry goes up so often while the link is good.
const EVERY: Duration = Duration::from_secs(15);
/// How long the agents are watched: the coordinator acknowledges telemetry so often, three times
/// for four reports.
const WATCHED: Duration = Duration::from_secs(20);
/// Until what a start needed is given back.
const SETTLE: Duration = Duration::from_secs(10);

/// What the agents cost a process.
struct Cost {
    /// Bytes of the whole process before and after the agents came.
    memory: (f64, f64),
    /// CPU seconds while it was watched.
    cpu: f64,
}

pub(super) fn measure(place: &Place) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for agents in [500, 5000] {
        figures.extend(connected(place, agents)?);
    }
    figures.push(buffered(place)?);
    Ok(figures)
}

fn connected(place: &Place, agents: usize) -> Result<Vec<Figure>> {
    let (ours, bare) = costs(place, agents)?;
    let an_agent = |cost: &Cost| (cost.memory.1 - cost.memory.0) / agents as f64 / 1024.0;
    let name = |what: &str| format!("{agents} agents, {what}");
    let permille = |cost: &Cost| cost.cpu / WATCHED.as_secs_f64() * 1000.0;
    let (cpu, bare_cpu) = (permille(&ours), permille(&bare));
    let compared = (cpu, bare_cpu, cpu / bare_cpu);
    let mut figures = vec![
        Figure::besides(
            "fleet",
            &name("memory of one"),
            "KiB",
            (an_agent(&ours), an_agent(&bare)),
            Goal::AtMost(64.0),
        ),
        Figure::beside(
            "fleet",
            &name("CPU"),
            "permille",
            compared,
            Goal::RatioAtMost(2.0),
        ),
    ];
    if agents == 500 {
        let (unit, goal) = ("MB", Goal::AtMost(50.0));
        let all = ours.memory.1 / 1e6;
        figures.push(Figure::alone(
            "fleet",
            &name("coordinator"),
            unit,
            all,
            goal,
        ));
    }
    Ok(figures)
}

/// The coordinator with that many sessions of the real protocol, and the bare server with as many
/// connections and messages, both at the same time: a busy machine disturbs both alike.
fn costs(place: &Place, agents: usize) -> Result<(Cost, Cost)> {
    let dir = place.fresh()?;
    let data = dir.path().join("cloud");
    let coordinator = Coordinator::start(&data)?;
    let mut swarm = Swarm::enrol(&coordinator, agents)?;
    drop(coordinator);
    let coordinator = Coordinator::start(&data)?;
    let server = Server::start()?;
    let procs = [coordinator.pid(), server.pid()].map(Proc::of);
    let [ours, bare] = &procs;
    let runtime = crate::swarm::runtime()?;
    let bare_before = bare.pss()?;
    let clients = Clients::connect(&runtime, &server, agents)?;
    std::thread::sleep(SETTLE);
    let before = ours.pss()?;
    let sessions = swarm.connect_slowly(&coordinator)?;
    let long = EVERY + WATCHED;
    let (mut cpu, mut after) = ([0.0; 2], [0.0; 2]);
    std::thread::scope(|scope| {
        // The first reports bring everybody to where it stays.
        let sessions = scope.spawn(|| swarm.report(sessions, EVERY, long));
        let clients = scope.spawn(|| clients.talk(&runtime, (REPORT, ANSWER), EVERY, long));
        std::thread::sleep(EVERY);
        let since = [ours.cpu()?, bare.cpu()?];
        std::thread::sleep(WATCHED);
        let until = [ours.cpu()?, bare.cpu()?];
        cpu = [until[0] - since[0], until[1] - since[1]];
        after = [ours.pss()?, bare.pss()?];
        let panicked = |_| anyhow!("a thread that talks panicked");
        let _both = (
            sessions.join().map_err(panicked)??,
            clients.join().map_err(panicked)??,
        );
        anyhow::Ok(())
    })?;
    let cost = |before: f64, n: usize| Cost {
        memory: (before, after[n]),
        cpu: cpu[n],
    };
    Ok((cost(before, 0), cost(bare_before, 1)))
}

/// An agent that has 1,000,000 outcomes to tell and nobody to tell them.
fn buffered(place: &Place) -> Result<Figure> {
    let dir = place.fresh()?;
    let data = dir.path().join("agent");
    resync::copy_tree(&resync::filled(place)?.join("agent"), &data)?;
    let gateway = Gateway::start(&data, &["--coordinator", "127.0.0.1:9"])?;
    std::thread::sleep(SETTLE);
    let pss = Proc::of(gateway.pid()).pss()? / 1e6;
    let (what, goal) = ("agent, 1,000,000 outcomes", Goal::AtMost(24.0));
    Ok(Figure::alone("fleet", what, "MB", pss, goal))
}
