//! What cores have in memory is weighed, and an agent that keeps more and more of it is noticed.

#[path = "../src/counting.rs"]
mod counting;

use sim::plan::{Layer, Plan, Planted};
use sim::runner::run_plan;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[test]
fn an_agent_that_hoards_memory_is_noticed() {
    sim::memory::count_with(counting::given_back);
    let broken = |seed: u64, planted: Option<Planted>| {
        let mut plan = Plan::small(seed, Layer::Cores);
        plan.planted = planted;
        let found = run_plan(plan, None).violations.into_iter().next();
        found.map(|first| first.invariant)
    };
    assert_eq!(broken(1, None), None);
    assert_eq!(broken(1, Some(Planted::Hoard)), Some("bounded"));
}
