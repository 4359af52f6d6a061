//! CPU per task of deciding, folding and encoding, without spawning: a layered DAG of 100,000 tasks
//! through the driver on a store in memory. `cargo run --release -p edge-core --example core_cost
//! [TASKS]`

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a measurement, not a core"
)]

use edge_core::driver::Driver;
use edge_core::event::{Action, Boot, Config, Event, Launch, Local, ProcessEnd};
use edge_core::memory::{Disk, MemStore};
use shared::codec;
use shared::explain::Reason;
use shared::fact::OutputFile;
use shared::ids::{BootId, Hash, Incarnation, NodeId, RunId, TaskIdx};
use shared::time::{Mono, Now, Span, Stamp, Unix};
use shared::workflow::{
    Action as Program, Disconnect, FORMAT, Input, OnExhausted, Output, Placement, Resources, Retry,
    SideEffects, Source, Task, TriggerRule, Workflow,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const WIDTH: u32 = 100;

fn task(n: u32) -> Task {
    let needs: Vec<TaskIdx> = if n < WIDTH {
        Vec::new()
    } else {
        let above = n - WIDTH;
        let beside = above - above % WIDTH + (above + 1) % WIDTH;
        let mut both = vec![TaskIdx(above), TaskIdx(beside)];
        both.sort_unstable();
        both
    };
    let input = |need: &TaskIdx| Input {
        name: format!("in{}", need.0),
        path: format!("in{}", need.0),
        source: Source::Task {
            task: *need,
            output: 0,
        },
    };
    Task {
        id: format!("task{n}"),
        description: String::new(),
        action: Program::Argv(vec!["/bin/true".to_owned()]),
        env: BTreeMap::new(),
        workdir: String::new(),
        stdin: None,
        inputs: needs.iter().map(input).collect(),
        needs,
        outputs: vec![Output {
            name: format!("out{n}"),
            path: "out".to_owned(),
        }],
        resources: Resources {
            cpu_milli: 1000,
            ..Resources::default()
        },
        priority: 0,
        retry: Retry {
            max_attempts: 4,
            initial_interval: Span::secs(30),
            backoff_milli: 2000,
            max_interval: Span::secs(600),
            jitter_milli: 100,
            retry_on: Vec::new(),
            no_retry_on: Vec::new(),
            on_exhausted: OnExhausted::Fail,
        },
        timeout: Some(Span::secs(3600)),
        deadline: None,
        kill_grace: Span::secs(10),
        crash_limit: 3,
        side_effects: SideEffects::None,
        when: None,
        trigger_rule: TriggerRule::AllSuccess,
        placement: Placement::default(),
        disconnect: Disconnect::default(),
        batch: None,
        upward_rank: u64::from(u32::MAX - n),
        matrix: None,
        retry_left: shared::workflow::RetryLeft::default(),
    }
}

fn config() -> Config {
    Config {
        node: NodeId([1; 16]),
        incarnation: Incarnation([2; 16]),
        succeeds: None,
        name: "bench".to_owned(),
        labels: BTreeMap::new(),
        capacity: Resources {
            cpu_milli: 2000,
            ..Resources::default()
        },
        slots: 2,
        redial: (Span(1000), Span(60_000)),
        snapshot_interval: Span::secs(10),
        fact_window: Span::secs(86_400),
        inventory_part: shared::limits::INVENTORY_PART_BYTES,
        has_coordinator: false,
        version: "bench".to_owned(),
        scheduler: shared::config::scheduler::Scheduler::default(),
    }
}

fn clock() -> std::time::Instant {
    std::time::Instant::now()
}

fn end(launch: &Launch, at: Stamp) -> Event {
    Event::Ended(ProcessEnd {
        attempt: launch.attempt,
        began: Some(at),
        exit: Some(0),
        reason: Reason::ExitedZero,
        text: String::new(),
        outputs: vec![OutputFile {
            hash: Hash([7; 32]),
            size: 100,
        }],
        cpu_ms: 1,
        peak_memory: 1 << 20,
    })
}

fn flow(count: u32) -> Workflow {
    Workflow {
        format: FORMAT,
        name: "bench".to_owned(),
        description: String::new(),
        labels: BTreeMap::new(),
        params: BTreeMap::new(),
        tasks: (0..count).map(task).collect(),
        matrices: Vec::new(),
        schedule: None,
    }
}

fn boot() -> Boot {
    Boot {
        boot: BootId([1; 16]),
        seed: 1,
        directories: BTreeSet::new(),
        alive: BTreeSet::new(),
        ended: Vec::new(),
        clock_trusted: true,
        clean_stop: false,
    }
}

fn main() {
    let count: u32 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let flow = flow(count);
    let config = config();
    let disk = Disk::new(config.node, config.incarnation);
    let mut driver = Driver::open(MemStore::new(disk), config).expect("an empty store opens");
    let mut now = Now {
        mono: Mono(1),
        wall: Unix(1_700_000_000_000),
    };
    let boot = boot();
    let workflow = codec::pack(&flow).0;
    let submit = Local::Submit {
        run: RunId([9; 16]),
        workflow,
        by: "bench".to_owned(),
    };
    let mut running: VecDeque<Launch> = VecDeque::new();
    let first = clock();
    let events = vec![
        Event::Boot(boot),
        Event::Local {
            request: 1,
            what: submit,
        },
    ];
    let keep = |running: &mut VecDeque<Launch>, action| {
        if let Action::Begin(launch) = action {
            running.push_back(launch);
        }
    };
    driver
        .run(now, events, &mut |action| keep(&mut running, action))
        .expect("it commits");
    let taken = first.elapsed();
    let start = clock();
    let mut done = 0;
    while done < count {
        now.mono.0 += 500_000;
        let at = Stamp {
            boot: 1,
            mono_ms: now.mono.0 / 1_000_000,
            wall: now.wall,
        };
        let events = match running.pop_front() {
            Some(launch) => {
                done += 1;
                vec![
                    Event::Began {
                        attempt: launch.attempt,
                        at,
                    },
                    end(&launch, at),
                ]
            }
            None => vec![Event::Wake],
        };
        driver
            .run(now, events, &mut |action| keep(&mut running, action))
            .expect("it commits");
    }
    let spent = start.elapsed();
    println!(
        "{count} tasks: {:.2} us a task; taking the run over took {:.0} ms",
        spent.as_secs_f64() * 1e6 / f64::from(count),
        taken.as_secs_f64() * 1e3
    );
}
