//! What passes between the agent and the coordinator, beside the plain way of facts and directives.

use crate::env::*;
use edge_core::event::{Action, Event, Local};
use edge_core::memory::Disk;
use shared::directive::Body as Wish;
use shared::fact::{Body, Outcome};
use shared::ids::{Hash, RunId};
use shared::limits::ENTRIES_PER_COMMIT;
use shared::log::{Direction, Head};
use shared::state::TaskState;
use shared::time::Span;
use shared::wire::{Down, ROOM, Refusal, Refuse, Up};
use shared::workflow::Workflow;

fn origin() -> Head {
    Head::origin(NODE, LIFE, Direction::Up)
}

fn two() -> Workflow {
    workflow(vec![task("a", &[]), task("b", &[0])])
}

fn fetches(env: &Env) -> usize {
    let fetch = |action: &&Action| matches!(action, Action::Fetch { .. });
    env.actions.iter().filter(fetch).count()
}

#[test]
fn a_coordinator_that_lost_its_store_is_told_everything() {
    let mut env = Env::new();
    env.assigned(assign(slice(0, 1), &two(), &[0, 1]));
    let known = env.directives;
    env.tell(vec![Wish::Pause {
        run: RUN,
        on: true,
        by: "ann".to_owned(),
    }]);
    env.end("a", 0);
    env.pass(Span(10));
    env.crash();
    env.join_as(origin(), |welcome| {
        welcome.want_inventory = true;
        welcome.directives = known;
    });
    let sent = env.sent();
    let found = sent.iter().find_map(|up| match up {
        Up::Inventory(inventory) => Some(inventory),
        _ => None,
    });
    let inventory = found.expect("an inventory");
    assert_eq!(inventory.workflows, [shared::codec::pack(&two()).0]);
    assert_eq!(inventory.slices.len(), 1);
    assert_eq!(inventory.slices[0].slice, slice(0, 1));
    let states: Vec<_> = inventory.slices[0]
        .tasks
        .iter()
        .map(|task| task.state)
        .collect();
    assert_eq!(states, [TaskState::Succeeded, TaskState::Ready]);
    assert_eq!(
        inventory.directives.len(),
        1,
        "those behind the common entry"
    );
    assert!(matches!(inventory.directives[0].body, Wish::Pause { .. }));
}

#[test]
fn facts_that_are_wanted_again_are_sent_again() {
    let mut env = Env::new();
    env.assigned(assign(slice(0, 1), &two(), &[0, 1]));
    let batches = |env: &Env| -> Vec<u64> {
        let after = |up: &&Up| match up {
            Up::Facts(batch) => Some(batch.after.number),
            _ => None,
        };
        env.sent().iter().filter_map(after).collect()
    };
    assert_eq!(batches(&env)[0], 0);
    env.actions.clear();
    env.hear(Down::WantFacts { from: 2 });
    assert_eq!(
        batches(&env)[0],
        1,
        "from the end of the commit before it on"
    );
}

#[test]
fn a_file_that_becomes_ready_while_it_is_fetched_is_fetched_again_at_once() {
    let mut env = Env::new();
    env.assigned(assign(slice(1, 1), &two(), &[1]));
    let upstream = upstream(0, TaskState::Succeeded, &[50]);
    let slice = slice(1, 1);
    env.tell(vec![Wish::Upstream { slice, upstream }]);
    let hash = file(50).hash;
    let not_there = || Event::FileNotThere {
        hash,
        why: String::new(),
    };
    assert_eq!(fetches(&env), 1);
    env.hear(Down::FileReady { hash });
    assert_eq!(
        fetches(&env),
        2,
        "nobody knows whether the first one is under way"
    );
    env.event(not_there());
    assert_eq!(fetches(&env), 3);
    env.event(not_there());
    assert_eq!(fetches(&env), 3, "it really is not there");
    env.pass(Span::secs(2));
    assert_eq!(fetches(&env), 4, "after a pause");
}

#[test]
fn uploads_are_bounded_and_a_new_session_asks_again() {
    let mut env = Env::new();
    let tasks: Vec<_> = (0..12).map(|n| task(&format!("t{n}"), &[])).collect();
    let all: Vec<u32> = (0..12).collect();
    env.assigned(assign(slice(0, 1), &workflow(tasks), &all));
    for n in 0..12 {
        env.end(&format!("t{n}"), 0);
    }
    env.pass(Span(30));
    let uploads = |env: &Env| -> Vec<_> {
        let hash = |action: &Action| match action {
            Action::Upload { hash, .. } => Some(*hash),
            _ => None,
        };
        env.actions.iter().filter_map(hash).collect()
    };
    let first = uploads(&env);
    assert_eq!(first.len(), 8);
    env.event(Event::Uploaded { hash: first[0] });
    assert_eq!(uploads(&env).len(), 9, "one for one");
    env.actions.clear();
    let session = env.session.unwrap();
    let why = "cut".to_owned();
    env.event(Event::Unlinked { session, why });
    env.pass(Span::secs(120));
    assert_eq!(uploads(&env).len(), 0, "not without a link");
    env.join(origin());
    let again = uploads(&env);
    assert_eq!(again.len(), 8);
    assert!(
        !again.contains(&first[0]),
        "what is there is not asked for again"
    );
}

fn not_brought(env: &mut Env, hash: Hash, here: bool) {
    let why = "the peer has no room for it".to_owned();
    env.event(Event::NotUploaded { hash, here, why });
}

#[test]
fn a_file_that_could_not_be_brought_is_brought_again_after_growing_pauses() {
    let mut env = Env::new();
    let flow = workflow(vec![task("t", &[])]);
    env.assigned(assign(slice(0, 1), &flow, &[0]));
    env.end("t", 0);
    env.pass(Span(10));
    assert_eq!(env.uploads(), 1);
    let hash = file(100).hash;
    let mut pauses = Vec::new();
    for tries in 1..=12 {
        not_brought(&mut env, hash, true);
        assert_eq!(env.uploads(), tries, "not at once");
        let failed = env.now.mono;
        let due = env.driver.next_wakeup().unwrap();
        env.pass(due - failed);
        while env.uploads() == tries {
            let next = env.driver.next_wakeup().unwrap();
            env.pass(next - env.now.mono);
        }
        pauses.push((env.now.mono - failed).0);
    }
    assert!((500..=1000).contains(&pauses[0]), "{pauses:?}");
    assert!(pauses[3] > pauses[0] && pauses[7] > pauses[3], "{pauses:?}");
    assert!((150_000..=300_000).contains(&pauses[11]), "{pauses:?}");
    not_brought(&mut env, hash, true);
    let session = env.session.unwrap();
    let why = "cut".to_owned();
    env.event(Event::Unlinked { session, why });
    env.actions.clear();
    env.pass(Span::secs(3600));
    assert_eq!(env.uploads(), 0, "not without a link");
    env.join(origin());
    assert_eq!(env.uploads(), 1, "a new session asks at once");
    env.event(Event::Uploaded { hash });
    env.pass(Span::secs(3600));
    assert_eq!(env.uploads(), 1, "it is there");
    env.check_replay();
}

/// Found by seed 4105: the files of forgotten runs filled a narrow link for hours.
#[test]
fn what_a_forgotten_run_made_is_not_brought_any_more() {
    let mut env = Env::new();
    let ids: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
    let flow = workflow(ids.iter().map(|id| task(id, &[])).collect());
    let all: Vec<u32> = (0..12).collect();
    env.assigned(assign(slice(0, 1), &flow, &all));
    for id in &ids {
        env.end(id, 0);
        env.pass(Span(10));
    }
    assert_eq!(env.uploads(), 8, "so many at once");
    env.tell(vec![Wish::Forget { run: RUN }]);
    assert!(env.states().is_empty());
    for n in 100..108 {
        env.event(Event::Uploaded { hash: file(n).hash });
    }
    env.pass(Span(10));
    assert_eq!(env.uploads(), 8);
    env.check_replay();
}

#[test]
fn a_file_that_is_gone_here_is_not_brought_and_holds_no_release() {
    let mut env = Env::new();
    let flow = workflow(vec![task("t", &[]), task("u", &[])]);
    env.assigned(assign(slice(0, 1), &flow, &[0, 1]));
    env.end("t", 0);
    env.pass(Span(10));
    env.tell(vec![Wish::Release { slice: slice(0, 1) }]);
    env.gone("u");
    env.pass(Span(10));
    let released = |env: &Env| matches!(env.facts().pop(), Some(Body::Released { .. }));
    assert!(!released(&env), "its output is on its way");
    env.actions.clear();
    not_brought(&mut env, file(100).hash, false);
    env.pass(Span::secs(3600));
    assert!(released(&env));
    assert_eq!(env.uploads(), 0);
    env.check_replay();
}

#[test]
fn what_a_clean_stop_interrupts_counts_to_no_crash_limit() {
    for clean in [true, false] {
        let mut env = Env::new();
        let mut one = task("a", &[]);
        one.crash_limit = 1;
        env.submit(&workflow(vec![one]));
        env.held.clear();
        env.driver = edge_core::driver::Driver::open(
            edge_core::memory::MemStore::new(env.disk.clone()),
            env.config.clone(),
        )
        .unwrap();
        env.start(clean);
        let state = if clean { "a=running" } else { "a=failed" };
        assert_eq!(env.states(), state);
    }
}

#[test]
fn a_coordinator_that_does_not_answer_is_hung_up_and_dialled_again() {
    let mut env = Env::new();
    let session = env.session.expect("it dials");
    env.event(Event::Linked { session });
    env.pass(Span::secs(61));
    assert!(env.actions.contains(&Action::Hangup { session }));
    env.pass(Span::secs(61));
    assert!(
        env.session.is_some_and(|next| next > session),
        "it dials again"
    );
}

/// Milliseconds until it dials again.
fn until_it_dials(env: &mut Env) -> u64 {
    let dials = |action: &Action| matches!(action, Action::Dial { .. });
    let since = env.now.mono;
    env.actions.clear();
    while !env.actions.iter().any(dials) {
        let next = env.driver.next_wakeup().expect("it dials again");
        env.pass(next - env.now.mono);
    }
    (env.now.mono - since).0
}

/// What each of many gateways does after the same.
fn fleet(after: impl Fn(&mut Env) -> u64) -> Vec<u64> {
    let one = |seed| {
        let mut env = Env::on(Disk::new(NODE, LIFE), config());
        env.seed = seed;
        env.start(false);
        after(&mut env)
    };
    (0..200).map(one).collect()
}

/// At least a tenth of them lies in each quarter of the range.
fn spread(pauses: &[u64], from: u64, to: u64) {
    let range = from..=to;
    assert!(pauses.iter().all(|p| range.contains(p)), "{pauses:?}");
    for quarter in 0..4 {
        let step = (to - from) / 4;
        let part = from + quarter * step..=from + (quarter + 1) * step;
        let inside = pauses.iter().filter(|p| part.contains(p)).count();
        assert!(inside >= 20, "{inside} in {part:?}: {pauses:?}");
    }
}

fn unlink(env: &mut Env) {
    let (session, why) = (env.session.expect("it dials"), "cut".to_owned());
    env.event(Event::Unlinked { session, why });
}

#[test]
fn gateways_that_one_event_cut_off_dial_again_soon_at_different_moments() {
    let (base, most) = (config().redial.0.0, config().redial.1.0);
    let pauses = fleet(|env| {
        env.join(origin());
        unlink(env);
        until_it_dials(env)
    });
    spread(&pauses, 0, 2 * base);
    for failures in [3, 12] {
        let pauses = fleet(|env| {
            env.join(origin());
            unlink(env);
            for _ in 1..failures {
                until_it_dials(env);
                unlink(env);
            }
            until_it_dials(env)
        });
        spread(&pauses, 0, (base << failures).min(most));
    }
}

#[test]
fn a_hint_when_to_call_again_is_kept_and_does_not_bring_all_back_at_once() {
    let told = |millis| {
        fleet(|env| {
            let session = env.session.unwrap();
            env.event(Event::Linked { session });
            env.hear(Down::Refuse(Refuse {
                reason: Refusal::Busy,
                text: "too many".to_owned(),
                retry_after: Some(Span(millis)),
            }));
            until_it_dials(env)
        })
    };
    spread(&told(3000), 3000, 6000);
    // no coordinator keeps a gateway away for good by a slip
    let long = told(u64::MAX);
    assert!(long.iter().all(|p| *p <= 1_800_000), "{long:?}");
}

#[test]
fn a_group_that_is_too_large_for_one_commit_is_split_and_sent_in_whole_commits() {
    let mut env = Env::new();
    let many = ENTRIES_PER_COMMIT as u32 + 500;
    let mut tasks: Vec<_> = (0..many).map(|n| task(&format!("t{n}"), &[])).collect();
    tasks.iter_mut().for_each(|task| task.outputs.clear());
    let all: Vec<u32> = (0..many).collect();
    env.assigned(assign(slice(0, 1), &workflow(tasks), &all));
    let before = env.disk.commits();
    let (run, by, why) = (RUN, "ann".to_owned(), String::new());
    env.local(5, Local::Cancel { run, by, why });
    assert!(env.disk.commits() - before >= 2);
    while !env.held.is_empty() {
        let id = env.held[0].task.id.clone();
        env.gone(&id);
    }
    env.pass(Span(10));
    env.check_replay();
    let cancelled = |body: &Body| match body {
        Body::Moved { to, .. } => *to == TaskState::Cancelled,
        Body::Ended { end, .. } => {
            end.outcome == Outcome::NotBegun || end.outcome == Outcome::Cancelled
        }
        _ => false,
    };
    let facts = env.facts();
    assert_eq!(
        facts.iter().filter(|body| cancelled(body)).count(),
        many as usize
    );
    let mut next = 0;
    for up in env.sent() {
        if let Up::Facts(batch) = up {
            assert_eq!(batch.after.number, next);
            assert!(batch.entries.len() <= ENTRIES_PER_COMMIT);
            next = batch.head().number;
        }
    }
    assert_eq!(next as usize, facts.len());
}

/// The chained head of all facts so far; nothing is pruned yet.
fn whole(env: &Env) -> Head {
    let facts: Vec<Vec<u8>> = env
        .disk
        .facts()
        .into_iter()
        .map(|(_, bytes)| bytes)
        .collect();
    origin().then_all(&facts)
}

fn first_kept(env: &Env) -> u64 {
    env.disk.facts()[0].0
}

/// Acknowledged facts that are older than the window go, where backups are made only those that are
/// in one.
#[test]
fn acknowledged_facts_are_kept_until_they_are_in_a_backup_where_backups_are_made() {
    for features in [0, shared::wire::BACKUPS] {
        let mut env = Env::new();
        env.join_as(origin(), |welcome| welcome.features = features);
        env.submit(&two());
        env.end("a", 0);
        env.pass(Span::secs(20));
        let old = whole(&env);
        env.ack(old);
        env.pass(Span::secs(7200));
        env.end("b", 0);
        env.pass(Span::secs(20));
        if features == 0 {
            assert!(first_kept(&env) > 1, "it need not wait for a backup");
            continue;
        }
        assert_eq!(first_kept(&env), 1);
        let (generation, seal) = (shared::ids::Generation(5), [0; 32]);
        let (head, safe) = (old, old.number - 1);
        env.hear(Down::Ack(shared::wire::Ack {
            generation,
            head,
            seal,
            safe,
        }));
        env.crash();
        env.pass(Span::secs(20));
        assert_eq!(first_kept(&env), 1, "a start alone forgets nothing");
    }
}

/// A workflow of some 190 kB packed.
fn bulky(n: u32) -> Workflow {
    let noise = (0..6000u32).map(|m| Hash::of(&[n.to_le_bytes(), m.to_le_bytes()].concat()).hex());
    let mut flow = two();
    flow.description = noise.collect();
    flow
}

#[test]
fn only_so_many_bytes_of_facts_are_under_way_and_acknowledgements_make_room() {
    let mut env = Env::new();
    for n in 0..10 {
        let workflow = shared::codec::pack(&bulky(n)).0;
        let what = Local::Submit {
            run: RunId([n as u8 + 1; 16]),
            workflow,
            by: "ann".to_owned(),
        };
        env.local(u64::from(n), what);
    }
    env.join(origin());
    let batches = |env: &Env| -> Vec<Head> {
        let facts = env.sent().into_iter().filter_map(|up| match up {
            Up::Facts(batch) => Some(batch.head()),
            _ => None,
        });
        facts.collect()
    };
    let sent = batches(&env);
    assert_eq!(sent.len(), 6, "the sixth reaches 1 MiB");
    env.ack(sent[1]);
    assert_eq!(batches(&env).len(), 8, "as many again as were acknowledged");
    env.ack(sent[5]);
    let all = batches(&env);
    assert_eq!(all.last().unwrap().number, env.facts().len() as u64);
}

/// What reached the coordinator behind its backup is not there any more once that is restored.
#[test]
fn a_coordinator_whose_store_went_back_gets_the_files_again() {
    let mut env = Env::new();
    let one = workflow(vec![task("a", &[])]);
    env.assigned(assign(slice(0, 1), &one, &[0]));
    env.end("a", 0);
    env.pass(Span(10));
    let hash = file(100).hash;
    let uploads = |env: &Env| {
        let upload =
            |action: &&Action| matches!(action, Action::Upload { hash: h, .. } if *h == hash);
        env.actions.iter().filter(upload).count()
    };
    assert_eq!(uploads(&env), 1);
    env.event(Event::Uploaded { hash });
    env.pass(Span::secs(20));
    let again = |env: &mut Env, change: &dyn Fn(&mut shared::wire::Welcome)| {
        let (session, why) = (env.session.unwrap(), String::new());
        env.event(Event::Unlinked { session, why });
        env.pass(Span::secs(60));
        let facts = env.driver.heads().0;
        env.join_as(facts, change);
    };
    again(&mut env, &|_| {});
    assert_eq!(uploads(&env), 1, "it is there");
    again(&mut env, &|welcome| welcome.want_inventory = true);
    assert_eq!(uploads(&env), 2, "nobody knows whether it still is");
    env.tell(vec![Wish::Release { slice: slice(0, 1) }]);
    assert_eq!(env.states(), "a=succeeded", "the only copy is here");
    env.event(Event::Uploaded { hash });
    env.pass(Span(10));
    assert_eq!(env.states(), "");
    again(&mut env, &|welcome| welcome.generation.0 += 1);
    assert_eq!(uploads(&env), 2, "it went with its slice");
}

/// Found by seed 3841: a file went to make room when its run was over. The task that was let run
/// again made the same contents, which nobody brought, and its reader elsewhere waited for ever.
#[test]
fn what_is_made_again_with_the_same_contents_is_brought_again() {
    let mut env = Env::new();
    let one = workflow(vec![task("a", &[])]);
    let hash = file(100).hash;
    env.assigned(assign(slice(0, 1), &one, &[0]));
    env.end("a", 0);
    env.pass(Span(10));
    env.event(Event::Uploaded { hash });
    env.tell(vec![Wish::Release { slice: slice(0, 1) }]);
    env.event(Event::Uploaded { hash });
    env.pass(Span(10));
    assert_eq!((env.states().as_str(), env.uploads()), ("", 2));
    env.tell(vec![Wish::Assign(assign(slice(1, 2), &one, &[0]))]);
    env.end("a", 0);
    env.pass(Span(10));
    assert_eq!(env.uploads(), 3, "nobody knows whether it still is there");
    env.tell(vec![Wish::Release { slice: slice(1, 2) }]);
    env.pass(Span(10));
    assert_eq!(env.states(), "a=succeeded", "it is on its way");
    env.event(Event::Uploaded { hash });
    env.pass(Span(10));
    assert_eq!((env.states().as_str(), env.uploads()), ("", 3));
    env.check_replay();
}

/// The certificate is the shell's business: the core goes on as if nothing was said.
#[test]
fn a_session_goes_on_when_a_renewal_is_asked_for() {
    let mut env = Env::new();
    env.assigned(assign(slice(0, 1), &two(), &[0, 1]));
    env.actions.clear();
    let within = Span::secs(5);
    env.hear(Down::Renew { within });
    assert!(env.actions.is_empty(), "{:?}", env.actions);
    env.hear(Down::Ping { nonce: 7 });
    assert!(env.sent().contains(&&Up::Pong { nonce: 7 }));
    env.end("a", 0);
    assert!(env.sent().iter().any(|up| up.facts().is_some()));
}

#[test]
fn once_there_was_no_room_the_coordinator_is_told_at_each_session_and_each_change() {
    let told = |env: &mut Env| {
        let room = |up: &Up| match up {
            Up::Room { enough } => Some(*enough),
            _ => None,
        };
        let told: Vec<bool> = env.sent().into_iter().filter_map(room).collect();
        env.actions.clear();
        told
    };
    let measured = |env: &mut Env, free| env.event(Event::Room { free, wanted: 1000 });
    let mut env = Env::new();
    env.join_as(origin(), |welcome| welcome.features = ROOM);
    measured(&mut env, 1 << 30);
    assert!(
        told(&mut env).is_empty(),
        "that is what it takes for granted"
    );
    measured(&mut env, 10);
    measured(&mut env, 11);
    assert_eq!(told(&mut env), [false]);
    let hang_up = |env: &mut Env| {
        let (session, why) = (env.session.unwrap(), String::new());
        env.event(Event::Unlinked { session, why });
        env.pass(Span::secs(60));
    };
    hang_up(&mut env);
    env.join_as(origin(), |welcome| welcome.features = ROOM);
    assert_eq!(told(&mut env), [false]);
    measured(&mut env, 2 << 30);
    assert_eq!(told(&mut env), [true]);
    hang_up(&mut env);
    env.join_as(origin(), |welcome| welcome.features = ROOM);
    assert_eq!(told(&mut env), [true], "it may not have come there before");
    hang_up(&mut env);
    env.join_as(origin(), |welcome| welcome.features = 0);
    measured(&mut env, 10);
    assert!(told(&mut env).is_empty(), "one that does not read it");
}
