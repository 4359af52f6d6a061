//! Draws what happened over time as a page of HTML with one SVG: a lane for each machine, bands for
//! its states, bars for what ran there, marks for what struck it. Owns the looks and the layout,
//! and knows nothing of who recorded what.
//!
//! The page stands alone: no script, nothing from elsewhere; every text is escaped. Times run in
//! per cent of the width, so that the zoom is a width and nothing else.

use std::fmt::Write as _;

/// Milliseconds since the beginning.
pub type Millis = u64;

/// What is to be drawn.
#[derive(Debug, Clone, Default)]
pub struct Drawing {
    /// Above everything.
    pub title: String,
    /// Between the title and the notes, if the drawing is a part of something.
    pub front: Front,
    /// Under the title, a paragraph each.
    pub notes: Vec<String>,
    /// Where time ends; it begins with 0.
    pub end: Millis,
    /// From top to bottom.
    pub lanes: Vec<Lane>,
    /// Moments that concern all lanes.
    pub moments: Vec<Mark>,
}

/// What stands before the drawing on its page, as markup: whoever makes it escapes its texts.
#[derive(Debug, Clone, Default)]
pub struct Front {
    /// How it looks, beside how the page does.
    pub style: &'static str,
    /// What it says.
    pub body: String,
}

/// A machine.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// More of it, shortly.
    pub detail: String,
    /// What struck it, and what somebody did there.
    pub marks: Vec<Mark>,
    /// Its states, each in a row of its own.
    pub bands: Vec<Band>,
    /// What it wrote down: ticks.
    pub ticks: Vec<Mark>,
    /// What their row is called.
    pub ticks_name: String,
    /// What ran, in as many rows as run at once.
    pub bars: Vec<Span>,
    /// What their rows are called.
    pub bars_name: String,
}

/// A row of states.
#[derive(Debug, Clone, Default)]
pub struct Band {
    /// What it shows.
    pub name: String,
    /// State after state.
    pub spans: Vec<Span>,
}

/// A stretch of time.
#[derive(Debug, Clone)]
pub struct Span {
    /// Since when.
    pub from: Millis,
    /// Until when.
    pub to: Millis,
    /// How it looks.
    pub look: Look,
    /// For who points at it.
    pub text: String,
}

/// A moment.
#[derive(Debug, Clone)]
pub struct Mark {
    /// When.
    pub at: Millis,
    /// How it looks.
    pub look: Look,
    /// For who points at it, and for the list below.
    pub text: String,
}

/// What a colour and a shape mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// A state as it should be.
    Up,
    /// One that hinders.
    Half,
    /// One in which nothing goes.
    Down,
    /// Without power, or not there.
    Off,
    /// Something that spans what ran for it.
    Whole,
    /// Ended well.
    Done,
    /// Ended with an error.
    Failed,
    /// Ended because somebody wanted it.
    Stopped,
    /// Ended together with its machine, or unseen.
    Killed,
    /// Had not ended.
    Open,
    /// Written down.
    Fact,
    /// Something struck.
    Fault,
    /// Somebody did something.
    Deed,
    /// A copy was made or put back.
    Backup,
    /// Another phase began.
    Phase,
    /// A promise was broken.
    Broken,
}

/// All looks that the legend explains: class, what they stand for.
const LEGEND: &[(Look, &str, &str)] = &[
    (Look::Fault, "fault", "fault"),
    (Look::Deed, "deed", "somebody acts"),
    (Look::Backup, "backup", "backup or restore"),
    (Look::Up, "up", "works, or nothing outstanding"),
    (Look::Half, "half", "works in part, or lags behind"),
    (Look::Down, "down", "down, cut, no session"),
    (Look::Off, "off", "no power, or not there"),
    (Look::Done, "done", "task succeeded"),
    (Look::Failed, "failed", "task failed"),
    (Look::Stopped, "stopped", "task stopped on request"),
    (
        Look::Killed,
        "killed",
        "task killed with its machine, or its end unseen",
    ),
    (Look::Open, "open", "task still runs"),
    (Look::Whole, "whole", "run"),
    (Look::Fact, "fact", "facts committed"),
    (Look::Phase, "phase", "phase begins"),
    (Look::Broken, "broken", "promise broken"),
];

impl Look {
    fn class(self) -> &'static str {
        let known = LEGEND.iter().find(|(look, _, _)| *look == self);
        known.map_or("up", |(_, class, _)| class)
    }

    /// The outline of a mark around its place.
    fn outline(self) -> &'static str {
        match self {
            Self::Fault => "M-5 -5H5L0 5Z",
            Self::Backup => "M-4 -4H4V4H-4Z",
            _ => "M-4 0A4 4 0 1 1 4 0A4 4 0 1 1 -4 0Z",
        }
    }
}

/// From one row of a lane to the next.
const ROW: usize = 11;
/// How high a bar is.
const BAR: usize = 8;
/// The row of marks of a lane.
const MARKS: usize = 18;
/// Between two lanes.
const GAP: usize = 10;
/// Rows that bars of a lane take at most; what runs beside them overlaps.
const ROWS: usize = 8;
/// What a number beside a mark takes, in per cent of the width that is seen at once.
const ROOM: f64 = 2.2;
/// What a label of the axis takes, like that.
const LABEL: f64 = 4.5;
/// Magnifications.
const ZOOMS: [u64; 4] = [1, 4, 16, 64];
/// Steps between two labels of the time axis, in seconds.
const STEPS: [u64; 20] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    172_800, 604_800,
];

/// A lane with everything in its place.
struct Placed<'a> {
    lane: &'a Lane,
    top: usize,
    height: usize,
    /// Row of each bar, in the order of `bars`.
    rows: Vec<usize>,
}

impl Drawing {
    /// The page.
    #[must_use]
    pub fn html(&self) -> String {
        let placed = self.place();
        let height = placed.last().map_or(GAP, |last| last.top + last.height);
        let mut out = String::new();
        // writing into a String cannot fail
        let title = escape(&self.title);
        let _ = write!(out, "{HEAD}<title>{title}</title>\n<style>\n{STYLE}");
        out.push_str(self.front.style);
        for (position, zoom) in ZOOMS.iter().enumerate() {
            let _ = writeln!(
                out,
                "#z{position}:checked~.box .plot{{width:calc(var(--w)*{zoom})}}\n\
                 #z{position}:checked~.box .s{position}{{display:inline}}"
            );
            for from in 0..=position {
                let _ = writeln!(out, "#z{position}:checked~.box .n{from}{{display:inline}}");
            }
        }
        let _ = write!(out, "</style>\n</head>\n<body>\n<h1>{title}</h1>\n");
        out.push_str(&self.front.body);
        for note in &self.notes {
            let _ = writeln!(out, "<p>{}</p>", escape(note));
        }
        let broken = self.moments.iter().filter(|one| one.look == Look::Broken);
        for one in broken {
            let text = escape(&one.text);
            let _ = writeln!(out, "<p class=\"alarm\">{} {text}</p>", clock(one.at));
        }
        self.legend(&mut out);
        out.push_str("Zoom:\n");
        for (position, zoom) in ZOOMS.iter().enumerate() {
            let checked = if position == 0 { " checked" } else { "" };
            let _ = writeln!(
                out,
                "<input type=\"radio\" name=\"zoom\" id=\"z{position}\"{checked}>\
                 <label for=\"z{position}\">{zoom}×</label>"
            );
        }
        out.push_str("<div class=\"box\"><div class=\"sheet\">\n");
        names(&mut out, &placed);
        out.push_str("<div class=\"plot\">\n");
        self.axis(&mut out);
        self.body(&mut out, &placed, height);
        out.push_str("</div></div></div>\n");
        self.list(&mut out);
        out.push_str("</body>\n</html>\n");
        out
    }

    fn place(&self) -> Vec<Placed<'_>> {
        let mut top = 0;
        let place = |lane| {
            let rows = rows(lane);
            let ticks = usize::from(!lane.ticks.is_empty());
            let bars = rows.iter().max().map_or(0, |most| most + 1);
            let height = MARKS + (lane.bands.len() + ticks + bars) * ROW + GAP;
            top += height;
            Placed {
                lane,
                top: top - height,
                height,
                rows,
            }
        };
        self.lanes.iter().map(place).collect()
    }

    /// Where `at` stands, in per cent.
    fn x(&self, at: Millis) -> f64 {
        // some room behind the end, for what happens there
        let end = (self.end + self.end / 40).max(1);
        (at as f64 / end as f64 * 1e6).round() / 1e4
    }

    /// Labels of the axis for one magnification.
    fn ticks(&self, zoom: u64) -> impl Iterator<Item = Millis> {
        let wanted = self.end / 1000 / (10 * zoom) + 1;
        let step = STEPS.iter().find(|step| **step >= wanted);
        let step = step.copied().unwrap_or(wanted) * 1000;
        (0..=self.end / step).map(move |n| n * step)
    }

    fn axis(&self, out: &mut String) {
        out.push_str("<svg class=\"axis\" height=\"22\" aria-hidden=\"true\">\n");
        for (position, zoom) in ZOOMS.iter().enumerate() {
            let _ = writeln!(out, "<g class=\"s s{position}\">");
            for at in self.ticks(*zoom) {
                let (x, text) = (self.x(at), clock(at));
                if x > 100.0 - LABEL / *zoom as f64 {
                    continue;
                }
                let _ = writeln!(out, "<text x=\"{x}%\" dx=\"3\" y=\"15\">{text}</text>");
            }
            out.push_str("</g>\n");
        }
        out.push_str("</svg>\n");
    }

    fn body(&self, out: &mut String, placed: &[Placed<'_>], height: usize) {
        let title = escape(&self.title);
        let _ = writeln!(
            out,
            "<svg class=\"body\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">"
        );
        for (position, one) in placed.iter().enumerate() {
            let shade = ["even", "odd"][position % 2];
            let (y, height) = (one.top, one.height);
            let _ = writeln!(
                out,
                "<rect class=\"{shade}\" width=\"100%\" y=\"{y}\" height=\"{height}\"/>"
            );
        }
        for (position, zoom) in ZOOMS.iter().enumerate() {
            let _ = write!(out, "<g class=\"s s{position} grid\">");
            for at in self.ticks(*zoom) {
                let x = self.x(at);
                let _ = write!(out, "<line x1=\"{x}%\" x2=\"{x}%\" y2=\"{height}\"/>");
            }
            out.push_str("</g>\n");
        }
        placed.iter().for_each(|one| self.lane(out, one));
        for one in &self.moments {
            let (x, class) = (self.x(one.at), one.look.class());
            let text = titled(one.at, &one.text);
            let _ = writeln!(
                out,
                "<line class=\"moment {class}\" x1=\"{x}%\" x2=\"{x}%\" y2=\"{height}\">\
                 {text}</line>"
            );
        }
        let numbers = self.numbers();
        for (lane, one) in placed.iter().enumerate() {
            self.marks(out, one, &numbers[lane]);
        }
        out.push_str("</svg>\n");
    }

    fn lane(&self, out: &mut String, placed: &Placed<'_>) {
        let mut y = placed.top + MARKS;
        for band in &placed.lane.bands {
            band.spans.iter().for_each(|span| self.span(out, span, y));
            y += ROW;
        }
        if !placed.lane.ticks.is_empty() {
            for tick in &placed.lane.ticks {
                let (x, class) = (self.x(tick.at), tick.look.class());
                let text = titled(tick.at, &tick.text);
                let _ = writeln!(
                    out,
                    "<rect class=\"tick {class}\" x=\"{x}%\" y=\"{y}\" width=\"1.5\" \
                     height=\"{BAR}\">{text}</rect>"
                );
            }
            y += ROW;
        }
        for (span, row) in placed.lane.bars.iter().zip(&placed.rows) {
            self.span(out, span, y + row * ROW);
        }
    }

    fn span(&self, out: &mut String, span: &Span, y: usize) {
        let (x, class) = (self.x(span.from), span.look.class());
        let width = ((self.x(span.to) - x).max(0.0) * 1e4).round() / 1e4;
        let (from, to) = (clock(span.from), clock(span.to));
        let text = escape(&span.text);
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{x}%\" y=\"{y}\" width=\"{width}%\" height=\"{BAR}\">\
             <title>{from} to {to}: {text}</title></rect>"
        );
    }

    /// The number of each mark of each lane, by time over all lanes.
    fn numbers(&self) -> Vec<Vec<usize>> {
        let mut order: Vec<(Millis, usize, usize)> = Vec::new();
        for (lane, one) in self.lanes.iter().enumerate() {
            let marks = one.marks.iter().enumerate();
            order.extend(marks.map(|(n, mark)| (mark.at, lane, n)));
        }
        order.sort_unstable();
        let mut numbers: Vec<Vec<usize>> = Vec::new();
        numbers.extend(self.lanes.iter().map(|lane| vec![0; lane.marks.len()]));
        for (number, (_, lane, n)) in (1..).zip(order) {
            numbers[lane][n] = number;
        }
        numbers
    }

    /// The marks of a lane; each shows its number from the magnification on that has room for it.
    fn marks(&self, out: &mut String, placed: &Placed<'_>, numbers: &[usize]) {
        let y = placed.top + MARKS / 2;
        let mut marks: Vec<(&Mark, usize)> = Vec::new();
        marks.extend(placed.lane.marks.iter().zip(numbers.iter().copied()));
        marks.sort_by_key(|(mark, _)| mark.at);
        let mut free = [f64::MIN; ZOOMS.len()];
        for (mark, number) in marks {
            let (x, class) = (self.x(mark.at), mark.look.class());
            let room = ZOOMS.map(|zoom| ROOM / zoom as f64);
            let fits = (0..ZOOMS.len()).find(|zoom| x >= free[*zoom]);
            let label = fits.map(|from| {
                (from..ZOOMS.len()).for_each(|zoom| free[zoom] = x + room[zoom]);
                format!("<text class=\"s n{from}\" x=\"6\" y=\"3\">{number}</text>")
            });
            let (outline, text) = (mark.look.outline(), titled(mark.at, &mark.text));
            let label = label.unwrap_or_default();
            let _ = writeln!(
                out,
                "<svg class=\"mark\" x=\"{x}%\" y=\"{y}\"><path class=\"{class}\" \
                 d=\"{outline}\">{text}</path>{label}</svg>"
            );
        }
    }

    fn legend(&self, out: &mut String) {
        out.push_str("<p class=\"legend\">");
        for (look, class, text) in LEGEND.iter().filter(|(look, _, _)| self.shows(*look)) {
            let shape = match look {
                Look::Fault | Look::Deed | Look::Backup => {
                    format!("<path class=\"{class}\" d=\"{}\"/>", look.outline())
                }
                Look::Phase | Look::Broken => {
                    format!("<line class=\"moment {class}\" y1=\"-6\" y2=\"6\"/>")
                }
                look => {
                    let tick = *look == Look::Fact;
                    let (tick, x, width) = if tick { ("tick ", -1, 2) } else { ("", -6, 12) };
                    format!(
                        "<rect class=\"{tick}{class}\" x=\"{x}\" y=\"-4\" width=\"{width}\" \
                         height=\"{BAR}\"/>"
                    )
                }
            };
            let _ = write!(
                out,
                "<span><svg viewBox=\"-8 -8 16 16\" aria-hidden=\"true\">{shape}</svg>\
                 {text}</span> "
            );
        }
        out.push_str("</p>\n<p class=\"hint\">Point at anything to read what it is.</p>\n");
    }

    fn shows(&self, look: Look) -> bool {
        let marked = |marks: &[Mark]| marks.iter().any(|one| one.look == look);
        let spanned = |spans: &[Span]| spans.iter().any(|one| one.look == look);
        let lane = |lane: &Lane| {
            marked(&lane.marks)
                || marked(&lane.ticks)
                || spanned(&lane.bars)
                || lane.bands.iter().any(|band| spanned(&band.spans))
        };
        marked(&self.moments) || self.lanes.iter().any(lane)
    }

    /// All marks in words, by time, with the numbers that they have in the drawing.
    fn list(&self, out: &mut String) {
        let mut rows: Vec<(String, &str, &Mark)> = Vec::new();
        for (lane, numbers) in self.lanes.iter().zip(self.numbers()) {
            let marks = lane.marks.iter().zip(numbers);
            rows.extend(marks.map(|(mark, n)| (n.to_string(), lane.name.as_str(), mark)));
        }
        rows.extend(self.moments.iter().map(|mark| (String::new(), "", mark)));
        if rows.is_empty() {
            return;
        }
        rows.sort_by_key(|(_, _, mark)| mark.at);
        out.push_str("<h2>What struck, and who acted</h2>\n<table>\n");
        for (number, name, mark) in rows {
            let (at, class) = (clock(mark.at), mark.look.class());
            let (name, text) = (escape(name), escape(&mark.text));
            let _ = writeln!(
                out,
                "<tr class=\"{class}\"><td>{number}</td><td>{at}</td><td>{name}</td>\
                 <td>{text}</td></tr>"
            );
        }
        out.push_str("</table>\n");
    }
}

/// The names of lanes and of their rows.
fn names(out: &mut String, placed: &[Placed<'_>]) {
    out.push_str("<div class=\"names\"><div class=\"corner\"></div>\n");
    for (position, one) in placed.iter().enumerate() {
        let shade = ["even", "odd"][position % 2];
        let (name, detail) = (escape(&one.lane.name), escape(&one.lane.detail));
        let _ = write!(
            out,
            "<div class=\"lane {shade}\" style=\"height:{}px\"><b>{name}</b> <i>{detail}</i>",
            one.height
        );
        let lane = one.lane;
        let bands = lane.bands.iter().map(|band| band.name.as_str());
        let ticks = (!lane.ticks.is_empty()).then_some(lane.ticks_name.as_str());
        let bars = (!lane.bars.is_empty()).then_some(lane.bars_name.as_str());
        for (row, text) in bands.chain(ticks).chain(bars).enumerate() {
            let (top, text) = (MARKS + row * ROW, escape(text));
            let _ = write!(out, "<small style=\"top:{top}px\">{text}</small>");
        }
        out.push_str("</div>\n");
    }
    out.push_str("</div>\n");
}

/// Puts each bar of a lane into the first row that is free.
fn rows(lane: &Lane) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lane.bars.len()).collect();
    order.sort_by_key(|n| lane.bars[*n].from);
    let mut free: Vec<Millis> = Vec::new();
    let mut rows = vec![0; lane.bars.len()];
    for n in order {
        let bar = &lane.bars[n];
        let row = free.iter().position(|until| *until <= bar.from);
        let row = row.unwrap_or(free.len()).min(ROWS - 1);
        match free.get_mut(row) {
            Some(until) => *until = bar.to.max(*until),
            None => free.push(bar.to),
        }
        rows[n] = row;
    }
    rows
}

fn titled(at: Millis, text: &str) -> String {
    format!("<title>{} {}</title>", clock(at), escape(text))
}

/// `h:mm:ss`.
fn clock(at: Millis) -> String {
    let seconds = at / 1000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours}:{minutes:02}:{:02}", seconds % 60)
}

/// Text as text, wherever it stands in the page.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
'unsafe-inline'\">
";

const STYLE: &str = include_str!("drawing.css");

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: Millis, to: Millis) -> Span {
        Span {
            from,
            to,
            look: Look::Done,
            text: "t0 <b>\"ran\"</b> & ended".to_owned(),
        }
    }

    fn drawing(lanes: usize) -> Drawing {
        let lane = |n: usize| Lane {
            name: format!("<gw-{n}>"),
            bars: vec![span(0, 50), span(10, 20), span(20, 90)],
            marks: vec![Mark {
                at: 30,
                look: Look::Fault,
                text: "link cut".to_owned(),
            }],
            ..Lane::default()
        };
        Drawing {
            title: "a <title>".to_owned(),
            end: 100,
            lanes: (0..lanes).map(lane).collect(),
            ..Drawing::default()
        }
    }

    #[test]
    fn what_runs_at_once_stands_in_rows_of_its_own() {
        assert_eq!(rows(&drawing(1).lanes[0]), [0, 1, 1]);
    }

    #[test]
    fn no_text_becomes_markup_and_nothing_comes_from_elsewhere() {
        for lanes in [0, 1, 50] {
            let page = drawing(lanes).html();
            assert!(page.contains("<title>a &lt;title&gt;</title>"));
            assert!(!page.contains("<gw-") && !page.contains("<b>\""));
            for word in ["<script", "http:", "https:", "url(", "@import", "src="] {
                assert!(!page.contains(word), "{word}");
            }
            assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
            assert_eq!(page.matches("class=\"mark\"").count(), lanes);
        }
    }

    #[test]
    fn the_axis_has_few_labels_whatever_the_length() {
        for end in [0, 900, 60_000, 7 * 3_600_000, 90 * 86_400_000] {
            let one = Drawing {
                end,
                ..Drawing::default()
            };
            assert!((1..=11).contains(&one.ticks(1).count()), "{end}");
            assert!(one.ticks(64).count() <= 641, "{end}");
        }
    }
}
