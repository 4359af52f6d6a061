//! `driftless rehearse`, and that what it foretells happens with the real binaries.

#![expect(clippy::unwrap_used, reason = "a test ends with its first surprise")]

use e2e::fleet::{Fleet, output, program};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

const FLEET: &str = "
nodes:
  - {name: gw-0, labels: {site: a}, cpus: 2}
  - {name: gw-1, labels: {site: b}, cpus: 2}
";
/// Two sites, a file between them, and tasks beside.
const FLOW: &str = "
name: small
tasks:
  write: {estimate: 2s, placement: {site: a}, outputs: [data], shell: 'sleep 2; echo x > data'}
  read: {estimate: 1s, placement: {site: b}, inputs: [data], shell: 'sleep 1; cat data'}
  other: {estimate: 1s, placement: {site: b}, shell: sleep 1}
  beside: {needs: [read], trigger_rule: all_done, placement: {site: a}, shell: 'true'}
";

fn rehearse(dir: &Path, flow: &str, args: &[&str]) -> Output {
    rehearse_on(dir, FLEET, flow, args)
}

fn rehearse_on(dir: &Path, fleet: &str, flow: &str, args: &[&str]) -> Output {
    let (flow_file, fleet_file) = (dir.join("flow.yaml"), dir.join("fleet.yaml"));
    fs::write(&flow_file, flow).unwrap();
    fs::write(&fleet_file, fleet).unwrap();
    let mut command = program("driftless");
    command.arg("rehearse").arg(flow_file).arg("--nodes");
    output(command.arg(fleet_file).args(args))
}

fn report(out: &Output) -> Value {
    let text = String::from_utf8_lossy(&out.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {out:?}"))
}

#[test]
fn a_rehearsal_answers_and_its_conditions_set_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("worst.html");
    let few = ["--seeds", "6", "--link-down", "1m..2m", "--power-cut", "1"];
    let more = ["--json", "--html", page.to_str().unwrap()];
    let good = ["--expect", "succeeded=100%", "--expect", "longest<=1h"];
    let out = rehearse(dir.path(), FLOW, &[&few[..], &more, &good].concat());
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let report = report(&out);
    assert_eq!(report["seeds"], 6);
    assert_eq!(report["states"]["succeeded"], 6);
    assert_eq!(report["expect"][0]["met"], true);
    assert_eq!(report["broken"], serde_json::json!([]));
    assert!(report["longest_ms"].as_u64() > report["without_faults_ms"].as_u64());
    let drawn = fs::read_to_string(page).unwrap();
    for part in [
        "small, rehearsed in 6 seeds",
        "<td>6 succeeded</td>",
        "longest&lt;=1h",
        "How long the runs took",
        "6 succeeded</span>",
        "The worst seed",
        "gw-1 is gw-0",
    ] {
        assert!(drawn.contains(part), "{part}: {drawn}");
    }
    for foreign in ["<script", "http:", "https:", "url(", "src="] {
        assert!(!drawn.contains(foreign), "{foreign}");
    }

    let bad = ["--seeds", "2", "--expect", "longest<=1s"];
    let out = rehearse(dir.path(), FLOW, &bad);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        text.contains("longest<=1s") && text.contains("NO"),
        "{text}"
    );
}

/// What a CI keeps beside its workflow: the faults, and what must hold under them.
#[test]
fn faults_and_conditions_stand_in_a_file_and_flags_win_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let faults = dir.path().join("faults.yaml");
    let kept = "link-down: 1m..2m\npower-cut: 1\nseeds: 3\nexpect: ['longest<=1s']\n";
    fs::write(&faults, kept).unwrap();
    let with = ["--faults", faults.to_str().unwrap(), "--json"];
    let flags = ["--link-down", "1m..2m", "--power-cut", "1", "--seeds", "3"];
    let bad = ["--expect", "longest<=1s", "--json"];

    let filed = rehearse(dir.path(), FLOW, &with);
    let flagged = rehearse(dir.path(), FLOW, &[&flags[..], &bad].concat());
    assert_eq!(filed.status.code(), Some(1), "{filed:?}");
    assert_eq!(report(&filed), report(&flagged));

    let other = ["--power-cut", "0", "--expect", "succeeded=100%"];
    let out = rehearse(dir.path(), FLOW, &[&with[..], &other].concat());
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let told = report(&out);
    assert_eq!(told["seeds"], 3);
    assert!(told["faults"]["agent_power_cut"].is_null(), "{told}");

    fs::write(&faults, "link-down: 5\npower-cuts: 1\n").unwrap();
    let out = rehearse(dir.path(), FLOW, &with);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(6), "{said}");
    let place = "faults.yaml:2:1: unknown key 'power-cuts'\n  mend: did you mean power-cut?";
    assert!(said.contains(place), "{said}");

    fs::write(&faults, "seeds: 3\nlink-down: 5\n").unwrap();
    let out = rehearse(dir.path(), FLOW, &with);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(6), "{said}");
    let place = "faults.yaml:2:12: link-down: the duration '5' has no unit\n  mend: write 5s";
    assert!(said.contains(place), "{said}");
    assert!(said.contains("the file of faults has 1 mistake"), "{said}");
}

/// The deadline counts from the submission, as it does for a run.
#[test]
fn what_is_late_is_named_and_can_be_forbidden() {
    let dir = tempfile::tempdir().unwrap();
    let flow = FLOW.replace("inputs: [data]", "inputs: [data], deadline: 1h");
    let few = ["--seeds", "4", "--within", "1s", "--expect", "late=0"];
    let down = |length| [&few[..], &["--link-down", length]].concat();
    let out = rehearse(dir.path(), &flow, &[&down("10m")[..], &["--json"]].concat());
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert_eq!(report(&out)["late"], serde_json::json!({}));

    let out = rehearse(dir.path(), &flow, &[&down("5h")[..], &["--json"]].concat());
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let told = report(&out);
    assert_eq!(told["late"]["read"], 4, "{told}");
    assert_eq!(told["late_seeds"], 4);
    let out = rehearse(dir.path(), &flow, &down("5h"));
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("read in 4 seeds"), "{text}");
}

/// The ring of a gateway is the real one, with the budget that its agent would have.
#[test]
fn a_small_ring_thins_what_an_outage_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let few = [
        "--seeds",
        "2",
        "--link-down",
        "10h",
        "--within",
        "1s",
        "--json",
    ];
    let told = report(&rehearse(dir.path(), FLOW, &few));
    assert!(told["outage_ms"].as_u64() >= Some(36_000_000), "{told}");
    let whole = &told["telemetry"];
    assert!(whole["samples"].as_u64() >= Some(12_000), "{whole}");
    assert_eq!(whole["single"], whole["samples"]);
    assert_eq!(
        (&whole["thinned"], &whole["dropped"]),
        (&0.into(), &0.into())
    );

    let small = ["--telemetry-budget", "128KiB", "--expect", "unthinned=100%"];
    let out = rehearse(dir.path(), FLOW, &[&few[..], &small].concat());
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let told = report(&out);
    let thinned = &told["telemetry"];
    assert!(thinned["thinned"].as_u64() > Some(0), "{thinned}");
    assert!(
        thinned["bytes"].as_u64() < whole["bytes"].as_u64(),
        "{thinned}"
    );
}

#[test]
fn somebody_answers_what_a_task_asks_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let flow = "
name: asks
tasks:
  ask: {approval: {prompt: go on?, input: {batch: {type: integer}}}}
  go: {needs: [ask], shell: 'true'}
";
    let took = |length| {
        let out = rehearse(
            dir.path(),
            flow,
            &["--seeds", "3", "--json", "--answers", length],
        );
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        let told = report(&out);
        assert_eq!(told["task_states"]["succeeded"], 6, "{told}");
        told["median_ms"].as_u64().unwrap() / 60_000
    };
    assert!((60..70).contains(&took("1h")), "{}", took("1h"));
    assert!((180..300).contains(&took("3h..5h")), "{}", took("3h..5h"));
}

/// A schedule fires in each of its slots, and what a person wants to know of an outage is which
/// slots it costs.
#[test]
fn a_schedule_runs_its_slots_in_the_days_that_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let named = |catchup: &str| {
        format!(
            "
name: hourly
schedule: {{cron: 5 */2 * * *, timezone: Europe/Berlin, overlap: allow, {catchup}}}
tasks:
  weigh: {{estimate: 5m, deadline: 1h, placement: {{site: b}}, shell: weigh}}
"
        )
    };
    let (flow, caught_up) = (named(""), named("catchup: all, max_catchup: 20"));
    let days = ["--seeds", "2", "--json", "--days", "2"];
    let calm = report(&rehearse(dir.path(), &flow, &days));
    assert_eq!((&calm["slots"], &calm["fired"]), (&24.into(), &24.into()));
    assert_eq!(calm["task_states"]["succeeded"], 48, "{calm}");
    assert!(calm["longest_ms"].as_u64() < Some(600_000), "{calm}");

    // the node fires by itself: a link that is down costs it nothing, but one run tells late
    let down = [
        "--link-down",
        "9h",
        "--expect",
        "skipped=0",
        "--expect",
        "late=0",
    ];
    let out = rehearse(dir.path(), &flow, &[&days[..], &down].concat());
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let told = report(&out);
    assert!(told["longest_ms"].as_u64() > Some(3 * 3_600_000), "{told}");

    let once = rehearse(dir.path(), &caught_up, &["--seeds", "1", "--json"]);
    let said = String::from_utf8_lossy(&once.stderr);
    assert!(said.contains("--days N rehearses the slots"), "{said}");
    assert_eq!(report(&once)["slots"], Value::Null);

    let flow = flow.replace("5 */2 * * *", "0 0 1 7 *");
    let out = rehearse(dir.path(), &flow, &days);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("no slot within 2 days"), "{said}");
}

#[test]
fn what_cannot_be_rehearsed_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = "name: x\ntasks: {t: {placement: {site: c}, shell: 'true'}}";
    let few = ["--seeds", "1", "--days", "1"];
    let cases: [(&str, &[&str], i32, &str); 4] = [
        (
            nowhere,
            &few,
            1,
            "without faults the run is not over in time",
        ),
        (FLOW, &["--takes", "wirte=1h"], 2, "no task 'wirte'"),
        (FLOW, &["--expect", "speed<=1"], 2, "is not measured"),
        (
            FLOW,
            &["--link-down", "10h..2h"],
            2,
            "write the shortest first",
        ),
    ];
    for (flow, args, code, wanted) in cases {
        let out = rehearse(dir.path(), flow, args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{said}");
        assert!(said.contains(wanted), "{said}");
    }
    let mut command = program("driftless");
    let flow = dir.path().join("flow.yaml");
    fs::write(dir.path().join("fleet.yaml"), "nodes: [{nmae: a}]").unwrap();
    let out = output(
        command
            .arg("rehearse")
            .arg(flow)
            .arg("--nodes")
            .arg(dir.path().join("fleet.yaml")),
    );
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(6), "{said}");
    assert!(
        said.contains("fleet.yaml:1:10: unknown key 'nmae'"),
        "{said}"
    );
}

fn states(tasks: &BTreeMap<String, Value>) -> BTreeMap<String, u64> {
    let mut states = BTreeMap::new();
    for task in tasks.values() {
        let state = task["state"].as_str().unwrap().to_owned();
        *states.entry(state).or_default() += 1;
    }
    states
}

/// A link is cut while the workflow runs, and comes back: the fleet ends in the states that the
/// rehearsal of the same fleet foretold.
#[test]
fn the_real_fleet_ends_in_the_states_that_were_foretold() {
    let labels: [&[&str]; 2] = [&["--label", "site=a"], &["--label", "site=b"]];
    let fleet = Fleet::start(&labels);
    let foretold = rehearse(
        fleet.base(),
        FLOW,
        &["--seeds", "4", "--link-down", "5s..20s", "--json"],
    );
    let foretold = report(&foretold)["task_states"].clone();
    (0..2).for_each(|node| fleet.wait_online(node));
    let run = fleet.submit(FLOW);
    let _ = fleet.wait_task(&run, "write", "running");
    fleet.cut(0);
    let _ = fleet.wait_local(0, "write", "succeeded");
    fleet.join(0);
    let _ = fleet.wait_run(&run, "succeeded");
    let real: BTreeMap<String, u64> = states(&fleet.tasks(&run));
    let each_seed = real.into_iter().map(|(state, n)| (state, n * 4));
    let each_seed: BTreeMap<String, u64> = each_seed.collect();
    assert_eq!(foretold, serde_json::to_value(each_seed).unwrap());
}

/// Three minutes of work on one site, in steps of which each waits for the one before; every tenth
/// writes a file that the other site reads. Some of it is not wanted this time, and what needs that
/// does not begin.
fn shift() -> String {
    let mut flow = "
name: shift
params: {mode: {default: day}}
tasks:
  alarm: {when: params.mode == \"night\", placement: {site: b}, shell: 'true'}
  calm: {needs: [alarm], placement: {site: b}, shell: 'true'}
  report: {needs: [alarm, read40], trigger_rule: all_done, placement: {site: b}, shell: 'true'}
"
    .to_owned();
    for step in 1..=60 {
        let needs = match step {
            1 => String::new(),
            _ => format!("needs: [step{}], ", step - 1),
        };
        let (outputs, write) = match step % 10 {
            0 => (
                format!("outputs: [data{step}], "),
                format!("; echo {step} > data{step}"),
            ),
            _ => Default::default(),
        };
        writeln!(
            flow,
            "  step{step}: {{estimate: 3s, {needs}{outputs}placement: {{site: a}}, shell: 'sleep 3{write}'}}"
        )
        .unwrap();
        if step % 10 == 0 {
            writeln!(
                flow,
                "  read{step}: {{estimate: 1s, inputs: [data{step}], placement: {{site: b}}, shell: 'cat data{step}'}}"
            )
            .unwrap();
        }
    }
    flow
}

/// Links that fail, agents and a coordinator that are killed, for three minutes: the fleet ends in
/// the states that the rehearsal of the same fleet foretold under the same fears.
#[test]
fn three_minutes_of_the_real_fleet_end_in_the_states_that_were_foretold() {
    let labels: [&[&str]; 2] = [&["--label", "site=a"], &["--label", "site=b"]];
    let mut fleet = Fleet::start(&labels);
    let fears = "--link-down 10s..40s --outages 2 --agent-kill 1 --coordinator-kill 1 --within 3m";
    let line = format!("--seeds 4 --json {fears}");
    let args: Vec<&str> = line.split(' ').collect();
    let foretold = report(&rehearse(fleet.base(), &shift(), &args));
    (0..2).for_each(|node| fleet.wait_online(node));
    let begun = Instant::now();
    let run = fleet.submit(&shift());
    // a task that waits for its turn is not shown by its gateway before it is placed there
    let _ = fleet.wait_task(&run, "step1", "running");
    let done = |fleet: &Fleet, step: u32| {
        let patience = Duration::from_secs(100);
        let until = Instant::now() + patience;
        let task = format!("step{step}");
        while fleet.local_tasks(0)[&task]["state"] != "succeeded" {
            assert!(
                Instant::now() < until,
                "{task} is not done: {}",
                fleet.logs()
            );
            sleep(Duration::from_millis(300));
        }
    };
    for (step, what) in (4..60).step_by(7).zip(0..) {
        done(&fleet, step);
        match what {
            0 => fleet.cut(0),
            1 => fleet.join(0),
            2 => {
                fleet.kill_agent(0);
                fleet.start_agent(0);
            }
            3 => fleet.cut(1),
            4 => fleet.kill_coordinator(),
            5 => fleet.start_coordinator(),
            6 => fleet.join(1),
            _ => {
                fleet.kill_agent(1);
                fleet.start_agent(1);
            }
        }
    }
    done(&fleet, 60);
    let _ = fleet.wait_run(&run, "succeeded");
    assert!(begun.elapsed() > Duration::from_secs(180));
    let real = states(&fleet.tasks(&run));
    let each_seed = real.into_iter().map(|(state, n)| (state, n * 4));
    let each_seed: BTreeMap<String, u64> = each_seed.collect();
    assert_eq!(
        foretold["task_states"],
        serde_json::to_value(each_seed).unwrap()
    );
}

/// Without its own recovery, or where silence moves its work, a workflow gets another report.
#[test]
fn recovery_and_lost_after_change_the_report() {
    let flow = |more: &str| {
        format!(
            "
name: alone
tasks: {{press: {{estimate: 2h, placement: {{site: south}}, shell: press, {more}}}}}
"
        )
    };
    let fleet = "
nodes:
  - {name: gw-0, labels: {site: south}, cpus: 2}
  - {name: gw-1, labels: {site: south}, cpus: 2}
";
    let dir = tempfile::tempdir().unwrap();
    let told = |more: &str, args: &str| {
        let args: Vec<&str> = args.split(' ').collect();
        report(&rehearse_on(dir.path(), fleet, &flow(more), &args))
    };
    let succeeded = |report: &Value| report["task_states"]["succeeded"].as_u64().unwrap();
    let longest = |report: &Value| report["longest_ms"].as_u64().unwrap();

    let fails = "--task-fails 40 --seeds 24 --json";
    let again = told("retry: {max_attempts: 9}", fails);
    let once = told("retry: {max_attempts: 1}", fails);
    assert!(succeeded(&again) == 24 && succeeded(&once) < 24);

    let outage = "--link-down 9h..10h --within 12h --seeds 12 --json";
    let waits = told("", outage);
    let moves = told("disconnect: {lost_after: 30m, replace: true}", outage);
    assert!(longest(&waits) > 9 * 3_600_000 && longest(&moves) < 5 * 3_600_000);
}

/// What tasks really took counts more than what somebody guessed.
#[test]
fn a_rehearsal_with_history_takes_what_real_runs_took() {
    let flow = "
name: guessed
tasks:
  long: {estimate: 1h, placement: {site: a}, shell: sleep 1}
  short: {estimate: 1s, needs: [long], placement: {site: a}, shell: 'true'}
";
    let labels: [&[&str]; 2] = [&["--label", "site=a"], &["--label", "site=b"]];
    let fleet = Fleet::start(&labels);
    fleet.wait_online(0);
    for _ in 0..2 {
        let run = fleet.submit(flow);
        let _ = fleet.wait_run(&run, "succeeded");
    }
    let (flow_file, fleet_file) = (
        fleet.base().join("guessed.yaml"),
        fleet.base().join("f.yaml"),
    );
    fs::write(&flow_file, flow).unwrap();
    fs::write(&fleet_file, FLEET).unwrap();
    let [flow_file, fleet_file] = [&flow_file, &fleet_file].map(|path| path.to_str().unwrap());
    let line = ["rehearse", flow_file, "--nodes", fleet_file, "--seeds", "1"];
    let median = |more: &[&str]| {
        let told = fleet.json(&[&line[..], more].concat());
        told[0]["median_ms"].as_u64().unwrap()
    };
    let (guessed, known) = (median(&[]), median(&["--history"]));
    assert!(guessed > 29 * 60_000, "{guessed} ms");
    assert!(known < 60_000, "{known} ms");
}
