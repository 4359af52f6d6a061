//! `driftless rehearse`: a workflow on an imagined fleet, many times, each with other accidents.

pub(crate) mod args;
mod expect;
mod faults;
mod page;
mod report;
mod spread;
mod summary;

use crate::args::Global;
use crate::client::Client;
use crate::commands::spec::Source;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::text;
use args::{Asked, Rehearse};
use cloud_core::view;
use expect::Judged;
use shared::codec;
use shared::spec::fleet::{self, Node};
use shared::spec::{self, Mistakes};
use shared::time::{Span, Unix};
use shared::workflow::Workflow;
use sim::queue::{HOUR, MS, Time};
use sim::rehearsal::{self, Ended, Fears, Scene};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use summary::{Summary, Telemetry};

/// Largest file of a fleet, or of faults.
const FILE_BYTES: u64 = 1 << 20;
/// Slots of a seed, at most.
const SLOTS: u64 = 2000;
/// Seed of the rehearsal without faults.
const CALM: u64 = 0;

pub(crate) fn run(
    mut args: Box<Rehearse>,
    global: &Global,
    out: &mut Output,
) -> Result<Code, Failure> {
    if let Some(path) = &args.faults {
        let file = read_faults(path, out)?;
        args.asked = std::mem::take(&mut args.asked).or(file);
    }
    let args = &*args;
    let source = Source::read(&args.file, &args.given, out)?;
    let then = text::now();
    let workflow = source.compile_at(then, out)?;
    let fleet = read_fleet(&args.nodes, out)?;
    let scene = match (workflow.schedule.clone(), args.asked.days) {
        (Some(schedule), Some(days)) => {
            // deadlines count from the firing, as where a schedule is made
            let workflow = source.compile_at(Unix(0), out)?;
            let scene = scene(args, workflow, fleet, global)?;
            scheduled(scene.scheduled(schedule, days * 24 * HOUR), days)?
        }
        (schedule, _) => {
            if schedule.is_some() {
                out.say("one run by itself is rehearsed: --days N rehearses the slots of N days");
            }
            scene(args, workflow, fleet, global)?.as_of(then)
        }
    };
    let calm = rehearsal::rehearse(&scene.calm(), scene.calm().plan(CALM, 0));
    if calm.took.is_none() {
        return Err(stuck(&calm));
    }
    let window = || window(&scene, &calm);
    let within = args.asked.within.map_or_else(window, Span::nanos);
    let ended = rehearse_all(args, &scene, within, out);
    let sum = Summary::of(&ended, args.asked.bandwidth());
    let summary = Summary {
        workflow: scene.workflow.name.clone(),
        nodes: scene.fleet.len() as u64,
        tasks: scene.workflow.tasks.len() as u64,
        slots: scene.schedule.is_some().then(|| scene.slots()),
        without_faults_ms: calm.took.map(|took| took / MS),
        telemetry: Telemetry::of(sum.outage_ms, args.asked.telemetry_budget()),
        ..sum
    };
    let judged: Vec<Judged> = args
        .asked
        .expect
        .iter()
        .map(|one| one.judge(&summary))
        .collect();
    report::write(args, &summary, &judged, out)?;
    let told = Told {
        ended,
        summary,
        judged,
    };
    if args.timeline || args.html.is_some() {
        show_worst(args, &scene, within, &told, out)?;
    }
    Ok(told.code())
}

/// What a rehearsal came to.
struct Told {
    ended: Vec<Ended>,
    summary: Summary,
    judged: Vec<Judged>,
}

impl Told {
    fn code(&self) -> Code {
        let good = match self.judged.is_empty() {
            true => self.summary.succeeded() == self.summary.seeds,
            false => self.judged.iter().all(|one| one.met),
        };
        match good && self.summary.broken.is_empty() {
            true => Code::Done,
            false => Code::Failed,
        }
    }
}

/// When faults strike: while the run goes on, and as long again for what they make of it; while a
/// schedule fires.
fn window(scene: &Scene, calm: &Ended) -> Time {
    match &scene.schedule {
        Some((_, lasts)) => *lasts,
        None => calm.took.unwrap_or(HOUR).saturating_mul(2),
    }
}

/// A schedule that fires neither never nor too often.
fn scheduled(scene: Scene, days: u64) -> Result<Scene, Failure> {
    let slots = scene.slots();
    if (1..=SLOTS).contains(&slots) {
        return Ok(scene);
    }
    let what = match slots {
        0 => format!("the schedule has no slot within {days} days, from January on"),
        _ => format!(
            "the schedule has {slots} slots within {days} days, at most {SLOTS} can be rehearsed"
        ),
    };
    Err(Failure::new(Code::Usage, what)
        .hint("--days N: as many as it takes to see what an outage does"))
}

/// Without faults the run does not end: there is nothing to rehearse.
fn stuck(calm: &Ended) -> Failure {
    let mut why = calm.waits.clone();
    why.extend(calm.broken.iter().cloned());
    let tasks = calm.tasks.iter();
    let tasks: Vec<String> = tasks.map(|(state, n)| format!("{n} {state}")).collect();
    let what = format!(
        "without faults the run is not over in time: {} ({})",
        if why.is_empty() {
            "it waits".to_owned()
        } else {
            why.join("; ")
        },
        tasks.join(", ")
    );
    Failure::new(Code::Failed, what)
        .hint("`driftless lint` shows what tasks ask for, the fleet file what its nodes have; --days waits longer")
}

fn read_fleet(path: &Path, out: &Output) -> Result<Vec<Node>, Failure> {
    let hint = "--nodes FILE: `nodes: [{name: gw-1}]`; docs/rehearsal.md has the keys";
    let (name, bytes) = read_file(path, hint)?;
    fleet::read(&name, &bytes).map_err(|mistakes| wrong("fleet", &mistakes, out))
}

fn read_faults(path: &Path, out: &Output) -> Result<Asked, Failure> {
    let hint = "--faults FILE: `link-down: 2h..10h`; docs/rehearsal.md has the keys";
    let (name, bytes) = read_file(path, hint)?;
    faults::read(&name, &bytes).map_err(|mistakes| wrong("file of faults", &mistakes, out))
}

/// The name of a file, and what is in it.
fn read_file(path: &Path, hint: &str) -> Result<(String, Vec<u8>), Failure> {
    let name = path.display().to_string();
    let failed = |error: std::io::Error| {
        let what = format!("{name} cannot be read: {error}");
        Failure::new(Code::Usage, what).hint(hint)
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES {
        let what = format!("{name} has {length} bytes: such a file has {FILE_BYTES} at most");
        return Err(Failure::new(Code::Specification, what));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    Ok((name, bytes))
}

fn wrong(file: &str, mistakes: &Mistakes, out: &Output) -> Failure {
    out.say(&mistakes.to_string());
    let n = mistakes.mistakes.len() + mistakes.more;
    let s = if n == 1 { "" } else { "s" };
    Failure::new(
        Code::Specification,
        format!("the {file} has {n} mistake{s}"),
    )
}

fn scene(
    args: &Rehearse,
    workflow: Workflow,
    fleet: Vec<Node>,
    global: &Global,
) -> Result<Scene, Failure> {
    let asked = &args.asked;
    let fears = Fears {
        link_down: asked.link_down,
        outages: asked.outages.unwrap_or(1),
        power_cuts: asked.power_cut.unwrap_or(0),
        agent_kills: asked.agent_kill.unwrap_or(0),
        coordinator_kills: asked.coordinator_kill.unwrap_or(0),
        failing: u64::from(asked.task_fails.unwrap_or(0)) * 10,
        disk: asked.disk,
    };
    let longest = asked.days.unwrap_or(30) * 24 * HOUR;
    let mut scene = Scene::new(workflow, fleet, fears, longest);
    scene.answers = asked.answers.unwrap_or(rehearsal::ANSWERS);
    scene.bits = Some(asked.bandwidth());
    if args.history {
        take_history(&mut scene, global)?;
    }
    for (task, length) in &args.asked.takes {
        let position = scene.workflow.tasks.iter().position(|one| one.id == *task);
        let missing = || {
            let what = format!("--takes {task}={length}: the workflow has no task '{task}'");
            Failure::new(Code::Usage, what)
        };
        let position = position.ok_or_else(missing)?;
        let length = spec::duration(length).map_err(|(what, mend)| {
            Failure::new(Code::Usage, format!("--takes {task}={length}: {what}")).hint(mend)
        })?;
        scene.takes[position] = Some(length.0);
    }
    Ok(scene)
}

/// What tasks took in the last runs, as far as the coordinator knows.
fn take_history(scene: &mut Scene, global: &Global) -> Result<(), Failure> {
    let (packed, _) = codec::pack(&scene.workflow);
    let plan: view::Plan = Client::new(global)?.post_bytes("/plan", &[], &packed)?;
    for (task, takes) in scene.workflow.tasks.iter().zip(&mut scene.takes) {
        let known = plan.tasks.iter().find(|one| one.task == task.id);
        if let Some(ms) = known.and_then(|one| one.takes_ms) {
            *takes = Some(ms);
        }
    }
    Ok(())
}

/// All seeds, in their order; as many at once as there are processors.
fn rehearse_all(args: &Rehearse, scene: &Scene, within: Time, out: &Output) -> Vec<Ended> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, (send, receive)) = (AtomicU64::new(0), mpsc::channel());
    let mut ended = std::thread::scope(|scope| {
        for _ in 0..threads {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= args.asked.seeds() {
                        break;
                    }
                    let plan = scene.plan(args.asked.start().wrapping_add(n), within);
                    if send.send(rehearsal::rehearse(scene, plan)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut ended = Vec::new();
        for one in receive {
            ended.push(one);
            progress(&ended, args.asked.seeds(), out.live);
        }
        ended
    });
    ended.sort_by_key(|one| one.seed.wrapping_sub(args.asked.start()));
    ended
}

/// Redrawn in place where a person looks.
fn progress(ended: &[Ended], seeds: u64, live: bool) {
    if !live {
        return;
    }
    let good = ended.iter().filter(|one| one.state == "succeeded").count();
    let (n, end) = (
        ended.len() as u64,
        if ended.len() as u64 == seeds {
            "\r\x1b[K"
        } else {
            ""
        },
    );
    // whoever closed the terminal needs no progress
    let _ = write!(
        std::io::stderr(),
        "\r{n} of {seeds} seeds, {good} succeeded{end}"
    );
}

/// The worst seed once more, with what happened.
fn show_worst(
    args: &Rehearse,
    scene: &Scene,
    within: Time,
    told: &Told,
    out: &mut Output,
) -> Result<(), Failure> {
    let plan = scene.plan(told.summary.worst.seed, within);
    let (send, receive) = mpsc::channel();
    let lines: sim::trace::Sink = Box::new(move |line| drop(send.send(line.to_owned())));
    let (_, mut drawing) = rehearsal::record(scene, plan, lines);
    if args.timeline {
        out.heading("Timeline of the worst seed")?;
        out.line(&text::safe(&report::legend(scene)))?;
        out.line(sim::record::LETTERS)?;
        for line in receive {
            out.line(&text::safe(&line))?;
        }
    }
    if let Some(path) = &args.html {
        let Told {
            ended,
            summary,
            judged,
        } = told;
        let Summary {
            workflow, seeds, ..
        } = summary;
        drawing.title = format!("{workflow}, rehearsed in {seeds} seeds");
        drawing.front = page::front(args, summary, judged, ended);
        drawing.notes = vec![report::worst(summary), report::legend(scene)];
        std::fs::write(path, drawing.html()).map_err(|error| {
            let what = format!("{} cannot be written: {error}", path.display());
            Failure::new(Code::Failed, what).hint("--html FILE: in a directory that is there")
        })?;
        out.say(&format!("drawn in {}", path.display()));
    }
    Ok(())
}
