//! What a plan holds, in words: for timelines, and for what is left of a seed that was shrunk.

use crate::cut::Part;
use crate::deed::Deed;
use crate::model::Flows;
use crate::plan::{Back, Moment, Plan, What};
use crate::queue::{HOUR, MIN, MS, SEC, Time};
use crate::schedule::{Act, Made};
use crate::trace::{Lane, Sort, clock};
use crate::workload::{PlannedRun, node_name};
use shared::fact::Body;
use shared::ids::{AttemptRef, RunId, SliceRef, TaskIdx};
use std::fmt;

/// A length of time, to two units.
#[must_use]
pub fn length(time: Time) -> String {
    match time {
        0..SEC => format!("{} ms", time / MS),
        SEC..MIN => format!("{} s", time / SEC),
        MIN..HOUR => format!("{} min {} s", time / MIN, time % MIN / SEC),
        _ => format!("{} h {} min", time / HOUR, time % HOUR / MIN),
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => Ok(()),
            Self::InCommit => f.write_str(" in the middle of the next commit"),
            Self::AfterCommit(n) => write!(f, " after the next commit and {n} of its actions"),
        }
    }
}

/// Whose disk or clock it is.
fn whose(node: Option<usize>) -> String {
    node.map_or_else(|| "the coordinator".to_owned(), node_name)
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Cut { node, dead, lasts } => {
                let way = match dead {
                    (true, true) => "",
                    (true, false) => " upwards",
                    _ => " downwards",
                };
                let (name, lasts) = (node_name(node), length(lasts));
                write!(f, "link of {name} cut{way} for {lasts}")
            }
            Self::Reset(node) => write!(f, "session of {} reset", node_name(node)),
            Self::Slow { node, by, lasts } => {
                let (name, by, lasts) = (node_name(node), length(by), length(lasts));
                write!(f, "link of {name} slower by {by} for {lasts}")
            }
            Self::RefuseDials(lasts) => {
                write!(f, "coordinator answers no dial for {}", length(lasts))
            }
            Self::Clock { node, by } => {
                let way = if by < 0 { "back" } else { "on" };
                let by = length(by.unsigned_abs().saturating_mul(MS));
                write!(f, "clock of {} jumps {way} by {by}", whose(node))
            }
            Self::Drain { node, on: true } => write!(f, "{} is drained", whose(Some(node))),
            Self::Drain { node, .. } => write!(f, "{} is drained no more", whose(Some(node))),
            Self::SlowDisk { node, by, lasts } => {
                let (whose, by, lasts) = (whose(node), length(by), length(lasts));
                write!(f, "disk of {whose} slower by up to {by} for {lasts}")
            }
            Self::Full { node, lasts } => {
                let (whose, lasts) = (whose(node), length(lasts));
                write!(f, "no room on the disk of {whose} for {lasts}")
            }
            Self::CommitFails(node) => {
                write!(f, "next commit of {} fails, or seems to", whose(node))
            }
            Self::SyncFails(node) => write!(f, "next sync of {} fails", whose(node)),
            _ => self.tell_death(f),
        }
    }
}

impl What {
    fn tell_death(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill {
                node,
                group,
                moment,
                down,
            } => {
                let with = if group { " with its tasks" } else { "" };
                let (name, down) = (node_name(node), length(down));
                write!(f, "agent of {name} killed{with}{moment}, down for {down}")
            }
            Self::Power {
                node,
                moment,
                down,
                untrusted,
                offline,
            } => {
                let (name, down) = (node_name(node), length(down));
                write!(f, "power of {name} cut{moment} for {down}")?;
                if untrusted {
                    f.write_str(", clock not set when it boots")?;
                }
                let link = |time| write!(f, ", link cut until {} after", length(time));
                offline.map_or(Ok(()), link)
            }
            Self::Stop { node, down } => {
                let (name, down) = (node_name(node), length(down));
                write!(f, "agent of {name} asked to stop, down for {down}")
            }
            Self::SitePower { node, down } => {
                let (name, down) = (node_name(node), length(down));
                write!(f, "power of the site of {name} cut for {down}")
            }
            Self::Freeze { node, freeze } => {
                let (whose, lasts) = (whose(node), length(freeze.lasts));
                let clock = if freeze.clock_stops {
                    ", its boot clock too"
                } else {
                    ""
                };
                write!(f, "machine of {whose} stands still for {lasts}{clock}")
            }
            Self::Blackout(down) => write!(f, "all power cut for {}", length(down)),
            Self::CloudKill { moment, down } => {
                write!(f, "coordinator killed{moment}, down for {}", length(down))
            }
            Self::CloudPower { moment, down } => {
                let down = length(down);
                write!(f, "power of the coordinator cut{moment} for {down}")
            }
            _ => self.tell_history(f),
        }
    }

    fn tell_history(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeepImage(node) => write!(f, "disk of {} copied", whose(node)),
            Self::PutBack { node, down } => {
                let (name, down) = (node_name(node), length(down));
                write!(f, "{name} gets its old disk back, off for {down}")
            }
            Self::CopyDisk { node, lasts } => {
                let (name, lasts) = (node_name(node), length(lasts));
                write!(f, "second machine with the disk of {name} for {lasts}")
            }
            Self::CloudPutBack(down) => {
                write!(
                    f,
                    "coordinator gets its old disk back, off for {}",
                    length(down)
                )
            }
            Self::Restore { back, accept, down } => {
                let left = if accept { ", without who is gone" } else { "" };
                let down = length(down);
                let which = match back {
                    Back::Places(back) => format!("backup {back} before the newest"),
                    Back::Before(time) => format!("the newest backup before {}", clock(time)),
                };
                write!(f, "{which} restored{left}, off for {down}")
            }
            Self::Reimage { node, down } => {
                let (name, down) = (node_name(node), length(down));
                write!(f, "{name} gets an empty disk, off for {down}")
            }
            Self::CutStore { node, down } => {
                let (name, down) = (node_name(node), length(down));
                write!(f, "store of {name} cut to nothing, off for {down}")
            }
            Self::Rot { node, down } => {
                let (whose, down) = (whose(node), length(down));
                write!(f, "bits rot on the disk of {whose}, off for {down}")
            }
            Self::Return { node, lasts } => {
                let (name, lasts) = (node_name(node), length(lasts));
                write!(f, "{name} is there again as it was, for {lasts}")
            }
            Self::Skew(node) => write!(f, "{} speaks another protocol once", node_name(node)),
            Self::UnknownFact(node) => {
                write!(
                    f,
                    "fact of an unknown kind in the log of {}",
                    node_name(node)
                )
            }
            Self::UnknownDirective(node) => {
                write!(f, "directive of an unknown kind for {}", node_name(node))
            }
            Self::ReplayHello(node) => write!(f, "old hello of {} said again", node_name(node)),
            Self::Destroy { node, after } => {
                let (name, after) = (node_name(node), length(after));
                write!(f, "{name} destroyed, forgotten {after} after")
            }
            // told by who calls this
            _ => Ok(()),
        }
    }
}

/// Where in a timeline a deed stands, and whether it is worth a mark there.
#[must_use]
pub fn place(plan: &Plan, deed: Deed) -> (Lane, Sort) {
    let lane = match deed {
        Deed::Schedule(n) | Deed::AskSchedule(n, _) => match plan.schedules[n].made {
            Made::Here(m) => Lane::Node(m),
            Made::There(_) => Lane::Cloud,
        },
        _ => deed.agent(plan).map_or(Lane::Cloud, Lane::Node),
    };
    let sort = match deed {
        // these look whether there is something to do
        Deed::Resume(_) | Deed::Answer(_) | Deed::AnswerThere => Sort::Talk,
        _ => Sort::Deed,
    };
    (lane, sort)
}

/// What somebody does.
#[must_use]
pub fn deed(plan: &Plan, deed: Deed) -> String {
    let run = |n: usize| format!("run {n}, {}", plan.runs[n].workflow.name);
    let name = |n: usize| plan.schedules[n].name.clone();
    match deed {
        Deed::Submit(n) => {
            let tasks = plan.runs[n].workflow.tasks.len();
            format!("submits {} ({})", run(n), count(tasks, "task", "tasks"))
        }
        Deed::Cancel(n) => format!("cancels {}", run(n)),
        Deed::Pause(n, true) => format!("pauses {}", run(n)),
        Deed::Pause(n, false) => format!("lets {} go on", run(n)),
        Deed::Retry(n) => format!("lets {} run again", run(n)),
        Deed::Forget(n) => format!("wants {} to be forgotten", run(n)),
        Deed::Resume(m) => format!("looks for tasks that wait at {}", node_name(m)),
        Deed::Answer(m) => format!("looks for questions at {}", node_name(m)),
        Deed::AnswerThere => "looks for questions at the coordinator".to_owned(),
        Deed::Configure(n) => format!("changes a setting ({n})"),
        Deed::Operate(n) => format!("cordons, drains, labels or taints a node ({n})"),
        Deed::PauseSync(m, Some(time)) => {
            format!(
                "pauses the link of {} for {}",
                node_name(m),
                length(time.nanos())
            )
        }
        Deed::PauseSync(m, None) => format!("pauses the link of {}", node_name(m)),
        Deed::ResumeSync(m) => format!("ends the pause of the link of {}", node_name(m)),
        Deed::Exchange(planned) => {
            let how = if planned.forced {
                ", then by force"
            } else {
                ""
            };
            format!(
                "exchanges the authority, in {}{how}",
                length(planned.patience)
            )
        }
        Deed::Schedule(n) => format!("makes schedule {}", name(n)),
        Deed::AskSchedule(n, act) => format!("{} schedule {}", verb(act), name(n)),
    }
}

fn verb(act: Act) -> String {
    match act {
        Act::Pause(true) => "pauses".to_owned(),
        Act::Pause(false) => "ends the pause of".to_owned(),
        Act::Trigger => "triggers".to_owned(),
        Act::Backfill(time) => format!("fills the last {} of", length(time)),
        Act::Revise => "changes".to_owned(),
        Act::Move(to) => format!("moves to {}", node_name(to)),
        Act::Delete => "deletes".to_owned(),
    }
}

/// An attempt, by the names that its workflow gives.
#[must_use]
pub fn attempt(flows: &Flows, attempt: &AttemptRef) -> String {
    let task = task(flows, attempt.slice.run, attempt.task);
    format!("{task}, attempt {}", attempt.number)
}

fn task(flows: &Flows, run: RunId, task: TaskIdx) -> String {
    let named = flows.get(&run).and_then(|flow| {
        let known = flow.workflow.tasks.get(task.0 as usize)?;
        Some(format!("{} of {}", known.id, flow.workflow.name))
    });
    named.unwrap_or_else(|| format!("task {} of {run}", task.0))
}

fn slice(flows: &Flows, slice: SliceRef) -> String {
    let flow = flows.get(&slice.run);
    let name = flow.map_or_else(|| slice.run.to_string(), |flow| flow.workflow.name.clone());
    format!("slice {} of {name}", slice.slice)
}

/// What a fact says.
#[must_use]
pub fn fact(flows: &Flows, body: &Body) -> String {
    match body {
        Body::Booted {
            unclean, rebooted, ..
        } => {
            let clean = if *unclean { ", was ended hard" } else { "" };
            let machine = if *rebooted { ", machine booted" } else { "" };
            format!("agent started{clean}{machine}")
        }
        Body::Accepted { slice: of } => format!("accepted {}", slice(flows, *of)),
        Body::Started { attempt: of } => format!("started {}", attempt(flows, of)),
        Body::Ended { attempt: of, end } => {
            let of = attempt(flows, of);
            format!("ended {of}: {:?}, the task is {}", end.reason, end.task)
        }
        Body::Moved {
            slice: of,
            task: index,
            to,
            reason,
        } => format!("{} is {to}: {reason:?}", task(flows, of.run, *index)),
        Body::CancelDone { slice: of } => format!("cancelled {}", slice(flows, *of)),
        Body::Released { slice: of, .. } => format!("gave up {}", slice(flows, *of)),
        Body::SliceDone { slice: of } => format!("finished {}", slice(flows, *of)),
        Body::Submitted { slice: of, by, .. } => {
            format!("was given {} by {by}", slice(flows, *of))
        }
        Body::PauseDone { slice: of, on } => {
            let what = if *on { "paused" } else { "went on with" };
            format!("{what} {}", slice(flows, *of))
        }
        other => brief(&format!("{other:?}")),
    }
}

/// Characters of what has no words of its own.
const BRIEF: usize = 300;

/// Text with the middle of long hexadecimal numbers left out.
fn brief(text: &str) -> String {
    let mut out = String::new();
    let mut digits = 0;
    for c in text.chars().take(BRIEF) {
        digits = if c.is_ascii_hexdigit() { digits + 1 } else { 0 };
        match digits {
            0..=8 => out.push(c),
            9 => out.push('…'),
            _ => {}
        }
    }
    out
}

/// How much there is of a plan, in one line.
#[must_use]
pub fn size(plan: &Plan) -> String {
    [
        (plan.agents_left().count(), "gateway", "gateways"),
        (plan.tasks_left(), "task", "tasks"),
        (plan.runs_left().count(), "run", "runs"),
        (
            plan.faults.len() - plan.gone.faults.len(),
            "fault",
            "faults",
        ),
        (
            crate::shrink::deeds_left(plan).len(),
            "act of people",
            "acts of people",
        ),
        (
            plan.schedules.len() - plan.gone.schedules.len(),
            "schedule",
            "schedules",
        ),
    ]
    .map(|(n, one, many)| count(n, one, many))
    .join(", ")
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Most lines of one kind in the list of what is left.
const LINES: usize = 40;

/// What there is of a plan, one line each, by time within each kind.
#[must_use]
pub fn contents(plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    let agents: Vec<String> = plan.agents_left().map(node_name).collect();
    out.push(format!("gateways: {}", agents.join(", ")));
    let network = [
        (
            plan.net.is_rough(),
            "delays, doubles or narrow links in the network",
        ),
        (plan.backups.is_some(), "backups of the coordinator"),
        (plan.certificates.is_some(), "certificates that end"),
        (
            plan.leaving
                .is_some_and(|leaving| leaving.retention.is_some()),
            "runs that leave when they are over",
        ),
        (plan.byzantine.is_some(), "a Byzantine gateway"),
    ];
    let there = network.iter().filter(|(there, _)| *there);
    out.extend(there.map(|(_, text)| format!("with: {text}")));
    out.extend(capped(
        plan.runs_left().flat_map(|(n, run)| workflow(plan, n, run)),
    ));
    let schedules = plan.schedules.iter().enumerate();
    let schedules = schedules.filter(|(n, _)| !plan.gone.schedules.contains(n));
    out.extend(schedules.map(|(_, one)| {
        format!(
            "{} schedule {}: {:?}",
            clock(plan.gone.when(one.at)),
            one.name,
            one.revisions[0].schedule
        )
    }));
    let faults = plan.faults.iter().enumerate();
    let faults = faults.filter(|(n, _)| !plan.gone.faults.contains(n));
    out.extend(capped(faults.map(|(n, one)| {
        format!("{} fault f{n}: {}", clock(plan.gone.when(one.at)), one.what)
    })));
    let deeds = plan.deeds();
    let left = crate::shrink::deeds_left(plan).into_iter();
    out.extend(capped(left.filter_map(|part| match part {
        Part::Deed(n) => {
            let (at, what) = deeds[n];
            let at = clock(plan.gone.when(at));
            Some(format!("{at} act d{n}: somebody {}", deed(plan, what)))
        }
        _ => None,
    })));
    out
}

/// At most so many lines, and how many more there are.
fn capped(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    if lines.len() > LINES {
        let more = lines.len() - LINES;
        lines.truncate(LINES);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn workflow(plan: &Plan, n: usize, run: &PlannedRun) -> Vec<String> {
    let place = run
        .local
        .map_or_else(|| "the coordinator".to_owned(), node_name);
    let at = clock(plan.gone.when(run.at));
    let head = format!("{at} run {n}, {}, submitted at {place}", run.workflow.name);
    let tasks = run.workflow.tasks.iter().zip(&run.habits);
    let lines = tasks.map(|(task, habit)| {
        let need = |need: &TaskIdx| run.workflow.tasks[need.0 as usize].id.clone();
        let needs: Vec<String> = task.needs.iter().map(need).collect();
        let after = match needs.is_empty() {
            true => String::new(),
            false => format!(", after {}", needs.join(" and ")),
        };
        let placed = match &task.placement.node {
            Some(node) => format!(", on {node}"),
            None => String::new(),
        };
        let mishaps = match habit.fails + habit.hangs {
            0 => String::new(),
            _ => format!(
                ", of 1000 attempts {} fail and {} hang",
                habit.fails, habit.hangs
            ),
        };
        let (id, takes) = (&task.id, length(habit.length));
        let effects = task.side_effects;
        format!("  {id}: about {takes}{after}{placed}{mishaps}, side effects {effects:?}")
    });
    std::iter::once(head).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Layer;

    #[test]
    fn every_fault_has_a_sentence() {
        for seed in 0..60 {
            let plan = Plan::draw(seed, Layer::Cores);
            for one in &plan.faults {
                assert!(one.what.to_string().len() > 10, "{:?}", one.what);
            }
        }
    }

    #[test]
    fn lengths_are_told_in_two_units() {
        let texts = [250 * MS, 9 * SEC, 200 * SEC, 2 * HOUR + 5 * MIN].map(length);
        assert_eq!(texts, ["250 ms", "9 s", "3 min 20 s", "2 h 5 min"]);
    }
}
