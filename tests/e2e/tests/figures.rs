//! The agent's figures for Prometheus, its life and its readiness, read over HTTP from the running
//! program.

use e2e::agent::{Gateway, stderr};
use e2e::fleet::Fleet;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

const LISTEN: &[&str] = &["--metrics", "127.0.0.1:0"];

/// Where the agent of a data directory serves its figures.
fn connect(data: &Path) -> TcpStream {
    let address =
        std::fs::read_to_string(data.join("metrics.addr")).expect("the agent serves figures");
    let stream = TcpStream::connect(address.trim()).expect("somebody listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a socket has time-outs");
    stream
}

/// Status and body.
fn ask(data: &Path, method: &str, path: &str) -> (u16, String) {
    let mut stream = connect(data);
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// The value of a figure.
fn value(data: &Path, name: &str) -> u64 {
    let (status, text) = ask(data, "GET", "/metrics");
    assert_eq!(status, 200, "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.trim().parse().expect("a number")
}

#[test]
fn every_figure_of_the_agent_is_listed_and_every_listed_one_is_there() {
    let gateway = Gateway::started(LISTEN);
    let (status, text) = ask(gateway.data(), "GET", "/metrics");
    assert_eq!(status, 200, "{text}");
    let real: BTreeSet<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let page = include_str!("../../../docs/metrics.md");
    let listed: BTreeSet<(&str, &str)> = page
        .lines()
        .filter(|line| {
            line.starts_with("| `driftless_agent_") || line.starts_with("| `driftless_build_info`")
        })
        .map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let name = cells.next().unwrap().trim_matches('`');
            (name, cells.next().unwrap())
        })
        .collect();
    assert_eq!(real, listed);
}

#[test]
fn work_and_the_link_show_in_the_figures_and_the_link_is_no_part_of_readiness() {
    let fleet = Fleet::start(&[LISTEN]);
    let data = fleet.agent_data(0);
    assert_eq!(ask(data, "GET", "/healthz").0, 200);
    fleet.wait("the link", || {
        (value(data, "driftless_agent_link{state=\"online\"}") == 1).then_some(())
    });
    let run = fleet.submit("name: one\ntasks:\n  a: {command: [echo, hello]}\n");
    let _ = fleet.wait_run(&run, "succeeded");
    assert_eq!(value(data, "driftless_agent_tasks{state=\"succeeded\"}"), 1);
    assert!(value(data, "driftless_agent_facts_total") > 1);
    assert!(value(data, "driftless_agent_store_bytes") > 0);
    fleet.cut(0);
    fleet.wait("the end of the link", || {
        (value(data, "driftless_agent_link{state=\"online\"}") == 0).then_some(())
    });
    let (status, ready) = ask(data, "GET", "/readyz");
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((status, &ready["ready"]), (200, &Value::Bool(true)));
}

#[test]
fn odd_and_slow_readers_hold_up_nobody() {
    let gateway = Gateway::started(LISTEN);
    let data = gateway.data();
    let mut silent: Vec<TcpStream> = (0..8).map(|_| connect(data)).collect();
    silent[0].write_all(b"GET /met").unwrap();
    silent[1]
        .write_all(b"\x16\x03\x01 no HTTP\r\n\r\n")
        .unwrap();
    silent[2]
        .write_all(&vec![b'x'; 100_000])
        .unwrap_or_default();
    assert_eq!(ask(data, "GET", "/metrics").0, 200);
    assert_eq!(ask(data, "GET", "/readyz").0, 200);
    let (status, problem) = ask(data, "GET", "/elsewhere");
    assert!(status == 404 && problem.contains("/metrics"), "{problem}");
    let (status, problem) = ask(data, "POST", "/metrics");
    assert!(status == 405 && problem.contains("GET"), "{problem}");
    // Who sends nothing loses its place, and others get it.
    let mut rest = Vec::new();
    let _ = silent[3].read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn no_address_no_listener_and_a_bad_or_taken_one_is_said() {
    let gateway = Gateway::started(&[]);
    assert!(!gateway.data().join("metrics.addr").exists());
    let refused = Gateway::new(&["--metrics", "everywhere"]).start_refused();
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    let said = stderr(&refused);
    assert!(
        said.contains("--metrics") && said.contains("'everywhere' is no address"),
        "{said}"
    );
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let refused = Gateway::new(&["--metrics", &taken.port().to_string()]).start_refused();
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains(&taken.to_string()),
        "{}",
        stderr(&refused)
    );
}
