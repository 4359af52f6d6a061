//! The limits of matrices.

use crate::fault::Kind;
use crate::world::World;
use shared::ids::AttemptRef;

/// What it means.
pub const DEFINITION: &str = "Of a matrix with `max_parallel` never more processes run at once than that, over all \
    machines, whatever the links do; but for slices that count as lost while their processes go on (`lost_after`), for \
    disks that were copied or put back, and for a coordinator whose store went back. No member begins at a gateway \
    beyond the share that its records tell, nor after more failed there than `max_fails`.";

/// A process is about to begin.
pub fn on_spawn(world: &mut World, m: usize, attempt: AttemptRef) {
    let Some(flow) = world.flows.get(&attempt.slice.run) else {
        return;
    };
    let workflow = &flow.workflow;
    let Some((number, matrix)) = workflow.matrix_of(attempt.task) else {
        return;
    };
    let Some(most) = matrix.max_parallel else {
        return;
    };
    let mut tasks = workflow
        .tasks
        .iter()
        .filter(|task| task.matrix == Some(number));
    let moves = tasks.any(|task| task.disconnect.lost_after.is_some());
    let ours = |one: &&crate::truth::Ran| {
        let same = one.to.is_none() && one.attempt.slice.run == attempt.slice.run;
        same && workflow.tasks[one.attempt.task.0 as usize].matrix == Some(number)
    };
    let running: Vec<usize> = world.ran.iter().filter(ours).map(|one| one.life).collect();
    let branched = |life: &usize| world.lives[*life].branched;
    let broken = branched(&world.machines[m].life) || running.iter().any(branched);
    let count = running.len() as u32 + 1;
    if count == most {
        world.happened(Kind::LimitReached);
    } else if count > most && !moves && !broken && !world.cloud.went_back {
        let text = format!(
            "gw-{} begins {attempt:?}, number {count} of matrix {number}, of which {most} may run",
            m + 1
        );
        world.fail("limits", text);
    }
}
