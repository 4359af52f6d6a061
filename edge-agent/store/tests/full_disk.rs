//! A real full disk: a small tmpfs with a store, its reserve, and a file that takes all that is
//! left. What ends is recorded, nothing starts, and with room work goes on. Needs root, to mount;
//! without it nothing is tested here.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use edge_core::driver::Driver;
use edge_core::event::{Action, Boot, Config, Event, Launch, Local, ProcessEnd};
use edge_store::{Identity, RESERVE, RedbStore, create_file, open_file};
use shared::codec;
use shared::explain::Reason;
use shared::ids::{BootId, Incarnation, NodeId, RunId};
use shared::time::{Mono, Now, Span, Stamp, Unix};
use shared::workflow::{
    Disconnect, FORMAT, OnExhausted, Placement, Resources, Retry, SideEffects, Task, TriggerRule,
    Workflow,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const WHO: Identity = Identity {
    node: NodeId([1; 16]),
    incarnation: Incarnation([2; 16]),
};
const MIB: u64 = 1 << 20;
const TASKS: u32 = 40;

/// A tmpfs of 16 MiB, unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
            .arg(at)
            .status()
            .is_ok_and(|status| status.success());
        done.then(|| Self(at.to_owned()))
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        for size in [64 * 1024, 4096, 512] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn clear(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a failed test may hold files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn config() -> Config {
    Config {
        node: WHO.node,
        incarnation: WHO.incarnation,
        succeeds: None,
        name: "gw-7".to_owned(),
        labels: BTreeMap::new(),
        capacity: Resources {
            cpu_milli: 2000,
            ..Resources::default()
        },
        slots: 2,
        redial: (Span(1000), Span(60_000)),
        snapshot_interval: Span::secs(10),
        fact_window: Span::secs(3600),
        inventory_part: shared::limits::INVENTORY_PART_BYTES,
        has_coordinator: false,
        version: "test".to_owned(),
        scheduler: shared::config::scheduler::Scheduler::default(),
    }
}

fn task(n: u32) -> Task {
    Task {
        id: format!("t{n}"),
        description: String::new(),
        action: shared::workflow::Action::Argv(vec!["true".to_owned()]),
        env: BTreeMap::new(),
        workdir: String::new(),
        stdin: None,
        needs: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        resources: Resources {
            cpu_milli: 1000,
            ..Resources::default()
        },
        priority: 0,
        retry: Retry {
            max_attempts: 1,
            initial_interval: Span::secs(10),
            backoff_milli: 2000,
            max_interval: Span::secs(60),
            jitter_milli: 0,
            retry_on: Vec::new(),
            no_retry_on: Vec::new(),
            on_exhausted: OnExhausted::Fail,
        },
        timeout: None,
        deadline: None,
        kill_grace: Span::secs(5),
        crash_limit: 3,
        side_effects: SideEffects::None,
        when: None,
        trigger_rule: TriggerRule::AllSuccess,
        placement: Placement::default(),
        disconnect: Disconnect::default(),
        batch: None,
        upward_rank: 1,
        matrix: None,
        retry_left: shared::workflow::RetryLeft::default(),
    }
}

struct Agent {
    driver: Driver<RedbStore>,
    held: Vec<Launch>,
    now: Now,
}

impl Agent {
    fn start(store: RedbStore, free: u64) -> Self {
        let driver = Driver::open(store, config()).unwrap();
        let (mono, wall) = (Mono(1_000_000_000), Unix(1_700_000_000_000));
        let now = Now { mono, wall };
        let held = Vec::new();
        let mut agent = Self { driver, held, now };
        agent.room(free);
        agent.tell(Event::Boot(Boot {
            boot: BootId([1; 16]),
            seed: 1,
            directories: BTreeSet::new(),
            alive: BTreeSet::new(),
            ended: Vec::new(),
            clock_trusted: true,
            clean_stop: true,
        }));
        agent
    }

    fn tell(&mut self, event: Event) {
        let mut begun = Vec::new();
        self.now.mono = self.now.mono + Span(10);
        let mut act = |action| {
            if let Action::Begin(launch) = action {
                begun.push(launch);
            }
        };
        self.driver.run(self.now, vec![event], &mut act).unwrap();
        self.driver
            .run(self.now, vec![Event::Wake], &mut act)
            .unwrap();
        self.held.extend(begun);
    }

    fn room(&mut self, free: u64) {
        let wanted = self.driver.room_wanted() + 2 * MIB;
        self.tell(Event::Room { free, wanted });
    }

    /// Ends one attempt; its fact is durable when this returns.
    fn end_one(&mut self) {
        let launch = self.held.remove(0);
        self.tell(Event::Ended(ProcessEnd {
            attempt: launch.attempt,
            began: Some(Stamp::default()),
            exit: Some(0),
            reason: Reason::ExitedZero,
            text: String::new(),
            outputs: Vec::new(),
            cpu_ms: 1,
            peak_memory: 1,
        }));
        self.now.mono = self.now.mono + Span(10);
        self.tell(Event::Wake);
        assert!(!self.driver.has_uncommitted());
    }

    fn succeeded(&self) -> usize {
        let tasks = self.driver.agent().ps(true);
        tasks
            .iter()
            .filter(|task| task.state == "succeeded")
            .count()
    }
}

#[test]
fn what_ends_is_recorded_on_a_full_disk_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(dir.path()) else {
        return;
    };
    let path = dir.path().join("store.redb");
    let reserve = dir.path().join("reserve");
    let mut agent = Agent::start(create_file(&path, WHO).unwrap(), 100 * MIB);
    assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE);
    let flow = Workflow {
        format: FORMAT,
        name: "flow".to_owned(),
        description: String::new(),
        labels: BTreeMap::new(),
        params: BTreeMap::new(),
        tasks: (0..TASKS).map(task).collect(),
        matrices: Vec::new(),
        schedule: None,
    };
    let (run, workflow, by) = (RunId([7; 16]), codec::pack(&flow).0, "ann".to_owned());
    let what = Local::Submit { run, workflow, by };
    agent.tell(Event::Local { request: 1, what });
    let started = agent.held.len();
    assert!(started > 2, "two run, others were started ahead");

    small.fill();
    agent.room(0);
    for _ in 0..started {
        agent.end_one();
    }
    assert!(agent.held.is_empty(), "nothing starts without room");
    assert_eq!(agent.succeeded(), started);
    assert_eq!(
        fs::metadata(&reserve).unwrap().len(),
        0,
        "it was given back"
    );
    drop(agent);

    // It starts again on the full disk and knows every end.
    let mut agent = Agent::start(open_file(&path, WHO).unwrap(), 0);
    assert!(agent.held.is_empty(), "there is still no room");
    assert_eq!(agent.succeeded(), started);
    small.clear();
    agent.room(100 * MIB);
    assert_eq!(
        fs::metadata(&reserve).unwrap().len(),
        RESERVE,
        "it is taken again"
    );
    while !agent.held.is_empty() {
        agent.end_one();
    }
    assert_eq!(agent.succeeded(), TASKS as usize);
}
