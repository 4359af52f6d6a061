//! What happens in the demo, and when: every step waits for what it needs to see, none for a fixed
//! time.

use super::world::World;
use crate::exit::{Code, Failure};
use cloud_core::view;
use shared::spec;
use shared::state::RunState;
use shared::time::Unix;
use std::collections::BTreeMap;
use std::time::Duration;

const WORKFLOW: &str = include_str!("../../../../deploy/examples/weather/weather.yaml");

/// Gateways whose link is cut; the second one's agent is killed as well.
const FIRST: usize = 0;
const KILLED: usize = 1;
/// How long each step of the workflow rests, in seconds, so that there is something to see.
const PACE: &str = "0.7";
/// Tasks that each of the two finishes before the cut, before the kill, and after it.
const BEFORE_CUT: usize = 8;
const BEFORE_KILL: usize = 7;
const AFTER_KILL: usize = 14;
/// Facts that the coordinator has and the first gateway does not know of, before its link is cut.
const SWALLOWED: u64 = 6;
/// Outcomes among them, at least.
const OUTCOMES: usize = 2;
/// How often it is tried.
const ATTEMPTS: u32 = 5;

/// What is needed to tell the end.
#[derive(Debug)]
pub(super) struct Told {
    /// The run as the coordinator shows it.
    pub(super) run: view::Run,
    /// Why the comparison ran where and when it did.
    pub(super) explained: view::Explain,
    /// The task that was running when its agent was killed.
    pub(super) interrupted: Option<view::Task>,
    /// Where the comparison was written, and its content's hash.
    pub(super) comparison: (String, String),
}

/// Plays it from the first enrolment to the end of the run.
pub(super) fn play(world: &mut World) -> Result<Told, Failure> {
    set_up(world)?;
    let at_cut = cut(world)?;
    let interrupted = kill_and_start_again(world, at_cut)?;
    join(world)?;
    finish(world)?;
    tell(world, interrupted)
}

fn set_up(world: &mut World) -> Result<(), Failure> {
    for at in 0..world.gateways.len() {
        world.start_agent(at)?;
    }
    world.until("all gateways online", 20, |w| {
        w.gateways.iter().all(|g| g.says == "online")
    })?;
    world
        .screen
        .event("one coordinator, three gateways: enrolled and online");
    let params: BTreeMap<String, String> = world
        .gateways
        .iter()
        .map(|g| (g.station.to_owned(), g.source.display().to_string()))
        .chain([("pace".to_owned(), PACE.to_owned())])
        .collect();
    let now: Unix = crate::text::now();
    let workflow = spec::submission("weather.yaml", WORKFLOW, &params, &BTreeMap::new(), now)
        .map_err(|mistakes| Failure::new(Code::Specification, mistakes.to_string()))?;
    let (tasks, (packed, _)) = (workflow.tasks.len(), shared::codec::pack(&workflow));
    let run: view::Run = world.client.post_bytes("/runs?by=demo", &[], &packed)?;
    world.run = Some(run.id);
    world
        .screen
        .event(&format!("workflow weather submitted: {tasks} tasks"));
    Ok(())
}

/// Mutes the way down until outcomes are durable at the coordinator that the gateway cannot know
/// of. A busy machine may take longer than the session lasts; then once more.
fn swallow(world: &mut World) -> Result<(), Failure> {
    let name = world.gateways[FIRST].name.clone();
    for _ in 0..ATTEMPTS {
        world.relay(FIRST, "mute")?;
        let text = format!("answers to {name} are swallowed; what it sends still arrives");
        world.screen.event(&text);
        let known = world.gateways[FIRST].known;
        let swallowed = |w: &World| {
            let gateway = &w.gateways[FIRST];
            gateway.folded >= gateway.acknowledged + SWALLOWED && gateway.known >= known + OUTCOMES
        };
        let online = |w: &World| w.gateways[FIRST].says == "online";
        world.until("an acknowledgement that was swallowed", 40, |w| {
            swallowed(w) || !online(w)
        })?;
        if swallowed(world) {
            return Ok(());
        }
        world.relay(FIRST, "join")?;
        world.screen.event(&format!(
            "too early: the session of {name} ended by itself; once more"
        ));
        world.until("the gateway online again", 20, online)?;
    }
    Err(Failure::new(
        Code::Failed,
        "no acknowledgement could be swallowed in time",
    ))
}

/// Swallows an acknowledgement and cuts two links; how far both were.
fn cut(world: &mut World) -> Result<[usize; 2], Failure> {
    world.until("work on both gateways", 40, |w| {
        [FIRST, KILLED]
            .iter()
            .all(|at| w.gateways[*at].done >= BEFORE_CUT)
    })?;
    swallow(world)?;
    world.relay(FIRST, "cut")?;
    world.relay(KILLED, "cut")?;
    let (first, killed) = (&world.gateways[FIRST], &world.gateways[KILLED]);
    let text = format!(
        "links of {} and {} cut; acknowledgements of {} facts never reached {}",
        first.name,
        killed.name,
        first.folded.saturating_sub(first.acknowledged),
        first.name
    );
    let at_cut = [first.done, killed.done];
    world.screen.event(&text);
    Ok(at_cut)
}

/// Kills the agent of a gateway that is cut off and starts it again; what it was doing then.
fn kill_and_start_again(world: &mut World, at_cut: [usize; 2]) -> Result<Option<String>, Failure> {
    world.until("work without a link", 40, |w| {
        let gateway = &w.gateways[KILLED];
        gateway.done >= at_cut[1] + BEFORE_KILL && !gateway.running.is_empty()
    })?;
    let gateway = &world.gateways[KILLED];
    let (name, done, running) = (gateway.name.clone(), gateway.done, gateway.running.clone());
    world.kill_agent(KILLED);
    world.screen.event(&format!(
        "agent of {name} killed (kill -9) in the middle of {}",
        running.join(", ")
    ));
    world.rest(Duration::from_millis(800))?;
    world.start_agent(KILLED)?;
    world.screen.event(&format!(
        "agent of {name} started again, still cut off: it goes on from its disk"
    ));
    world.until("work after the restart", 40, |w| {
        let (first, killed) = (&w.gateways[FIRST], &w.gateways[KILLED]);
        killed.done >= done + AFTER_KILL && first.done >= at_cut[0] + BEFORE_KILL + AFTER_KILL
    })?;
    Ok(running.into_iter().next())
}

fn join(world: &mut World) -> Result<(), Failure> {
    world.relay(FIRST, "join")?;
    world.relay(KILLED, "join")?;
    let apart = |at: usize| {
        world.gateways[at]
            .done
            .saturating_sub(world.gateways[at].known)
    };
    let behind = apart(FIRST) + apart(KILLED);
    world.screen.event(&format!(
        "links joined; the coordinator does not know of {behind} finished tasks yet"
    ));
    Ok(())
}

fn finish(world: &mut World) -> Result<(), Failure> {
    world.until("both gateways online again", 30, |w| {
        [FIRST, KILLED]
            .iter()
            .all(|at| w.gateways[*at].says == "online")
    })?;
    world.screen.event("both gateways are heard again");
    let over = |w: &World| RunState::from_text(&w.state).is_some_and(RunState::is_final);
    world.until("the end of the run", 60, over)?;
    let text = format!("run {}", world.state);
    world.screen.event(&text);
    world.until("everything acknowledged", 20, |w| {
        w.gateways
            .iter()
            .all(|g| g.facts == g.acknowledged && g.folded >= g.facts)
    })
}

/// Fetches what the end of the story needs while there is a coordinator to ask.
fn tell(world: &World, interrupted: Option<String>) -> Result<Told, Failure> {
    let id = world
        .run
        .ok_or_else(|| Failure::new(Code::Failed, "there is no run"))?;
    let run: view::Run = world.client.get(&format!("/runs/{id}"))?;
    let task: view::Task = world.client.get(&format!("/runs/{id}/tasks/comparison"))?;
    let output = task.outputs.first().map(|output| output.hash.clone());
    let comparison = task.node.zip(output).ok_or_else(|| {
        Failure::new(
            Code::Failed,
            format!("there is no comparison: the run is {}", run.state),
        )
    })?;
    let explained = world
        .client
        .get(&format!("/runs/{id}/tasks/comparison/explain"))?;
    let get = |name: String| world.client.get(&format!("/runs/{id}/tasks/{name}"));
    let interrupted = interrupted.map(get).transpose()?;
    Ok(Told {
        run,
        explained,
        interrupted,
        comparison,
    })
}
