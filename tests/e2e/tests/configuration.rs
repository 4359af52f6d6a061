//! Configuration files of the built programs: mistakes, defaults, several addresses of the
//! coordinator, and a first boot that enrols from a token file.

use e2e::agent::{stderr, stdout, wait_for};
use e2e::fleet::{Fleet, output, program};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Stdio};

/// A process that is gone with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn agent(config: &Path) -> Running {
    let mut command = program("driftless-agent");
    command.arg("run").arg("--config").arg(config);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().expect("the agent can be started"))
}

fn online(fleet: &Fleet, name: &str) {
    wait_for("the node to be online", || {
        let nodes = fleet.json(&["node", "list"]);
        let online = |node: &Value| node["name"] == name && node["state"] == "online";
        nodes.iter().any(online).then_some(())
    });
}

/// What `status` of the agent with this configuration says.
fn status(config: &Path) -> Value {
    let mut command = program("driftless-agent");
    let output = output(command.args(["status", "--json", "--config"]).arg(config));
    serde_json::from_str(&stdout(&output)).unwrap_or(Value::Null)
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_and_nothing_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("wrong.toml");
    let data = dir.path().join("data");
    let wrong = format!(
        "dta = 'x'\ndata = '{}'\n[scheduler]\nmax_retries = 'two'\n",
        data.display()
    );
    std::fs::write(&config, wrong).unwrap();
    for (name, args) in [
        ("driftless", &["config", "check"][..]),
        (
            "driftless",
            &["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"],
        ),
        ("driftless-agent", &["config", "check"]),
        ("driftless-agent", &["run", "--name", "gw-1"]),
    ] {
        let output = output(program(name).args(args).arg("--config").arg(&config));
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(6), "{name} {args:?}: {told}");
        for wanted in [
            "wrong.toml:1:1: unknown key 'dta'",
            "did you mean 'data'?",
            "wrong.toml:4:15: scheduler.max_retries: 'two' is no whole number",
        ] {
            assert!(told.contains(wanted), "{name} {args:?}: {told}");
        }
    }
    assert!(!data.exists());
    let mut command = program("driftless-agent");
    let output = output(
        command
            .args(["config", "check", "--json", "--config"])
            .arg(&config),
    );
    let told = stderr(&output);
    let first: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!((&first["line"], &first["column"]), (&1.into(), &1.into()));
}

#[test]
fn the_published_files_are_sound_and_say_where_values_come_from() {
    for (name, variable) in [
        ("agent", "DRIFTLESS_AGENT_SCHEDULER_MAX_RETRIES"),
        ("coordinator", "DRIFTLESS_COORDINATOR_SCHEDULER_MAX_RETRIES"),
    ] {
        let file = format!("{}/../../deploy/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap();
        let text = text.replace("#backoff_duration", "backoff_duration");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        let binary = ["driftless-agent", "driftless"][usize::from(name == "coordinator")];
        let mut command = program(binary);
        command
            .args(["config", "check", "--json", "--config"])
            .arg(&file);
        let output = output(command.env(variable, "9"));
        assert!(output.status.success(), "{}", stderr(&output));
        let lines: Vec<Value> = stdout(&output)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of = |key: &str| lines.iter().find(|line| line["key"] == key).unwrap();
        let retries = of("scheduler.max_retries");
        assert_eq!(
            (&retries["value"], &retries["from"]),
            (&9.into(), &variable.into())
        );
        let from = of("scheduler.backoff_duration")["from"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(from.contains(&format!("{name}.toml:")), "{from}");
    }
}

#[test]
fn a_first_boot_enrols_from_a_token_file_and_several_addresses_are_tried_in_turn() {
    let fleet = Fleet::enrolling(&[&[], &[]]);
    let at = |name: &str| fleet.base().join(name);
    let (config, token) = (at("agent.toml"), at("token"));
    std::fs::write(&token, format!("{}\n", fleet.token(&["--name", "gw-7"]))).unwrap();
    let text = format!(
        "name = 'gw-7'\ndata = '{}'\ncoordinator = ['127.0.0.1:0', '{}', '{}']\n\
         token_file = '{}'\nlabels = {{site = 'plant-3'}}\n\
         [link]\nidle_timeout = '2s'\nredial_max = '1s'\n",
        at("gw-7").display(),
        fleet.relay().address(0),
        fleet.relay().address(1),
        token.display(),
    );
    std::fs::write(&config, text).unwrap();
    let running = agent(&config);
    online(&fleet, "gw-7");
    wait_for("the used token to be removed", || {
        (!token.exists()).then_some(())
    });
    let node = fleet.json(&["node", "get", "gw-7"]).remove(0);
    assert_eq!(node["labels"]["site"], "plant-3");
    // the address that it used is gone for good
    fleet.cut(0);
    wait_for("the link to be lost", || {
        let status = status(&config);
        (status["link"] != "online").then_some(())
    });
    wait_for("the link over the other address", || {
        (status(&config)["link"] == "online").then_some(())
    });
    drop(running);
    // a reboot needs neither the token nor the first address
    let running = agent(&config);
    wait_for("the agent to answer", || {
        (!status(&config).is_null()).then_some(())
    });
    wait_for("the link after a reboot", || {
        (status(&config)["link"] == "online").then_some(())
    });
    drop(running);
}

#[test]
fn a_setting_reaches_a_running_gateway_at_once_and_one_that_is_away_when_it_returns() {
    let mut fleet = Fleet::start(&[&["--label", "site=a"], &["--label", "site=b"]]);
    fleet.cut(1);
    let set = fleet.json(&["config", "set", "max_retries", "1", "--label", "site=b"]);
    assert_eq!(
        (&set[0]["value"], &set[0]["from"]),
        (&"1".into(), &"label site=b".into())
    );
    let _ = fleet.json(&["config", "set", "backoff_duration", "10ms"]);
    let there = |fleet: &Fleet, node: usize, key: &str| {
        let status = fleet.agent_json(node, &["status"]).remove(0);
        status["scheduler"][key].as_str().map(str::to_owned)
    };
    fleet.wait("the setting to arrive", || {
        (there(&fleet, 0, "backoff_duration").as_deref() == Some("10ms")).then_some(())
    });
    assert_eq!(there(&fleet, 0, "max_retries").as_deref(), Some("3"));
    assert_eq!(there(&fleet, 1, "max_retries").as_deref(), Some("3"));
    let shown = fleet.json(&["node", "get", "gw-1"]).remove(0);
    assert_eq!(shown["settings"]["confirmed"], false);
    fleet.join(1);
    fleet.wait("the settings to be confirmed", || {
        let node = fleet.json(&["node", "get", "gw-1"]).remove(0);
        (node["settings"]["confirmed"] == true).then_some(())
    });
    // without a link, from its own disk, after a kill
    fleet.cut(1);
    fleet.kill_agent(1);
    fleet.start_agent(1);
    assert_eq!(there(&fleet, 1, "max_retries").as_deref(), Some("1"));
    assert_eq!(
        there(&fleet, 1, "backoff_duration").as_deref(),
        Some("10ms")
    );
    let spec = "name: f\ntasks: {it: {placement: {node: gw-0}, shell: 'echo x >> @M/ran; exit 1'}}";
    let run = fleet.submit(spec);
    let _ = fleet.wait_run(&run, "failed");
    assert_eq!(fleet.mark("ran").lines().count(), 4);
    let output = fleet.cli(&["config", "set", "max_retry", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("did you mean 'max_retries'?"),
        "{}",
        stderr(&output)
    );
    let output = fleet.cli(&["config", "set", "max_retries", "1", "--node", "nobody"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

/// The value of a key and where it comes from, as `config check` has it.
fn checked(command: &mut std::process::Command, key: &str) -> (String, String) {
    let ended = output(command.args(["config", "check", "--json"]));
    assert!(ended.status.success(), "{}", stderr(&ended));
    let lines = stdout(&ended);
    let mut lines = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("it is there"));
    let found = lines.find(|line| line["key"] == key).expect("it is there");
    let text = |field: &str| found[field].as_str().expect("it is there").to_owned();
    (text("value"), text("from"))
}

#[test]
fn the_coordinator_uses_the_directory_that_its_configuration_shows() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let file = at("coordinator.toml");
    std::fs::write(&file, format!("data = '{}'\n", at("file").display())).unwrap();
    let driftless = || {
        let mut command = program("driftless");
        command.env("DRIFTLESS_COORDINATOR_CONFIG", &file);
        command.env("DRIFTLESS_COORDINATOR_DATA", at("variable"));
        command
    };
    let (value, from) = checked(&mut driftless(), "data");
    assert_eq!(value, at("variable").display().to_string());
    assert_eq!(from, "DRIFTLESS_COORDINATOR_DATA");
    let any = ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
    let mut serve = driftless();
    serve.arg("serve").args(any).stderr(Stdio::null());
    let _running = Running(serve.spawn().unwrap());
    wait_for("an answer to who has the same variable", || {
        let found = output(driftless().args(["node", "list"]));
        found.status.success().then_some(())
    });
    assert!(at("variable").join("format").is_file() && !at("file").exists());

    std::fs::write(&file, "data = ''\n").unwrap();
    let mut command = program("driftless");
    command.args(["config", "check", "--config"]).arg(&file);
    let ended = output(&mut command);
    assert_eq!(ended.status.code(), Some(6));
    assert!(
        stderr(&ended).contains("no directory is named"),
        "{}",
        stderr(&ended)
    );
}

/// What is on this machine says nothing of a coordinator that is named by its API, however it is.
#[test]
fn a_coordinator_that_the_environment_names_by_its_api_is_the_only_one_that_is_looked_at() {
    let (here, there) = (Fleet::enrolling(&[]), Fleet::enrolling(&[]));
    let local = here.data();
    let mut here = here;
    here.stop_coordinator();
    let ask = |api: &str, args: &[&str]| {
        let mut command = program("driftless");
        command
            .env("DRIFTLESS_API", api)
            .env("DRIFTLESS_DATA", &local);
        output(command.args(args))
    };
    let doctor = ask(&there.api().to_string(), &["doctor"]);
    let said = stdout(&doctor);
    assert!(doctor.status.success(), "{said}");
    assert!(!said.contains(&*local.to_string_lossy()), "{said}");
    let nobody = "127.0.0.1:1";
    let path = there.base().join("one.backup");
    let made = ask(nobody, &["backup", "create", path.to_str().unwrap()]);
    assert_eq!(made.status.code(), Some(4), "{}", stderr(&made));
    assert!(!path.exists());
    let read = ask(nobody, &["journal", "verify"]);
    assert_eq!(read.status.code(), Some(4), "{}", stderr(&read));
}

#[test]
fn the_way_to_the_coordinator_is_checked_before_the_first_start() {
    let mut fleet = Fleet::enrolling(&[]);
    let (config, token) = (fleet.base().join("agent.toml"), fleet.base().join("token"));
    let text = format!(
        "name = 'gw-7'\ndata = '{}'\ncoordinator = ['{}']\ntoken_file = '{}'\n",
        fleet.marks().display(),
        fleet.listen(),
        token.display(),
    );
    std::fs::write(&config, text).unwrap();
    let check = || {
        let mut command = program("driftless-agent");
        let ended = output(command.args(["check", "--config"]).arg(&config));
        stdout(&ended)
    };
    let line = |said: &str, check: &str| {
        let named = |line: &&str| line.split_whitespace().nth(1) == Some(check);
        let found = said.lines().find(named).map(str::to_owned);
        found.unwrap_or_else(|| panic!("no {check}: {said}"))
    };
    let said = check();
    assert!(line(&said, "token").contains("cannot be read"), "{said}");
    assert!(
        line(&said, "coordinator").contains("only a token says"),
        "{said}"
    );
    std::fs::write(&token, fleet.token(&[])).unwrap();
    let said = check();
    assert!(line(&said, "token").contains("holds one"), "{said}");
    assert!(line(&said, "coordinator").contains("answers in"), "{said}");
    std::fs::write(&token, Fleet::enrolling(&[]).token(&[])).unwrap();
    let said = check();
    assert!(line(&said, "coordinator").contains("fingerprint"), "{said}");
    fleet.stop_coordinator();
    let said = check();
    assert!(said.contains("nothing answers"), "{said}");
    assert!(!fleet.marks().join("pki").exists(), "nothing was made");
}

/// What would end a service at its start, or make it silent, is found by the check before.
#[test]
fn the_check_finds_what_a_start_would_meet() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("some.toml");
    let cert = "[access]\ncert = '/nowhere/a.crt'\nkey = '/nowhere/a.key'\n";
    let filter = "[log]\nfilter = 'cloud=inffo'\n";
    for (name, text, wanted) in [
        (
            "driftless",
            cert,
            "some.toml:2:1: access.cert: /nowhere/a.crt does not exist",
        ),
        (
            "driftless",
            filter,
            "some.toml:2:1: log.filter: 'cloud=inffo': ",
        ),
        (
            "driftless-agent",
            filter,
            "some.toml:2:1: log.filter: 'cloud=inffo': ",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let mut command = program(name);
        let ended = output(command.args(["config", "check", "--config"]).arg(&file));
        let told = stderr(&ended);
        assert_eq!(ended.status.code(), Some(6), "{name}: {told}");
        assert!(told.contains(wanted), "{name}: {told}");
    }
    let fleet = Fleet::enrolling(&[]);
    let mut doctor = program("driftless");
    doctor.env("DRIFTLESS_COORDINATOR_BACKUP_DIR", "/proc/none");
    let said = stdout(&output(doctor.args(["doctor", "--data"]).arg(fleet.data())));
    assert!(
        said.contains("none was made yet") && said.contains("/proc/none"),
        "{said}"
    );
}
