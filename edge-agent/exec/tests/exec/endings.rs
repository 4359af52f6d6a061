//! Stops, queues, and what earlier agents left: nothing of an attempt outlives its end.

use crate::common::{World, argv, shell, store_id};
use edge_exec::{Command, Executor, Options, Stream};
use shared::explain::Reason;
use shared::time::Span;
use std::os::unix::process::CommandExt;
use std::time::Duration;

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until `path` holds a whole line.
fn line_of(world: &World, launch: &edge_exec::Launch, lines: usize) -> Vec<String> {
    for _ in 0..3000 {
        let text = world.log(&launch.attempt, Stream::Out);
        if text.lines().count() >= lines {
            return text.lines().map(str::to_owned).collect();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the task did not say what was expected");
}

#[test]
fn a_deaf_task_and_its_runaway_grandchild_are_gone_before_the_end_is_reported() {
    let world = World::new(1);
    let text = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; sleep 1000' & \
                sleep 1000 & echo $!; echo $$; while :; do sleep 1000; done";
    let launch = shell(1, text);
    world.begin(launch.clone());
    let pids = line_of(&world, &launch, 3);
    assert!(pids.iter().all(|pid| alive(pid)));
    world.stop(launch.attempt, Span(100));
    let ended = world.ended();
    assert_eq!((ended.reason, ended.exit), (Reason::TimedOut, Some(-9)));
    assert!(ended.began.is_some());
    assert!(!pids.iter().any(|pid| alive(pid)), "{pids:?}");
}

#[test]
fn what_a_task_leaves_in_the_background_ends_with_it() {
    nothing_is_left_behind(&World::new(2));
}

#[test]
fn it_does_so_without_the_list_of_orphans_too() {
    nothing_is_left_behind(&World::with(20, |options| options.list_orphans = false));
}

#[test]
fn what_a_task_left_for_dead_or_without_a_mark_holds_up_nobody() {
    let world = World::new(21);
    // a daemon that forgot its environment, and one that is over when its parent is
    let text = "setsid env -i sh -c 'echo $$; exec sleep 1000' & setsid true & sleep 0.1";
    let launch = shell(1, text);
    assert_eq!(world.run(launch.clone()).reason, Reason::ExitedZero);
    let daemon = line_of(&world, &launch, 1).remove(0);
    for number in 2..20 {
        let pause = if number % 5 == 0 { "0.3" } else { "0" };
        let ended = world.run(shell(number, &format!("sleep {pause}")));
        assert_eq!(ended.reason, Reason::ExitedZero, "{}", ended.text);
    }
    let pid = rustix::process::Pid::from_raw(daemon.parse().expect("a number")).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is still there");
    let zombie = || state(&daemon) == Some('Z');
    while alive(&daemon) && !zombie() {
        std::thread::yield_now();
    }
    world.run(argv(30, &["true"]));
    assert_eq!(state(&daemon), None, "whoever ends next lets it go");
}

/// State of a process as the kernel names it.
fn state(pid: &str) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

fn nothing_is_left_behind(world: &World) {
    // short and long attempts are looked after in different ways
    for (number, pause) in [(1, "0"), (2, "0.4"), (3, "0.05")] {
        // the last one is below a daemon that forgot its environment
        let text = format!(
            "sleep 1000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000' & \
             setsid sh -c 'sleep 1000 & echo $!; exec env -i sleep 2' & sleep {pause}"
        );
        let launch = shell(number, &text);
        let ended = world.run(launch.clone());
        assert_eq!(ended.reason, Reason::ExitedZero);
        let pids = world.log(&launch.attempt, Stream::Out);
        assert!(pids.lines().count() >= 1);
        assert!(!pids.lines().any(alive), "{pids}");
    }
}

#[test]
fn a_polite_task_ends_on_term_within_its_grace() {
    let world = World::new(3);
    let launch = shell(
        1,
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done",
    );
    world.begin(launch.clone());
    line_of(&world, &launch, 1);
    world.stop(launch.attempt, Span::secs(600));
    let ended = world.ended();
    assert_eq!((ended.reason, ended.exit), (Reason::TimedOut, Some(0)));
    assert_eq!(world.log(&launch.attempt, Stream::Out), "up\nbye\n");
}

#[test]
fn queued_attempts_keep_their_order_and_can_be_stopped() {
    let world = World::with(4, |options| options.slots = 1);
    let first = shell(0, "echo up; sleep 1000");
    world.begin(first.clone());
    (1..6).for_each(|number| world.begin(argv(number, &["true"])));
    world.begin(argv(5, &["true"]));
    line_of(&world, &first, 1);
    world.stop(argv(3, &[""]).attempt, Span(0));
    let ended = world.ended();
    assert_eq!((ended.attempt.task.0, ended.reason), (3, Reason::TimedOut));
    assert!(ended.began.is_none());
    let mut urgent = argv(9, &["true"]);
    urgent.queue = false;
    assert_eq!(world.run(urgent).reason, Reason::ExitedZero);
    world.stop(first.attempt, Span(0));
    let order: Vec<_> = (0..5).map(|_| world.ended().attempt.task.0).collect();
    assert_eq!(order, [0, 1, 2, 4, 5]);
}

#[test]
fn a_stop_that_comes_too_late_hits_nobody_else() {
    let world = World::with(5, |options| options.slots = 1);
    for number in 0..50 {
        let launch = argv(number, &["true"]);
        world.begin(launch.clone());
        world.begin(argv(1000 + number, &["true"]));
        let a = world.ended();
        assert_eq!(a.attempt, launch.attempt);
        // the other one begins at this moment, in the same slot
        world.stop(launch.attempt, Span(0));
        let b = world.ended();
        assert_eq!(b.reason, Reason::ExitedZero, "{}", b.text);
    }
}

#[test]
fn shutting_down_ends_everything_and_reports_it() {
    let mut world = World::with(6, |options| options.slots = 2);
    (0..4).for_each(|number| world.begin(shell(number, "sleep 1000")));
    world.began();
    world.began();
    world.executor.shutdown(Span::secs(5), Reason::AgentDied);
    let ended: Vec<_> = world
        .events
        .try_iter()
        .filter_map(|event| match event {
            edge_exec::Event::Ended(ended) => Some((ended.began.is_some(), ended.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(ended.len(), 4);
    assert!(ended.iter().all(|(_, reason)| *reason == Reason::AgentDied));
    assert_eq!(ended.iter().filter(|(began, _)| *began).count(), 2);
}

#[test]
fn strangers_of_an_earlier_agent_are_ended_and_named() {
    let world = World::new(7);
    let launch = argv(1, &["true"]);
    let attempt = launch.attempt;
    let a = &attempt.slice;
    let mark = format!(
        "{}-{}-{}-{}-{}",
        a.run, a.slice, attempt.task.0, a.epoch, attempt.number
    );
    let other = store_id(77).to_string();
    let start = |store: &str, text: &str| {
        std::process::Command::new("sh")
            .args(["-c", text])
            .env("DRIFTLESS_STORE", store)
            .env("DRIFTLESS_MARK", &mark)
            .process_group(0)
            .spawn()
            .unwrap()
    };
    let deaf = "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & \
                while :; do sleep 0.1; done";
    let mut leftover = start(&store_id(7).to_string(), deaf);
    let mut innocent = start(&other, "exec sleep 1000");
    std::thread::sleep(Duration::from_millis(200));
    let report = world.executor.reap_strangers(Span(300)).unwrap();
    assert_eq!(report.killed, [attempt]);
    assert!(report.processes >= 2, "{report:?}");
    assert_eq!(report.directories, []);
    assert!(!leftover.wait().unwrap().success());
    assert!(
        innocent.try_wait().unwrap().is_none(),
        "another data directory's"
    );
    innocent.kill().unwrap();
    innocent.wait().unwrap();
    let report = world.executor.reap_strangers(Span(0)).unwrap();
    assert_eq!((report.processes, report.killed.len()), (0, 0));
}

#[test]
fn directories_that_are_left_are_found_and_settled() {
    let world = World::new(8);
    let attempt = world.run(argv(1, &["true"])).attempt;
    let options = Options::new(world.data.clone(), store_id(8));
    let mut next = Executor::start(options, |_| {}).unwrap();
    assert_eq!(next.reap_strangers(Span(0)).unwrap().directories, [attempt]);
    next.command(Command::Settled(vec![attempt]));
    next.shutdown(Span(0), Reason::AgentDied);
    assert_eq!(
        std::fs::read_dir(world.data.join("work/0"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn unusable_options_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Executor::start(Options::new(file, store_id(9)), |_| {}).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    let mut options = Options::new(dir.path().join("data"), store_id(9));
    if rustix::process::geteuid().is_root() {
        options.run_as = None;
        let error = Executor::start(options.clone(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("root"), "{error}");
        let close = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(dir.path(), close).unwrap();
        options.run_as = Some((65_534, 65_534));
        let error = Executor::start(options, |_| {}).unwrap_err();
        assert!(error.to_string().contains("chmod o+x"), "{error}");
    } else {
        options.run_as = Some((0, 0));
        let error = Executor::start(options, |_| {}).unwrap_err();
        assert!(
            error.to_string().contains("only an agent that is root"),
            "{error}"
        );
    }
}

#[test]
fn followers_run_one_after_another_in_one_slot_and_before_the_queue() {
    let world = World::with(11, |options| options.slots = 1);
    let mut head = shell(1, "echo $$ > head; sleep 0.3");
    head.queue = false;
    let behind = |number: u32, of: &edge_exec::Launch| {
        let mut launch = shell(number, if number == 3 { "exit 7" } else { "true" });
        launch.behind = Some(of.attempt);
        launch
    };
    let (two, three) = (behind(2, &head), behind(3, &behind(2, &head)));
    let (four, five) = (behind(4, &three), behind(5, &behind(4, &three)));
    let stopped = two.attempt;
    world.begin(head);
    world.begin(shell(9, "true"));
    for launch in [two, three, four, five] {
        world.begin(launch);
    }
    world.stop(stopped, Span(0));
    let ends: Vec<_> = (0..6).map(|_| world.ended()).collect();
    let order: Vec<u32> = ends.iter().map(|end| end.attempt.task.0).collect();
    assert_eq!(order, [2, 1, 3, 4, 5, 9]);
    assert!(ends[0].began.is_none(), "it never began");
    assert_eq!(ends[2].exit, Some(7));
    assert!(ends[3].began.expect("it began").mono >= ends[2].at.mono);
}

#[test]
fn a_follower_of_what_is_over_takes_the_next_slot() {
    let world = World::with(12, |options| options.slots = 1);
    let first = shell(1, "true");
    let mut late = shell(2, "true");
    late.behind = Some(first.attempt);
    world.run(first);
    assert_eq!(world.run(late).reason, Reason::ExitedZero);
}

#[test]
fn whatever_comes_while_a_worker_goes_to_rest_is_run() {
    let world = World::with(22, |options| options.slots = 1);
    // each one comes just when the worker has told of the one before
    for number in 0..500 {
        let ended = world.run(argv(number, &["true"]));
        assert_eq!(ended.reason, Reason::ExitedZero, "{}", ended.text);
    }
}
