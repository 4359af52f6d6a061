//! A world for tests: an executor on a directory of its own, and tasks for it.

use edge_exec::{Command, Ended, Event, Executor, InputFile, Launch, Options};
use shared::explain::Reason;
use shared::ids::{AttemptRef, Epoch, Incarnation, RunId, SliceRef, TaskIdx};
use shared::time::Span;
use shared::workflow::{
    Action, Disconnect, OnExhausted, Output, Placement, Resources, Retry, SideEffects, Task,
    TriggerRule,
};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longest wait for anything; only a broken executor needs it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An executor and what it reports.
pub(crate) struct World {
    pub(crate) executor: Executor,
    pub(crate) events: Receiver<Event>,
    pub(crate) data: PathBuf,
    _dir: tempfile::TempDir,
}

pub(crate) fn store_id(of: u8) -> Incarnation {
    let mut id = [of; 16];
    id[..4].copy_from_slice(&std::process::id().to_ne_bytes());
    Incarnation(id)
}

impl World {
    /// `of` differs between the tests of a file, which run in one process.
    pub(crate) fn new(of: u8) -> Self {
        Self::with(of, |_| {})
    }

    pub(crate) fn with(of: u8, change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))
            .expect("a mode");
        let data = dir.path().join("data");
        let mut options = Options::new(data.clone(), store_id(of));
        change(&mut options);
        let (tx, events) = channel();
        let executor = Executor::start(options, move |event| {
            let _ = tx.send(event);
        })
        .expect("an executor");
        Self {
            executor,
            events,
            data,
            _dir: dir,
        }
    }

    pub(crate) fn begin(&self, launch: Launch) {
        self.executor.command(Command::Begin(Box::new(launch)));
    }

    pub(crate) fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    pub(crate) fn began(&self) -> (AttemptRef, u32) {
        loop {
            if let Event::Began { attempt, pid, .. } = self.next() {
                return (attempt, pid);
            }
        }
    }

    pub(crate) fn ended(&self) -> Ended {
        loop {
            if let Event::Ended(ended) = self.next() {
                return *ended;
            }
        }
    }

    /// Begins and waits for the end.
    pub(crate) fn run(&self, launch: Launch) -> Ended {
        let attempt = launch.attempt;
        self.begin(launch);
        let ended = self.ended();
        assert_eq!(ended.attempt, attempt);
        ended
    }

    pub(crate) fn stop(&self, attempt: AttemptRef, grace: Span) {
        self.executor.command(Command::Stop {
            attempt,
            grace,
            why: Reason::TimedOut,
        });
    }

    pub(crate) fn log(&self, attempt: &AttemptRef, stream: edge_exec::Stream) -> String {
        let path = edge_exec::log_path(&self.data, attempt, stream);
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

/// A launch of `sh -c text` as task `number`.
pub(crate) fn shell(number: u32, text: &str) -> Launch {
    launch(number, Action::Shell(text.to_owned()))
}

pub(crate) fn argv(number: u32, argv: &[&str]) -> Launch {
    launch(
        number,
        Action::Argv(argv.iter().map(|&arg| arg.to_owned()).collect()),
    )
}

pub(crate) fn launch(number: u32, action: Action) -> Launch {
    let slice = SliceRef {
        run: RunId([9; 16]),
        slice: 0,
        epoch: Epoch(5),
    };
    Launch {
        attempt: AttemptRef {
            slice,
            task: TaskIdx(number),
            number: 1,
        },
        task: Arc::new(task(action)),
        inputs: Vec::new(),
        env: BTreeMap::new(),
        queue: true,
        behind: None,
    }
}

pub(crate) fn with_task(mut launch: Launch, change: impl FnOnce(&mut Task)) -> Launch {
    let mut task = (*launch.task).clone();
    change(&mut task);
    launch.task = Arc::new(task);
    launch
}

pub(crate) fn with_outputs(launch: Launch, paths: &[&str]) -> Launch {
    let output = |path: &&str| Output {
        name: (*path).to_owned(),
        path: (*path).to_owned(),
    };
    with_task(launch, |task| {
        task.outputs = paths.iter().map(output).collect()
    })
}

pub(crate) fn with_input(mut launch: Launch, path: &str, file: InputFile) -> Launch {
    launch.inputs.push((path.to_owned(), file));
    launch
}

fn task(action: Action) -> Task {
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
        id: "t".to_owned(),
        description: String::new(),
        action,
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
