//! Promise 4: one owner.

use crate::check::acknowledged_is_durable::{branch_of, hash_of};
use crate::truth::{EdgeTruth, Ran};
use crate::world::World;
use edge_core::event::Launch;
use shared::directive::Assign;
use shared::fact::Outcome;
use shared::ids::{AttemptRef, Epoch, Generation};
use shared::wire::{Down, LogId};
use shared::workflow::SideEffects;

/// What it means.
pub const DEFINITION: &str = "Epochs of a task only grow, and a slice at one epoch is given away once (but by a coordinator whose clock was set). An attempt has at most one process, ever; two processes of one \
    task never overlap on one machine, nor on two unless its spec lets it be replaced, a disk of theirs was copied \
    or put back, or emptied before it answered who had asked there for the run, one of them had been declared gone and was there again, or the coordinator's was put back between their generations (or restored, and the first \
    one's gateway or its disk is gone, or that disk was put back, too, and neither holds the first one, or of an older backup than the newest, and what was told of the first one is \
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

/// Whether `attempt` is of a run that was asked for at a gateway, and is asked for once more, since
/// its disk was gone before it answered. Whoever was answered asks no more.
fn is_asked_for_again(world: &World, ran: &Ran, attempt: AttemptRef) -> bool {
    let (life, run) = (&world.lives[ran.life], attempt.slice.run);
    let unanswered = world.people.submitted.contains(&run) && !life.promised.contains(&run);
    life.emptied && unanswered && attempt.slice.epoch == Epoch::LOCAL
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
        let again = is_forgotten(world, ran, attempt);
        let forgot = is_asked_for_again(world, ran, attempt);
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

/// Whether who places `attempt` may not know of `ran` any more, since its store went back.
fn is_forgotten(world: &World, ran: &Ran, attempt: AttemptRef) -> bool {
    let generation = |one: AttemptRef| one.slice.epoch.generation();
    if generation(ran.attempt) == generation(attempt) {
        return false;
    }
    // after a restore it waits for every gateway that it is not told to be gone
    let (life, machine) = (&world.lives[ran.life], &world.machines[ran.machine]);
    let gone = || {
        world.people.forgotten.contains(&life.log.node)
            || world.cloud.backups.without.contains(&life.log.node)
            || machine.log() != life.log
    };
    // what was placed before it noticed that its store had gone back
    world.cloud.put_back
        || world.cloud.went_back && (gone() || is_lost(world, ran))
        // a newer backup held what became of it, so it went at its gateway
        || world.cloud.older && life.declared_gone(&ran.attempt)
}

/// Whether neither the gateway nor the coordinator holds the fact that `ran` began: both stores
/// went back behind it.
fn is_lost(world: &World, ran: &Ran) -> bool {
    let life = &world.lives[ran.life];
    let Some(number) = life.starts.get(&ran.attempt) else {
        return false;
    };
    let holds = |branch: &EdgeTruth| hash_of(branch, *number) == hash_of(life, *number);
    let there = world.lives.get(world.machines[ran.machine].life);
    // of a disk that went back or was copied the coordinator holds one branch, up to its head
    let head = world.cloud.truth.heads.get(&life.log);
    let recorded = head.is_some_and(|head| *number <= head.number)
        && branch_of(world, life.log).is_some_and(holds);
    !there.is_some_and(holds) && !recorded
}
