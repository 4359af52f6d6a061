//! Inventories that come in parts.

use crate::common::{Agent, Env, all_done, on, started, task, workflow};
use crate::restore::{alone, asked_back, comes_back, empty};
use cloud_core::event::{Reply, Request};
use cloud_core::view::Wait;
use shared::codec;
use shared::directive::{Body as Asked, Directive};
use shared::fact::{Body, SliceState, TaskStatus};
use shared::ids::{Epoch, Generation, RunId, SliceRef, TaskIdx};
use shared::inventory::{InventoryPart, Item, RunState};
use shared::limits::INVENTORY_PART_BYTES;
use shared::log::{Direction, Head};
use shared::state::TaskState;
use shared::time::Unix;
use shared::wire::{Down, FEATURES, INVENTORY_PARTS, Inventory, Refusal, Up};
use shared::workflow::Task;
use std::collections::BTreeMap;

fn pair() -> Vec<Task> {
    vec![on("gw-1", task("a", &[])), on("gw-2", task("b", &[0]))]
}

/// The same as parts of so many bytes.
fn parts(inventory: Inventory, session: u64, size: usize) -> Vec<InventoryPart> {
    let mut stream = Vec::new();
    for packed in inventory.workflows {
        Item::Workflow(packed).put(&mut stream);
    }
    let mut runs: BTreeMap<RunId, RunState> = BTreeMap::new();
    for state in inventory.slices {
        let run = state.slice.run;
        let new = RunState {
            run,
            slices: Vec::new(),
            directives: Vec::new(),
        };
        runs.entry(run).or_insert(new).slices.push(state);
    }
    runs.into_values()
        .for_each(|run| Item::Run(run).put(&mut stream));
    cut(&stream, session, size)
}

fn cut(stream: &[u8], session: u64, size: usize) -> Vec<InventoryPart> {
    let pieces: Vec<&[u8]> = stream.chunks(size).collect();
    let count = pieces.len().max(1);
    let part = |n: usize| InventoryPart {
        session,
        part: n as u32,
        last: n + 1 == count,
        bytes: pieces
            .get(n)
            .map(|piece| piece.to_vec())
            .unwrap_or_default(),
    };
    (0..count).map(part).collect()
}

/// What this gateway has, in parts for its session.
fn of(env: &mut Env, name: &str, size: usize) -> Vec<InventoryPart> {
    let agent = env.agent(name);
    parts(agent.inventory(&workflow(pair())), agent.session, size)
}

fn say(env: &mut Env, name: &str, part: &InventoryPart) {
    env.say(name, Up::InventoryPart(part.clone()));
}

fn resend(env: &mut Env, name: &str) {
    let agent = env.agent(name);
    let origin = Head::origin(agent.node, agent.incarnation, Direction::Up);
    env.resend(name, origin);
}

/// Two gateways and two runs of both, behind a backup that knows none of the runs.
fn restored() -> (Env, [RunId; 2]) {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    let runs = [env.submit(pair()), env.submit(pair())];
    for assign in env.agent("gw-1").assigns() {
        let slice = assign.slice;
        env.tell("gw-1", vec![Body::Accepted { slice }, started(slice, 0, 1)]);
    }
    env.restart(backup);
    assert!(env.hello("gw-1").unwrap().want_inventory);
    (env, runs)
}

fn is_waited_for(env: &mut Env, name: &str) -> bool {
    let Reply::Waits(waits) = env.ask(Request::Waits) else {
        panic!("the waits")
    };
    let hold = |wait: &Wait| wait.what.contains("since the hold began");
    let of = |wait: &Wait| wait.node.as_deref() == Some(name);
    waits.iter().any(|wait| hold(wait) && of(wait))
}

fn is_known(env: &mut Env, run: RunId) -> bool {
    let reply = env.ask(Request::Run { run });
    matches!(reply, Reply::Run(run) if run.state == "held")
}

#[test]
fn runs_are_known_as_they_come_and_the_node_is_heard_with_the_last_part() {
    for size in [1, 100, INVENTORY_PART_BYTES] {
        let (mut env, runs) = restored();
        let all = of(&mut env, "gw-1", size);
        let (last, first) = all.split_last().unwrap();
        first.iter().for_each(|part| say(&mut env, "gw-1", part));
        assert!(is_waited_for(&mut env, "gw-1"), "parts of {size} bytes");
        if !first.is_empty() {
            // the second run's last byte is still to come
            let known = runs.map(|run| is_known(&mut env, run));
            assert_eq!(known, [true, false], "parts of {size} bytes");
        }
        say(&mut env, "gw-1", last);
        assert!(is_waited_for(&mut env, "gw-1"), "its facts are to come");
        resend(&mut env, "gw-1");
        assert!(!is_waited_for(&mut env, "gw-1"));
        env.hello("gw-2").unwrap();
        for part in of(&mut env, "gw-2", size) {
            say(&mut env, "gw-2", &part);
        }
        for assign in env.agent("gw-1").assigns() {
            env.tell("gw-1", all_done(&assign)[2..].to_vec());
        }
        for assign in env.agent("gw-2").assigns() {
            env.tell("gw-2", all_done(&assign));
        }
        for run in runs {
            assert_eq!(env.run(run).state, "succeeded", "parts of {size} bytes");
        }
    }
}

#[test]
fn a_session_that_ends_between_parts_is_asked_for_all_of_them_again() {
    let (mut env, runs) = restored();
    let all = of(&mut env, "gw-1", 100);
    all[..all.len() - 1]
        .iter()
        .for_each(|part| say(&mut env, "gw-1", part));
    env.hang_up("gw-1");
    assert!(env.hello("gw-1").unwrap().want_inventory);
    assert!(is_waited_for(&mut env, "gw-1"));
    for part in of(&mut env, "gw-1", 100) {
        say(&mut env, "gw-1", &part);
    }
    assert!(runs.iter().all(|run| is_known(&mut env, *run)));
    resend(&mut env, "gw-1");
    assert!(!is_waited_for(&mut env, "gw-1"));
    assert!(!env.hello("gw-1").unwrap().want_inventory);
}

/// Why the session of this gateway was ended.
fn refused(env: &mut Env, name: &str) -> String {
    let conn = env.agent(name).conn;
    assert!(env.closed.contains(&conn), "the session is at an end");
    let said = env.sent.iter().rev().find_map(|(to, down)| match down {
        Down::Refuse(refuse) if *to == conn => Some(refuse.clone()),
        _ => None,
    });
    let said = said.expect("a refusal");
    assert_eq!(said.reason, Refusal::Malformed);
    said.text
}

#[test]
fn parts_that_do_not_belong_are_named_and_change_nothing() {
    let (mut env, runs) = restored();
    let mut bad = |change: &dyn Fn(&mut Vec<InventoryPart>), says: &str| {
        env.hello("gw-1").unwrap();
        let mut all = of(&mut env, "gw-1", 40);
        all.truncate(3);
        change(&mut all);
        all.iter().for_each(|part| say(&mut env, "gw-1", part));
        let text = refused(&mut env, "gw-1");
        assert!(text.contains(says), "{says}: {text}");
        assert!(is_waited_for(&mut env, "gw-1"));
    };
    bad(&|all| all.swap(1, 2), "part 2 where part 1 is due");
    bad(&|all| all[2] = all[1].clone(), "part 1 where part 2 is due");
    bad(&|all| drop(all.remove(0)), "part 1 where part 0 is due");
    bad(&|all| all[1].session -= 1, "of the inventory of session");
    let large = vec![0; INVENTORY_PART_BYTES + 1];
    bad(&|all| all[1].bytes.clone_from(&large), "bytes; 1 to");
    bad(&|all| all[1].bytes.clear(), "a part of 0 bytes");
    bad(&|all| all[2].last = true, "ends within an item");
    bad(
        &|all| all[0].bytes[..4].copy_from_slice(&[255; 4]),
        "an item of 4294967295 bytes",
    );
    bad(
        &|all| all[0].bytes = vec![1, 0, 0, 0, 9],
        "an item cannot be read",
    );
    let nothing = |run| RunState {
        run,
        slices: Vec::new(),
        directives: Vec::new(),
    };
    let mut state = nothing(runs[0]);
    let mut inventory = env.agent("gw-1").inventory(&workflow(pair()));
    state.slices.push(inventory.slices.remove(0));
    let mut strange = nothing(runs[1]);
    strange.slices.clone_from(&state.slices);
    for twice in [vec![state.clone(), state], vec![strange]] {
        env.hello("gw-1").unwrap();
        let mut stream = Vec::new();
        twice
            .into_iter()
            .for_each(|run| Item::Run(run).put(&mut stream));
        let session = env.agent("gw-1").session;
        let all = cut(&stream, session, INVENTORY_PART_BYTES);
        say(&mut env, "gw-1", &all[0]);
        let text = refused(&mut env, "gw-1");
        assert!(text.contains("is told twice"), "{text}");
    }
    // behind the last one, and unasked
    env.hello("gw-1").unwrap();
    let all = of(&mut env, "gw-1", 100);
    all.iter().for_each(|part| say(&mut env, "gw-1", part));
    resend(&mut env, "gw-1");
    assert!(!is_waited_for(&mut env, "gw-1"));
    let mut more = all[0].clone();
    more.part = all.len() as u32;
    say(&mut env, "gw-1", &more);
    assert!(refused(&mut env, "gw-1").contains("behind the last one"));
    assert!(!env.hello("gw-1").unwrap().want_inventory);
    let all = of(&mut env, "gw-1", 100);
    say(&mut env, "gw-1", &all[0]);
    assert!(refused(&mut env, "gw-1").contains("unasked"));
    assert!(runs.iter().all(|run| is_known(&mut env, *run)));
}

/// An agent of an earlier version tells everything in one message.
#[test]
fn an_older_agent_is_heard_with_its_one_message() {
    let (mut env, runs) = restored();
    env.agent("gw-1").features = FEATURES & !INVENTORY_PARTS;
    let welcome = env.hello("gw-1").unwrap();
    assert_eq!(welcome.features & INVENTORY_PARTS, 0);
    let inventory = env.agent("gw-1").inventory(&workflow(pair()));
    env.say("gw-1", Up::Inventory(inventory));
    assert_eq!(env.run(runs[0]).state, "held");
    resend(&mut env, "gw-1");
    assert!(!is_waited_for(&mut env, "gw-1"));
}

/// A cancel that this store forgot comes with its run, or, where nothing of the run is left there,
/// with the last part.
#[test]
fn what_persons_asked_comes_along() {
    let (mut env, runs) = restored();
    let session = env.agent("gw-1").session;
    let inventory = env.agent("gw-1").inventory(&workflow(pair()));
    let cancel = |run| Directive {
        at: Unix(1_700_000_000_000),
        generation: Generation(1),
        body: Asked::Cancel {
            run,
            by: "ann".to_owned(),
            why: "no need".to_owned(),
        },
    };
    let mut stream = Vec::new();
    Item::Workflow(inventory.workflows[0].clone()).put(&mut stream);
    let here = RunState {
        run: runs[0],
        slices: inventory.slices[..1].to_vec(),
        directives: vec![cancel(runs[0])],
    };
    Item::Run(here).put(&mut stream);
    let stranger = RunState {
        run: RunId([77; 16]),
        slices: Vec::new(),
        directives: vec![cancel(RunId([77; 16]))],
    };
    Item::Run(stranger).put(&mut stream);
    for part in cut(&stream, session, 50) {
        say(&mut env, "gw-1", &part);
    }
    let asked = env.run(runs[0]).requests;
    assert_eq!(asked.len(), 1, "{asked:?}");
    let reply = env.ask(Request::Run {
        run: RunId([77; 16]),
    });
    assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
}

/// A run's slices came without a workflow that can be read, so the run stayed unknown and kept the
/// facts of that node; when the other node makes it known, the first one is asked again behind its
/// last part.
#[test]
fn who_asks_while_parts_come_is_told_by_them_or_by_all_of_them_again() {
    for told in [false, true] {
        let (mut env, runs) = restored();
        let session = env.agent("gw-1").session;
        let mut inventory = env.agent("gw-1").inventory(&workflow(pair()));
        inventory.workflows.clear();
        if !told {
            inventory.slices.clear();
        }
        // an item that says nothing is still to come
        let mut all = parts(inventory, session, INVENTORY_PART_BYTES);
        let mut end = Vec::new();
        Item::Workflow(codec::pack(&workflow(pair())).0).put(&mut end);
        let mut rest = cut(&end, session, 20);
        for part in &mut rest {
            part.part += u32::from(told);
        }
        if told {
            all[0].last = false;
            say(&mut env, "gw-1", &all[0]);
        }
        say(&mut env, "gw-1", &rest[0]);
        resend(&mut env, "gw-1");
        assert_eq!(env.run(runs[0]).state, "unknown_run");
        env.hello("gw-2").unwrap();
        for part in of(&mut env, "gw-2", 100) {
            say(&mut env, "gw-2", &part);
        }
        let conn = env.agent("gw-1").conn;
        assert!(!env.closed.contains(&conn), "it goes on");
        rest[1..]
            .iter()
            .for_each(|part| say(&mut env, "gw-1", part));
        assert_eq!(env.closed.contains(&conn), told);
        if told {
            assert!(is_waited_for(&mut env, "gw-1"));
            assert!(env.hello("gw-1").unwrap().want_inventory);
            for part in of(&mut env, "gw-1", 100) {
                say(&mut env, "gw-1", &part);
            }
            assert_eq!(env.task(runs[0], "a").state, "running");
        }
        assert!(!is_waited_for(&mut env, "gw-1"));
    }
}

/// Found by seed 23287: a machine with a copy of the disk of gw-1 told of a run that it had begun
/// by itself, and was gone before it brought a fact of it. gw-1 does not have it: it stayed open
/// for ever.
#[test]
fn a_run_that_only_a_copy_of_a_disk_told_of_is_lost_with_it() {
    let (mut env, original, slice) = copied();
    let session = env.agent("gw-1").session;
    let mut told = parts(ended_there(slice), session, INVENTORY_PART_BYTES).remove(0);
    told.last = false;
    say(&mut env, "gw-1", &told);
    goes_with_the_copy(env, original, slice);
}

/// The same, where all of that inventory came. gw-1 was not asked for its own: only who calls with
/// the secret of the session before is surely the one that told it.
#[test]
fn who_did_not_surely_tell_the_inventory_before_its_facts_is_asked_for_it_again() {
    let (mut env, original, slice) = copied();
    env.say("gw-1", Up::Inventory(ended_there(slice)));
    goes_with_the_copy(env, original, slice);

    let (mut env, _, slice) = copied();
    env.say("gw-1", Up::Inventory(ended_there(slice)));
    env.hang_up("gw-1");
    assert!(
        !env.hello("gw-1").unwrap().want_inventory,
        "the same process"
    );
    assert!(is_waited_for(&mut env, "gw-1"), "its facts are to come");
}

/// A machine with a copy of the disk of gw-1, where a run was begun that nobody else has, calls
/// behind a backup. With gw-1 itself, which is another process.
fn copied() -> (Env, Agent, SliceRef) {
    let mut env = Env::new();
    env.join("gw-1");
    env.join("gw-2");
    let backup = env.store.image();
    // proves that the store went back
    env.submit(vec![on("gw-1", task("x", &[]))]);
    let original = env.agent("gw-1").clone();
    env.restart(backup);

    let slice = SliceRef {
        run: RunId([7; 16]),
        slice: 0,
        epoch: Epoch::LOCAL,
    };
    // the fact that says so is not sent
    env.agent("gw-1").commit(vec![started(slice, 0, 1)]);
    let welcome = env.hello("gw-1").unwrap();
    assert!(welcome.want_inventory);
    env.agent("gw-1").proof = Some(welcome.secret);
    (env, original, slice)
}

/// The copy is gone behind what it told of the run; gw-1 calls, and is asked for it.
fn goes_with_the_copy(mut env: Env, original: Agent, slice: SliceRef) {
    assert!(is_known(&mut env, slice.run));
    env.hang_up("gw-1");
    let session = env.agent("gw-1").session;
    env.agents.insert("gw-1".to_owned(), original);
    env.agent("gw-1").session = session;
    comes_back(&mut env, "gw-1", empty());
    assert_eq!(asked_back(&mut env, "gw-1", slice), 0, "while it is held");
    comes_back(&mut env, "gw-2", empty());
    assert_eq!(asked_back(&mut env, "gw-1", slice), 1);
    let in_doubt = Vec::new();
    env.tell("gw-1", vec![Body::Released { slice, in_doubt }]);
    assert_eq!(env.task(slice.run, "a").state, "lost");
    assert_eq!(env.run(slice.run).state, "partly_lost");
}

/// The inventory of a gateway that has one slice of one task, which succeeded.
fn ended_there(slice: SliceRef) -> Inventory {
    let (packed, hash) = codec::pack(&workflow(alone()));
    let done = TaskStatus {
        task: TaskIdx(0),
        state: TaskState::Succeeded,
        attempts: 1,
        outputs: Vec::new(),
    };
    let state = SliceState {
        slice,
        workflow: hash,
        tasks: vec![done],
    };
    Inventory {
        slices: vec![state],
        workflows: vec![packed],
        ..empty()
    }
}
