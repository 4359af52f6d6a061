//! Attempts as real processes: how they begin, what they see, how they end, what they leave.

use crate::common::{World, argv, shell, with_input, with_outputs, with_task};
use edge_exec::{Command, Event, InputFile, Stream};
use shared::explain::Reason;
use shared::ids::Hash;
use shared::time::Span;
use std::collections::{BTreeMap, BTreeSet};

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_success_yields_its_outputs_by_hash_and_leaves_no_files() {
    let mut world = World::new(1);
    let launch = with_outputs(
        shell(1, "echo a > a; mkdir d; echo b > d/b; echo junk > c"),
        &["a", "d/b"],
    );
    let attempt = launch.attempt;
    let ended = world.run(launch);
    assert_eq!(
        (ended.reason, ended.exit, ended.text.as_str()),
        (Reason::ExitedZero, Some(0), "")
    );
    let hashes: Vec<_> = ended.outputs.iter().map(|o| (o.hash, o.size)).collect();
    assert_eq!(hashes, [(Hash::of(b"a\n"), 2), (Hash::of(b"b\n"), 2)]);
    assert_eq!(
        std::fs::read(world.executor.files().find(hashes[1].0).unwrap().0).unwrap(),
        b"b\n"
    );
    assert!(ended.began.is_some() && ended.peak_memory > 0);
    // the directory proves that it began, until that is durable
    let benches = || std::fs::read_dir(world.data.join("work/0")).map_or(0, Iterator::count);
    assert_eq!(benches(), 1);
    world.executor.command(Command::Settled(vec![attempt]));
    let data = world.data.clone();
    world.executor.shutdown(Span(0), Reason::AgentDied);
    assert_eq!(std::fs::read_dir(data.join("work/0")).unwrap().count(), 0);
    assert!(
        !data.join("logs").read_dir().unwrap().any(|_| true),
        "silence makes no log"
    );
}

#[test]
fn failures_say_what_happened() {
    let world = World::new(2);
    let ended = world.run(with_outputs(shell(1, "true"), &["gone"]));
    assert_eq!((ended.reason, ended.exit), (Reason::OutputMissing, Some(0)));
    assert!(ended.text.contains("'gone'"), "{}", ended.text);
    let ended = world.run(shell(2, "exit 3"));
    assert_eq!((ended.reason, ended.exit), (Reason::ExitedNonzero, Some(3)));
    let ended = world.run(shell(3, "kill -SEGV $$"));
    assert_eq!((ended.reason, ended.exit), (Reason::Signalled, Some(-11)));
}

#[test]
fn what_cannot_start_never_began_and_leaves_no_directory() {
    let world = World::new(3);
    let ended = world.run(argv(1, &["no-such-program-here"]));
    assert_eq!((ended.reason, ended.began), (Reason::CannotStart, None));
    assert!(ended.text.contains("no-such-program-here") && ended.text.contains("/usr/bin"));
    let ended = world.run(argv(2, &["/etc/passwd"]));
    assert_eq!((ended.reason, ended.began), (Reason::CannotStart, None));
    assert!(ended.text.contains("/etc/passwd"), "{}", ended.text);
    for bad in ["../up", "/tmp"] {
        let ended = world.run(with_task(shell(3, "true"), |task| {
            task.workdir = bad.to_owned()
        }));
        assert_eq!((ended.reason, ended.began), (Reason::CannotStart, None));
        assert!(ended.text.contains(bad), "{}", ended.text);
    }
    let lost = InputFile::Stored(Hash::of(b"never stored"));
    let ended = world.run(with_input(shell(4, "true"), "in", lost));
    assert_eq!((ended.reason, ended.began), (Reason::InputMissing, None));
    let up = InputFile::NodeFile("/etc/passwd".to_owned());
    let ended = world.run(with_input(shell(5, "true"), "in", up.clone()));
    assert_eq!(ended.reason, Reason::InputMissing);
    assert!(ended.text.contains("read roots"), "{}", ended.text);
    let ended = world.run(with_input(shell(6, "true"), "../in", up));
    assert_eq!((ended.reason, ended.began), (Reason::CannotStart, None));
    assert_eq!(
        std::fs::read_dir(world.data.join("work/0"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn inputs_stdin_and_workdir_are_laid_and_nothing_else() {
    let node = tempfile::tempdir().unwrap();
    std::fs::write(node.path().join("n"), "node\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", node.path().join("out")).unwrap();
    let world = World::with(4, |options| {
        options.read_roots = vec![node.path().to_owned()]
    });
    let (stored, _) = world.executor.files().add(&mut &b"stored\n"[..]).unwrap();
    let file = |name: &str| InputFile::NodeFile(format!("{}/{name}", node.path().display()));
    let launch = shell(
        1,
        "pwd >&2; cat - ../n; find .. -type f | sort; cp ../i/s s",
    );
    let launch = with_input(launch, "i/s", InputFile::Stored(stored));
    let launch = with_input(launch, "n", file("n"));
    let launch = with_task(with_outputs(launch, &["w/s"]), |task| {
        task.workdir = "w".to_owned();
        task.stdin = Some("i/s".to_owned());
    });
    let attempt = launch.attempt;
    let ended = world.run(launch);
    assert_eq!(ended.reason, Reason::ExitedZero, "{}", ended.text);
    assert_eq!(ended.outputs[0].hash, stored);
    assert_eq!(ended.outputs.len(), 1);
    assert_eq!(
        world.log(&attempt, Stream::Out),
        "stored\nnode\n../i/s\n../n\n"
    );
    assert!(world.log(&attempt, Stream::Err).ends_with("/w\n"));
    let ended = world.run(with_input(shell(2, "true"), "x", file("out")));
    assert_eq!(
        ended.reason,
        Reason::InputMissing,
        "a link out of the read roots"
    );
}

#[test]
fn outputs_that_lead_out_of_the_directory_are_refused() {
    let world = World::new(5);
    let links = "ln -s /etc/passwd a; mkdir d; ln -s /etc e; mkfifo f";
    for (number, path) in (0..).zip(["a", "e/passwd", "../x", "f", "d"]) {
        let ended = world.run(with_outputs(shell(number, links), &[path]));
        assert_eq!(ended.reason, Reason::OutputMissing, "{path}");
        assert!(ended.outputs.is_empty());
    }
}

#[test]
fn the_environment_is_built_from_scratch() {
    let world = World::new(6);
    let mut launch = with_task(argv(1, &["env"]), |task| {
        task.id = "extract".to_owned();
        task.env = BTreeMap::from([
            ("LIMIT".to_owned(), "7".to_owned()),
            ("DRIFTLESS_RUN".to_owned(), "forged".to_owned()),
        ]);
    });
    launch.env.insert("EXTRA".to_owned(), "x".to_owned());
    let attempt = launch.attempt;
    assert_eq!(world.run(launch).reason, Reason::ExitedZero);
    let text = world.log(&attempt, Stream::Out);
    let env: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let names: Vec<_> = env.keys().copied().collect();
    let wanted = "DRIFTLESS_ATTEMPT DRIFTLESS_FENCE DRIFTLESS_MARK DRIFTLESS_RUN DRIFTLESS_STORE \
                  DRIFTLESS_TASK EXTRA HOME LANG LIMIT PATH TMPDIR";
    assert_eq!(names.join(" "), wanted);
    assert_eq!(
        (env["DRIFTLESS_TASK"], env["DRIFTLESS_FENCE"], env["LIMIT"]),
        ("extract", "5.1", "7")
    );
    assert_eq!(env["DRIFTLESS_RUN"], attempt.slice.run.to_string());
    assert!(env["HOME"].starts_with(world.data.to_str().unwrap()));
    let bad = with_task(argv(2, &["env"]), |task| {
        task.env.insert("A=B".to_owned(), String::new());
    });
    assert_eq!(world.run(bad).reason, Reason::CannotStart);
}

#[test]
fn tasks_of_a_root_agent_run_as_nobody_without_groups_and_capabilities() {
    if !root() {
        println!("skipped: only root can run tasks as another user");
        return;
    }
    let world = World::new(7);
    let launch = shell(
        1,
        "grep -E '^(Uid|Gid|Groups|CapPrm|CapEff|CapAmb)' /proc/self/status; id -u > o; cat /etc/shadow",
    );
    let launch = with_outputs(launch, &["o"]);
    let attempt = launch.attempt;
    assert_eq!(
        world.run(launch).reason,
        Reason::ExitedNonzero,
        "shadow cannot be read"
    );
    let status = world.log(&attempt, Stream::Out).replace(['\t', ' '], "");
    let id = "65534".repeat(4);
    let none = "0".repeat(16);
    let wanted =
        format!("Uid:{id}\nGid:{id}\nGroups:\nCapPrm:{none}\nCapEff:{none}\nCapAmb:{none}\n");
    assert_eq!(status, wanted);
    // what only root can read is not published by a link to it
    let secret = world.data.join("secret");
    std::fs::write(&secret, "s").unwrap();
    let hide = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, hide).unwrap();
    let steal = format!("ln {} o || touch o; test ! -r o || rm o", secret.display());
    let ended = world.run(with_outputs(shell(2, &steal), &["o"]));
    assert!(ended.outputs.iter().all(|o| o.hash != Hash::of(b"s")));
    // and the worker is root again
    assert_eq!(
        world
            .run(with_outputs(shell(3, "id -u > o"), &["o"]))
            .outputs[0]
            .hash,
        Hash::of(b"65534\n")
    );
}

#[test]
fn output_beyond_the_quota_is_dropped_and_blocks_nobody() {
    let mut world = World::with(8, |options| {
        options.log_quota_per_attempt = 10_000;
        // Two logs, and a note of what is missing each, which takes a block.
        options.log_quota_node = 30_000;
    });
    for number in 1..4 {
        let launch = shell(number, "yes | head -c 3000000; echo end >&2");
        let attempt = launch.attempt;
        world.begin(launch);
        let mut dropped_logs = 0;
        let ended = loop {
            match world.next() {
                Event::Ended(ended) => break ended,
                Event::LogsDropped { files, .. } => dropped_logs += files,
                Event::Began { .. } => {}
            }
        };
        assert_eq!(
            (ended.reason, ended.log_dropped),
            (Reason::ExitedZero, 2_990_004)
        );
        let log = world.log(&attempt, Stream::Out);
        assert!(log.starts_with("y\ny\n") && log.contains("2990000 more bytes were dropped"));
        assert_eq!(
            dropped_logs > 0,
            number == 3,
            "the node's quota holds two logs"
        );
    }
    assert_eq!(world.log(&shell(1, "").attempt, Stream::Out), "");
    world
        .executor
        .command(Command::Forget(shell(1, "").attempt.slice.run));
    let data = world.data.clone();
    world.executor.shutdown(Span(0), Reason::AgentDied);
    assert!(!data.join("logs").read_dir().unwrap().any(|_| true));
}

#[test]
fn two_hundred_at_once_all_end_well() {
    let mut world = World::new(9);
    for number in 0..200 {
        let mut launch = with_outputs(
            shell(number, "echo $DRIFTLESS_ATTEMPT > o; sleep 0.05"),
            &["o"],
        );
        launch.queue = number % 4 == 0;
        world.begin(launch);
    }
    let ended: Vec<_> = (0..200).map(|_| world.ended()).collect();
    let tasks: BTreeSet<_> = ended.iter().map(|e| e.attempt.task).collect();
    assert_eq!(tasks.len(), 200);
    for end in &ended {
        assert_eq!(end.reason, Reason::ExitedZero, "{}", end.text);
        assert_eq!(end.outputs[0].hash, Hash::of(b"1\n"));
    }
    world
        .executor
        .command(Command::Settled(ended.iter().map(|e| e.attempt).collect()));
    let data = world.data.clone();
    world.executor.shutdown(Span(0), Reason::AgentDied);
    for bench in data.join("work").read_dir().unwrap() {
        assert_eq!(bench.unwrap().path().read_dir().unwrap().count(), 0);
    }
}

#[test]
fn a_used_directory_is_never_handed_on_with_traces() {
    let world = World::with(10, |options| options.slots = 1);
    let mark = "ls -A > /proc/self/fd/1; stat -c %a .; touch left; chmod 755 .";
    for number in 0..5 {
        let launch = shell(number, mark);
        let attempt = launch.attempt;
        assert_eq!(world.run(launch).reason, Reason::ExitedZero);
        assert_eq!(world.log(&attempt, Stream::Out), "700\n");
        world.executor.command(Command::Settled(vec![attempt]));
        let clean = argv(100 + number, &["true"]);
        let attempt = clean.attempt;
        assert_eq!(world.run(clean).reason, Reason::ExitedZero);
        world.executor.command(Command::Settled(vec![attempt]));
    }
}
