//! The engine over the store on disk: a crash without close, a failed write, and a start over.

use cloud_core::engine::Engine;
use cloud_core::event::{Config, Input, Output, RETENTION, Reply, Request, RequestId};
use cloud_store::{RedbStore, open_file};
use redb::StorageBackend;
use redb::backends::FileBackend;
use shared::time::{Mono, Now, Unix};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const NOW: Now = Now {
    mono: Mono(1_000_000_000),
    wall: Unix(1_700_000_000_000),
};

fn config() -> Config {
    Config {
        seal_key: [7; 32],
        retention: RETENTION,
        decisions_per_run: 100,
        fold_facts: 10,
        record: cloud_core::record::Limits::default(),
        backups: false,
        scheduler: shared::config::scheduler::Scheduler::default(),
    }
}

fn ask(engine: &mut Engine<RedbStore>, request: Request) -> Reply {
    let mut answer = None;
    let input = Input::Request {
        id: RequestId(1),
        request: Box::new(request),
        caller: cloud_core::access::Caller::default(),
    };
    engine
        .run(NOW, vec![input], &mut |output| {
            if let Output::Reply { reply, .. } = output {
                answer = Some(*reply);
            }
        })
        .unwrap();
    answer.unwrap()
}

fn add(engine: &mut Engine<RedbStore>, id: &str) -> Reply {
    ask(
        engine,
        Request::AddToken {
            by: String::new(),
            record: id.as_bytes().to_vec(),
            id: id.to_owned(),
            name: None,
            replace: false,
            expires: Unix(i64::MAX),
        },
    )
}

fn has(engine: &mut Engine<RedbStore>, id: &str) -> bool {
    let id = id.to_owned();
    matches!(ask(engine, Request::GetToken { id }), Reply::Token(_))
}

/// A file whose syncs fail while the switch is on.
#[derive(Debug)]
struct Failing(FileBackend, Arc<AtomicBool>);

impl StorageBackend for Failing {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> Result<(), io::Error> {
        if self.1.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("told to fail"));
        }
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, data)
    }
}

fn failing(path: PathBuf, fail: Arc<AtomicBool>) -> RedbStore {
    RedbStore::open(Box::new(move || {
        let mut options = OpenOptions::new();
        let file: File = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .unwrap();
        let backend = FileBackend::new(file).unwrap();
        Ok(Box::new(Failing(backend, fail.clone())))
    }))
    .unwrap()
}

fn open(path: &Path) -> Engine<RedbStore> {
    Engine::open(open_file(path, false).unwrap(), config(), NOW, 1).unwrap()
}

#[test]
fn a_failed_write_changes_nothing_or_everything_and_the_engine_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let fail = Arc::new(AtomicBool::new(false));
    let store = failing(path.clone(), fail.clone());
    let mut engine = Engine::open(store, config(), NOW, 1).unwrap();
    assert_eq!(add(&mut engine, "before"), Reply::Done);
    fail.store(true, Ordering::SeqCst);
    let reply = add(&mut engine, "at");
    assert!(!fail.load(Ordering::SeqCst), "the failure was met");
    assert_eq!(has(&mut engine, "at"), reply == Reply::Done, "{reply:?}");
    assert_eq!(add(&mut engine, "after"), Reply::Done);
    let generation = engine.generation();
    drop(engine);
    let mut engine = open(&path);
    assert!(engine.generation() > generation);
    for (id, there) in [
        ("before", true),
        ("at", reply == Reply::Done),
        ("after", true),
    ] {
        assert_eq!(has(&mut engine, id), there, "{id}");
    }
}

#[test]
fn what_was_answered_is_there_after_a_crash_without_close() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let copy = dir.path().join("copy");
    drop(open_file(&path, true).unwrap());
    let mut engine = open(&path);
    for n in 0..20 {
        assert_eq!(add(&mut engine, &n.to_string()), Reply::Done);
        if n % 5 == 0 {
            // the file as a crash at this moment leaves it
            std::fs::copy(&path, &copy).unwrap();
            let mut after = open(&copy);
            for id in 0..=n {
                assert!(has(&mut after, &id.to_string()), "{id} of {n}");
            }
        }
    }
}
