//! Where boxes and lines of a layered drawing go: one column a level, lines that pass a column
//! hold a place in it, rows are ordered to cross little and moved to where their neighbours are.

use super::Picture;
use crate::ids::TaskIdx;

/// Places that passing lines may take; beyond, lines go straight through.
const PASSING_MOST: usize = 20_000;
const SWEEPS: usize = 12;
const BOX_HEIGHT: f64 = 34.0;
const PASSING_HEIGHT: f64 = 2.0;
const ROW_GAP: f64 = 16.0;
const COLUMN_GAP: f64 = 64.0;
const MARGIN: f64 = 28.0;
/// Room for the title above the columns.
const HEAD: f64 = 56.0;

/// A box, by its left edge and its middle line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) middle: f64,
    pub(super) width: f64,
}

impl Place {
    pub(super) fn top(&self) -> f64 {
        self.middle - BOX_HEIGHT / 2.0
    }
}

/// Height of every box.
pub(super) const fn box_height() -> f64 {
    BOX_HEIGHT
}

/// A line from box to box with the points where it enters and leaves columns between.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) from: TaskIdx,
    pub(super) to: TaskIdx,
    pub(super) points: Vec<(f64, f64)>,
}

/// A drawing.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) boxes: Vec<Place>,
    pub(super) lines: Vec<Line>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// What takes a row of a column: the first are the tasks, in their order, then passing lines.
#[derive(Default)]
struct Rows {
    column: Vec<usize>,
    height: Vec<f64>,
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
}

impl Rows {
    fn push(&mut self, column: usize, height: f64) -> usize {
        self.column.push(column);
        self.height.push(height);
        self.before.push(Vec::new());
        self.after.push(Vec::new());
        self.column.len() - 1
    }

    fn join(&mut self, from: usize, to: usize) {
        self.after[from].push(to);
        self.before[to].push(from);
    }
}

/// Places boxes of these widths.
pub(super) fn place(picture: &Picture<'_>, widths: &[f64]) -> Layout {
    let mut rows = Rows::default();
    for index in picture.indices() {
        rows.push(picture.level(index), BOX_HEIGHT);
    }
    let span = |(from, to): (TaskIdx, TaskIdx)| picture.level(to) - picture.level(from) - 1;
    let passing: usize = picture.edges().map(span).sum();
    let mut routes = Vec::new();
    for (from, to) in picture.edges() {
        let mut route = vec![from.0 as usize];
        if passing <= PASSING_MOST {
            for column in picture.level(from) + 1..picture.level(to) {
                let row = rows.push(column, PASSING_HEIGHT);
                rows.join(route[route.len() - 1], row);
                route.push(row);
            }
            rows.join(route[route.len() - 1], to.0 as usize);
        }
        routes.push((from, to, route));
    }
    let mut columns = vec![Vec::new(); rows.column.iter().max().map_or(0, |c| c + 1)];
    for (row, column) in rows.column.iter().enumerate() {
        columns[*column].push(row);
    }
    order_rows(&rows, &mut columns);
    let middles = middles(&rows, &columns);
    finish(&rows, &columns, &middles, widths, routes)
}

/// Sweeps to and fro; the order with the fewest crossings stays.
fn order_rows(rows: &Rows, columns: &mut Vec<Vec<usize>>) {
    let mut position = vec![0.0; rows.column.len()];
    let settle = |column: &[usize], position: &mut Vec<f64>| {
        for (n, row) in column.iter().enumerate() {
            position[*row] = n as f64;
        }
    };
    for column in columns.iter() {
        settle(column, &mut position);
    }
    let (mut best, mut fewest) = (columns.clone(), crossings(rows, columns));
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        for step in 1..columns.len() {
            let at = if forth {
                step
            } else {
                columns.len() - 1 - step
            };
            let mut keyed: Vec<(f64, usize)> = columns[at]
                .iter()
                .map(|row| {
                    let near = if forth {
                        &rows.before[*row]
                    } else {
                        &rows.after[*row]
                    };
                    (mean(near, &position).unwrap_or(position[*row]), *row)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            columns[at] = keyed.into_iter().map(|(_, row)| row).collect();
            settle(&columns[at], &mut position);
        }
        let now = crossings(rows, columns);
        if now < fewest {
            (best, fewest) = (columns.clone(), now);
        }
    }
    *columns = best;
}

fn mean(near: &[usize], position: &[f64]) -> Option<f64> {
    let sum: f64 = near.iter().map(|row| position[*row]).sum();
    (!near.is_empty()).then(|| sum / near.len() as f64)
}

/// How often lines cross: pairs that stand in one order on the left and in the other on the right.
fn crossings(rows: &Rows, columns: &[Vec<usize>]) -> u64 {
    let mut position = vec![0; rows.column.len()];
    for column in columns {
        for (n, row) in column.iter().enumerate() {
            position[*row] = n;
        }
    }
    let mut total = 0;
    for pair in columns.windows(2) {
        // A Fenwick tree counts how many lines seen so far end at or above a row.
        let mut tree = vec![0_u64; pair[1].len() + 1];
        let mut seen = 0;
        for row in &pair[0] {
            let mut ends: Vec<usize> = rows.after[*row].iter().map(|to| position[*to]).collect();
            ends.sort_unstable();
            for end in &ends {
                let (mut above, mut i) = (0, end + 1);
                while i > 0 {
                    above += tree[i];
                    i &= i - 1;
                }
                total += seen - above;
            }
            for end in &ends {
                seen += 1;
                let mut i = end + 1;
                while i < tree.len() {
                    tree[i] += 1;
                    i += i & i.wrapping_neg();
                }
            }
        }
    }
    total
}

/// The middle line of each row: near the mean of its neighbours, in order and without overlaps.
fn middles(rows: &Rows, columns: &[Vec<usize>]) -> Vec<f64> {
    let mut middle = vec![0.0; rows.column.len()];
    for column in columns {
        let wanted: Vec<f64> = column.iter().map(|_| 0.0).collect();
        spread(rows, column, &wanted, &mut middle);
    }
    for sweep in 0..SWEEPS {
        for step in 0..columns.len() {
            let forth = sweep % 2 == 0;
            let column = &columns[if forth {
                step
            } else {
                columns.len() - 1 - step
            }];
            let wanted: Vec<f64> = column
                .iter()
                .map(|row| {
                    let (first, second) = match forth {
                        true => (&rows.before[*row], &rows.after[*row]),
                        false => (&rows.after[*row], &rows.before[*row]),
                    };
                    let (first, second) = (mean(first, &middle), mean(second, &middle));
                    match (first, second) {
                        // At the end both sides count, so that straight runs become straight.
                        (Some(a), Some(b)) if sweep + 4 >= SWEEPS => f64::midpoint(a, b),
                        _ => first.or(second).unwrap_or(middle[*row]),
                    }
                })
                .collect();
            spread(rows, column, &wanted, &mut middle);
        }
    }
    straighten(rows, columns, &mut middle);
    middle
}

/// Moves rows that alone follow another one to its height, where that is near.
fn straighten(rows: &Rows, columns: &[Vec<usize>], middle: &mut [f64]) {
    for column in columns {
        let wanted: Vec<f64> = column
            .iter()
            .map(|row| match rows.before[*row][..] {
                [before] if rows.after[before].len() == 1 => middle[before],
                _ => middle[*row],
            })
            .collect();
        spread(rows, column, &wanted, middle);
    }
}

/// Moves the rows of a column as little as possible from where they want to be (least squares:
/// rows that would overlap form a group around their common mean).
fn spread(rows: &Rows, column: &[usize], wanted: &[f64], middle: &mut [f64]) {
    let mut offset = 0.0;
    let mut offsets = Vec::with_capacity(column.len());
    let mut groups: Vec<(f64, f64)> = Vec::new();
    for (n, row) in column.iter().enumerate() {
        if n > 0 {
            let before = rows.height[column[n - 1]];
            offset += before / 2.0 + ROW_GAP + rows.height[*row] / 2.0;
        }
        offsets.push(offset);
        let (mut sum, mut size) = (wanted[n] - offset, 1.0);
        while let Some((s, n)) = groups.last().copied() {
            if s / n < sum / size {
                break;
            }
            groups.pop();
            (sum, size) = (sum + s, size + n);
        }
        groups.push((sum, size));
    }
    let bases = groups
        .iter()
        .flat_map(|(sum, size)| std::iter::repeat_n(sum / size, *size as usize));
    for ((row, offset), base) in column.iter().zip(offsets).zip(bases) {
        middle[*row] = base + offset;
    }
}

fn finish(
    rows: &Rows,
    columns: &[Vec<usize>],
    middles: &[f64],
    widths: &[f64],
    routes: Vec<(TaskIdx, TaskIdx, Vec<usize>)>,
) -> Layout {
    let top = middles
        .iter()
        .zip(&rows.height)
        .map(|(m, h)| m - h / 2.0)
        .fold(f64::MAX, f64::min);
    let low = middles
        .iter()
        .zip(&rows.height)
        .map(|(m, h)| m + h / 2.0)
        .fold(f64::MIN, f64::max);
    let shift = HEAD + MARGIN - if top.is_finite() { top } else { 0.0 };
    let mut left = Vec::with_capacity(columns.len());
    let mut wide = Vec::with_capacity(columns.len());
    let mut x = MARGIN;
    for column in columns {
        let width = column
            .iter()
            .filter_map(|row| widths.get(*row))
            .copied()
            .fold(0.0, f64::max);
        left.push(x);
        wide.push(width);
        x += width + COLUMN_GAP;
    }
    let boxes: Vec<Place> = widths
        .iter()
        .enumerate()
        .map(|(task, width)| {
            let (x, middle) = (left[rows.column[task]], middles[task] + shift);
            Place {
                x,
                middle,
                width: *width,
            }
        })
        .collect();
    let line = |(from, to, route): (TaskIdx, TaskIdx, Vec<usize>)| {
        let (a, b) = (&boxes[from.0 as usize], &boxes[to.0 as usize]);
        let mut points = vec![(a.x + a.width, a.middle)];
        if a.width < wide[rows.column[from.0 as usize]] {
            points.push((a.x + wide[rows.column[from.0 as usize]], a.middle));
        }
        for row in &route[1..] {
            let (column, y) = (rows.column[*row], middles[*row] + shift);
            points.extend([(left[column], y), (left[column] + wide[column], y)]);
        }
        points.push((b.x, b.middle));
        Line { from, to, points }
    };
    let lines = routes.into_iter().map(line).collect();
    let height = if top < low { low - top } else { 0.0 } + HEAD + 2.0 * MARGIN;
    Layout {
        boxes,
        lines,
        width: x - COLUMN_GAP + MARGIN,
        height,
    }
}
