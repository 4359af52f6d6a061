//! Blocks of points: in memory by row, packed by column (differences of neighbours, zstd).

use super::{At, KEYS_PER_BLOCK, Key, POINTS_PER_BLOCK, Range};
use crate::codec::{self, DecodeError};
use crate::ids::BootId;
use crate::time::Unix;
use serde::{Deserialize, Serialize};

/// Bytes of a block's columns, decompressed, at most.
const COLUMN_BYTES: usize = 512 * 1024;

/// What one series was within a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// Samples in it; 0: it was not measured.
    pub count: u32,
    /// Sum of its samples; the mean is this by `count`.
    pub sum: i64,
    /// Its smallest sample.
    pub min: i64,
    /// Its largest sample.
    pub max: i64,
}

impl Cell {
    /// One sample.
    #[must_use]
    pub fn one(value: i64) -> Self {
        Self {
            count: 1,
            sum: value,
            min: value,
            max: value,
        }
    }

    /// Takes the samples of `other` in.
    pub fn add(&mut self, other: &Self) {
        if self.count == 0 {
            *self = *other;
        } else if other.count > 0 {
            self.count = self.count.saturating_add(other.count);
            self.sum = self.sum.saturating_add(other.sum);
            self.min = self.min.min(other.min);
            self.max = self.max.max(other.max);
        }
    }

    /// Mean of its samples; none if there are none.
    #[must_use]
    pub fn mean(&self) -> Option<i64> {
        (self.count > 0).then(|| self.sum / i64::from(self.count))
    }
}

/// One row: a sample, or the sum of several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Point {
    /// Boot clock at its last sample, milliseconds. It covers the time since the point before it.
    pub ms: u64,
    /// Wall clock at its last sample, as the node believed it.
    pub wall: Unix,
    /// Number of the node's last fact at its last sample.
    pub fact: u64,
    /// One for each key of the block.
    pub cells: Vec<Cell>,
}

/// Points of one boot and one level, without a hole between them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// Number of the boot.
    pub boot: u32,
    /// The kernel's boot.
    pub boot_id: BootId,
    /// 0: single samples; above: the levels of thinning.
    pub level: u8,
    /// Boot clock behind which it begins, milliseconds.
    pub after: u64,
    /// Its series.
    pub keys: Vec<Key>,
    /// Its points, in order.
    pub points: Vec<Point>,
}

/// What was measured at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sample {
    /// Boot clock, milliseconds.
    pub ms: u64,
    /// Wall clock.
    pub wall: Unix,
    /// Number of the node's last fact.
    pub fact: u64,
    /// Values by series.
    pub values: Vec<(Key, i64)>,
}

#[derive(Serialize, Deserialize)]
struct Packed {
    boot: u32,
    boot_id: BootId,
    level: u8,
    after: u64,
    keys: Vec<Key>,
    points: u32,
    columns: Vec<i64>,
}

/// Columns beside those of the series: boot clock, wall clock against it, fact.
const COMMON: usize = 3;

fn columns_per_key(level: u8) -> usize {
    if level == 0 { 2 } else { 4 }
}

impl Block {
    /// A block without points that begins behind `after`.
    #[must_use]
    pub fn new(boot: u32, boot_id: BootId, level: u8, after: u64) -> Self {
        Self {
            boot,
            boot_id,
            level,
            after,
            keys: Vec::new(),
            points: Vec::new(),
        }
    }

    /// The time it covers.
    #[must_use]
    pub fn range(&self) -> Range {
        let upto = self.points.last().map_or(self.after, |point| point.ms);
        let at = |ms| At {
            boot: self.boot,
            ms,
        };
        Range::new(at(self.after), at(upto))
    }

    /// Where a series is, adding it if there is room for one more.
    pub fn column(&mut self, key: &Key) -> Option<usize> {
        if let Some(at) = self.keys.iter().position(|known| known == key) {
            return Some(at);
        }
        if self.keys.len() == KEYS_PER_BLOCK {
            return None;
        }
        self.keys.push(key.clone());
        for point in &mut self.points {
            point.cells.push(Cell::default());
        }
        Some(self.keys.len() - 1)
    }

    /// Appends a sample; it must be later than the last point.
    pub fn push(&mut self, sample: &Sample) {
        let mut cells = vec![Cell::default(); self.keys.len()];
        for (key, value) in &sample.values {
            if let Some(at) = self.column(key) {
                cells.resize(self.keys.len(), Cell::default());
                cells[at] = Cell::one(*value);
            }
        }
        self.points.push(Point {
            ms: sample.ms,
            wall: sample.wall,
            fact: sample.fact,
            cells,
        });
    }

    /// The points that lie in `range` whole; they must be neighbours.
    #[must_use]
    pub fn cut(&self, range: Range) -> Self {
        let at = |ms| At {
            boot: self.boot,
            ms,
        };
        let first = self.points.partition_point(|p| at(p.ms) <= range.after);
        let end = self.points.partition_point(|p| at(p.ms) <= range.upto);
        let before = first.checked_sub(1).map(|at| self.points[at].ms);
        Self {
            after: before.unwrap_or(self.after),
            keys: self.keys.clone(),
            points: self.points[first..end.max(first)].to_vec(),
            ..*self
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn pack(&self) -> Vec<u8> {
        let rows = self.points.len();
        let width = COMMON + self.keys.len() * columns_per_key(self.level);
        let mut columns = Vec::with_capacity(rows * width);
        let mut column = |value: &dyn Fn(&Point) -> i64| {
            let mut before = 0;
            for point in &self.points {
                let value = value(point);
                columns.push(value.wrapping_sub(before));
                before = value;
            }
        };
        column(&|p| p.ms.wrapping_sub(self.after).cast_signed());
        column(&|p| p.wall.0.wrapping_sub(p.ms.cast_signed()));
        column(&|p| p.fact.cast_signed());
        for key in 0..self.keys.len() {
            column(&|p| i64::from(p.cells[key].count));
            column(&|p| p.cells[key].sum);
            if self.level > 0 {
                column(&|p| p.cells[key].min);
                column(&|p| p.cells[key].max);
            }
        }
        let packed = Packed {
            boot: self.boot,
            boot_id: self.boot_id,
            level: self.level,
            after: self.after,
            keys: self.keys.clone(),
            points: u32::try_from(rows).unwrap_or(u32::MAX),
            columns,
        };
        codec::compress(&codec::encode(&packed))
    }

    /// Reads what [`Self::pack`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`]: no such bytes, or a block that is out of order or too large.
    pub fn unpack(bytes: &[u8]) -> Result<Self, DecodeError> {
        let bad = |what: &str| DecodeError::Malformed(what.to_owned());
        let packed: Packed = codec::decode(&codec::decompress(bytes, COLUMN_BYTES)?)?;
        let rows = packed.points as usize;
        let width = COMMON + packed.keys.len() * columns_per_key(packed.level);
        if !(1..=POINTS_PER_BLOCK).contains(&rows) || packed.keys.len() > KEYS_PER_BLOCK {
            return Err(bad("a block with too many points or series, or none"));
        }
        if packed.columns.len() != rows * width {
            return Err(bad("a block whose columns do not fit its points"));
        }
        let mut block = Self::new(packed.boot, packed.boot_id, packed.level, packed.after);
        let mut columns = packed.columns.chunks_exact(rows).map(Column::new);
        let mut next = || columns.next().unwrap_or_else(|| Column::new(&[]));
        let [mut ms, mut wall, mut fact] = [next(), next(), next()];
        let mut last = packed.after;
        for _ in 0..rows {
            let at = packed.after.wrapping_add(ms.next().cast_unsigned());
            if at <= last || at > i64::MAX.cast_unsigned() {
                return Err(bad("a block whose points are not in order"));
            }
            last = at;
            block.points.push(Point {
                ms: at,
                wall: Unix(wall.next().wrapping_add(at.cast_signed())),
                fact: fact.next().cast_unsigned(),
                cells: Vec::with_capacity(packed.keys.len()),
            });
        }
        for _ in &packed.keys {
            let (mut count, mut sum) = (next(), next());
            let (mut min, mut max) = if packed.level == 0 {
                (sum.clone(), sum.clone())
            } else {
                (next(), next())
            };
            for point in &mut block.points {
                let count = count.next();
                point.cells.push(Cell {
                    count: u32::try_from(count).map_err(|_| bad("a count out of range"))?,
                    sum: sum.next(),
                    min: min.next(),
                    max: max.next(),
                });
            }
        }
        block.keys = packed.keys;
        Ok(block)
    }
}

/// Turns the differences of a column into its values.
#[derive(Clone)]
struct Column<'a> {
    rest: &'a [i64],
    last: i64,
}

impl<'a> Column<'a> {
    fn new(rest: &'a [i64]) -> Self {
        Self { rest, last: 0 }
    }

    fn next(&mut self) -> i64 {
        if let Some((first, rest)) = self.rest.split_first() {
            (self.last, self.rest) = (self.last.wrapping_add(*first), rest);
        }
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metric;
    use super::*;
    use proptest::prelude::*;

    fn sample(ms: u64, value: i64) -> Sample {
        Sample {
            ms,
            wall: Unix(1_700_000_000_000 + ms.cast_signed()),
            fact: ms / 100,
            values: vec![(Key::new(Metric::CpuBusy, ""), value)],
        }
    }

    #[test]
    fn forty_samples_of_thirty_series_take_little_room() {
        let mut block = Block::new(1, BootId::default(), 0, 0);
        for n in 1..=40u64 {
            let values = (0..30).map(|k| {
                let key = Key::new(Metric::ALL[k % 27], if k < 27 { "" } else { "sda1" });
                (key, (k as i64) * 1000 + (n as i64 * 7919 + k as i64) % 13)
            });
            block.push(&Sample {
                values: values.collect(),
                ..sample(n * 3000, 0)
            });
        }
        let packed = block.pack();
        assert!(packed.len() < 40 * 40, "{} bytes", packed.len());
        assert_eq!(Block::unpack(&packed).unwrap(), block);
    }

    #[test]
    fn a_cut_keeps_the_line_whole() {
        let mut block = Block::new(2, BootId::default(), 0, 10);
        for ms in [20, 30, 40] {
            block.push(&sample(ms, 1));
        }
        let at = |ms| At { boot: 2, ms };
        let cut = block.cut(Range::new(at(20), at(30)));
        assert_eq!((cut.after, cut.points.len()), (20, 1));
        assert_eq!(cut.range(), Range::new(at(20), at(30)));
        assert!(block.cut(Range::new(at(40), at(90))).points.is_empty());
    }

    #[test]
    fn series_may_come_late_and_bad_bytes_are_refused() {
        let mut block = Block::new(1, BootId::default(), 0, 0);
        block.push(&sample(1, 5));
        let mut second = sample(2, 6);
        second.values.push((Key::new(Metric::DiskRead, "sda"), 7));
        block.push(&second);
        let packed = block.pack();
        let back = Block::unpack(&packed).unwrap();
        assert_eq!(back.points[0].cells[1].mean(), None);
        assert_eq!(back.points[1].cells[1].mean(), Some(7));
        assert!(Block::unpack(b"nonsense").is_err());
        let mut backwards = block.clone();
        backwards.points.swap(0, 1);
        assert!(Block::unpack(&backwards.pack()).is_err());
        let empty = Block::new(1, BootId::default(), 0, 0);
        assert!(Block::unpack(&empty.pack()).is_err());
    }

    proptest! {
        #[test]
        fn blocks_of_any_level_come_back_as_they_were(
            level in 0u8..4,
            rows in prop::collection::vec((1u64..1 << 40, any::<i64>(), any::<i64>()), 1..40)
        ) {
            let mut block = Block::new(7, BootId::default(), level, 3);
            block.column(&Key::new(Metric::Load, ""));
            let mut ms = 3;
            for (step, a, b) in rows {
                ms += step;
                let cell = if level == 0 { Cell::one(a) } else {
                    Cell { count: 20, sum: a.wrapping_mul(3), min: a.min(b), max: a.max(b) }
                };
                block.points.push(Point { ms, wall: Unix(b), fact: step, cells: vec![cell] });
            }
            prop_assert_eq!(Block::unpack(&block.pack()).unwrap(), block);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Block::unpack(&codec::compress(&bytes));
        }
    }
}
