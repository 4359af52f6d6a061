//! Decoders that make mistakes on purpose, so that a test sees each kind of them found. No list
//! names them.

use crate::target::{Bound, Form, Target, Verdict};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::Duration;

pub(super) const TARGETS: &[Target] = &[
    mistaken("mistake-panic", |_| panic!("a mistake of {} bytes", 7)),
    mistaken("mistake-promise", |_| Err("it is another value".to_owned())),
    mistaken("mistake-memory", |_| held(64 << 20)),
    mistaken("mistake-greed", |_| held(4 << 30)),
    mistaken("mistake-busy", busy),
    mistaken("mistake-sleep", |_| {
        std::thread::sleep(Duration::from_secs(600));
        Ok("ok".to_owned())
    }),
    mistaken("mistake-abort", |_| std::process::abort()),
    mistaken("mistake-depth", |_| Ok(format!("ok {}", deep(0)))),
];

const fn mistaken(name: &'static str, check: fn(&[u8]) -> Verdict) -> Target {
    Target {
        name,
        fed_by: "tests of the harness",
        form: Form::Bytes,
        bound: Bound {
            time: Duration::from_millis(100),
            ..Bound::new(64, 1024)
        },
        cost: 1,
        words: &[],
        seeds: || vec![b"all is well".to_vec()],
        check,
    }
}

fn held(bytes: usize) -> Verdict {
    let held = black_box(Vec::<u8>::with_capacity(bytes));
    Ok(format!("ok {}", held.len()))
}

/// Takes more processor time than the bound.
fn busy(_: &[u8]) -> Verdict {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    };
    let begun = now();
    while now() - begun < 200 {}
    Ok("ok".to_owned())
}

/// Comes to no end before the stack does.
fn deep(n: u64) -> u64 {
    match black_box(n) {
        u64::MAX => n,
        _ => black_box(deep(n + 1)) + 1,
    }
}
