//! A person lets a gateway send nothing: it is silent from then on, and no longer than asked.

use crate::queue::{MIN, SEC};
use crate::world::World;

/// What it means.
pub const DEFINITION: &str = "From the moment that a pause of sending is durable at a gateway until its end is, the \
    gateway dials nobody, and 6 s later it sends nothing; a pause of a stated length is over 2 \
    minutes after it (after a reboot at the latest: that length after the boot) on a gateway \
    that runs and has room. At rest the coordinator shows no pause that is over.";

/// A session that stands may tell of the pause for 5 s.
const LAST_WORDS: u64 = 6 * SEC;

/// The agent of `m` dials.
pub fn on_dial(world: &mut World, m: usize) {
    if world.lives[world.machines[m].life].silent.is_some() {
        let text = format!("gw-{} dials although somebody paused its link", m + 1);
        world.fail("silent", text);
    }
}

/// The agent of `m` sends something.
pub fn on_send(world: &mut World, m: usize) {
    let silent = world.lives[world.machines[m].life].silent;
    if let Some((since, _)) = silent
        && world.t > since + LAST_WORDS
    {
        let text = format!("gw-{} sends although somebody paused its link", m + 1);
        world.fail("silent", text);
    }
}

/// Once a minute.
pub fn look(world: &mut World) {
    for m in 0..world.machines.len() {
        let machine = &world.machines[m];
        let silent = world.lives.get(machine.life).and_then(|life| life.silent);
        let runs = machine.agent.is_some() && !machine.full;
        let overdue = silent.is_some_and(|(since, length)| {
            let from = since.max(machine.clocks.booted);
            runs && length.is_some_and(|length| world.t > from + length.nanos())
        });
        if !overdue {
            world.machines[m].overdue_since = None;
            continue;
        }
        let since = *world.machines[m].overdue_since.get_or_insert(world.t);
        if world.t - since > 2 * MIN {
            let text = format!("gw-{} stays silent longer than it was asked to", m + 1);
            world.fail("silent", text);
        }
    }
}
