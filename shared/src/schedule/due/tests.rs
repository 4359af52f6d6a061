//! What becomes of slots after downtime, with late starts, open runs, and clocks that jump.

use super::*;
use crate::ids::Epoch;
use crate::schedule::{Rule, run_of};

const MINUTE: i64 = 60_000;
/// A multiple of a minute.
const T: i64 = 1_795_000_020_000;

struct World {
    schedule: Schedule,
    progress: Progress,
    open: usize,
}

impl World {
    fn new(catchup: Catchup, max_catchup: u32, overlap: Overlap) -> Self {
        let progress = Progress {
            cursor: Unix(T),
            ..Progress::default()
        };
        Self {
            schedule: Schedule {
                rule: Rule::Every(Span::secs(60)),
                timezone: "UTC".to_owned(),
                catchup,
                max_catchup,
                starting_deadline: None,
                overlap,
                jitter: Span(0),
            },
            progress,
            open: 0,
        }
    }

    fn look(&self, now: i64) -> Look {
        let calendar = Calendar::new(&self.schedule).expect("a rule");
        let question = Question {
            id: ScheduleId([1; 16]),
            schedule: &self.schedule,
            calendar: &calendar,
            progress: &self.progress,
            now: Unix(now),
            open: self.open,
        };
        question.look()
    }

    /// All that is done at one moment: minutes that fired, and why others did not.
    fn run(&mut self, now: i64) -> (Vec<i64>, Vec<Reason>) {
        let (mut fired, mut reasons) = (Vec::new(), Vec::new());
        loop {
            match self.look(now) {
                Look::Fire(slot, cause) => {
                    fired.push((slot.0 - T) / MINUTE);
                    self.progress.fire(Firing {
                        slot,
                        run: run_of(ScheduleId([1; 16]), Epoch(0), slot),
                        at: Unix(now),
                        cause,
                        trusted: true,
                    });
                    self.open += usize::from(self.schedule.overlap == Overlap::Forbid);
                }
                Look::Skip(skipped) => {
                    reasons.push(skipped.reason);
                    self.progress.skip(skipped);
                }
                Look::Wait(..) => return (fired, reasons),
            }
        }
    }
}

#[test]
fn in_time_each_slot_fires_once() {
    let mut world = World::new(Catchup::None, 1, Overlap::Allow);
    assert_eq!(world.look(T + 1), Look::Wait(Some(Unix(T + MINUTE)), None));
    assert_eq!(world.run(T + MINUTE), (vec![1], vec![]));
    assert_eq!(world.run(T + MINUTE), (vec![], vec![]));
    assert_eq!(world.run(T + 2 * MINUTE + 5000), (vec![2], vec![]));
}

#[test]
fn after_downtime_none_the_latest_or_the_newest_few_fire() {
    let hour = T + 60 * MINUTE + 90_000;
    let missed = vec![Reason::SlotMissed];
    let run = |catchup, most| World::new(catchup, most, Overlap::Allow).run(hour);
    // 61 is half a minute late only, which is in time.
    assert_eq!(run(Catchup::None, 1), (vec![61], missed.clone()));
    assert_eq!(run(Catchup::Latest, 1), (vec![61], missed.clone()));
    assert_eq!(run(Catchup::All, 3), (vec![59, 60, 61], missed));
    assert_eq!(run(Catchup::All, 100).0.len(), 61);
    let mut hourly = World::new(Catchup::None, 1, Overlap::Allow);
    hourly.schedule.rule = Rule::Every(Span::secs(3600));
    assert_eq!(hourly.run(T + 3600 * 4000).0, Vec::<i64>::new());
    let mut latest = World::new(Catchup::Latest, 1, Overlap::Allow);
    latest.schedule.rule = Rule::Every(Span::secs(3600));
    assert_eq!(latest.run(T + 3600 * 4000).0.len(), 1);
}

#[test]
fn a_slot_that_is_too_late_never_fires() {
    let mut world = World::new(Catchup::All, 100, Overlap::Allow);
    world.schedule.starting_deadline = Some(Span::secs(150));
    let (fired, reasons) = world.run(T + 60 * MINUTE);
    assert_eq!(
        (fired, reasons),
        (vec![58, 59, 60], vec![Reason::SlotTooLate])
    );
}

#[test]
fn while_a_run_is_open_slots_are_skipped_or_wait() {
    let mut none = World::new(Catchup::None, 1, Overlap::Forbid);
    assert_eq!(none.run(T + MINUTE).0, [1]);
    assert_eq!(none.run(T + 2 * MINUTE), (vec![], vec![Reason::RunOpen]));
    none.open = 0;
    assert_eq!(none.run(T + 3 * MINUTE).0, [3]);
    let mut all = World::new(Catchup::All, 10, Overlap::Forbid);
    assert_eq!(all.run(T + 3 * MINUTE), (vec![1], vec![]));
    for n in 2..=3 {
        all.open = 0;
        assert_eq!(all.run(T + 3 * MINUTE), (vec![n], vec![]));
    }
}

#[test]
fn a_clock_that_is_set_back_fires_no_slot_twice_and_stops_nothing() {
    let mut world = World::new(Catchup::None, 1, Overlap::Allow);
    // A clock that is a year ahead.
    let year = T + 365 * 24 * 60 * MINUTE;
    assert_eq!(world.run(year).0.len(), 1);
    let back = vec![Reason::ClockSetBack];
    assert_eq!(world.run(T + 5 * MINUTE + 1000), (vec![], back));
    assert_eq!(world.run(T + 6 * MINUTE).0, [6]);
    // Set back by three minutes: 4 to 6 were not all fired, those that were do not fire again.
    let (fired, reasons) = world.run(T + 3 * MINUTE);
    assert_eq!((fired, reasons), (vec![], vec![Reason::ClockSetBack]));
    assert_eq!(world.run(T + 4 * MINUTE).0, [4]);
    assert_eq!(world.run(T + 5 * MINUTE).0, [5]);
    assert_eq!(
        world.run(T + 6 * MINUTE),
        (vec![], vec![Reason::FiredBefore])
    );
    // A few seconds are waited for.
    assert_eq!(world.run(T + 5 * MINUTE + 58_000), (vec![], vec![]));
    assert_eq!(world.run(T + 7 * MINUTE).0, [7]);
}

#[test]
fn past_slots_that_a_person_wants_run_one_after_another() {
    let mut world = World::new(Catchup::None, 1, Overlap::Forbid);
    world.progress.cursor = Unix(T + 10 * MINUTE);
    world.progress.backfill = Some((Unix(T + MINUTE), Unix(T + 3 * MINUTE)));
    let now = T + 10 * MINUTE + 1;
    assert_eq!(world.run(now), (vec![2], vec![]));
    assert_eq!(
        world.look(now),
        Look::Wait(Some(Unix(T + 11 * MINUTE)), Some(Reason::RunOpen))
    );
    world.open = 0;
    assert_eq!(world.run(now), (vec![3], vec![]));
    world.open = 0;
    assert_eq!(world.run(now), (vec![], vec![]));
    assert_eq!(
        world.look(now),
        Look::Wait(Some(Unix(T + 11 * MINUTE)), None)
    );
}

/// A backfill over a slot whose firing was forgotten and whose run is still here asked for it again
/// and again: the owner did nothing else any more.
#[test]
fn a_backfill_goes_on_behind_a_slot_that_became_a_run_long_ago() {
    let mut world = World::new(Catchup::None, 1, Overlap::Allow);
    world.progress.cursor = Unix(T + 10 * MINUTE);
    world.progress.backfill = Some((Unix(T + MINUTE), Unix(T + 3 * MINUTE)));
    let now = T + 10 * MINUTE + 1;
    let slot = Unix(T + 2 * MINUTE);
    assert_eq!(world.look(now), Look::Fire(slot, Cause::Backfill));
    world.progress.skip(Skipped {
        from: slot,
        to: slot,
        count: 1,
        reason: Reason::FiredBefore,
    });
    assert_eq!(world.progress.cursor, Unix(T + 10 * MINUTE));
    assert_eq!(world.run(now), (vec![3], vec![]));
}

/// Of more than 1,000 missed slots only the newest were told, although all had passed.
#[test]
fn skipped_slots_are_told_from_the_first_one_on() {
    let world = World::new(Catchup::Latest, 1, Overlap::Forbid);
    let Look::Skip(skipped) = world.look(T + 5000 * MINUTE) else {
        panic!("missed slots are skipped first");
    };
    assert_eq!(skipped.from, Unix(T + MINUTE));
    assert_eq!(skipped.to, Unix(T + 4999 * MINUTE));
    assert_eq!(skipped.count, SLOTS as u32);
}

#[test]
fn jitter_puts_a_slot_off_and_loses_none() {
    let mut world = World::new(Catchup::None, 1, Overlap::Allow);
    world.schedule.jitter = Span::secs(50);
    let mut fired = Vec::new();
    for second in 0..3600 {
        fired.extend(world.run(T + second * 1000).0);
    }
    let wanted: Vec<i64> = (1..60).collect();
    assert_eq!(fired[..59], wanted);
}

/// An owner skips slots of a backfill whose runs it still knows, or which fit it no more.
#[test]
fn a_backfill_goes_on_behind_slots_that_are_skipped() {
    let mut world = World::new(Catchup::None, 1, Overlap::Allow);
    let day = 1440;
    for minute in 1..=day {
        world.run(T + minute * MINUTE);
    }
    world.progress.backfill = Some((Unix(T), Unix(T + 3 * MINUTE)));
    let now = T + day * MINUTE + 1;
    let mut skipped = Vec::new();
    for _ in 0..10 {
        let Look::Fire(slot, Cause::Backfill) = world.look(now) else {
            break;
        };
        assert!(!world.progress.has_fired(slot), "it is not remembered");
        skipped.push((slot.0 - T) / MINUTE);
        world.progress.skip(Skipped {
            from: slot,
            to: slot,
            count: 1,
            reason: Reason::FiredBefore,
        });
    }
    assert_eq!(skipped, [1, 2, 3]);
    assert_eq!(world.progress.cursor, Unix(T + day * MINUTE));
    let next = Unix(T + (day + 1) * MINUTE);
    assert_eq!(world.look(now), Look::Wait(Some(next), None));
}

#[test]
fn slots_of_a_backfill_that_lie_ahead_are_left_to_time() {
    let mut world = World::new(Catchup::None, 1, Overlap::Allow);
    world.progress.backfill = Some((Unix(T - 2 * MINUTE), Unix(T + 2 * MINUTE)));
    assert_eq!(world.run(T + 1), (vec![-1, 0], vec![]));
    assert_eq!(
        world.run(T + 5 * MINUTE),
        (vec![5, 1, 2], vec![Reason::SlotMissed])
    );
}

#[test]
fn a_backfill_gives_way_only_to_one_that_holds_all_that_is_left_of_it() {
    let mut world = World::new(Catchup::None, 1, Overlap::Allow);
    world.progress.cursor = Unix(T + 100 * MINUTE);
    world.progress.backfill = Some((Unix(T), Unix(T + 9 * MINUTE)));
    let calendar = Calendar::new(&world.schedule).expect("a rule");
    let check = |world: &World, from: i64, to: i64| {
        let (from, to) = (Unix(T + from * MINUTE), Unix(T + to * MINUTE));
        crate::schedule::check_backfill(&calendar, &world.progress, from, to)
    };
    let why = check(&world, 20, 30).expect_err("nine slots are left");
    assert!(why.contains("a backfill is under way"), "{why}");
    assert!(check(&world, 2, 9).is_err() && check(&world, 1, 8).is_err());
    assert_eq!(check(&world, 1, 30), Ok(()));
    world.run(T + 100 * MINUTE);
    assert_eq!(check(&world, 20, 30), Ok(()), "it is done");
}
