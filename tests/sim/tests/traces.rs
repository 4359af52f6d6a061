//! Recorded executions of real workflows under the faults of a seed.

use sim::plan::{Layer, Plan};
use sim::recorded::Trace;
use sim::runner::run_plan;
use std::path::Path;

/// Larger ones run with `cargo xtask sim --traces`.
const TASKS: usize = 150;

#[test]
fn recorded_workflows_keep_all_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/workflows");
    if !folder.is_dir() {
        eprintln!("skipped: no recorded workflows in {}", folder.display());
        return;
    }
    let traces = Trace::folder(&folder).expect("the traces can be read");
    for (seed, trace) in (0..).zip(&traces) {
        if trace.size() > TASKS {
            continue;
        }
        let verdict = run_plan(Plan::recorded(seed, Layer::Cores, trace), None);
        let complaint = sim::report::complaint(&verdict);
        assert!(verdict.violations.is_empty(), "{}: {complaint}", trace.name);
        assert!(verdict.tasks >= trace.size() as u64);
    }
}
