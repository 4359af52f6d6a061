//! What a Byzantine gateway says: facts about what is not its own, beside some that are, and
//! messages of every other kind.

use super::{Liar, Target};
use crate::rng::Rng;
use crate::world::World;
use cloud_core::schedule::Schedule;
use shared::approval::{Answer, Via};
use shared::directive::Assign;
use shared::explain::{Decision, DecisionKind, Reason};
use shared::fact::{Body, End, Outcome, OutputFile, SliceState, TaskStatus};
use shared::ids::{AttemptRef, Epoch, Hash, Incarnation, RunId, ScheduleId, SliceRef, TaskIdx};
use shared::inventory::{InventoryPart, Item, RunState};
use shared::schedule::due::Skipped;
use shared::schedule::{Cause, Order};
use shared::state::TaskState;
use shared::telemetry::{At, Content, GapReason, Piece, Range, Report};
use shared::time::{Span, Unix};
use shared::wire::{Detail, Inventory, Up};

/// Facts of one batch, at most.
const BATCH: u64 = 8;

/// A number near `usual`, or one of those that make sums overflow.
pub(super) fn number(rng: &mut Rng, usual: u64) -> u64 {
    match rng.below(8) {
        0 => u64::MAX - rng.below(3),
        1 => shared::log::LAST_NUMBER - rng.below(3),
        2 => rng.below(3),
        3 => usual.saturating_add(rng.below(5000)),
        _ => usual,
    }
}

fn small(rng: &mut Rng, usual: u32) -> u32 {
    match rng.below(6) {
        0 => u32::MAX - rng.below(2) as u32,
        1 => rng.below(5) as u32,
        _ => usual,
    }
}

/// The slice as it is, or nearly.
fn guess(rng: &mut Rng, target: &Target) -> SliceRef {
    let mut slice = target.slice;
    match rng.below(12) {
        0 => slice.epoch.0 = number(rng, slice.epoch.0 + 1),
        1 => slice.slice = small(rng, slice.slice + 1),
        2 => slice.epoch.0 = slice.epoch.0.saturating_sub(1),
        _ => {}
    }
    slice
}

fn output(rng: &mut Rng) -> OutputFile {
    OutputFile {
        hash: Hash::of(&rng.id()),
        size: number(rng, 100),
    }
}

fn end(rng: &mut Rng) -> End {
    let (outcome, task) = [
        (Outcome::Succeeded, TaskState::Succeeded),
        (Outcome::Succeeded, TaskState::Succeeded),
        (Outcome::Failed, TaskState::Failed),
        (Outcome::Cancelled, TaskState::Cancelled),
        (Outcome::Lost, TaskState::Retrying),
        (Outcome::NotBegun, TaskState::Blocked),
    ][rng.below(6) as usize];
    let outputs = match outcome {
        Outcome::Succeeded => (0..rng.below(3)).map(|_| output(rng)).collect(),
        _ => Vec::new(),
    };
    End {
        outcome,
        reason: Reason::ExitedZero,
        exit: Some([0, 1, i32::MIN][rng.below(3) as usize]),
        began: None,
        outputs,
        retry_in: rng.chance(100).then_some(Span(u64::MAX)),
        task,
        cpu_ms: number(rng, 10),
        peak_memory: number(rng, 1 << 20),
    }
}

/// Facts of one batch: its own work goes on, and it speaks of others'.
pub(super) fn facts(world: &World, liar: &mut Liar, targets: &[Target]) -> Vec<Body> {
    let mut out = Vec::new();
    for n in 0..1 + liar.rng.below(BATCH) {
        match liar.rng.below(10) {
            0 | 1 => out.extend(own(liar)),
            2 => out.extend(stray(world, liar)),
            3 => out.extend(of_schedules(world, liar)),
            _ => {
                let target = targets.get(n as usize % targets.len().max(1));
                out.extend(target.and_then(|target| lie(world, &mut liar.rng, target)));
            }
        }
    }
    out
}

/// What an honest owner would say of a slice that it was given.
fn own(liar: &mut Liar) -> Vec<Body> {
    let Some(Assign { slice, tasks, .. }) = liar.rng.pick(&liar.given).cloned() else {
        return Vec::new();
    };
    let rng = &mut liar.rng;
    let Some(task) = rng.pick(&tasks).copied() else {
        return Vec::new();
    };
    let number = small(rng, 1);
    let attempt = AttemptRef {
        slice,
        task,
        number,
    };
    match rng.below(5) {
        0 => vec![Body::Accepted { slice }],
        1 => vec![Body::SliceDone { slice }],
        2 => vec![Body::Released {
            slice,
            in_doubt: tasks,
        }],
        _ => vec![
            Body::Accepted { slice },
            Body::Started { attempt },
            Body::Ended {
                attempt,
                end: end(rng),
            },
        ],
    }
}

/// One lie about a slice of another node.
fn lie(world: &World, rng: &mut Rng, target: &Target) -> Option<Body> {
    let slice = guess(rng, target);
    let task = match rng.chance(50) {
        true => TaskIdx(small(rng, 7)),
        false => *rng.pick(&target.tasks)?,
    };
    let number = small(rng, 1);
    let attempt = AttemptRef {
        slice,
        task,
        number,
    };
    let by = || "nobody".to_owned();
    // KNOWN GAP (docs/status.md): what it says before the store goes back is told again behind
    // that, and a slice that nobody names any more belongs to who says that it took it over, a run
    // that is not known any more to who says first that it was submitted there
    let trusting = world.plan.goes_back();
    Some(match rng.below(20) {
        0 if trusting => return None,
        0 => Body::Accepted { slice },
        1..=3 => Body::Started { attempt },
        4..=8 => Body::Ended {
            attempt,
            end: end(rng),
        },
        9 => moved(rng, slice, task),
        10 => Body::CancelDone { slice },
        11 => Body::Released {
            slice,
            in_doubt: target.tasks.clone(),
        },
        12 => refused(rng, slice),
        13 => Body::SliceDone { slice },
        14 => Body::PauseDone {
            slice,
            on: rng.chance(500),
        },
        15 => answered(rng, slice, task),
        16 => Body::Limited {
            slice,
            matrix: small(rng, 0),
            seq: self::number(rng, 1),
            held: small(rng, 0),
        },
        17 => Body::CancelledHere {
            run: slice.run,
            by: by(),
            why: "because".to_owned(),
        },
        18 => Body::PausedHere {
            run: slice.run,
            on: rng.chance(800),
            by: by(),
        },
        _ if trusting => return None,
        _ => Body::Submitted {
            slice,
            workflow: world.flows.get(&slice.run)?.packed.clone(),
            by: by(),
        },
    })
}

fn moved(rng: &mut Rng, slice: SliceRef, task: TaskIdx) -> Body {
    let to = [
        TaskState::Skipped,
        TaskState::Cancelled,
        TaskState::Failed,
        TaskState::Paused,
        TaskState::Ready,
    ][rng.below(5) as usize];
    let reason = [Reason::ResumedByPerson, Reason::CancelledByPerson][rng.below(2) as usize];
    Body::Moved {
        slice,
        task,
        to,
        reason,
    }
}

fn refused(rng: &mut Rng, slice: SliceRef) -> Body {
    Body::Refused {
        directive: number(rng, 1),
        slice: rng.chance(900).then_some(slice),
        reason: [Reason::NoRoom, Reason::ForgottenRun][rng.below(2) as usize],
        text: "no".to_owned(),
    }
}

fn answered(rng: &mut Rng, slice: SliceRef, task: TaskIdx) -> Body {
    let answer = Answer {
        yes: rng.chance(500),
        input: std::collections::BTreeMap::new(),
        by: "nobody".to_owned(),
        at: Unix(0),
        via: Via::Gateway,
    };
    Body::Answered {
        slice,
        task,
        answer,
        not: None,
    }
}

/// Facts about runs that nobody knows of, and about no run.
fn stray(world: &World, liar: &mut Liar) -> Option<Body> {
    let run = world.make_up(liar);
    let rng = &mut liar.rng;
    let slice = SliceRef {
        run,
        slice: small(rng, 0),
        epoch: Epoch(number(rng, 0)),
    };
    Some(match rng.below(5) {
        0 => Body::Accepted { slice },
        1 => Body::Dropped {
            class: "logs".to_owned(),
            count: u64::MAX,
            why: "why not".to_owned(),
        },
        2 => Body::SyncPaused {
            by: "nobody".to_owned(),
            length: Some(Span(u64::MAX)),
        },
        3 => Body::SyncResumed { by: None },
        _ => Body::Submitted {
            slice: SliceRef {
                run,
                slice: 0,
                epoch: Epoch::LOCAL,
            },
            workflow: rng.pick(&world.plan.runs)?.packed.clone(),
            by: "nobody".to_owned(),
        },
    })
}

/// What it says of schedules that others fire.
fn of_schedules(world: &World, liar: &mut Liar) -> Option<Body> {
    let known: Vec<_> = world.cloud.truth.schedules.iter().collect();
    let rng = &mut liar.rng;
    let (id, known) = *rng.pick(&known)?;
    let (schedule, epoch) = (*id, known.epoch);
    Some(match rng.below(4) {
        0 => Body::ScheduleDone {
            schedule,
            epoch,
            order: number(rng, 1),
            cursor: Unix(i64::MAX),
            refused: None,
        },
        1 => Body::ScheduleAsked {
            schedule,
            what: [Order::Drop, Order::Pause(true)][rng.below(2) as usize].clone(),
            by: "nobody".to_owned(),
        },
        2 => Body::SlotsSkipped {
            schedule,
            epoch,
            skipped: Skipped {
                from: Unix(0),
                to: Unix(i64::MAX),
                count: u32::MAX,
                reason: Reason::SlotMissed,
            },
        },
        _ => fired(world, rng, schedule, known)?,
    })
}

/// A firing of a run that another node fired.
fn fired(world: &World, rng: &mut Rng, schedule: ScheduleId, known: &Schedule) -> Option<Body> {
    // KNOWN GAP (docs/status.md): one that the coordinator does not know yet is not named
    let runs: Vec<RunId> = world.people.fired.iter().copied().collect();
    let run = *rng.pick(&runs).filter(|run| world.is_known(**run))?;
    let slice = SliceRef {
        run,
        slice: 0,
        epoch: Epoch::LOCAL,
    };
    let now = world.cloud.clocks.now(world.t).wall;
    Some(Body::Fired {
        schedule,
        epoch: known.epoch,
        slot: Unix(now.0 / 60_000 * 60_000 + 60_000 * rng.below(30) as i64),
        slice,
        cause: Cause::Time,
        trusted: true,
        revision: known.revision,
    })
}

fn states(rng: &mut Rng, target: &Target) -> Vec<TaskStatus> {
    let states = [
        TaskState::Ready,
        TaskState::Running,
        TaskState::Succeeded,
        TaskState::Failed,
    ];
    let status = |task: &TaskIdx| TaskStatus {
        task: *task,
        state: states[rng.below(4) as usize],
        attempts: small(rng, 1),
        outputs: Vec::new(),
    };
    target.tasks.iter().map(status).collect()
}

/// A hole in its facts behind which it has what others have.
pub(super) fn reset(rng: &mut Rng, from: u64, to: u64, targets: &[Target]) -> Body {
    let slices = targets.iter().take(3).map(|target| SliceState {
        slice: target.slice,
        workflow: Hash::of(b"none"),
        tasks: states(rng, target),
    });
    Body::Reset {
        from,
        to,
        why: "it says so".to_owned(),
        slices: slices.collect(),
    }
}

impl World {
    /// What it has applied, as it is or not.
    pub(super) fn confirm(&mut self, liar: &mut Liar, conn: u64) {
        let mut head = liar.directives;
        match liar.rng.below(4) {
            0 => head.number = number(&mut liar.rng, head.number + 1),
            1 => head.hash = Hash::of(&liar.rng.id()),
            _ => {}
        }
        self.put_up(liar, conn, Up::Applied(head));
    }

    /// Evidence of decisions about tasks of others.
    pub(super) fn tell_details(&mut self, liar: &mut Liar, conn: u64) {
        let targets = self.overheard(liar);
        let rng = &mut liar.rng;
        let details = targets.iter().take(5).map(|target| Detail {
            fact: number(rng, 1),
            task: Some((
                target.slice,
                target.tasks.first().copied().unwrap_or_default(),
            )),
            decision: Decision {
                action: DecisionKind::Moved,
                reason: Reason::NoRoom,
                confidence_milli: u16::MAX,
                evidence: Vec::new(),
                repeats: u32::MAX,
            },
        });
        let details = details.collect();
        self.put_up(liar, conn, Up::Details(details));
    }

    /// What another life of it measured.
    pub(super) fn tell_telemetry(&mut self, liar: &mut Liar, conn: u64) {
        let rng = &mut liar.rng;
        let upto = At {
            boot: small(rng, 1),
            ms: number(rng, 1000),
        };
        let piece = Piece {
            range: Range::new(At::default(), upto),
            content: Content::Gap(GapReason::Off),
        };
        let incarnation = Incarnation(rng.id());
        let report = Report { incarnation, piece };
        self.put_up(liar, conn, Up::Telemetry(report));
    }

    /// All that it has, and what others have at newer epochs.
    pub(super) fn tell_inventory(&mut self, liar: &mut Liar, conn: u64) {
        let targets = self.overheard(liar);
        let mut slices: Vec<SliceState> = Vec::new();
        // KNOWN GAP (docs/status.md): a coordinator whose store went back takes a node's word on
        // slices that it does not know, so nothing is claimed of it then
        let claims = match self.cloud.went_back || self.cloud.put_back || self.cloud.truth.held {
            true => 0,
            false => 3,
        };
        for target in targets.iter().take(claims) {
            let mut slice = target.slice;
            slice.epoch.0 += liar.rng.below(1000);
            slice.slice += liar.rng.below(2) as u32;
            let workflow = self.flows.get(&slice.run);
            let workflow = workflow.map_or_else(
                || Hash::of(b"none"),
                |flow| shared::codec::pack(&flow.workflow).1,
            );
            slices.push(SliceState {
                slice,
                workflow,
                tasks: states(&mut liar.rng, target),
            });
        }
        let parts = liar.rng.chance(500);
        match parts {
            true => self.tell_parts(liar, conn, slices),
            false => {
                let inventory = Inventory {
                    slices,
                    workflows: vec![liar.rng.id().to_vec()],
                    directives: Vec::new(),
                };
                self.put_up(liar, conn, Up::Inventory(inventory));
            }
        }
    }

    fn tell_parts(&mut self, liar: &mut Liar, conn: u64, slices: Vec<SliceState>) {
        let mut runs: std::collections::BTreeMap<RunId, Vec<SliceState>> = Default::default();
        for state in slices {
            runs.entry(state.slice.run).or_default().push(state);
        }
        let mut bytes = Vec::new();
        for (run, slices) in runs {
            let directives = Vec::new();
            let state = RunState {
                run,
                slices,
                directives,
            };
            Item::Run(state).put(&mut bytes);
        }
        let part = InventoryPart {
            session: liar.session,
            part: small(&mut liar.rng, 0),
            last: liar.rng.chance(900),
            bytes,
        };
        self.put_up(liar, conn, Up::InventoryPart(part));
    }
}
