//! How numbers spread, as a picture: so many seeds in each of some stretches of equal length, what
//! never ended beside them.

use sim::drawing::escape;
use std::fmt::Write as _;

/// Most bars of a picture.
const BARS: u64 = 24;
/// Where bars stand in the picture.
const LEFT: f64 = 34.0;
const WIDTH: f64 = 600.0;
const TOP: f64 = 10.0;
/// A row above them, for the name of a mark.
const ROW: f64 = 13.0;
const HEIGHT: f64 = 130.0;
/// What a letter takes, about.
const LETTER: f64 = 6.2;

/// A line across the bars.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) name: &'static str,
    pub(super) at: u64,
}

/// Numbers of seeds.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) title: &'static str,
    /// Of each seed; none: it never ended. And whether its run succeeded.
    pub(super) values: Vec<(Option<u64>, bool)>,
    pub(super) marks: Vec<Mark>,
    /// How long a stretch may be, shortest first.
    pub(super) steps: Vec<u64>,
    /// A number for people.
    pub(super) show: fn(u64) -> String,
}

/// Stretches of equal length.
#[derive(Debug, PartialEq, Eq)]
struct Spread {
    from: u64,
    step: u64,
    /// Seeds whose run succeeded, and others, of each stretch.
    bars: Vec<[u64; 2]>,
    /// What never ended.
    never: u64,
}

impl Spread {
    fn of(picture: &Picture) -> Self {
        let values = &picture.values;
        let known = values.iter().filter_map(|(value, _)| *value);
        let all = known.chain(picture.marks.iter().map(|mark| mark.at));
        let (least, most) = all.fold((u64::MAX, 0), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        let least = least.min(most);
        let mut steps = picture.steps.iter().copied();
        let fits = |step: &u64| most / step - least / step < BARS;
        let step = steps.find(fits).unwrap_or((most - least) / (BARS - 1) + 1);
        let first = least / step;
        let mut bars = vec![[0, 0]; (most / step - first + 1) as usize];
        let mut never = 0;
        for (value, good) in values {
            match value {
                Some(value) => bars[(value / step - first) as usize][usize::from(!good)] += 1,
                None => never += 1,
            }
        }
        Self {
            from: first * step,
            step,
            bars,
            never,
        }
    }

    /// Places for bars; what never ended stands behind a gap.
    fn places(&self) -> usize {
        self.bars.len() + if self.never > 0 { 2 } else { 0 }
    }

    fn most(&self) -> u64 {
        let sums = self.bars.iter().map(|[good, bad]| good + bad);
        sums.chain([self.never, 1]).max().unwrap_or(1)
    }
}

impl Picture {
    /// The figure.
    pub(super) fn draw(&self) -> String {
        let spread = Spread::of(self);
        let title = escape(self.title);
        let (most, top) = (spread.most(), self.top());
        let bottom = top + HEIGHT;
        let mut out = format!(
            "<figure><figcaption>{title}</figcaption>\n\
             <svg viewBox=\"0 0 640 {}\" role=\"img\" aria-label=\"{title}\">\n\
             <text class=\"dim\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{most}</text>\n\
             <line x1=\"{LEFT}\" x2=\"{}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\n",
            bottom + 22.0,
            LEFT - 4.0,
            top + 8.0,
            LEFT + WIDTH,
        );
        let wide = WIDTH / spread.places() as f64;
        for (position, bar) in spread.bars.iter().enumerate() {
            let from = spread.from + position as u64 * spread.step;
            let to = (self.show)(from + spread.step);
            let what = format!("{} to {to}", (self.show)(from));
            self.column(&mut out, (position, wide), *bar, most, &what);
        }
        if spread.never > 0 {
            let position = spread.places() - 1;
            let bar = [0, spread.never];
            self.column(&mut out, (position, wide), bar, most, "not over in time");
            let x = LEFT + WIDTH;
            let _ = writeln!(
                out,
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"end\">not over</text>",
                bottom + 16.0
            );
        }
        self.axis(&mut out, &spread, wide);
        self.lines(&mut out, &spread, wide);
        out.push_str("</svg></figure>\n");
        out
    }

    /// Where the highest bar ends.
    fn top(&self) -> f64 {
        TOP + ROW * self.marks.len() as f64
    }

    /// Labels below the bars, as many as have room.
    fn axis(&self, out: &mut String, spread: &Spread, wide: f64) {
        let mut free = f64::MIN;
        for position in 0..=spread.bars.len() {
            let text = (self.show)(spread.from + position as u64 * spread.step);
            let (x, half) = (
                LEFT + position as f64 * wide,
                text.len() as f64 * LETTER / 2.0,
            );
            if x - half < free || x + half > 640.0 {
                continue;
            }
            free = x + half + 8.0;
            let y = self.top() + HEIGHT + 16.0;
            let _ = writeln!(
                out,
                "<text class=\"dim\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>"
            );
        }
    }

    /// A bar at a place: what succeeded, and what did not on top of it.
    fn column(
        &self,
        out: &mut String,
        (position, wide): (usize, f64),
        bar: [u64; 2],
        most: u64,
        what: &str,
    ) {
        let tall = |n: u64| n as f64 / most as f64 * HEIGHT;
        let x = LEFT + position as f64 * wide + 0.5;
        let mut y = self.top() + HEIGHT;
        for (n, class, ended) in [(bar[0], "done", "succeeded"), (bar[1], "failed", "did not")] {
            if n == 0 {
                continue;
            }
            y -= tall(n);
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
                 height=\"{:.1}\"><title>{what}: {n} {ended}</title></rect>",
                wide - 1.0,
                tall(n)
            );
        }
    }

    /// Marks, each with its name in a row of its own.
    fn lines(&self, out: &mut String, spread: &Spread, wide: f64) {
        for (row, mark) in self.marks.iter().enumerate() {
            let far = (mark.at - spread.from) as f64 / spread.step as f64;
            let (x, y) = (LEFT + far * wide, 12.0 + row as f64 * ROW);
            let text = format!("{} {}", mark.name, (self.show)(mark.at));
            let room = x + text.len() as f64 * LETTER < 640.0;
            let (anchor, off) = if room { ("start", 4.0) } else { ("end", -4.0) };
            let _ = writeln!(
                out,
                "<line class=\"at\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>",
                y - 8.0,
                self.top() + HEIGHT,
                x + off
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(values: &[(Option<u64>, bool)], marks: &[u64]) -> Picture {
        let mark = |at: &u64| Mark { name: "m", at: *at };
        Picture {
            title: "a <title>",
            values: values.to_vec(),
            marks: marks.iter().map(mark).collect(),
            steps: vec![1, 10],
            show: |n| n.to_string(),
        }
    }

    #[test]
    fn each_seed_is_in_one_bar() {
        let values = [
            (Some(31), true),
            (Some(39), true),
            (Some(45), false),
            (None, false),
            (Some(58), true),
        ];
        let wanted = Spread {
            from: 20,
            step: 10,
            bars: vec![[0, 0], [2, 0], [0, 1], [1, 0]],
            never: 1,
        };
        assert_eq!(Spread::of(&picture(&values, &[29])), wanted);
        assert_eq!(wanted.places(), 6);
    }

    #[test]
    fn few_and_far_numbers_can_be_drawn() {
        let far = [(Some(0), true), (Some(u64::MAX / 2), true)];
        for values in [&[][..], &[(None, false)], &[(Some(7), true)], &far] {
            let picture = picture(values, &[]);
            let spread = Spread::of(&picture);
            assert!(spread.bars.len() as u64 <= BARS + 1, "{spread:?}");
            let drawn = picture.draw();
            assert!(drawn.contains("a &lt;title&gt;") && !drawn.contains("NaN"));
        }
    }
}
