//! Follows a run until it is over, and shows how it goes: redrawn in place on a terminal, a line a
//! change elsewhere, the run's object a change with `--json`.

use crate::client::Client;
use crate::exit::{Code, Failure};
use crate::output::{Output, short};
use crate::text::{Style, ago, now, safe, took};
use cloud::api::types::Watched;
use cloud_core::view::{AsOf, Run, Task};
use shared::ids::RunId;
use shared::state::RunState;
use shared::time::{Span, Unix};
use std::io::Write;
use std::time::{Duration, Instant};

/// How long a coordinator that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Running tasks that are named.
const NAMED: usize = 6;
/// A live session is heard at least so often.
const SILENT_MS: i64 = 90_000;
/// Nodes that are shown.
const NODES: usize = 12;

/// What is shown on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// Every change: `run watch`.
    Changes,
    /// Progress on a terminal, nothing else: `run wait`, `submit --wait`.
    Progress,
}

/// Follows a run until it is over.
///
/// # Errors
/// [`Code::TimedOut`] when it is not over in time; what the API says otherwise.
pub(crate) fn follow(
    client: &Client,
    run: RunId,
    show: Show,
    timeout: Option<Span>,
    out: &mut Output,
) -> Result<Run, Failure> {
    let mut screen = Screen::new(show, out.live);
    let limit = timeout.map(|span| Instant::now() + Duration::from_millis(span.0));
    let (mut version, mut latest, mut heard) = (0, None::<Run>, Instant::now());
    loop {
        let path = format!("/watch?run={run}&after={version}");
        let ended = client.list(&path, |line: Watched| {
            version = line.version;
            heard = Instant::now();
            if let Some(changed) = line.run {
                screen.changed(client, &changed, out)?;
                latest = Some(changed);
            }
            if let Some(run) = &latest {
                screen.tick(run);
            }
            Ok(!over(latest.as_ref()) && limit.is_none_or(|limit| Instant::now() < limit))
        });
        if over(latest.as_ref()) {
            screen.clear();
            return latest.ok_or_else(|| Failure::new(Code::Failed, "a run that is over is there"));
        }
        if limit.is_some_and(|limit| Instant::now() >= limit) {
            screen.clear();
            return Err(late(run, latest.as_ref(), timeout.unwrap_or_default()));
        }
        if let Err(failure) = ended {
            screen.clear();
            if !passes(&failure) || heard.elapsed() > PATIENCE {
                return Err(failure);
            }
            std::thread::sleep(Duration::from_millis(500));
            client.find_again();
            version = 0;
        }
    }
}

/// Whether the same request may succeed later.
fn passes(failure: &Failure) -> bool {
    failure.code == Code::Unreachable || failure.code == Code::Failed
}

fn over(run: Option<&Run>) -> bool {
    let state = run.and_then(|run| RunState::from_text(&run.state));
    state.is_some_and(RunState::is_final)
}

fn late(run: RunId, latest: Option<&Run>, timeout: Span) -> Failure {
    let state = latest.map_or("not known", |run| run.state.as_str());
    let what = format!("run {run} was not over after {timeout}: it is {state}");
    Failure::new(Code::TimedOut, what).hint(format!(
        "it goes on; see `driftless run watch {}`",
        short(&run)
    ))
}

/// The exit code for how a run ended.
pub(crate) fn code_of(run: &Run) -> Code {
    if run.state == RunState::Succeeded.text() {
        Code::Done
    } else {
        Code::Failed
    }
}

/// Tasks that are over, and all.
pub(crate) fn done_of(run: &Run) -> (u64, u64) {
    let over =
        |state: &str| shared::state::TaskState::from_text(state).is_some_and(|s| s.is_final());
    let done = run
        .tasks
        .iter()
        .filter(|(state, _)| over(state))
        .map(|(_, n)| n)
        .sum();
    (done, run.tasks.values().sum())
}

/// `24 of 40 done, 3 running, 1 retrying`.
pub(crate) fn counts(run: &Run) -> String {
    let (done, all) = done_of(run);
    let states = [
        "running",
        "retrying",
        "paused",
        "failed",
        "lost",
        "aborted",
        "cancelled",
    ];
    let counted = states.iter().filter_map(|state| {
        let n = run.tasks.get(*state).filter(|n| **n > 0)?;
        Some(format!("{n} {state}"))
    });
    let parts: Vec<String> = [format!("{done} of {all} done")]
        .into_iter()
        .chain(counted)
        .collect();
    parts.join(", ")
}

/// What is on the terminal now.
struct Screen {
    show: Show,
    live: bool,
    lines: usize,
    said: String,
    running: Vec<Task>,
    drawn: Option<Instant>,
}

impl Screen {
    fn new(show: Show, live: bool) -> Self {
        Self {
            show,
            live,
            lines: 0,
            said: String::new(),
            running: Vec::new(),
            drawn: None,
        }
    }

    /// The run is another one now.
    fn changed(&mut self, client: &Client, run: &Run, out: &mut Output) -> Result<(), Failure> {
        if out.json {
            return if self.show == Show::Changes {
                out.object(run)
            } else {
                Ok(())
            };
        }
        if self.live {
            let path = format!("/runs/{}/tasks?state=running&limit={NAMED}", run.id);
            self.running.clear();
            return client.list(&path, |task| {
                self.running.push(task);
                Ok(true)
            });
        }
        let text = format!("{}: {}", run.state, counts(run));
        if self.show == Show::Changes && text != self.said {
            out.line(&text)?;
            self.said = text;
        }
        Ok(())
    }

    /// Redraws, at most ten times a second.
    fn tick(&mut self, run: &Run) {
        if !self.live
            || self
                .drawn
                .is_some_and(|at| at.elapsed() < Duration::from_millis(100))
        {
            return;
        }
        self.drawn = Some(Instant::now());
        let width = terminal_width();
        let lines = picture(run, &self.running, width);
        let mut text = self.erase();
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        self.lines = lines.len();
        // A terminal that went away does not stop the run.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn erase(&self) -> String {
        if self.lines == 0 {
            String::new()
        } else {
            format!("\x1b[{}A\x1b[J", self.lines)
        }
    }

    fn clear(&mut self) {
        let _ = std::io::stderr().write_all(self.erase().as_bytes());
        self.lines = 0;
    }
}

fn terminal_width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map_or(80, |size| usize::from(size.ws_col))
        .clamp(40, 120)
}

/// The run as lines for a terminal that is `width` wide.
fn picture(run: &Run, running: &[Task], width: usize) -> Vec<String> {
    let now = now();
    let (done, all) = done_of(run);
    let since = took(Span(now.0.saturating_sub(run.submitted.0).max(0) as u64));
    let name = cut(&safe(&run.workflow), width.saturating_sub(36));
    let state = Style::of_state(&run.state).paint(&run.state, true);
    let name = Style::Bold.paint(&name, true);
    let mut lines = vec![format!("{name} {}  {state}  {since}", short(&run.id))];
    let cells = width.saturating_sub(40).clamp(10, 40);
    let full = (done * cells as u64).checked_div(all).unwrap_or(0) as usize;
    let bar = Style::Good.paint(&"━".repeat(full), true);
    let rest = Style::Dim.paint(&"━".repeat(cells - full), true);
    lines.push(format!(
        "{bar}{rest}  {}",
        cut(&counts(run), width - cells - 2)
    ));
    let names = running.iter().map(|task| match &task.node {
        Some(node) => format!("{} on {}", safe(&task.task), safe(node)),
        None => safe(&task.task),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    if !names.is_empty() {
        lines.push(Style::Dim.paint(&cut(&format!("now: {names}"), width), true));
    }
    for line in run
        .nodes
        .iter()
        .filter_map(|(node, as_of)| remark(node, as_of, now))
        .take(NODES)
    {
        lines.push(Style::Odd.paint(&cut(&line, width), true));
    }
    for request in run
        .requests
        .iter()
        .chain(run.waits.iter().map(|wait| &wait.what))
    {
        lines.push(Style::Odd.paint(&cut(&safe(request), width), true));
    }
    lines
}

/// What is unusual about the view of a node: silent for longer than a live session can be, or
/// behind.
fn remark(node: &str, as_of: &AsOf, now: Unix) -> Option<String> {
    let node = safe(node);
    let silent = match as_of.heard {
        Some(at) if now.0.saturating_sub(at.0) > SILENT_MS => format!("heard {}", ago(at, now)),
        Some(_) => String::new(),
        None => "not heard yet".to_owned(),
    };
    match (silent.is_empty(), as_of.behind) {
        (true, 0) => None,
        (true, behind) => Some(format!("{node}: catching up, {behind} facts behind")),
        (false, 0) => Some(format!("{node}: {silent}")),
        (false, behind) => Some(format!("{node}: {silent}, {behind} facts behind")),
    }
}

/// At most `width` characters of `text`.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars()
        .take(width.saturating_sub(1))
        .chain(['…'])
        .collect()
}
