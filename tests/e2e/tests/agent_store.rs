//! What an agent says about a data directory that it cannot go on with. It never takes a damaged
//! one for an empty one, changes nothing in it, and goes on once it is whole again.

use e2e::agent::{Gateway, is_root, stderr};
use redb::{Database, TableDefinition};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// A gateway that was killed while it worked: a task has ended, another runs.
fn killed_at_work() -> (Gateway, String) {
    let mut gateway = Gateway::started(&["--cpus", "2"]);
    let run = gateway.submit(
        "name: half
tasks:
  done: {shell: echo x >> @M/done}
  open: {shell: 'echo x >> @M/open; while [ ! -e @M/go ]; do sleep 0.02; done'}",
    );
    let _ = gateway.wait_state(&run, "done", "succeeded");
    let _ = gateway.wait_mark("open", 1);
    gateway.kill();
    (gateway, run)
}

fn store(gateway: &Gateway) -> PathBuf {
    gateway.data().join("store.redb")
}

/// The agent must end with a message that has all of `words`, and with code 1.
fn refuses(gateway: &Gateway, words: &[&str]) {
    let output = gateway.start_refused();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "no '{word}' in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Spoils the store with `spoil`, sees it refused twice, puts it back and sees the run go on.
fn spoilt(spoil: impl Fn(&Path), words: &[&str]) {
    let (mut gateway, run) = killed_at_work();
    let path = store(&gateway);
    let whole = fs::read(&path).expect("a killed agent leaves its store");
    spoil(&path);
    let spoilt = fs::read(&path).ok();
    refuses(&gateway, words);
    refuses(&gateway, words);
    // Opening a database that is whole, though another one, notes in its header that it was opened.
    let whole_database = words.contains(&"belongs to node") || words.contains(&"format 99");
    let untouched = fs::read(&path).ok() == spoilt;
    assert!(
        untouched || whole_database,
        "a refused store is left as it is"
    );
    fs::write(&path, whole).expect("the test's directory can be written");
    gateway.put_mark("go", "");
    gateway.start();
    let tasks = gateway.settled(&run);
    assert!(
        tasks.values().all(|task| task["state"] == "succeeded"),
        "{tasks:?}"
    );
    assert_eq!(
        gateway.mark("done"),
        "x\n",
        "what had ended did not run again"
    );
}

#[test]
fn an_empty_store_is_succeeded_by_a_new_incarnation_and_kept_aside() {
    let (mut gateway, _) = killed_at_work();
    fs::write(store(&gateway), b"").unwrap();
    gateway.put_mark("go", "");
    gateway.start();
    let old: Vec<_> = fs::read_dir(gateway.data().join("old")).unwrap().collect();
    assert_eq!(old.len(), 1);
    assert!(gateway.json(&["ps", "--all"]).is_empty());
    let _ = gateway.succeeds("name: goes-on\ntasks: {one: {command: 'true'}}");
}

#[test]
fn a_missing_store_is_no_new_one() {
    spoilt(
        |path| fs::remove_file(path).unwrap(),
        &["damaged", "store.redb is missing"],
    );
}

#[test]
fn a_missing_identity_is_no_new_node() {
    let (mut gateway, run) = killed_at_work();
    let path = gateway.data().join("identity.json");
    let identity = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    refuses(&gateway, &["damaged", "identity.json is missing"]);
    fs::write(&path, b"{}").unwrap();
    refuses(&gateway, &["damaged", "identity.json"]);
    fs::write(&path, identity).unwrap();
    gateway.put_mark("go", "");
    gateway.start();
    let _ = gateway.wait_state(&run, "open", "succeeded");
}

#[test]
fn a_store_that_was_cut_is_noticed() {
    let cut = |path: &Path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        let half = file.metadata().unwrap().len() / 2;
        file.set_len(half).unwrap();
    };
    spoilt(cut, &["store", "damaged"]);
}

#[test]
fn a_store_with_a_header_of_garbage_is_noticed() {
    let garbage = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[..512].fill(0xa5);
        fs::write(path, bytes).unwrap();
    };
    spoilt(garbage, &["store", "damaged"]);
}

#[test]
fn a_store_that_is_all_garbage_or_another_file_is_noticed() {
    let garbage = |path: &Path| {
        let bytes: Vec<u8> = (0..70_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        fs::write(path, bytes).unwrap();
    };
    spoilt(garbage, &["store", "damaged"]);
}

#[test]
fn the_store_of_another_node_is_refused() {
    let mut other = Gateway::started(&[]);
    other.stop();
    let foreign = fs::read(store(&other)).unwrap();
    spoilt(
        |path| fs::write(path, &foreign).unwrap(),
        &["store", "belongs to node"],
    );
}

#[test]
fn a_store_of_a_later_format_is_refused() {
    let later = |path: &Path| {
        let database = Database::open(path).unwrap();
        let write = database.begin_write().unwrap();
        let mut meta = write.open_table(META).unwrap();
        meta.insert("format", 99_u32.to_le_bytes().as_slice())
            .unwrap();
        drop(meta);
        write.commit().unwrap();
    };
    spoilt(later, &["format 99", "up to"]);
}

#[test]
fn an_identity_of_a_later_format_is_refused() {
    let (gateway, _) = killed_at_work();
    let path = gateway.data().join("identity.json");
    let text = fs::read_to_string(&path).unwrap();
    let later = text.replace("\"format\": 1", "\"format\": 99");
    assert_ne!(text, later);
    fs::write(&path, later).unwrap();
    refuses(&gateway, &["identity.json", "format 99", "newer"]);
}

#[test]
fn a_second_agent_on_a_directory_is_refused_and_the_first_goes_on() {
    let mut gateway = Gateway::started(&["--cpus", "1"]);
    refuses(&gateway, &["another agent runs on", "--data"]);
    assert!(gateway.runs());
    let _ = gateway.succeeds("name: goes-on\ntasks: {one: {command: 'true'}}");
    gateway.signal(Signal::KILL);
    gateway.wait_exit();
    gateway.start();
    let _ = gateway.succeeds("name: goes-on\ntasks: {one: {command: 'true'}}");
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let gateway = Gateway::new(&[]);
    fs::create_dir(gateway.data()).unwrap();
    fs::write(gateway.data().join("photo.jpg"), b"x").unwrap();
    refuses(&gateway, &["not an agent's data directory", "photo.jpg"]);
    let names: Vec<_> = fs::read_dir(gateway.data())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["photo.jpg"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let mut gateway = Gateway::new(&[]);
    let file = gateway.base().join("file");
    fs::write(&file, b"").unwrap();
    gateway.place_data(&file.join("data"));
    refuses(&gateway, &["cannot be used", "--data"]);
    // Not even root may make a directory there.
    gateway.place_data(Path::new("/proc/self/data"));
    refuses(&gateway, &["cannot be used", "--data"]);
    if !is_root() {
        gateway.place_data(Path::new("/data-of-e2e"));
        refuses(&gateway, &["cannot be used", "--data"]);
    }
}

#[test]
fn the_commands_say_when_no_agent_runs() {
    let gateway = Gateway::new(&[]);
    let output = gateway.command(&["ps"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("no agent runs on"));
    let mut gateway = Gateway::started(&[]);
    gateway.kill();
    assert_eq!(gateway.command(&["status"]).status.code(), Some(4));
}
