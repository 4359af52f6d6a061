//! Looks at a fleet: what the programs say, in the words of [`super::seen`].

use super::flow::Flow;
use super::marks::{Fence, Mark};
use super::plan::Plan;
use super::seen::{Attempt, GatewaySeen, LocalTask, Observation, RunSeen, TaskSeen};
use crate::agent::stdout;
use crate::fleet::Fleet;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

/// Why something could not be looked at, or is not at rest yet.
pub(super) type Not = String;

/// States in which a run is over.
const OVER: [&str; 4] = ["succeeded", "failed", "cancelled", "partly_lost"];

fn bytes(api: SocketAddr, path: &str) -> Result<Vec<u8>, Not> {
    let url = format!("http://{api}/v1/{path}");
    let not = |error: &dyn std::error::Error| format!("{path}: {error}");
    let mut answer = ureq::get(&url).call().map_err(|error| not(&error))?;
    let mut content = Vec::new();
    let mut body = answer.body_mut().as_reader();
    body.read_to_end(&mut content)
        .map_err(|error| not(&error))?;
    Ok(content)
}

/// Each line of an answer.
fn ask(api: SocketAddr, path: &str) -> Result<Vec<Value>, Not> {
    let text = bytes(api, path)?;
    lines(&String::from_utf8_lossy(&text))
}

fn one(api: SocketAddr, path: &str) -> Result<Value, Not> {
    ask(api, path)?
        .pop()
        .ok_or_else(|| format!("{path}: empty"))
}

fn lines(text: &str) -> Result<Vec<Value>, Not> {
    let values = text.lines().map(serde_json::from_str);
    values
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

fn local(fleet: &Fleet, node: usize, args: &[&str]) -> Result<Vec<Value>, Not> {
    let output = fleet.agent_cli(node, args);
    if !output.status.success() {
        return Err(format!("gw-{node} does not answer {args:?}"));
    }
    lines(&stdout(&output))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// `gw-N`.
fn node(value: &Value) -> Option<usize> {
    value.as_str()?.strip_prefix("gw-")?.parse().ok()
}

fn fence(value: &Value) -> Fence {
    Fence {
        epoch: number(&value["epoch"]),
        number: number(&value["number"]),
    }
}

fn output(value: &Value) -> Option<(String, usize)> {
    let first = value["outputs"].as_array()?.first()?;
    let size = usize::try_from(number(&first["size"])).ok()?;
    Some((text(&first["hash"]), size))
}

/// Whether all is at rest: every run is over, every gateway is heard and has brought everything.
pub(super) fn at_rest(fleet: &Fleet, plan: &Plan, runs: &[String]) -> Result<(), Not> {
    for id in runs {
        let run = one(fleet.api(), &format!("runs/{id}"))?;
        let state = text(&run["state"]);
        if !OVER.contains(&state.as_str()) {
            return Err(format!("run {id} is {state}: {}", run["tasks"]));
        }
    }
    for node in 0..plan.gateways {
        let status = local(fleet, node, &["status"])?.pop().unwrap_or_default();
        let waits = ["behind", "uploads", "files_missing"].map(|name| number(&status[name]));
        if status["link"] != "online" || waits != [0; 3] {
            return Err(format!("gw-{node} is {}, waits {waits:?}", status["link"]));
        }
    }
    Ok(())
}

/// The runs as the coordinator shows them.
pub(super) fn runs(api: SocketAddr, ids: &[String], plan: &Plan) -> Result<Vec<RunSeen>, Not> {
    let both = ids.iter().zip(&plan.flows);
    both.map(|(id, flow)| run(api, id, flow)).collect()
}

fn run(api: SocketAddr, id: &str, flow: &Flow) -> Result<RunSeen, Not> {
    let shown = one(api, &format!("runs/{id}"))?;
    let task = |index| {
        let name = Flow::id(index);
        let shown = one(api, &format!("runs/{id}/tasks/{name}"))?;
        Ok((name, task(&shown)))
    };
    let conflicts = shown["conflicts"].as_array().into_iter().flatten();
    Ok(RunSeen {
        id: id.to_owned(),
        state: text(&shown["state"]),
        conflicts: conflicts.map(Value::to_string).collect(),
        tasks: (0..flow.tasks.len())
            .map(task)
            .collect::<Result<_, Not>>()?,
    })
}

fn task(shown: &Value) -> TaskSeen {
    let attempt = |value: &Value| Attempt {
        fence: fence(value),
        outcome: text(&value["outcome"]),
        reason: text(&value["reason"]),
        counts: value["not_applied"].is_null(),
    };
    let history = shown["history"].as_array();
    TaskSeen {
        state: text(&shown["state"]),
        node: node(&shown["node"]),
        attempts: number(&shown["attempts"]),
        output: output(shown),
        history: history.into_iter().flatten().map(attempt).collect(),
    }
}

/// Everything that can be seen while all runs.
pub(super) fn all(fleet: &Fleet, plan: &Plan, ids: &[String]) -> Result<Observation, Not> {
    let api = fleet.api();
    let runs = runs(api, ids, plan)?;
    let waits = ask(api, "waits")?;
    let gateways = (0..plan.gateways).map(|node| gateway(fleet, node));
    let mut seen = Observation {
        waits: waits
            .iter()
            .map(|wait| (text(&wait["run"]), text(&wait["task"])))
            .collect(),
        gateways: gateways.collect::<Result<_, _>>()?,
        ..Observation::default()
    };
    for (flow, run) in plan.flows.iter().zip(&runs) {
        for hash in crossed(flow, run) {
            let content = bytes(api, &format!("files/{hash}")).ok();
            seen.files.insert(hash, content);
        }
    }
    seen.runs = runs;
    marks(&fleet.mark("marks"), &mut seen);
    Ok(seen)
}

fn marks(text: &str, seen: &mut Observation) {
    for line in text.lines() {
        match Mark::parse(line) {
            Some(mark) => seen.marks.push(mark),
            None => seen.unreadable.push(format!("mark '{line}'")),
        }
    }
}

/// Hashes of the files that a task at another gateway has read.
fn crossed(flow: &Flow, run: &RunSeen) -> Vec<String> {
    let task = |index| run.tasks.get(&Flow::id(index));
    let mut hashes = Vec::new();
    for reader in 0..flow.tasks.len() {
        for writer in flow.inputs(reader) {
            let (Some(to), Some(from)) = (task(reader), task(writer)) else {
                continue;
            };
            if to.state == "succeeded" && to.node != from.node {
                hashes.extend(from.output.iter().map(|(hash, _)| hash.clone()));
            }
        }
    }
    hashes
}

fn gateway(fleet: &Fleet, node: usize) -> Result<GatewaySeen, Not> {
    let tasks = local(fleet, node, &["ps", "--all"])?;
    let tasks = tasks.iter().map(|shown| LocalTask {
        run: text(&shown["run"]),
        task: text(&shown["task"]),
        state: text(&shown["state"]),
        attempts: number(&shown["attempts"]),
        fence: fence(shown),
        output: output(shown),
    });
    let sync = local(fleet, node, &["sync", "status"])?.pop();
    Ok(GatewaySeen {
        tasks: tasks.collect(),
        undelivered: undelivered(&sync.unwrap_or_default()),
        left: left(fleet, node),
    })
}

/// What `sync status` says that waits.
fn undelivered(sync: &Value) -> Vec<String> {
    let counts = [
        ("facts", &sync["waiting"]["facts"]),
        ("uploads", &sync["uploads"]),
        ("files missing", &sync["files_missing"]),
    ];
    let waiting = counts
        .into_iter()
        .filter(|(_, count)| count.as_u64() != Some(0));
    let held = sync["held"].as_array().into_iter().flatten();
    waiting
        .map(|(what, count)| format!("{count} {what}"))
        .chain(held.map(|held| format!("held back: {held}")))
        .collect()
}

/// Processes of tasks and directories of attempts.
fn left(fleet: &Fleet, node: usize) -> Vec<String> {
    let data = fleet.agent_data(node);
    let processes = fleet.task_processes(node).into_iter();
    let mut left: Vec<String> = processes
        .map(|pid| format!("process {}", pid.as_raw_nonzero()))
        .collect();
    for slot in entries(&data.join("work")) {
        left.extend(entries(&slot).iter().map(|path| path.display().to_string()));
    }
    left
}

fn entries(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
