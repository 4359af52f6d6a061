//! What holds where specifications say nothing: the last word of the coordinator, then the
//! gateway's own configuration, then the defaults; also after a restart without a link.

use crate::env::{Env, LIFE, NODE, config, task, workflow};
use edge_core::event::Config;
use shared::config::scheduler::Scheduler;
use shared::directive::Body as Wish;
use shared::log::{Direction, Head};
use shared::time::Span;
use shared::workflow::{RetryLeft, Task};

fn left(id: &str) -> Task {
    let mut task = task(id, &[]);
    task.retry_left = RetryLeft {
        max_attempts: true,
        initial_interval: true,
        max_interval: true,
    };
    task
}

fn set(retries: Option<u32>, pause: Option<u64>) -> Scheduler {
    Scheduler {
        max_retries: retries,
        backoff_duration: pause.map(Span::secs),
        resource_monitor_interval: None,
    }
}

#[test]
fn a_configure_directive_holds_from_then_on_and_after_a_restart_without_a_link() {
    let mut env = Env::new();
    env.join(Head::origin(NODE, LIFE, Direction::Up));
    env.tell(vec![Wish::Configure(set(Some(1), Some(100)))]);
    env.crash();
    env.start(false);
    env.submit(&workflow(vec![left("a"), task("says", &[])]));
    env.end("a", 1);
    env.end("says", 1);
    env.pass(Span::secs(11));
    assert_eq!(
        env.held_ids(),
        "says",
        "who says it in the specification is not concerned"
    );
    env.pass(Span::secs(90));
    env.end("a", 1);
    env.pass(Span(10));
    assert!(env.states().contains("a=failed"), "{}", env.states());
    env.check_replay();
}

#[test]
fn the_coordinators_word_wins_over_the_configuration_and_that_over_the_default() {
    let mut env = Env::with(Config {
        scheduler: set(Some(0), Some(50)),
        ..config()
    });
    env.join(Head::origin(NODE, LIFE, Direction::Up));
    env.tell(vec![Wish::Configure(set(None, Some(5)))]);
    let status = env.driver.agent().status().scheduler;
    assert_eq!(status["max_retries"], "0");
    assert_eq!(status["backoff_duration"], "5s");
    assert_eq!(status["resource_monitor_interval"], "3s");
    env.submit(&workflow(vec![left("a")]));
    env.end("a", 1);
    env.pass(Span(10));
    assert_eq!(env.states(), "a=failed");
}
