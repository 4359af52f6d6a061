//! A drawing of the graph that stands for itself: no script, no font, light and dark.

use super::layout::{self, Layout, Line};
use super::{Picture, text};
use crate::workflow::Task;
use std::fmt::Write as _;

/// Characters of an id shown in its box.
const LABEL_SHOWN: usize = 28;
/// Estimated width of a character of the label.
const CHARACTER: f64 = 7.4;
/// Narrowest drawing, so that the head has room.
const LEAST_WIDTH: f64 = 460.0;

const STYLE: &str = "\
.ground{fill:#fff}.box{fill:#f4f6f8;stroke:#9aa5b1}.label{fill:#1f2933}.line{stroke:#9aa5b1}\
.tip{fill:#9aa5b1}.head{fill:#1f2933}.note{fill:#616e7c}.hot .box{fill:#fff4ed;stroke:#d9480f}\
.hot.line{stroke:#d9480f}.hot.tip{fill:#d9480f}.off .box{stroke-dasharray:4 3}\
.off .label{fill:#7b8794}\
@media (prefers-color-scheme:dark){.ground{fill:#14181d}.box{fill:#1f2630;stroke:#52606d}\
.label,.head{fill:#e4e7eb}.line{stroke:#52606d}.tip{fill:#52606d}.note{fill:#9aa5b1}\
.hot .box{fill:#33201a;stroke:#ff8a4c}.hot.line{stroke:#ff8a4c}.hot.tip{fill:#ff8a4c}}";

/// Draws it.
pub(super) fn draw(picture: &Picture<'_>) -> String {
    let tasks = &picture.workflow.tasks;
    let widths: Vec<f64> = tasks
        .iter()
        .map(|t| label(t).chars().count() as f64 * CHARACTER + 26.0)
        .collect();
    let layout = layout::place(picture, &widths);
    let (width, height) = (layout.width.max(LEAST_WIDTH), layout.height);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n",
        escaped(&picture.workflow.name)
    );
    let _ = writeln!(
        out,
        "<rect class=\"ground\" width=\"100%\" height=\"100%\"/>"
    );
    head(&mut out, picture);
    lines(&mut out, picture, &layout);
    for (index, place) in picture.indices().zip(&layout.boxes) {
        let task = picture.task(index);
        let mut class = if picture.is_critical(index) {
            "hot"
        } else {
            "cool"
        }
        .to_owned();
        if task.when.as_ref().is_some_and(|when| !when.holds) {
            class.push_str(" off");
        }
        let (x, top, wide, high) = (place.x, place.top(), place.width, layout::box_height());
        let _ = writeln!(
            out,
            "<g class=\"{class}\"><title>{}\n{}</title><rect class=\"box\" x=\"{x:.1}\" \
             y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" rx=\"7\" \
             stroke-width=\"1.4\"/>\
             <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></g>",
            escaped(&task.id),
            escaped(&text::runs(task)),
            x + wide / 2.0,
            place.middle + 4.5,
            escaped(&label(task)),
        );
    }
    out.push_str("</svg>\n");
    out
}

fn head(out: &mut String, picture: &Picture<'_>) {
    let tasks = &picture.workflow.tasks;
    let edges: usize = tasks.iter().map(|task| task.needs.len()).sum();
    let _ = writeln!(
        out,
        "<text class=\"head\" x=\"28\" y=\"36\" font-size=\"18\" font-weight=\"600\">{}</text>",
        escaped(&picture.workflow.name)
    );
    let _ = writeln!(
        out,
        "<text class=\"note\" x=\"28\" y=\"57\">{} tasks, {edges} edges, \
         critical path of {}</text>",
        tasks.len(),
        picture.critical.len()
    );
    let _ = writeln!(
        out,
        "<path class=\"hot line\" d=\"M300 53h26\" stroke-width=\"2.4\" fill=\"none\"/>\
         <text class=\"note\" x=\"334\" y=\"57\">critical path</text>"
    );
}

/// Lines first, those of the critical path above the others.
fn lines(out: &mut String, picture: &Picture<'_>, layout: &Layout) {
    for wanted in [false, true] {
        for line in &layout.lines {
            let hot = picture.is_critical_edge(line.from, line.to);
            if hot == wanted {
                let (class, width) = if hot { ("hot ", 2.4) } else { ("", 1.4) };
                let (x, y) = line.points[line.points.len() - 1];
                let _ = writeln!(
                    out,
                    "<path class=\"{class}line\" d=\"{}\" fill=\"none\" stroke-width=\"{width}\"/>\
                     <path class=\"{class}tip\" d=\"M{x:.1} {y:.1}l-8-4v8z\"/>",
                    curve(line)
                );
            }
        }
    }
}

/// Straight along columns, a soft S between them.
fn curve(line: &Line) -> String {
    let (x, y) = line.points[0];
    let mut path = format!("M{x:.1} {y:.1}");
    let last = line.points.len() - 1;
    for (n, pair) in line.points.windows(2).enumerate() {
        let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
        // The tip is drawn apart; the line ends inside it.
        let bx = if n + 1 == last { bx - 5.0 } else { bx };
        let half = f64::midpoint(ax, bx);
        if (ay - by).abs() < 0.5 {
            let _ = write!(path, "L{bx:.1} {by:.1}");
        } else {
            let _ = write!(path, "C{half:.1} {ay:.1} {half:.1} {by:.1} {bx:.1} {by:.1}");
        }
    }
    path
}

fn label(task: &Task) -> String {
    let mut short: String = task.id.chars().take(LABEL_SHOWN).collect();
    if short.len() < task.id.len() {
        short.push('…');
    }
    short
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 has no way to write these.
            c if c.is_control() && c != '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
