//! Promise 4: one owner.

use crate::world::World;
use edge_core::event::Launch;
use shared::directive::Assign;
use shared::fact::Outcome;
use shared::ids::{AttemptRef, Epoch, Generation};
use shared::wire::{Down, LogId};
use shared::workflow::SideEffects;

/// What it means.
pub const DEFINITION: &str = "Epochs of a task only grow, and a slice at one epoch is given away once (but by a coordinator whose clock was set). An attempt has at most one process, ever; two processes of one \
    task never overlap on one machine, nor on two unless its spec lets it be replaced, a disk of theirs was copied, \
    put back or emptied, one of them had been declared gone and was there again, or the coordinator's was put back between their generations (or restored, and the first \
    one's gateway or its disk is gone, or of an older backup than the newest, and what was told of the first one is \
    only in the newer); a task with side effects at \
    most once is never begun again after an attempt whose failure is not recorded, unless a person said so or one of \
    those disks did; nothing begins without its durable `started`. A node that was declared gone gets no session while the coordinator knows that.";

/// What the coordinator gives away: a slice at an epoch is given with the same tasks to one node,
/// ever; said again, it may be without what ended meanwhile.
pub fn on_cloud_commit(world: &mut World, assigned: &[(LogId, Generation, Assign)]) {
    // a wall clock that was set back may show a time that it showed before
    if world.cloud.clock_stepped {
        return;
    }
    let mut found = None;
    for (log, _, assign) in assigned {
        let slice = assign.slice;
        let given = || (*log, assign.tasks.clone());
        let first = world.epochs.entry((slice.run, slice.epoch, slice.slice));
        let (owner, tasks) = first.or_insert_with(given);
        let fewer = assign.tasks.iter().all(|task| tasks.contains(task));
        if *owner != *log || !fewer {
            let count = assign.tasks.len();
            found = Some(format!(
                "{slice:?} was given to {} before, and is given to {} with {count} tasks",
                owner.node, log.node
            ));
        }
    }
    if let Some(text) = found {
        world.fail("one_owner", text);
    }
}

/// The coordinator answers a gateway: somebody was told that this one is gone, and that holds.
pub fn on_send_down(world: &mut World, conn: u64, message: &Down) {
    let Some(connection) = world.conns.get(&conn) else {
        return;
    };
    let node = connection.log.node;
    if matches!(message, Down::Welcome(_)) && world.people.closed.gone.contains(&node) {
        let text = format!("{node} was declared gone, and is welcomed");
        world.fail("one_owner", text);
    }
}

/// An executor is asked to start an attempt.
pub fn on_begin(world: &mut World, m: usize, launch: &Launch) {
    let truth = &world.lives[world.machines[m].life];
    if !truth.starts.contains_key(&launch.attempt) {
        let text = format!(
            "gw-{} begins {:?} before its start is durable",
            m + 1,
            launch.attempt
        );
        world.fail("one_owner", text);
    }
}

/// A process is about to begin.
pub fn on_spawn(world: &mut World, m: usize, attempt: AttemptRef) {
    let key = (attempt.slice.run, attempt.task);
    let Some(flow) = world.flows.get(&attempt.slice.run) else {
        return;
    };
    let spec = &flow.workflow.tasks[attempt.task.0 as usize];
    let once = spec.side_effects == SideEffects::AtMostOnce;
    let moves = spec.disconnect.replace;
    let here = world.machines[m].life;
    let mut found = None;
    for ran in world.ran_by_task.get(&key).into_iter().flatten() {
        let ran = &world.ran[*ran];
        // what the coordinator placed before it noticed that its store had gone back; after a
        // restore it waits for every gateway that it is not told to be gone
        let generation = |one: AttemptRef| one.slice.epoch.generation();
        let log = world.lives[ran.life].log;
        let gone = world.people.forgotten.contains(&log.node)
            || world.cloud.backups.without.contains(&log.node)
            || world.machines[ran.machine].log() != log;
        let unaware = world.cloud.put_back || world.cloud.went_back && gone;
        let again = unaware && generation(ran.attempt) != generation(attempt);
        // a run that was asked for at the gateway and is asked for once more
        // a newer backup held what became of it, so it went at its gateway
        let untold = || world.lives[ran.life].declared_gone(&ran.attempt);
        let again = again
            || world.cloud.older && untold() && generation(ran.attempt) != generation(attempt);
        let forgot = world.lives[ran.life].emptied && attempt.slice.epoch == Epoch::LOCAL;
        // what was given to others when it was declared gone, it does as well when it is back
        let returned = world.machines[ran.machine].returned;
        let strayed =
            world.machines[m].returned.is_some() || returned.is_some_and(|since| ran.from >= since);
        let broken = again
            || forgot
            || strayed
            || world.lives[here].branched
            || world.lives[ran.life].branched;
        let same_place = ran.machine == m;
        if ran.attempt == attempt && ran.life == here && !world.lives[here].branched {
            found = Some(format!("gw-{} begins {attempt:?} twice", m + 1));
        } else if ran.to.is_none() && same_place {
            found = Some(format!(
                "gw-{} begins {attempt:?} beside {:?}",
                m + 1,
                ran.attempt
            ));
        } else if ran.to.is_none() && !moves && !broken {
            found = Some(format!(
                "gw-{} begins {attempt:?} while gw-{} runs {:?}",
                m + 1,
                ran.machine + 1,
                ran.attempt
            ));
        } else if once && !broken && !world.people.resumed.contains(&key) {
            let outcome = world.lives[ran.life].model.ended.get(&ran.attempt);
            if !(ran.seen && outcome == Some(&Outcome::Failed)) {
                found = Some(format!(
                    "gw-{} begins {attempt:?} again; {:?} ended {outcome:?}",
                    m + 1,
                    ran.attempt
                ));
            }
        }
    }
    if let Some(text) = found {
        world.fail("one_owner", text);
    }
}
