//! Which accidents strike in a seed, and when: each seed draws its own mix and how often.

use crate::plan::{Back, Freeze, Moment, Plan, Planned, SAFETY, What};
use crate::queue::{HOUR, MIN, MS, SEC, Time};
use crate::rng::Rng;
use crate::workload::{PlannedRun, node_labels};
use shared::time::Span;

/// One kind of accident: draws it and puts it into the plan.
type Draw = fn(&mut Rng, &mut Accidents, Time);

/// Accidents of one seed as they are drawn.
struct Accidents {
    nodes: usize,
    list: Vec<Planned>,
    destroyed: bool,
    backups: bool,
}

impl Accidents {
    fn put(&mut self, at: Time, what: What) {
        if at < SAFETY {
            self.list.push(Planned { at, what });
        }
    }

    fn node(&self, rng: &mut Rng) -> usize {
        rng.below(self.nodes as u64) as usize
    }
}

/// Accident, its chance of a thousand to be part of a seed, most times in a seed.
const MENU: &[(Draw, u64, u64)] = &[
    (cut, 600, 30),
    (long_cut, 300, 4),
    (one_way, 300, 15),
    (flap, 250, 5),
    (reset, 350, 40),
    (slow, 300, 10),
    (refuse, 200, 6),
    (kill, 450, 20),
    (kill_in_commit, 350, 15),
    (group_kill, 300, 10),
    (power, 400, 10),
    (blackout, 120, 2),
    (cloud_kill, 350, 8),
    (cloud_power, 300, 6),
    (clock, 300, 10),
    (full, 300, 5),
    (cloud_full, 200, 4),
    (commit_fails, 250, 10),
    (sync_fails, 250, 8),
    (put_back, 120, 2),
    (copy_disk, 120, 2),
    (cloud_put_back, 120, 1),
    (reimage, 120, 2),
    (skew, 150, 4),
    (unknown, 200, 3),
    (replay, 200, 6),
    (destroy, 80, 1),
    (cut_store, 120, 2),
    (restore, 600, 2),
    (slow_disk, 250, 5),
    (rot, 120, 2),
    (freeze, 200, 8),
    (site_power, 150, 2),
    (full_and_cut, 200, 3),
    (stop, 200, 6),
];

/// The accidents of one seed, by time.
pub(crate) fn draw(root: &Rng, nodes: usize, backups: bool) -> Vec<Planned> {
    let mut rng = root.fork("faults", 0);
    let mut accidents = Accidents {
        nodes,
        list: Vec::new(),
        destroyed: false,
        backups,
    };
    let intensity = [100, 300, 1000][rng.below(3) as usize];
    for (position, (draw, chance, most)) in MENU.iter().enumerate() {
        let mut own = rng.fork("kind", position as u64);
        if !own.chance(*chance) {
            continue;
        }
        let times = 1 + own.below(most * intensity / 1000 + 1);
        for _ in 0..times {
            let at = 2 * MIN + own.below(SAFETY - 4 * MIN);
            draw(&mut own, &mut accidents, at);
        }
    }
    accidents.list.sort_by_key(|planned| planned.at);
    accidents.list
}

fn pause(rng: &mut Rng) -> Time {
    rng.log_range(SEC, 20 * MIN)
}

/// Somebody dies at any time of a commit.
pub(crate) fn moment(rng: &mut Rng) -> Moment {
    match rng.below(4) {
        0 => Moment::Now,
        1 => Moment::InCommit,
        _ => Moment::AfterCommit(rng.below(4) as u32),
    }
}

fn cut(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let lasts = rng.log_range(SEC, 30 * MIN);
    let dead = (true, true);
    accidents.put(at, What::Cut { node, dead, lasts });
    if rng.chance(200) {
        let down = rng.log_range(SEC, lasts.max(2 * SEC));
        let group = rng.chance(300);
        let moment = moment(rng);
        accidents.put(
            at + lasts / 3,
            What::Kill {
                node,
                group,
                moment,
                down,
            },
        );
    }
}

fn long_cut(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let lasts = rng.range(20 * MIN, 3 * HOUR);
    let dead = (true, true);
    if rng.chance(200) {
        for node in 0..accidents.nodes {
            accidents.put(at, What::Cut { node, dead, lasts });
        }
    } else {
        let node = accidents.node(rng);
        accidents.put(at, What::Cut { node, dead, lasts });
    }
}

fn one_way(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let dead = if rng.chance(500) {
        (true, false)
    } else {
        (false, true)
    };
    let lasts = rng.log_range(SEC, 10 * MIN);
    accidents.put(at, What::Cut { node, dead, lasts });
}

fn flap(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let mut at = at;
    for _ in 0..rng.range(5, 12) {
        let lasts = rng.log_range(SEC, 20 * SEC);
        let dead = (true, true);
        accidents.put(at, What::Cut { node, dead, lasts });
        if rng.chance(500) {
            accidents.put(at + lasts + SEC, What::Reset(node));
        }
        at += lasts + rng.log_range(SEC, 20 * SEC);
    }
}

fn reset(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    accidents.put(at, What::Reset(node));
}

fn slow(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let by = rng.log_range(100 * MS, 20 * SEC);
    let lasts = rng.log_range(10 * SEC, 20 * MIN);
    accidents.put(at, What::Slow { node, by, lasts });
}

fn refuse(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let lasts = pause(rng);
    accidents.put(at, What::RefuseDials(lasts));
    let node = accidents.node(rng);
    accidents.put(at + SEC, What::Reset(node));
}

fn kill(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    kill_now(rng, accidents, at, false);
}

fn group_kill(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    kill_now(rng, accidents, at, true);
}

fn kill_now(rng: &mut Rng, accidents: &mut Accidents, at: Time, group: bool) {
    let what = What::Kill {
        node: accidents.node(rng),
        group,
        moment: Moment::Now,
        down: pause(rng),
    };
    accidents.put(at, what);
}

fn kill_in_commit(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let down = rng.log_range(SEC, MIN);
    let moment = moment(rng);
    let group = rng.chance(300);
    accidents.put(
        at,
        What::Kill {
            node,
            group,
            moment,
            down,
        },
    );
}

fn power(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let what = What::Power {
        node: accidents.node(rng),
        moment: moment(rng),
        down: pause(rng),
        untrusted: rng.chance(300),
        offline: rng.chance(400).then(|| rng.log_range(MIN, HOUR)),
    };
    accidents.put(at, what);
}

fn blackout(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let down = pause(rng);
    accidents.put(at, What::Blackout(down));
}

fn cloud_kill(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let moment = moment(rng);
    let down = pause(rng);
    accidents.put(at, What::CloudKill { moment, down });
}

fn cloud_power(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let moment = moment(rng);
    let down = pause(rng);
    accidents.put(at, What::CloudPower { moment, down });
}

fn clock(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = rng.chance(800).then(|| accidents.node(rng));
    let size = rng.log_range(100, 400 * 24 * 3_600_000) as i64;
    let by = if rng.chance(500) { size } else { -size };
    accidents.put(at, What::Clock { node, by });
}

fn full(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = Some(accidents.node(rng));
    let lasts = rng.log_range(10 * SEC, HOUR);
    accidents.put(at, What::Full { node, lasts });
}

fn cloud_full(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let lasts = rng.log_range(10 * SEC, HOUR);
    accidents.put(at, What::Full { node: None, lasts });
}

fn slow_disk(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = rng.chance(700).then(|| accidents.node(rng));
    let by = rng.log_range(20 * MS, 5 * SEC);
    let lasts = rng.log_range(10 * SEC, 20 * MIN);
    accidents.put(at, What::SlowDisk { node, by, lasts });
}

fn commit_fails(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = rng.chance(700).then(|| accidents.node(rng));
    accidents.put(at, What::CommitFails(node));
}

fn sync_fails(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = rng.chance(700).then(|| accidents.node(rng));
    accidents.put(at, What::SyncFails(node));
    if rng.chance(500) {
        let what = match node {
            Some(node) => What::Power {
                node,
                moment: Moment::Now,
                down: pause(rng),
                untrusted: false,
                offline: None,
            },
            None => What::CloudPower {
                moment: Moment::Now,
                down: pause(rng),
            },
        };
        accidents.put(at + rng.log_range(SEC, MIN), what);
    }
}

fn put_back(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    accidents.put(at, What::KeepImage(Some(node)));
    let down = pause(rng);
    let later = at + rng.log_range(MIN, HOUR);
    accidents.put(later, What::PutBack { node, down });
}

fn copy_disk(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let lasts = rng.log_range(MIN, HOUR);
    accidents.put(at, What::CopyDisk { node, lasts });
}

fn cloud_put_back(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    accidents.put(at, What::KeepImage(None));
    let down = pause(rng);
    let later = at + rng.log_range(MIN, HOUR);
    accidents.put(later, What::CloudPutBack(down));
    let mut hard = rng.fork("hard", at);
    if hard.chance(500) {
        calls_first(&mut hard, accidents, (at, later), down);
    }
}

/// Behind the copy the coordinator starts anew and goes on giving work away; who was away all the
/// while calls first when the copy runs, and cannot know that there was more.
fn calls_first(rng: &mut Rng, accidents: &mut Accidents, (copied, back): (Time, Time), down: Time) {
    let moment = Moment::Now;
    let dead = (true, true);
    let half = (back - copied) / 2;
    let killed = copied + rng.below(half);
    accidents.put(killed, What::CloudKill { moment, down: SEC });
    let first = accidents.node(rng);
    if rng.chance(700) {
        // the same runs are cut anew on both ways on from the copy
        let other = accidents.node(rng);
        let moved = killed + half / 2 + rng.below(half / 2);
        let again = back + down + rng.range(5 * SEC, MIN);
        for (node, at) in [(other, moved), (first, again)] {
            accidents.put(at, What::Drain { node, on: true });
            accidents.put(again + 15 * MIN, What::Drain { node, on: false });
        }
    }
    for node in 0..accidents.nodes {
        let (at, until) = match node == first {
            true => (copied.saturating_sub(10 * SEC), back + down / 2),
            false => (back, back + down + rng.log_range(MIN, 10 * MIN)),
        };
        let lasts = until - at;
        accidents.put(at, What::Cut { node, dead, lasts });
    }
}

fn reimage(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let down = rng.log_range(MIN, 20 * MIN);
    accidents.put(at, What::Reimage { node, down });
}

fn cut_store(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let down = pause(rng);
    accidents.put(at, What::CutStore { node, down });
}

fn freeze(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = rng.chance(700).then(|| accidents.node(rng));
    let freeze = Freeze {
        lasts: rng.log_range(SEC, 80 * SEC),
        clock_stops: rng.chance(500),
    };
    accidents.put(at, What::Freeze { node, freeze });
}

/// An upgrade or a reboot; now and then of all gateways, one after the other.
fn stop(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let down = rng.log_range(SEC, 5 * MIN);
    if rng.chance(200) {
        let apart = rng.log_range(SEC, 10 * MIN);
        for node in 0..accidents.nodes {
            accidents.put(at + apart * node as Time, What::Stop { node, down });
        }
    } else {
        let node = accidents.node(rng);
        accidents.put(at, What::Stop { node, down });
    }
}

/// The power of a site fails, and mostly its way to the coordinator with it, for longer.
fn site_power(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let down = pause(rng);
    accidents.put(at, What::SitePower { node, down });
    if rng.chance(600) {
        let lasts = down + rng.log_range(MIN, HOUR);
        let site = node_labels(node).remove("site");
        for node in 0..accidents.nodes {
            if node_labels(node).remove("site") == site {
                let dead = (true, true);
                accidents.put(at, What::Cut { node, dead, lasts });
            }
        }
    }
}

/// The link of a gateway dies while its disk is full.
fn full_and_cut(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    let lasts = rng.log_range(MIN, HOUR);
    accidents.put(
        at,
        What::Full {
            node: Some(node),
            lasts,
        },
    );
    let dead = (true, true);
    let cut = at + rng.below(lasts / 2);
    let lasts = rng.log_range(MIN, 2 * HOUR);
    accidents.put(cut, What::Cut { node, dead, lasts });
}

fn rot(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = rng.chance(700).then(|| accidents.node(rng));
    let down = pause(rng);
    accidents.put(at, What::Rot { node, down });
}

fn skew(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    accidents.put(at, What::Skew(node));
    accidents.put(at + SEC, What::Reset(node));
}

fn unknown(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    if rng.chance(500) {
        accidents.put(at, What::UnknownFact(node));
    } else {
        accidents.put(at, What::UnknownDirective(node));
    }
}

fn replay(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    let node = accidents.node(rng);
    accidents.put(at, What::ReplayHello(node));
}

fn destroy(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    if accidents.nodes < 2 || std::mem::replace(&mut accidents.destroyed, true) {
        return;
    }
    let node = accidents.node(rng);
    let after = rng.log_range(MIN, HOUR);
    accidents.put(at, What::Destroy { node, after });
    let mut later = rng.fork("return", at);
    if later.chance(500) {
        let back = at + after + later.log_range(SEC, HOUR);
        let lasts = later.log_range(MIN, HOUR);
        accidents.put(back, What::Return { node, lasts });
    }
}

/// A restore, often together with what makes it hard: a gateway that is away for long, one whose
/// own disk goes back as well, one that never comes back, one that was away before and calls first.
fn restore(rng: &mut Rng, accidents: &mut Accidents, at: Time) {
    if !accidents.backups {
        return;
    }
    let node = accidents.node(rng);
    match rng.below(6) {
        0 => {
            let dead = (true, true);
            let lasts = rng.range(20 * MIN, 2 * HOUR);
            accidents.put(
                at.saturating_sub(lasts / 2),
                What::Cut { node, dead, lasts },
            );
        }
        1 => {
            let kept = at.saturating_sub(rng.log_range(MIN, HOUR));
            accidents.put(kept, What::KeepImage(Some(node)));
            let back = at + rng.below(10 * MIN);
            let down = pause(rng);
            accidents.put(back.saturating_sub(5 * MIN), What::PutBack { node, down });
        }
        2 | 3 => destroy(rng, accidents, at.saturating_sub(10 * MIN)),
        4 => {
            // what is taken from it meanwhile it may do as well, and it calls before who has it now
            let dead = (true, true);
            let before = rng.range(40 * MIN, 2 * HOUR);
            let lasts = before + rng.log_range(SEC, 5 * MIN);
            accidents.put(at.saturating_sub(before), What::Cut { node, dead, lasts });
            let node = accidents.node(rng);
            let lasts = rng.range(10 * MIN, HOUR);
            accidents.put(at, What::Cut { node, dead, lasts });
        }
        _ => {}
    }
    let back = rng.below(4).saturating_sub(1) as usize;
    let accept = rng.chance(900);
    let down = pause(rng);
    let back = Back::Places(back);
    accidents.put(at, What::Restore { back, accept, down });
}

/// One gateway is away for so long that its work is given to others, and does it as well; it calls
/// when a backup of before is restored, and the others, who know of that, are away then. Met only
/// where work moves, so it is drawn for a run in which it does.
pub(crate) fn former_owner_calls_first(root: &Rng, plan: &mut Plan) {
    let mut rng = root.fork("former owner", 0);
    let silence = |run: &PlannedRun| {
        let tasks = run.workflow.tasks.iter().map(|task| task.disconnect);
        let moving = tasks.filter(|disconnect| disconnect.replace);
        moving.filter_map(|disconnect| disconnect.lost_after).max()
    };
    let runs = plan.runs.iter().filter(|run| run.local.is_none());
    let moving: Vec<(Time, Span)> = runs
        .filter_map(|run| Some((run.at, silence(run)?)))
        .collect();
    let drawn = rng.chance(500) && plan.backups.is_some() && plan.nodes > 1;
    if !drawn || moving.is_empty() {
        return;
    }
    let (submitted, silence) = moving[rng.below(moving.len() as u64) as usize];
    let left = submitted + rng.log_range(20 * SEC, 5 * MIN);
    let at = left + silence.nanos() + rng.range(10 * MIN, HOUR);
    let down = pause(&mut rng);
    let mut accidents = Accidents {
        nodes: plan.nodes,
        list: Vec::new(),
        destroyed: false,
        backups: true,
    };
    let former = accidents.node(&mut rng);
    let dead = (true, true);
    for node in 0..plan.nodes {
        let (from, until) = match node == former {
            true => (left, at + down),
            false => (at, at + down + rng.range(5 * MIN, HOUR)),
        };
        let lasts = until - from;
        accidents.put(from, What::Cut { node, dead, lasts });
    }
    let (back, accept) = (Back::Before(left), true);
    accidents.put(at, What::Restore { back, accept, down });
    plan.faults.extend(accidents.list);
    plan.faults.sort_by_key(|planned| planned.at);
}
