//! How long a large workflow takes from text to compiled workflow: `cargo run --release -p shared
//! --example compile_large -- [TASKS]`. Flat, layered (with edges that are redundant), and
//! long-chained.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a measurement reads the clock and prints; the crate itself does neither"
)]

use shared::spec;
use shared::time::Unix;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

/// Tasks in a layer.
const WIDTH: usize = 1000;

fn text(count: usize, needs: impl Fn(usize) -> Vec<usize>) -> String {
    let mut text = "name: large\ndefaults: {timeout: 1m}\ntasks:\n".to_owned();
    for n in 0..count {
        let needs: Vec<String> = needs(n).iter().map(|need| format!("t{need}")).collect();
        let _ = write!(text, "  t{n}:\n    command: [/bin/true, \"{n}\"]\n");
        let _ = write!(
            text,
            "    needs: [{}]\n    outputs: [out/{n}.txt]\n",
            needs.join(", ")
        );
    }
    text
}

fn measure(name: &str, text: &str) {
    let started = Instant::now();
    let none = BTreeMap::new();
    let outcome = spec::submission("large.yaml", text, &BTreeMap::new(), &none, Unix(0));
    let elapsed = started.elapsed();
    match outcome {
        Ok(workflow) => {
            let edges: usize = workflow.tasks.iter().map(|task| task.needs.len()).sum();
            let (bytes, tasks) = (text.len(), workflow.tasks.len());
            println!("{name}: {tasks} tasks, {edges} edges kept, {bytes} bytes: {elapsed:.3?}");
        }
        Err(mistakes) => println!("{name}: {mistakes}"),
    }
}

fn main() {
    let count = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    measure("flat", &text(count, |_| Vec::new()));
    let layered = |n: usize| {
        let up = |layers: usize, shift: usize| {
            let row = (n / WIDTH).checked_sub(layers)?;
            Some(row * WIDTH + (n + shift) % WIDTH)
        };
        [up(1, 0), up(1, 1), up(1, 7), up(2, 0), up(5, 3)]
            .into_iter()
            .flatten()
            .collect()
    };
    measure("layered", &text(count, layered));
    let chained = |n: usize| {
        if n < 2 {
            (0..n).collect()
        } else {
            vec![0, n - 2, n - 1]
        }
    };
    measure("chain below one root", &text(count, chained));
}
