//! Support bundles of both programs, made where secrets lie everywhere: none of them may be in one.

use e2e::agent::stderr;
use e2e::fleet::{Fleet, output, program};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

/// What people, tasks and programs keep secret, with where it was planted.
type Secrets = Vec<(String, Vec<u8>)>;

fn secret_files(dir: &Path, secrets: &mut Secrets) {
    for entry in fs::read_dir(dir).expect("a data directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            secret_files(&path, secrets);
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let secret = name.contains("key") || name.contains("seal") || name == "api.token";
        if !secret || entry.metadata().is_ok_and(|meta| meta.len() > 1 << 16) {
            continue;
        }
        let bytes = fs::read(&path).expect("a file of ours");
        let lines = bytes.split(|byte| *byte == b'\n');
        // the frame of a PEM file is no secret
        let lines = lines.filter(|line| line.len() > 15 && !line.starts_with(b"-----"));
        secrets.extend(lines.map(|line| (path.display().to_string(), line.to_vec())));
    }
}

/// The parts of a bundle by name; no secret may be in them, packed or unpacked.
fn parts(path: &Path, secrets: &Secrets) -> BTreeMap<String, Value> {
    let packed = fs::read(path).expect("the bundle was made");
    let unpacked = zstd::decode_all(&packed[..]).expect("it is packed by zstd");
    for (place, secret) in secrets {
        for bytes in [&packed, &unpacked] {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{} holds the secret of {place}", path.display());
        }
    }
    let mut archive = tar::Archive::new(&unpacked[..]);
    let entries = archive.entries().expect("it is a tar archive");
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("parts are text");
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (name.replace("driftless-support/", ""), value)
    };
    entries.map(read).collect()
}

const SPEC: &str = "\
name: planted
params: {pin: {type: string, default: planted-default-4711}}
tasks:
  one:
    shell: 'echo planted-stdout-4712; echo planted-output-4713 > out; test -n planted-command-4714'
    env: {PASSWORD: planted-environment-4715, PIN: '{{ params.pin }}'}
    outputs: [out]
";

/// Runs the specification, makes tokens, and gathers all that is secret now; the log with them.
fn plant(fleet: &Fleet) -> (Secrets, String) {
    let spec = fleet.spec(SPEC).display().to_string();
    let run = fleet.json(&["submit", &spec, "--param", "pin=planted-parameter-4716"]);
    let run = run[0]["id"].as_str().expect("a run has an id");
    let _ = fleet.wait_run(run, "succeeded");
    let mut secrets = Secrets::new();
    let access = fleet.json(&["access", "create", "--role", "admin", "--name", "eve"]);
    let access = access[0]["token"].as_str().expect("a token").to_owned();
    let mut log = String::new();
    // of an enrolment token: authority, id, secret, check digits; of an access token: id, secret
    for (token, part) in [(fleet.token(&["--name", "later"]), 3), (access, 2)] {
        log.push_str("got '");
        log.push_str(&token);
        log.push_str("'\n");
        let secret = token.split('-').nth(part).expect("a token has parts");
        secrets.push(("a token".to_owned(), secret.into()));
    }
    let long = |(_, secret): &(String, Vec<u8>)| secret.len() >= 32;
    assert!(secrets.iter().all(long), "both have a secret part");
    secret_files(&fleet.data(), &mut secrets);
    secret_files(fleet.agent_data(0), &mut secrets);
    let has = |part: &str| secrets.iter().any(|(place, _)| place.contains(part));
    assert!(has("node.key") && has("authority"));
    for (_, secret) in &secrets {
        let text = String::from_utf8_lossy(secret);
        let key = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        log.push_str(&key);
    }
    for word in SPEC.split(|c: char| c.is_whitespace() || "';,{}".contains(c)) {
        if word.starts_with("planted-") {
            secrets.push(("the specification".to_owned(), word.into()));
        }
    }
    assert!(secrets.len() > 8, "{SPEC}");
    secrets.push(("a parameter".to_owned(), "planted-parameter-4716".into()));
    log.push_str("the last line\n");
    (secrets, log)
}

#[test]
fn no_secret_is_in_a_support_bundle() {
    let fleet = Fleet::start(&[&[]]);
    let (secrets, log) = plant(&fleet);
    let at = |name: &str| fleet.base().join(name).display().to_string();
    let (log_path, cloud, edge) = (at("planted.log"), at("cloud.tar.zst"), at("edge.tar.zst"));
    fs::write(&log_path, log).unwrap();
    let told = fleet.json(&["support-bundle", &cloud, "--log", &log_path]);
    assert_eq!(told[0]["missing"], Value::Array(Vec::new()));
    let found = parts(Path::new(&cloud), &secrets);
    assert_eq!(found["nodes.json"][0]["name"], "gw-0");
    assert_eq!(found["runs.json"]["succeeded"], 1);
    let figures = found["metrics.txt"].as_str().unwrap();
    assert!(figures.contains("driftless_coordinator_nodes"), "{figures}");
    assert!(
        found["log.txt"]
            .as_str()
            .unwrap()
            .ends_with("the last line\n")
    );
    assert!(found["doctor.json"].as_array().unwrap().len() > 5);

    let told = fleet.agent_json(0, &["support-bundle", &edge, "--log", &log_path]);
    let missing = told[0]["missing"].as_array().unwrap();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(
        missing[0]["name"], "journal.json",
        "the agent runs and holds it"
    );
    let found = parts(Path::new(&edge), &secrets);
    assert_eq!(found["status.json"]["name"], "gw-0");
    assert!(found["configuration.json"].as_array().unwrap().len() > 20);
    let store = &found["sizes.json"]["entries"]["store.redb"];
    assert!(store["bytes"].as_u64().unwrap() > 0);
    assert_eq!(found["manifest.json"]["parts"][0]["name"], "machine.json");
}

#[test]
fn a_bundle_is_made_of_what_does_not_run_and_never_over_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle");
    let data = dir.path().join("data");
    let make = |binary: &str| {
        let mut command = program(binary);
        command
            .arg("support-bundle")
            .arg(&path)
            .arg("--json")
            .arg("--data")
            .arg(&data);
        output(&mut command)
    };
    for binary in ["driftless", "driftless-agent"] {
        let made = make(binary);
        assert!(made.status.success(), "{}", stderr(&made));
        let told: Value = serde_json::from_slice(&made.stdout).unwrap();
        let names: Vec<&str> = told["missing"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|missing| missing["name"].as_str())
            .collect();
        assert!(names.contains(&"sizes.json"), "{names:?}");
        assert!(!data.exists(), "nothing is made");
        let before = fs::read(&path).unwrap();
        let again = make(binary);
        assert_eq!(again.status.code(), Some(5), "{}", stderr(&again));
        assert!(
            stderr(&again).contains("name another file"),
            "{}",
            stderr(&again)
        );
        assert!(fs::read(&path).unwrap() == before);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_stopped_agent_shows_the_heads_of_its_journal() {
    let mut fleet = Fleet::start(&[&[]]);
    let run = fleet.submit("name: f\ntasks: {one: {command: 'true'}}");
    let _ = fleet.wait_run(&run, "succeeded");
    fleet.stop_agent(0);
    let path = fleet.base().join("edge.tar.zst");
    let _ = fleet.agent_json(0, &["support-bundle", &path.display().to_string()]);
    let found = parts(&path, &Secrets::new());
    assert!(found["journal.json"][0]["last"].as_u64().unwrap() > 1);
    assert_eq!(found["journal.json"][0]["hash"].as_str().unwrap().len(), 64);
}
