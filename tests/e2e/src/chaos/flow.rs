//! Workflows: random graphs of short shell tasks that leave marks.

use super::draw::Rng;
use std::fmt::Write as _;

/// What kind of work a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It succeeds.
    Plain,
    /// It fails so many times, then it succeeds.
    FailsFirst(u64),
    /// It fails each time.
    Fails,
    /// It may begin once only.
    Once,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What it does.
    pub kind: Kind,
    /// Runs only at this gateway.
    pub site: Option<usize>,
    /// Tasks before it, by index; it reads the output of each that has one.
    pub needs: Vec<usize>,
    /// Bytes of its output, if it has one.
    pub output: Option<usize>,
    /// Tenths of a second that it takes.
    pub naps: u64,
    /// It starts however the tasks before it ended.
    pub always: bool,
}

/// Where a workflow is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// At the coordinator, so many milliseconds after the first fault may begin.
    Coordinator(u64),
    /// At a gateway, before the first fault.
    Gateway(usize),
}

/// One workflow, which is run once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// Its parts are placed elsewhere while their gateway is not heard.
    pub movable: bool,
    /// Its tasks; each needs earlier ones only.
    pub tasks: Vec<Task>,
}

/// Silence after which parts of a movable workflow are placed elsewhere.
const LOST_AFTER: &str = "2s";

/// Writes a mark: what happens, whose attempt it is, where it runs, and when by the machine's boot
/// clock, which only people read. A line is written at once, so the order of the lines is the order
/// of what happened.
const SAY: &str = "say() { read -r up rest < /proc/uptime; \
    echo \"$1 $DRIFTLESS_RUN $DRIFTLESS_TASK $DRIFTLESS_FENCE $HOME $up $2\" >> @M/marks; }";

impl Flow {
    /// Draws one for so many gateways.
    pub(super) fn draw(rng: &mut Rng, name: String, source: Source, gateways: usize) -> Self {
        let central = matches!(source, Source::Coordinator(_));
        let movable = central && rng.chance(25);
        let count = rng.within(10, if central { 32 } else { 14 });
        let mut tasks: Vec<Task> = Vec::new();
        for n in 0..count {
            let site = (central && !movable && rng.chance(70)).then(|| rng.index(gateways));
            tasks.push(Task {
                kind: draw_kind(rng, n, count),
                site,
                needs: draw_needs(rng, tasks.len()),
                output: rng.chance(70).then(|| draw_size(rng)),
                naps: rng.within(1, 9),
                always: rng.chance(15),
            });
        }
        if !movable {
            // In the second half: what is behind it is aborted if it is lost.
            let half = tasks.len() / 2;
            for _ in 0..2 {
                let once = half + rng.index(tasks.len() - half);
                tasks[once].kind = Kind::Once;
                tasks[once].output = None;
                tasks[once].naps = rng.within(5, 20);
            }
        }
        Self {
            name,
            source,
            movable,
            tasks,
        }
    }

    /// The id of a task.
    #[must_use]
    pub fn id(index: usize) -> String {
        format!("t{index}")
    }

    /// The index of a task by its id.
    #[must_use]
    pub fn index(&self, id: &str) -> Option<usize> {
        let index = id.strip_prefix('t')?.parse().ok()?;
        (index < self.tasks.len()).then_some(index)
    }

    /// What a task reads: the tasks whose outputs they are.
    pub fn inputs(&self, task: usize) -> impl Iterator<Item = usize> + '_ {
        let needs = self.tasks[task].needs.iter().copied();
        // Behind a failure there may be no file.
        needs.filter(move |need| !self.tasks[task].always && self.tasks[*need].output.is_some())
    }

    /// The content of a task's output: its name, line after line.
    #[must_use]
    pub fn content(&self, task: usize) -> Vec<u8> {
        let line = format!("{}-{}\n", self.name, Self::id(task));
        let size = self.tasks[task].output.unwrap_or(0);
        line.bytes().cycle().take(size).collect()
    }

    /// The specification; `@M` stands for the directory of marks.
    #[must_use]
    pub fn spec(&self) -> String {
        let mut text = format!(
            "name: {}
defaults:
  crash_limit: 100
  retry: {{max_attempts: 40, initial_interval: 100ms, backoff: 1.5, max_interval: 1s}}
",
            self.name
        );
        if self.movable {
            let _ = writeln!(
                text,
                "  side_effects: idempotent
  disconnect: {{lost_after: {LOST_AFTER}, replace: true}}"
            );
        }
        text.push_str("tasks:\n");
        for index in 0..self.tasks.len() {
            text.push_str(&self.task_spec(index));
        }
        text
    }

    fn task_spec(&self, index: usize) -> String {
        let task = &self.tasks[index];
        let mut text = format!("  {}:\n", Self::id(index));
        let mut field = |name: &str, value: &str| {
            let _ = writeln!(text, "    {name}: {value}");
        };
        let list = |ids: Vec<String>| format!("[{}]", ids.join(", "));
        field(
            "needs",
            &list(task.needs.iter().copied().map(Self::id).collect()),
        );
        let input = |need| format!("{}.out", Self::id(need));
        field("inputs", &list(self.inputs(index).map(input).collect()));
        if task.output.is_some() {
            field("outputs", &list(vec![input(index)]));
        }
        if let Some(site) = task.site {
            field("placement", &format!("{{site: s{site}}}"));
        }
        if task.always {
            field("trigger_rule", "all_done");
        }
        match task.kind {
            Kind::Plain | Kind::FailsFirst(_) => {}
            Kind::Fails => field("retry", "{max_attempts: 2}"),
            Kind::Once => {
                field("retry", "{max_attempts: 1}");
                field("side_effects", "at_most_once");
            }
        }
        let script = self.script(index).replace('\n', "\n      ");
        let _ = writeln!(text, "    shell: |\n      {script}");
        text
    }

    /// What a task does.
    fn script(&self, index: usize) -> String {
        let task = &self.tasks[index];
        let mut text = format!("{SAY}\nsay begin\n");
        let failures = match task.kind {
            Kind::FailsFirst(times) => Some(times),
            Kind::Fails => Some(1_000_000),
            Kind::Plain | Kind::Once => None,
        };
        if let Some(times) = failures {
            let _ = writeln!(
                text,
                "n=$(grep -c \"^fail $DRIFTLESS_RUN $DRIFTLESS_TASK \" @M/marks)
[ \"$n\" -ge {times} ] || {{ say fail; exit 9; }}"
            );
        }
        for need in self.inputs(index) {
            let id = Self::id(need);
            let _ = writeln!(text, "say read \"{id} $(cksum < {id}.out)\"");
        }
        for _ in 0..task.naps {
            text.push_str("sleep 0.1; say tick\n");
        }
        if let Some(size) = task.output {
            let id = Self::id(index);
            let _ = writeln!(
                text,
                "yes $DRIFTLESS_WORKFLOW-$DRIFTLESS_TASK | head -c {size} > {id}.out || exit 8"
            );
        }
        text.push_str("say end");
        text
    }
}

/// Up to three of the eight tasks before it.
fn draw_needs(rng: &mut Rng, before: usize) -> Vec<usize> {
    if before == 0 {
        return Vec::new();
    }
    let near = before.min(8);
    let count = [0, 1, 1, 1, 2, 2, 3][rng.index(7)];
    let mut needs: Vec<usize> = (0..count).map(|_| before - 1 - rng.index(near)).collect();
    needs.sort_unstable();
    needs.dedup();
    needs
}

fn draw_kind(rng: &mut Rng, n: u64, count: u64) -> Kind {
    match rng.within(0, 99) {
        0..15 => Kind::FailsFirst(rng.within(1, 3)),
        // Late: what is behind it is aborted.
        15..25 if n * 3 > count * 2 => Kind::Fails,
        _ => Kind::Plain,
    }
}

/// Mostly small, sometimes so large that a file is under way for long.
fn draw_size(rng: &mut Rng) -> usize {
    let most = if rng.chance(20) { 300_000 } else { 5_000 };
    usize::try_from(rng.within(1, most)).unwrap_or(1)
}
