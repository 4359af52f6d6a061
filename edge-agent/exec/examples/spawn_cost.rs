//! Compares the executor with bare `Command` spawn + wait, both two at a time, in the same run:
//! `cargo run --release -p edge-exec --example spawn_cost [TASKS]`. Prints microseconds a task and
//! the ratio.

use edge_exec::{Command, Event, Executor, Launch, Options};
use shared::ids::{AttemptRef, Epoch, Incarnation, RunId, SliceRef, TaskIdx};
use shared::time::Span;
use shared::workflow::{
    Action, Disconnect, OnExhausted, Placement, Resources, Retry, SideEffects, Task, TriggerRule,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

/// Attempts committed together, as the agent does it.
const AHEAD: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let tasks: u32 = std::env::args().nth(1).map_or(Ok(5000), |n| n.parse())?;
    for round in 0..5 {
        let bare = bare(tasks)?;
        let ours = ours(tasks)?;
        println!(
            "round {round}: bare {bare:.1} us, ours {ours:.1} us, ratio {:.3}",
            ours / bare
        );
    }
    Ok(())
}

fn micros(since: Instant, tasks: u32) -> f64 {
    since.elapsed().as_secs_f64() * 1e6 / f64::from(tasks)
}

fn bare(tasks: u32) -> Result<f64, Box<dyn Error>> {
    let since = Instant::now();
    std::thread::scope(|scope| {
        let half = || {
            for _ in 0..tasks / 2 {
                let status = std::process::Command::new("/bin/true").status();
                assert!(
                    status.is_ok_and(|status| status.success()),
                    "/bin/true works"
                );
            }
        };
        scope.spawn(half);
        scope.spawn(half);
    });
    Ok(micros(since, tasks))
}

fn ours(tasks: u32) -> Result<f64, Box<dyn Error>> {
    let data = tempfile::Builder::new().prefix("spawn-cost").tempdir()?;
    open_up(data.path())?;
    let (events, ended) = mpsc::channel();
    let options = Options::new(data.path().join("data"), Incarnation([7; 16]));
    let executor = Executor::start(options, move |event| {
        if let Event::Ended(end) = event {
            let _ = events.send(end);
        }
    })?;
    let task = Arc::new(task());
    let since = Instant::now();
    let begin = |number| executor.command(Command::Begin(Box::new(launch(&task, number))));
    let mut next = 0;
    let mut settled = Vec::with_capacity(AHEAD);
    for _ in 0..tasks {
        if next == 0 {
            next = AHEAD as u32;
            (0..next).for_each(begin);
        }
        let end = ended.recv()?;
        assert_eq!(end.exit, Some(0), "{}", end.text);
        settled.push(end.attempt);
        if next < tasks {
            begin(next);
            next += 1;
        }
        if settled.len() == AHEAD {
            executor.command(Command::Settled(std::mem::take(&mut settled)));
        }
    }
    Ok(micros(since, tasks))
}

fn open_up(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711))
}

fn launch(task: &Arc<Task>, number: u32) -> Launch {
    let slice = SliceRef {
        run: RunId([1; 16]),
        slice: 0,
        epoch: Epoch(1),
    };
    Launch {
        attempt: AttemptRef {
            slice,
            task: TaskIdx(number),
            number: 1,
        },
        task: Arc::clone(task),
        inputs: Vec::new(),
        env: BTreeMap::new(),
        queue: true,
        behind: None,
    }
}

fn task() -> Task {
    let retry = Retry {
        max_attempts: 1,
        initial_interval: Span(0),
        backoff_milli: 1000,
        max_interval: Span(0),
        jitter_milli: 0,
        retry_on: Vec::new(),
        no_retry_on: Vec::new(),
        on_exhausted: OnExhausted::Fail,
    };
    Task {
        id: "true".to_owned(),
        description: String::new(),
        action: Action::Argv(vec!["/bin/true".to_owned()]),
        env: BTreeMap::new(),
        workdir: String::new(),
        stdin: None,
        needs: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        resources: Resources::default(),
        priority: 0,
        retry,
        timeout: None,
        deadline: None,
        kill_grace: Span::secs(1),
        crash_limit: 3,
        side_effects: SideEffects::None,
        when: None,
        trigger_rule: TriggerRule::AllSuccess,
        placement: Placement::default(),
        disconnect: Disconnect::default(),
        batch: None,
        upward_rank: 0,
        matrix: None,
        retry_left: shared::workflow::RetryLeft::default(),
    }
}
