//! The workflows that are measured, written as specifications and compiled like any other.

use anyhow::{Result, anyhow};
use shared::spec;
use shared::time::Unix;
use shared::workflow::Workflow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Tasks of `/bin/true` without edges.
pub(crate) fn flat(count: usize) -> Result<Workflow> {
    workflow("flat", count, "[/bin/true]", |_| Vec::new())
}

/// Tasks of `/bin/true` in layers of `width`, each of which needs three of the layer above.
pub(crate) fn layered(count: usize, width: usize) -> Result<Workflow> {
    workflow("layered", count, "[/bin/true]", |n| {
        let Some(above) = (n / width).checked_sub(1) else {
            return Vec::new();
        };
        [0, 1, 7]
            .map(|shift| above * width + (n + shift) % width)
            .to_vec()
    })
}

/// Tasks that write `bytes` of text each, without edges.
pub(crate) fn talkative(count: usize, bytes: usize) -> Result<Workflow> {
    let command = format!("[/bin/sh, -c, \"yes gateway | head -c {bytes}\"]");
    workflow("talkative", count, &command, |_| Vec::new())
}

/// Tasks of `/bin/true`, one after the other.
pub(crate) fn chain(count: usize) -> Result<Workflow> {
    workflow("chain", count, "[/bin/true]", |n| {
        n.checked_sub(1).into_iter().collect()
    })
}

/// Tasks that write a line into the pipe at `fifo`, without edges.
pub(crate) fn signals(count: usize, fifo: &str) -> Result<Workflow> {
    let command = format!("[/bin/sh, -c, \"echo > {fifo}\"]");
    workflow("signals", count, &command, |_| Vec::new())
}

fn workflow(
    name: &str,
    count: usize,
    command: &str,
    needs: impl Fn(usize) -> Vec<usize>,
) -> Result<Workflow> {
    let mut text = format!("name: {name}\ntasks:\n");
    for n in 0..count {
        writeln!(text, "  t{n}:\n    command: {command}")?;
        let needs: Vec<String> = needs(n).iter().map(|need| format!("t{need}")).collect();
        if !needs.is_empty() {
            writeln!(text, "    needs: [{}]", needs.join(", "))?;
        }
    }
    let none = BTreeMap::new();
    spec::submission("bench.yaml", &text, &BTreeMap::new(), &none, Unix(0))
        .map_err(|mistakes| anyhow!("{mistakes}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflows_have_the_edges_that_they_are_named_after() {
        let edges = |w: &Workflow| w.tasks.iter().map(|task| task.needs.len()).sum::<usize>();
        assert_eq!(edges(&flat(20).unwrap()), 0);
        assert_eq!(edges(&chain(20).unwrap()), 19);
        assert_eq!(edges(&layered(40, 20).unwrap()), 60);
    }
}
