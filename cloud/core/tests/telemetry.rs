//! The file of a node's telemetry: what was acknowledged is known after every crash, duplicates
//! count once, and the file stays bounded.

use cloud_core::telemetry::{Book, Keep, MemoryJournal, Refused};
use proptest::prelude::*;
use shared::ids::{BootId, Incarnation};
use shared::telemetry::{
    At, Block, Content, GapReason, Key, Metric, Piece, Range, RangeSet, Report, Sample,
};
use shared::time::{Span, Unix};

const WHO: Incarnation = Incarnation([7; 16]);

fn at(ms: u64) -> At {
    At { boot: 1, ms }
}

fn value(ms: u64) -> i64 {
    let mixed = ms.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32).cast_signed()
}

/// A piece with a sample each 10 ms behind `after` up to `upto`.
fn report(after: u64, upto: u64) -> Report {
    let mut block = Block::new(1, BootId::default(), 0, after);
    for ms in (after + 10..=upto).step_by(10) {
        block.push(&Sample {
            ms,
            wall: Unix(ms.cast_signed()),
            fact: 1,
            values: vec![(Key::new(Metric::Load, ""), value(ms))],
        });
    }
    Report {
        incarnation: WHO,
        piece: Piece {
            range: block.range(),
            content: Content::Block(block.pack()),
        },
    }
}

fn gap(after: u64, upto: u64, reason: GapReason) -> Report {
    Report {
        incarnation: WHO,
        piece: Piece {
            range: Range::new(at(after), at(upto)),
            content: Content::Gap(reason),
        },
    }
}

fn open(journal: &MemoryJournal, bytes: u64) -> Book<MemoryJournal> {
    let age = Span::secs(3600);
    Book::open(journal.clone(), Keep { bytes, age }).expect("a file that can be read")
}

fn samples(book: &Book<MemoryJournal>) -> Vec<u64> {
    let mut all = Vec::new();
    book.visit(|_, block| {
        for point in &block.points {
            assert_eq!(point.cells[0].sum, value(point.ms));
            all.push(point.ms);
        }
    })
    .expect("a file that can be read");
    all.sort_unstable();
    all
}

#[test]
fn pieces_come_in_any_order_and_count_once() {
    let journal = MemoryJournal::default();
    let mut book = open(&journal, 1 << 20);
    for report in [
        report(100, 200),
        report(0, 50),
        report(100, 200),
        report(60, 80),
    ] {
        book.take(report, Unix(0)).unwrap();
    }
    book.take(gap(80, 95, GapReason::Quota), Unix(0)).unwrap();
    assert!(book.is_owed());
    book.sync().unwrap();
    assert!(!book.is_owed());
    let ranges = [
        Range::new(at(0), at(50)),
        Range::new(at(60), at(95)),
        Range::new(at(100), at(200)),
    ];
    let check = |book: &Book<MemoryJournal>| {
        assert_eq!(book.receipt(WHO).ranges, ranges);
        assert_eq!(samples(book).len(), 5 + 2 + 10);
        let newest = book.newest().unwrap();
        assert_eq!((newest.at, newest.values[0].1), (at(200), value(200)));
        let missing = book.missing();
        let missing: Vec<(&str, Range)> =
            missing.iter().map(|m| (&m.reason[..], m.range)).collect();
        let expected = [
            ("not_received", Range::new(at(50), at(60))),
            ("quota", Range::new(at(80), at(95))),
            ("not_received", Range::new(at(95), at(100))),
        ];
        assert_eq!(missing, expected);
    };
    check(&book);
    drop(book);
    check(&open(&journal, 1 << 20));
}

#[test]
fn what_is_no_piece_is_refused_and_changes_nothing() {
    let journal = MemoryJournal::default();
    let mut book = open(&journal, 1 << 20);
    let mut lies = report(0, 100);
    lies.piece.range.after = at(50);
    let mut garbage = report(0, 100);
    garbage.piece.content = Content::Block(vec![1, 2, 3]);
    let backwards = gap(10, 10, GapReason::Off);
    for bad in [lies, garbage, backwards] {
        assert!(matches!(
            book.take(bad, Unix(0)),
            Err(Refused::Malformed(_))
        ));
    }
    for n in 0..1024 {
        book.take(gap(n * 10, n * 10 + 5, GapReason::Off), Unix(0))
            .unwrap();
    }
    let more = gap(90_000, 90_005, GapReason::Off);
    assert_eq!(book.take(more, Unix(0)), Err(Refused::Holes));
    assert_eq!(book.receipt(WHO).ranges.len(), 1024);
    journal.set_full(true);
    let before = book.receipt(WHO);
    assert!(book.take(gap(5, 10, GapReason::Off), Unix(0)).is_err());
    assert_eq!(book.receipt(WHO), before);
}

#[test]
fn the_file_stays_bounded_keeps_the_newest_and_knows_what_went() {
    let journal = MemoryJournal::default();
    let mut book = open(&journal, 20_000);
    for n in 0..2000 {
        book.take(report(n * 50, n * 50 + 50), Unix(0)).unwrap();
        assert!(book.bytes() <= 21_000, "{}", book.bytes());
    }
    book.sync().unwrap();
    let all = samples(&book);
    assert_eq!(all.last(), Some(&100_000));
    assert!(all.len() > 1000 && all.len() < 9000, "{}", all.len());
    assert!(all.windows(2).all(|pair| pair[1] - pair[0] == 10));
    let whole = [Range::new(at(0), at(100_000))];
    assert_eq!(book.receipt(WHO).ranges, whole);
    let missing = book.missing();
    assert_eq!((missing.len(), &missing[0].reason[..]), (1, "expired"));
    assert_eq!(missing[0].range, Range::new(at(0), at(all[0] - 10)));
    drop(book);
    let mut book = open(&journal, 20_000);
    assert_eq!(book.receipt(WHO).ranges, whole);
    let later = Unix(2 * 3_600_000);
    book.take(report(100_000, 100_050), later).unwrap();
    assert_eq!(samples(&book).len(), 5, "what is older than its age went");
}

#[test]
fn another_incarnation_has_a_line_of_its_own() {
    let journal = MemoryJournal::default();
    let mut book = open(&journal, 1 << 20);
    book.take(report(0, 100), Unix(0)).unwrap();
    let second = Incarnation([8; 16]);
    let mut young = report(0, 20);
    young.incarnation = second;
    book.take(young, Unix(1)).unwrap();
    book.sync().unwrap();
    assert_eq!(book.newest().unwrap().at, at(20));
    assert_eq!(book.receipt(second).ranges, [Range::new(at(0), at(20))]);
    assert_eq!(book.receipt(WHO).ranges, [Range::new(at(0), at(100))]);
}

#[derive(Clone, Debug)]
enum Step {
    Take(u64, u64),
    Gap(u64, u64),
    Sync,
    Kill,
    Power(usize),
    Full(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0u64..60, 1u64..10).prop_map(|(a, n)| (a * 100, (a + n) * 100));
    prop_oneof![
        8 => range.clone().prop_map(|(a, b)| Step::Take(a, b)),
        1 => range.prop_map(|(a, b)| Step::Gap(a, b)),
        3 => Just(Step::Sync),
        1 => Just(Step::Kill),
        2 => (0usize..3000).prop_map(Step::Power),
        1 => any::<bool>().prop_map(Step::Full),
    ]
}

proptest! {
    #[test]
    fn what_was_acknowledged_is_known_after_every_crash(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let journal = MemoryJournal::default();
        let bytes = 3000;
        let mut book = open(&journal, bytes);
        let mut acknowledged = RangeSet::default();
        let mut sent = RangeSet::default();
        for step in steps {
            match step {
                Step::Take(a, b) => {
                    let report = report(a, b);
                    sent.insert(report.piece.range);
                    // A full disk refuses; the agent sends it again.
                    let _ = book.take(report, Unix(0));
                }
                Step::Gap(a, b) => {
                    sent.insert(Range::new(at(a), at(b)));
                    let _ = book.take(gap(a, b, GapReason::Stalled), Unix(0));
                }
                Step::Sync if book.sync().is_ok() => {
                    for range in book.receipt(WHO).ranges {
                        acknowledged.insert(range);
                    }
                }
                Step::Sync | Step::Kill => book = open(&journal, bytes),
                Step::Power(kept) => {
                    journal.crash(kept);
                    book = open(&journal, bytes);
                }
                Step::Full(full) => journal.set_full(full),
            }
            let known = RangeSet::of(book.receipt(WHO).ranges);
            for range in acknowledged.ranges() {
                prop_assert!(known.covers(range), "{range} of {known:?}");
            }
            for range in known.ranges() {
                prop_assert!(sent.covers(range), "{range} was never sent");
            }
        }
    }
}

#[test]
fn what_comes_behind_a_start_is_put_behind_what_was_there() {
    let journal = MemoryJournal::default();
    let mut book = open(&journal, 1 << 20);
    book.take(report(0, 100), Unix(0)).unwrap();
    book.sync().unwrap();
    drop(book);
    let mut book = open(&journal, 1 << 20);
    book.take(report(100, 150), Unix(0)).unwrap();
    book.sync().unwrap();
    assert_eq!(samples(&book).len(), 10 + 5);
    drop(book);
    let book = open(&journal, 1 << 20);
    assert_eq!(samples(&book).len(), 10 + 5);
    assert_eq!(book.missing(), []);
}
