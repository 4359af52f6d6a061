//! Telemetry with the real programs: measured at the gateway, kept over ends and cuts, received by
//! the coordinator, which knows what is missing; GPUs by a substitute library; starts that wait
//! while the machine suffers.

use e2e::agent::{Gateway, binary, stderr};
use e2e::fleet::Fleet;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const FAST: &[&str] = &["--monitor-interval", "100ms"];

fn newest(fleet: &Fleet) -> Option<Value> {
    let node = fleet.json(&["node", "get", "gw-0"]).pop()?;
    (!node["telemetry"].is_null()).then(|| node["telemetry"].clone())
}

fn samples(fleet: &Fleet, metric: &str) -> u64 {
    let args = [
        "telemetry",
        "query",
        "gw-0",
        "--metric",
        metric,
        "--step",
        "1d",
    ];
    let series = fleet.json(&args);
    let values = series.iter().flat_map(|s| s["values"].as_array().cloned());
    values.flatten().filter_map(|v| v["samples"].as_u64()).sum()
}

#[test]
fn samples_reach_the_coordinator_and_survive_every_end() {
    let mut fleet = Fleet::start(&[FAST]);
    let first = fleet.wait("a sample", || newest(&fleet));
    assert!(
        first["values"]["memory_total_kib"].as_i64() > Some(0),
        "{first}"
    );
    let before = samples(&fleet, "memory_total_kib");
    assert!(before > 0);
    fleet.kill_agent(0);
    fleet.start_agent(0);
    fleet.wait("newer samples", || {
        (newest(&fleet)?["at"].as_i64() > first["at"].as_i64()).then_some(())
    });
    fleet.wait("the gap to be declared", || {
        let gaps = fleet.json(&["telemetry", "gaps", "gw-0"]);
        let reasons: Vec<&Value> = gaps.iter().map(|gap| &gap["reason"]).collect();
        (reasons == ["not_running", "not_running"]).then_some(())
    });
    // Without a link the gateway goes on, and what it measured comes afterwards.
    fleet.cut(0);
    let local = |fleet: &Fleet| {
        let shown = fleet.agent_json(0, &["telemetry"]).pop();
        shown.and_then(|shown| shown["newest"]["at"].as_i64())
    };
    let at = fleet.wait("a local sample", || local(&fleet));
    fleet.wait("local samples without a link", || {
        (local(&fleet)? > at + 1000).then_some(())
    });
    fleet.join(0);
    fleet.wait("what was measured without a link", || {
        (newest(&fleet)?["at"].as_i64()? > at).then_some(())
    });
    fleet.kill_coordinator();
    fleet.start_coordinator();
    fleet.wait("the samples of before", || {
        (samples(&fleet, "memory_total_kib") > before).then_some(())
    });
}

#[test]
fn a_gateway_alone_shows_what_it_measured() {
    let gateway = Gateway::started(FAST);
    let shown = gateway.wait("a sample", || {
        let shown = gateway.json(&["telemetry"]).pop()?;
        (!shown["newest"].is_null()).then_some(shown)
    });
    assert!(shown["ring"]["quota"].as_u64() > Some(0), "{shown}");
    gateway.wait("a rate", || {
        let answer = gateway
            .json(&["telemetry", "--since", "1m", "--metric", "agent_cpu"])
            .pop()?;
        let series = answer["series"].as_array()?.clone();
        (series.len() == 1 && series[0]["values"].as_array()?.len() > 2).then_some(())
    });
    let data = gateway.data().display().to_string();
    let text = Command::new(binary("driftless-agent"))
        .args([
            "--data",
            &data,
            "telemetry",
            "--since",
            "1m",
            "--metric",
            "memory",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(
        text.contains("memory_available_kib") && text.contains('▁'),
        "{text}"
    );
    let wrong = gateway.command(&["telemetry", "--since", "soon"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
}

/// A library with the functions of NVML that are used, for two GPUs.
const NVML: &str = r#"
#include <string.h>
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
static int gpus[2] = {0, 1};
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int error) { return "no such thing"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  *device = &gpus[index]; return index < 2 ? 0 : 2;
}
int nvmlDeviceGetUtilizationRates(int *gpu, utilization *u) {
  u->gpu = 40 + *gpu; u->memory = 7; return 0;
}
int nvmlDeviceGetMemoryInfo_v2(int *gpu, memory *m) {
  m->total = 8ull << 30; m->used = (1ull << 30) * (1 + *gpu); m->reserved = 0; m->free = m->total - m->used;
  return 0;
}
int nvmlDeviceGetTemperature(int *gpu, int sensor, unsigned *t) { *t = 61; return 0; }
int nvmlDeviceGetPowerUsage(int *gpu, unsigned *milliwatt) { return 3; }
"#;

fn build_nvml(dir: &Path) -> std::path::PathBuf {
    let (source, library) = (dir.join("nvml.c"), dir.join("libnvml.so"));
    std::fs::write(&source, NVML).expect("a file in a temporary directory");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .expect("a C compiler, as Rust needs one to link");
    assert!(built.success());
    library
}

#[test]
fn gpus_are_measured_by_the_library_that_is_named() {
    let mut gateway = Gateway::new(FAST);
    let library = build_nvml(gateway.base());
    let config = gateway.base().join("agent.toml");
    std::fs::write(&config, format!("[telemetry]\nnvml = {library:?}\n")).unwrap();
    let config = config.display().to_string();
    gateway.set_args(&[FAST, &["--config", &config]].concat());
    gateway.start();
    let values = gateway.wait("a sample with GPUs", || {
        let shown = gateway.json(&["telemetry"]).pop()?;
        let values = shown["newest"]["values"].clone();
        (!values["gpu_busy_permille{0}"].is_null()).then_some(values)
    });
    for (name, value) in [
        ("gpu_busy_permille{0}", 400),
        ("gpu_busy_permille{1}", 410),
        ("gpu_memory_used_mib{1}", 2048),
        ("gpu_memory_total_mib{0}", 8192),
        ("gpu_temperature_millicelsius{0}", 61_000),
    ] {
        assert_eq!(values[name], value, "{name} of {values}");
    }
    assert!(
        values["gpu_power_milliwatt{0}"].is_null(),
        "a thing that it does not know"
    );
}

#[test]
fn new_starts_wait_under_pressure_with_reason_and_numbers() {
    // All memory shall be available: some never is.
    let pressed = [FAST, &["--hold-above", "available=100"]].concat();
    let mut gateway = Gateway::started(&pressed);
    gateway.wait("a sample", || {
        let shown = gateway.json(&["telemetry"]).pop()?;
        (!shown["newest"].is_null()).then_some(())
    });
    let run = gateway.submit("name: held\ntasks: {one: {command: 'true'}}");
    let explained = gateway.wait("the task to be held", || {
        let task = gateway.task(&run, "one");
        (task["reason"] == "memory_pressure").then(|| gateway.explain(&run, "one"))
    });
    let text = explained.to_string();
    assert!(
        text.contains("read_hundredths") && text.contains("limit_hundredths"),
        "{text}"
    );
    gateway.stop();
    gateway.set_args(&[FAST, &["--hold-above", "off"]].concat());
    gateway.start();
    let _ = gateway.wait_state(&run, "one", "succeeded");
    let mut wrong = Gateway::new(&["--hold-above", "heat=3"]);
    let refused = wrong.start_refused();
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    wrong.set_args(&[]);
}
