//! What is seen while the demo runs: on a terminal a picture that is redrawn in place under the
//! events, else the events alone. All of it goes to standard error.

use super::world::{Gateway, LinkState};
use crate::text::{Style, took};
use shared::time::Span;
use std::io::Write;
use std::time::Instant;

/// Cells of a gateway's bar.
const BAR: usize = 24;
/// Columns that the picture needs; a line that is broken by the terminal could not be taken back.
const WIDTH: usize = 90;

/// The live part of the output.
#[derive(Debug)]
pub(super) struct Screen {
    live: bool,
    quiet: bool,
    began: Instant,
    lines: usize,
    /// What happened, and when.
    pub(super) events: Vec<(Span, String)>,
}

fn span(since: Instant) -> Span {
    Span(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
}

impl Screen {
    /// `live`: a terminal looks; `quiet`: only what follows the events at the end is wanted.
    pub(super) fn new(live: bool, quiet: bool) -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stderr());
        let wide = size.is_ok_and(|size| usize::from(size.ws_col) >= WIDTH);
        Self {
            live: live && wide,
            quiet,
            began: Instant::now(),
            lines: 0,
            events: Vec::new(),
        }
    }

    /// Since the start of the demo.
    pub(super) fn elapsed(&self) -> Span {
        span(self.began)
    }

    /// Something happened.
    pub(super) fn event(&mut self, text: &str) {
        let at = self.elapsed();
        self.events.push((at, text.to_owned()));
        if self.quiet {
            return;
        }
        self.clear();
        let time = Style::Dim.paint(&format!("{:>7}", took(at)), self.live);
        // A terminal that went away does not stop the demo.
        let _ = writeln!(std::io::stderr(), "{time}  {text}");
    }

    /// Shows `lines` instead of those shown last.
    pub(super) fn draw(&mut self, lines: &[String]) {
        if !self.live || self.quiet {
            return;
        }
        let mut text = self.erase();
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        self.lines = lines.len();
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn erase(&self) -> String {
        if self.lines == 0 {
            String::new()
        } else {
            format!("\x1b[{}A\x1b[J", self.lines)
        }
    }

    /// Takes the picture away.
    pub(super) fn clear(&mut self) {
        let text = self.erase();
        self.lines = 0;
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The gateways as lines: how far each is, what the coordinator knows of it, its link, its work.
pub(super) fn picture(gateways: &[Gateway], state: &str, screen: &Screen) -> Vec<String> {
    let (done, total): (usize, usize) = gateways
        .iter()
        .fold((0, 0), |(d, t), g| (d + g.done, t + g.total));
    let known: usize = gateways.iter().map(|g| g.known).sum();
    let run = if state.is_empty() { "starting" } else { state };
    let time = took(screen.elapsed());
    let head = format!(
        "{:<14}{:<BAR$}  {:>5}  {:>11}  LINK",
        "GATEWAY", "TASKS", "DONE", "COORDINATOR"
    );
    let mut lines = vec![String::new(), Style::Bold.paint(&head, true)];
    lines.extend(gateways.iter().flat_map(two_lines));
    let state = Style::of_state(run).paint(run, true);
    lines.push(String::new());
    lines.push(format!("run {state}: {done} of {total} done at the gateways, {known} known to the coordinator, {time}"));
    lines
}

fn two_lines(gateway: &Gateway) -> [String; 2] {
    let cells = |n: usize| (n * BAR).checked_div(gateway.total).unwrap_or(0);
    let (known, done) = (cells(gateway.known.min(gateway.done)), cells(gateway.done));
    let bar = [
        Style::Good.paint(&"━".repeat(known), true),
        Style::Odd.paint(&"━".repeat(done - known), true),
        Style::Dim.paint(&"─".repeat(BAR - done), true),
    ]
    .concat();
    let link = match gateway.link {
        LinkState::Cut(since) => {
            Style::Bad.paint(&format!("cut off for {}", took(span(since))), true)
        }
        LinkState::Mute => Style::Odd.paint("answers are swallowed", true),
        LinkState::Open if gateway.says == "online" => Style::Good.paint("online", true),
        LinkState::Open => Style::Odd.paint(&gateway.says, true),
    };
    let count = format!("{}/{}", gateway.done, gateway.total);
    let first = format!(
        "{:<14}{bar}  {count:>5}  {:>11}  {link}",
        gateway.name, gateway.known
    );
    let what = match (gateway.alive(), gateway.running.as_slice()) {
        (false, _) if gateway.kills > 0 => Style::Bad.paint("agent killed", true),
        (false, _) => Style::Dim.paint("starts", true),
        (true, []) if gateway.total > 0 && gateway.done == gateway.total => {
            Style::Dim.paint("all done", true)
        }
        (true, running) => {
            let names: String = running.join(", ").chars().take(WIDTH - 16).collect();
            Style::Dim.paint(&names, true)
        }
    };
    [first, format!("{:<14}{what}", "")]
}
