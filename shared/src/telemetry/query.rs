//! Questions about what was measured, answered in the same way on both sides.

use super::{At, Block, Cell, Key, RangeSet};
use crate::ids::Incarnation;
use crate::time::{Span, Unix};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values of one answer, at most.
const VALUES: usize = 200_000;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Names of series, or beginnings of names of metrics; all if empty.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Only what was measured behind this instant, by the node's wall clock.
    pub since: Unix,
    /// Only what was measured up to this instant.
    pub until: Unix,
    /// Values of so long a time become one; 0 for all as they are.
    #[serde(default)]
    pub step: Span,
}

/// One series.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Its name: a metric with its unit, and what it was measured of.
    pub name: String,
    /// Its values, oldest first.
    pub values: Vec<Value>,
}

/// A value of a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Value {
    /// When its time ends (its first moment, if a step was asked for), by the node's wall clock.
    pub at: Unix,
    /// Mean of its samples.
    pub mean: i64,
    /// The smallest one.
    pub min: i64,
    /// The largest one.
    pub max: i64,
    /// How many.
    pub samples: u32,
}

impl Series {
    /// All its values as one, with the time of the last; none if there are none.
    #[must_use]
    pub fn whole(&self) -> Option<Value> {
        let mut sum = Cell::default();
        for value in &self.values {
            sum.add(&Cell {
                count: value.samples,
                sum: value.mean.saturating_mul(i64::from(value.samples)),
                min: value.min,
                max: value.max,
            });
        }
        Some(Value {
            at: self.values.last()?.at,
            mean: sum.mean()?,
            min: sum.min,
            max: sum.max,
            samples: sum.count,
        })
    }
}

/// At most `most` values that say what `values` say: neighbours become one.
#[must_use]
pub fn fewer(values: &[Value], most: usize) -> Vec<Value> {
    let each = values.len().div_ceil(most.max(1)).max(1);
    let parts = values.chunks(each).map(|part| Series {
        name: String::new(),
        values: part.to_vec(),
    });
    parts.filter_map(|part| part.whole()).collect()
}

/// The means of `values` as a line of bars between the smallest and the largest one.
#[must_use]
pub fn sparkline(values: &[Value]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let means = || values.iter().map(|value| i128::from(value.mean));
    let (Some(least), Some(most)) = (means().min(), means().max()) else {
        return String::new();
    };
    let width = (most - least).max(1);
    let bar = |mean: i128| usize::try_from((mean - least) * 7 / width).unwrap_or(0);
    means().map(|mean| BARS[bar(mean)]).collect()
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// The series, by name.
    pub series: Vec<Series>,
    /// There was more: ask for a shorter time, a longer step or fewer metrics.
    pub truncated: bool,
}

/// Collects the answer from blocks. All of them are noted first, then taken.
#[derive(Debug)]
pub struct Collector {
    query: Query,
    /// By level of thinning: what is summed up in points of that level.
    sums: BTreeMap<(Incarnation, u8), RangeSet>,
    series: BTreeMap<Key, BTreeMap<i64, Cell>>,
    values: usize,
    truncated: bool,
}

impl Collector {
    /// Nothing yet.
    #[must_use]
    pub fn new(query: Query) -> Self {
        Self {
            query,
            sums: BTreeMap::new(),
            series: BTreeMap::new(),
            values: 0,
            truncated: false,
        }
    }

    /// Whether a block may hold something that was asked for, or something coarser of it.
    pub fn note(&mut self, who: Incarnation, block: &Block) {
        if block.level > 0 {
            let sums = self.sums.entry((who, block.level)).or_default();
            sums.insert(block.range());
        }
    }

    /// Takes the points of a block. A point that a coarser one sums up, too, is left out: its
    /// samples would count twice.
    pub fn take(&mut self, who: Incarnation, block: &Block) {
        let wanted: Vec<usize> = (0..block.keys.len())
            .filter(|at| self.wants(&block.keys[*at]))
            .collect();
        for point in &block.points {
            let at = At {
                boot: block.boot,
                ms: point.ms,
            };
            let coarser = (block.level.saturating_add(1)..4).any(|level| {
                let sums = self.sums.get(&(who, level));
                sums.is_some_and(|sums| sums.contains(at))
            });
            let inside = self.query.since < point.wall && point.wall <= self.query.until;
            if coarser || !inside {
                continue;
            }
            for key in &wanted {
                self.add(&block.keys[*key], point.wall, &point.cells[*key]);
            }
        }
    }

    fn wants(&self, key: &Key) -> bool {
        let names = &self.query.metrics;
        names.is_empty() || names.iter().any(|name| key.is_meant_by(name))
    }

    fn add(&mut self, key: &Key, at: Unix, cell: &Cell) {
        if cell.count == 0 {
            return;
        }
        let slot = match i64::try_from(self.query.step.0) {
            Ok(step) if step > 0 => at.0.div_euclid(step) * step,
            _ => at.0,
        };
        if !self.series.contains_key(key) {
            self.series.insert(key.clone(), BTreeMap::new());
        }
        let Some(values) = self.series.get_mut(key) else {
            return;
        };
        if let Some(sum) = values.get_mut(&slot) {
            sum.add(cell);
        } else if self.values < VALUES {
            values.insert(slot, *cell);
            self.values += 1;
        } else {
            self.truncated = true;
        }
    }

    /// The answer.
    #[must_use]
    pub fn answer(self) -> Answer {
        let value = |(at, cell): (i64, Cell)| {
            Some(Value {
                at: Unix(at),
                mean: cell.mean()?,
                min: cell.min,
                max: cell.max,
                samples: cell.count,
            })
        };
        let series = self.series.into_iter().map(|(key, values)| Series {
            name: key.to_string(),
            values: values.into_iter().filter_map(value).collect(),
        });
        Answer {
            series: series.collect(),
            truncated: self.truncated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Metric, Sample};
    use super::*;
    use crate::ids::BootId;

    fn block(level: u8, after: u64, points: &[(u64, i64)]) -> Block {
        let mut block = Block::new(1, BootId::default(), level, after);
        for (ms, value) in points {
            let values = [(Metric::Load, *value), (Metric::CpuBusy, 1)];
            block.push(&Sample {
                ms: *ms,
                wall: Unix(ms.cast_signed()),
                fact: 0,
                values: values.map(|(m, v)| (Key::new(m, ""), v)).to_vec(),
            });
        }
        block
    }

    fn ask(metrics: &[&str], step: u64, blocks: &[Block]) -> Answer {
        let who = Incarnation::default();
        let mut collector = Collector::new(Query {
            metrics: metrics.iter().map(|&name| name.to_owned()).collect(),
            since: Unix(0),
            until: Unix(100),
            step: Span(step),
        });
        for block in blocks {
            collector.note(who, block);
        }
        for block in blocks {
            collector.take(who, block);
        }
        collector.answer()
    }

    #[test]
    fn a_line_of_bars_goes_from_the_smallest_to_the_largest() {
        let value = |mean| Value {
            at: Unix(0),
            mean,
            min: mean,
            max: mean,
            samples: 1,
        };
        let values = [i64::MIN, 0, i64::MAX].map(value);
        assert_eq!(sparkline(&values), "▁▄█");
        assert_eq!(sparkline(&[value(5)]), "▁");
        assert_eq!(sparkline(&[]), "");
    }

    #[test]
    fn steps_sum_up_and_nothing_counts_twice() {
        let fine = block(0, 0, &[(10, 4), (20, 8), (30, 1), (200, 7)]);
        let answer = ask(&["load"], 25, std::slice::from_ref(&fine));
        assert_eq!(answer.series.len(), 1);
        let values: Vec<(i64, i64, u32)> = answer.series[0]
            .values
            .iter()
            .map(|v| (v.at.0, v.mean, v.samples))
            .collect();
        assert_eq!(values, [(0, 6, 2), (25, 1, 1)]);
        let coarse = block(1, 0, &[(20, 12)]);
        let answer = ask(&[], 0, &[fine, coarse]);
        assert_eq!(answer.series.len(), 2);
        let load = answer.series.iter().find(|s| s.name == "load_1m_milli");
        let values: Vec<i64> = load.unwrap().values.iter().map(|v| v.mean).collect();
        assert_eq!(values, [12, 1]);
    }
}
