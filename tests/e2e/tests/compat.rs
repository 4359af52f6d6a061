//! The current programs go on with what an earlier release left: its coordinator's and its
//! gateways' data directories (`tests/compat`). Keys are made here; none is kept there.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use certs::{Authority, NodeKey};
use e2e::agent::{stderr, stdout};
use e2e::fleet::{Fleet, output, program};
use serde_json::Value;
use shared::time::{Span, Unix};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What was finished then is older than the usual retention today.
const SERVE: &[&str] = &["--retention", "36500d"];

fn unpack(release: &str, name: &str, to: &Path) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compat");
    let file = folder.join(release).join(format!("{name}.tar.zst"));
    let packed = fs::read(file).unwrap();
    let plain = shared::codec::decompress(&packed, 64 << 20).unwrap();
    tar::Archive::new(plain.as_slice()).unpack(to).unwrap();
}

fn now() -> Unix {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Unix(i64::try_from(since.as_millis()).unwrap())
}

/// Puts the release's directories in place, under an authority that is made here.
fn fill(release: &str, base: &Path) {
    for name in ["coordinator", "gw-0", "gw-1", "views"] {
        unpack(release, name, base);
    }
    let authority = Authority::open_or_create(&base.join("coordinator/authority")).unwrap();
    for name in ["gw-0", "gw-1"] {
        let identity = fs::read(base.join(name).join("identity.json")).unwrap();
        let identity: Value = serde_json::from_slice(&identity).unwrap();
        let node = identity["node"].as_str().unwrap().parse().unwrap();
        let pki = base.join(name).join("pki");
        let key = NodeKey::open_or_create(&pki).unwrap();
        let request = key.request().unwrap();
        let year = Span::secs(365 * 86_400);
        let issued = authority.node(&request, node, name, now(), year).unwrap();
        key.keep(&pki, &issued, authority.fingerprint(), now())
            .unwrap();
    }
}

fn view(base: &Path, name: &str) -> Vec<Value> {
    let path: PathBuf = base.join("views").join(format!("{name}.json"));
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines();
    lines.map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The fields of `old` as `new` has them: fields may be added, none may go or change.
fn kept(old: &Value, new: &Value, but: &[&str]) {
    for (name, value) in old.as_object().unwrap() {
        if !but.contains(&name.as_str()) {
            same(value, &new[name], &format!("{name} of {new}"));
        }
    }
}

fn same(old: &Value, new: &Value, what: &str) {
    match (old, new) {
        (Value::Array(olds), Value::Array(news)) if olds.len() == news.len() => {
            let each = olds.iter().zip(news);
            each.for_each(|(old, new)| same(old, new, what));
        }
        (Value::Object(_), Value::Object(_)) => kept(old, new, &[]),
        _ => assert_eq!(old, new, "{what}"),
    }
}

fn same_list(base: &Path, view_name: &str, new: &[Value], key: &str, but: &[&str]) {
    let old = view(base, view_name);
    assert_eq!(old.len(), new.len(), "{view_name}");
    for old in old {
        let new = new.iter().find(|new| new[key] == old[key]);
        kept(&old, new.expect("it is still there"), but);
    }
}

#[test]
fn a_coordinator_and_gateways_of_the_first_release_go_on_where_they_were() {
    let mut fleet = Fleet::found(|base| fill("m1", base), SERVE, &[&[], &[]]);
    let base = fleet.base().to_owned();
    // nobody calls yet: the views are those of the release
    same_list(
        &base,
        "run-list",
        &fleet.json(&["run", "list"]),
        "id",
        &["nodes"],
    );
    let nodes = fleet.json(&["node", "list"]);
    same_list(&base, "node-list", &nodes, "id", &["state", "as_of"]);
    let waits = fleet.json(&["waits", "list"]);
    same_list(&base, "waits-list", &waits, "what", &[]);
    let mut old: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for task in view(&base, "task-list") {
        let run = task["run"].as_str().unwrap().to_owned();
        old.entry(run).or_default().push(task);
    }
    for (run, old) in &old {
        let new = fleet.json(&["task", "list", run]);
        assert_eq!(old.len(), new.len());
        // what a node that is not connected may be doing is laid over its tasks, and attempts that
        // still run were counted then
        let each = old.iter().zip(&new);
        each.for_each(|(old, new)| kept(old, new, &["overlay", "reason", "attempts"]));
    }
    assert!(
        fleet.token(&["--name", "gw-8"]).len() > 20,
        "it takes nodes in"
    );

    // the gateways go on alone, and then with the coordinator
    fleet.cut(0);
    for node in 0..2 {
        fleet.start_agent(node);
    }
    let ps = fleet.agent_json(0, &["ps", "--all"]);
    assert_eq!(ps.len(), view(&base, "gw-0-ps").len());
    fs::write(base.join("go"), "").unwrap();
    let _ = fleet.wait_local(0, "waits", "succeeded");
    fleet.join(0);
    let run = |name: &str| {
        let runs = view(&base, "run-list");
        let run = runs.iter().find(|run| run["workflow"] == name).unwrap();
        run["id"].as_str().unwrap().to_owned()
    };
    let _ = fleet.wait_run(&run("running"), "succeeded");
    let _ = fleet.wait_run(&run("local-open"), "succeeded");
    let paused = run("paused");
    assert_eq!(fleet.run(&paused)["state"], "paused");
    let resumed = fleet.cli(&["run", "resume", &paused]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    let _ = fleet.wait_run(&paused, "succeeded");
    for node in 0..2 {
        fleet.wait_delivered(node);
    }
    assert_eq!(fleet.run(&run("cancelled"))["state"], "cancelled");
    // and take new work
    let new =
        fleet.submit("name: new\ntasks: {a: {shell: echo new, placement: {labels: {role: a}}}}");
    let _ = fleet.wait_run(&new, "succeeded");
}

/// The journals of the first release, with facts in segments, are whole.
#[test]
fn journals_of_the_first_release_are_read_and_their_chains_hold() {
    let base = tempfile::tempdir().unwrap();
    unpack("m1", "gw-0", base.path());
    let journal = |what: &str| {
        let mut command = program("driftless-agent");
        let data = base.path().join("gw-0");
        output(
            command
                .args(["journal", what, "--json", "--data"])
                .arg(data),
        )
    };
    let verified = journal("verify");
    assert!(verified.status.success(), "{}", stderr(&verified));
    let said = stdout(&verified);
    let logs: Vec<Value> = said
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(logs.len(), 2);
    for log in &logs {
        assert_eq!(
            (&log["checked"], &log["unreadable"]),
            (&true.into(), &0.into())
        );
    }
    let exported = journal("export");
    let facts = stdout(&exported)
        .lines()
        .filter(|l| l.contains("\"log\":\"fact\""))
        .count();
    assert_eq!(Some(facts as u64), logs[0]["last"].as_u64());
}
