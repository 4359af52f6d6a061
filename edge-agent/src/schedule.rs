//! Schedules as the loop answers for them: names of people to ids, and what they ask to orders.

use crate::control::ScheduleAsk;
use edge_core::agent::Agent;
use edge_core::event::Local;
use shared::ids::ScheduleId;
use shared::schedule::view::{Slot, View};
use shared::schedule::{Order, SLOTS};

/// The one schedule with this name, or whose id begins with it.
pub(crate) fn find(agent: &Agent, name: &str) -> Result<View, String> {
    let views = agent.schedule_views();
    let named: Vec<&View> = views.iter().filter(|view| view.name == name).collect();
    let found = match named.is_empty() {
        true => {
            let begin = name.to_ascii_lowercase();
            let begins = |view: &&View| view.id.to_string().starts_with(&begin);
            views.iter().filter(begins).collect()
        }
        false => named,
    };
    match found[..] {
        [view] => Ok(view.clone()),
        [] => Err(format!(
            "no schedule {name} here; `schedule list` shows those that this node fires"
        )),
        _ => Err(format!("{name} means several schedules; give the id")),
    }
}

/// The next slots of a schedule.
pub(crate) fn next_slots(agent: &Agent, view: &View, count: u32) -> Vec<Slot> {
    let most = (count as usize).min(SLOTS);
    let slots = agent.next_slots(view.id, most).into_iter();
    slots.map(Slot::from).collect()
}

/// A new schedule, or a new revision of the one with the same name that was made here.
pub(crate) fn create(
    agent: &Agent,
    id: ScheduleId,
    workflow: Vec<u8>,
    replace: bool,
    by: String,
) -> Result<Local, String> {
    let (compiled, _) = shared::codec::unpack(&workflow).map_err(|error| error.to_string())?;
    let views = agent.schedule_views();
    let known = views.iter().find(|view| view.name == compiled.name);
    let (schedule, revision) = match (known, replace) {
        (Some(known), true) => (known.id, known.revision + 1),
        (Some(known), false) => {
            return Err(format!(
                "a schedule named {} is here already; --replace makes this its next revision",
                known.name
            ));
        }
        (None, true) => return Err(format!("no schedule named {} is here", compiled.name)),
        (None, false) => (id, 1),
    };
    let after = agent.calendar_now();
    let what = Order::Set {
        revision,
        workflow,
        after,
        paused: false,
    };
    Ok(Local::Schedule { schedule, what, by })
}

/// What a person asks of a schedule.
pub(crate) fn asked(
    agent: &Agent,
    name: &str,
    ask: ScheduleAsk,
    by: String,
) -> Result<Local, String> {
    let view = find(agent, name)?;
    let what = match ask {
        ScheduleAsk::Pause => Order::Pause(true),
        ScheduleAsk::Resume => Order::Pause(false),
        ScheduleAsk::Trigger => Order::Trigger(agent.calendar_now()),
        ScheduleAsk::Backfill { from, to } => {
            let held = agent.state().schedules.get(&view.id);
            if let (Some(calendar), Some(held)) = (agent.calendar(view.id), held) {
                shared::schedule::check_backfill(calendar, &held.progress, from, to)?;
            }
            Order::Backfill(from, to)
        }
        ScheduleAsk::Delete => Order::Drop,
    };
    let schedule = view.id;
    Ok(Local::Schedule { schedule, what, by })
}
