//! The API over loopback: what it answers, what it refuses, and that refusals change nothing.

use crate::common::{Coordinator, TWO, options, packed, refused};
use cloud::{DataError, ServeError};
use shared::ids::Hash;
use shared::spec::SentFiles;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

#[test]
fn a_coordinator_says_where_it_is_and_takes_it_back() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let coordinator = Coordinator::start_with(options(&data));
    let read = |name| std::fs::read_to_string(data.join(name));
    assert_eq!(
        read("api.addr").unwrap().trim(),
        coordinator.ready.api.to_string()
    );
    assert_eq!(
        read("quic.addr").unwrap().trim(),
        coordinator.ready.listen.to_string()
    );
    let (status, health) = coordinator.json("/healthz");
    assert_eq!((status, health["status"].as_str()), (200, Some("ok")));

    let error = refused(options(&data));
    assert!(
        matches!(error, ServeError::Data(DataError::InUse(_))),
        "{error}"
    );
    coordinator.stop().unwrap();
    assert!(read("api.addr").is_err() && read("quic.addr").is_err());
    drop(Coordinator::start_with(options(&data)));
}

#[test]
fn busy_ports_are_named() {
    let home = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut busy = options(&home.path().join("a"));
    busy.api = tcp.local_addr().unwrap();
    let error = refused(busy.clone());
    assert!(
        matches!(error, ServeError::Api { address, .. } if address == busy.api),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("--api"));
    let mut busy = options(&home.path().join("b"));
    busy.listen = udp.local_addr().unwrap();
    let error = refused(busy.clone());
    let named = matches!(error, ServeError::Listen { address, .. } if address == busy.listen);
    assert!(
        named && error.to_string().contains(&busy.listen.to_string()),
        "{error}"
    );
}

#[test]
fn a_store_that_is_not_one_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    Coordinator::start_with(options(&data)).stop().unwrap();
    std::fs::write(data.join("store.redb"), vec![7; 100_000]).unwrap();
    let error = refused(options(&data));
    assert!(matches!(&error, ServeError::Store { .. }), "{error}");
    std::fs::remove_file(data.join("store.redb")).unwrap();
    let error = refused(options(&data));
    assert!(
        matches!(&error, ServeError::Data(DataError::Damaged { .. })),
        "{error}"
    );
}

#[test]
fn a_field_that_is_missing_or_mistyped_changes_nothing() {
    let coordinator = Coordinator::start();
    let cases: &[(&str, &str, &[u8], u16, &str)] = &[
        (
            "POST",
            "/runs/zz/tasks/q/answer",
            b"",
            400,
            "missing field `yes`",
        ),
        ("POST", "/settings", b"", 400, "missing field `key`"),
        (
            "POST",
            "/settings",
            b"{\"nod\":\"gw-7\",\"key\":\"max_retries\",\"value\":\"1\"}",
            400,
            "`nod`",
        ),
        (
            "POST",
            "/settings",
            b"{\"key\":\"max_retries\",\"vaule\":\"1\"}",
            400,
            "`vaule`",
        ),
        (
            "POST",
            "/settings",
            b"{\"key\":\"max_retries\"}",
            400,
            "missing field `value`",
        ),
        ("GET", "/settings?nod=gw-7", b"", 400, "`nod`"),
    ];
    for (method, path, body, status, said) in cases {
        let (found, problem) = coordinator.send(method, path, &[], body);
        let error = problem["error"].as_str().unwrap_or_default();
        assert_eq!(found, *status, "{method} {path}: {problem}");
        assert!(error.contains(said), "{method} {path}: {problem}");
    }
    let (_, settings) = coordinator.json("/settings");
    assert!(!settings.to_string().contains("fleet"), "{settings}");
}

#[test]
fn malformed_requests_get_their_own_errors() {
    let coordinator = Coordinator::start();
    let cases: &[(&str, &str, &[u8], u16, &str)] = &[
        ("GET", "/nothing", b"", 404, "nothing at this path"),
        ("DELETE", "/runs", b"", 405, "method"),
        ("GET", "/runs?colour=red", b"", 400, "colour"),
        ("GET", "/runs?state=happy", b"", 400, "'happy' is no state"),
        ("GET", "/runs?limit=many", b"", 400, "query"),
        ("GET", "/runs/zz", b"", 404, "no run 'zz'"),
        (
            "GET",
            "/runs/00000000000000000000000000000000",
            b"",
            404,
            "no run",
        ),
        ("GET", "/nodes/gw-7", b"", 404, "no node gw-7"),
        ("GET", "/files/abc", b"", 400, "names no file"),
        ("POST", "/backup/abc", b"{}", 400, "the path cannot be read"),
        ("GET", "/runs/%ff", b"", 400, "the path cannot be read"),
        ("POST", "/tokens", b"{", 400, "body"),
        ("POST", "/tokens", b"{\"nmae\":\"x\"}", 400, "nmae"),
        ("POST", "/tokens", b"{\"name\":\"a/b\"}", 400, "'/'"),
        ("POST", "/tokens", b"{\"expires_in_ms\":0}", 400, "0s"),
        ("POST", "/tokens", b"{\"replace\":true}", 400, "name"),
        ("POST", "/runs", b"garbage", 400, "workflow cannot be read"),
        ("POST", "/runs", b"", 400, "workflow cannot be read"),
        ("POST", "/tokens", &[b' '; 100_000], 413, "body"),
        ("POST", "/runs", &vec![0; (4 << 20) + 1], 413, "body"),
        (
            "POST",
            "/runs",
            &vec![0; 4 << 20],
            400,
            "workflow cannot be read",
        ),
    ];
    for (method, path, body, status, said) in cases {
        let (found, problem) = coordinator.send(method, path, &[], body);
        let error = problem["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{path}: {problem}"));
        assert_eq!(found, *status, "{method} {path}: {error}");
        assert!(error.contains(said), "{method} {path}: {error}");
    }
    let origin = [("origin", "https://evil.example")];
    assert_eq!(coordinator.send("POST", "/tokens", &origin, b"{}").0, 403);
    assert!(coordinator.lines("/runs").is_empty(), "nothing was changed");
}

#[test]
fn files_are_verified_and_bounded() {
    let coordinator = Coordinator::start();
    let hash = Hash::of(b"stations");
    let path = format!("/files/{hash}");
    assert_eq!(coordinator.get(&path).0, 404);
    assert_eq!(
        coordinator.send("PUT", &path, &[], b"something else").0,
        422
    );
    assert_eq!(coordinator.get(&path).0, 404, "what is wrong is not kept");
    assert_eq!(coordinator.send("PUT", &path, &[], b"stations").0, 201);
    assert_eq!(coordinator.send("PUT", &path, &[], b"stations").0, 200);
    assert_eq!(coordinator.get(&path), (200, "stations".to_owned()));
    assert_eq!(coordinator.send("HEAD", &path, &[], b"").0, 200);
    let large = vec![1; 2 << 20];
    let (status, problem) =
        coordinator.send("PUT", &format!("/files/{}", Hash::of(&large)), &[], &large);
    assert_eq!(status, 507, "{problem}");
}

#[test]
fn a_run_is_submitted_found_and_cancelled() {
    let coordinator = Coordinator::start();
    let workflow = packed(TWO, &SentFiles::new());
    let key = [("idempotency-key", "nightly-1")];
    let (status, run) = coordinator.submit(&workflow, &key);
    assert_eq!(status, 201, "{run}");
    let id = run["id"].as_str().unwrap();
    assert_eq!((id.len(), &run["workflow"]), (32, &"two".into()));
    assert!(run["state"].is_string() && run["waits"].is_array(), "{run}");
    let (status, again) = coordinator.submit(&workflow, &key);
    assert_eq!(
        (status, &again["id"]),
        (200, &run["id"]),
        "the same key gives the same run"
    );
    assert_eq!(coordinator.lines("/runs").len(), 1);

    assert_eq!(
        coordinator.json(&format!("/runs/{}", &id[..8])).1["id"],
        run["id"]
    );
    let (status, problem) = coordinator.json(&format!("/runs/{}zz", &id[..8]));
    assert_eq!(status, 404);
    assert!(
        problem["hint"].as_str().unwrap().contains(&id[..12]),
        "{problem}"
    );
    let (_, problem) = coordinator.json(&format!("/runs/z{}", &id[1..8]));
    assert!(
        problem["hint"].as_str().unwrap().contains(&id[..12]),
        "one letter is wrong: {problem}"
    );
    let (_, problem) = coordinator.json(&format!("/runs/zz{}", &id[2..4]));
    assert_eq!(
        problem["hint"], "`driftless run list` shows the runs",
        "half of it is wrong"
    );
    let tasks = coordinator.lines(&format!("/runs/{id}/tasks"));
    assert_eq!(tasks.len(), 2);
    for name in ["run", "task", "state", "node", "attempts", "outputs"] {
        assert!(tasks[0].get(name).is_some(), "{name} in {}", tasks[0]);
    }
    let (status, problem) = coordinator.json(&format!("/runs/{id}/tasks/secnd"));
    assert_eq!(
        (status, problem["hint"].as_str()),
        (404, Some("did you mean second?"))
    );
    let (status, why) = coordinator.json(&format!("/runs/{id}/tasks/first/explain"));
    assert_eq!(status, 200);
    assert!(
        why["summary"].is_string() && why["decisions"].is_array(),
        "{why}"
    );
    assert_eq!(
        coordinator.json(&format!("/runs/{id}/tasks/first/logs")).0,
        404,
        "it has not run"
    );

    let body = r#"{"by":"tester","why":"a test"}"#;
    let (status, cancelled) = coordinator.post(&format!("/runs/{id}/cancel"), body);
    assert_eq!(status, 200, "{cancelled}");
    coordinator.until(&format!("/runs/{id}"), |run| run["state"] == "cancelled");
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let first = Coordinator::start_with(options(&data));
    let (status, run) = first.submit(&packed(TWO, &SentFiles::new()), &[]);
    assert_eq!(status, 201);
    let authority = first.ready.authority.clone();
    first.stop().unwrap();
    let second = Coordinator::start_with(options(&data));
    assert_eq!(second.ready.authority, authority);
    assert_eq!(second.lines("/runs")[0]["id"], run["id"]);
}

#[test]
fn files_that_are_sent_along_come_first() {
    let coordinator = Coordinator::start();
    let text = "name: sent\ntasks:\n  a: {command: [cat, in.txt], inputs: [in.txt]}\n";
    let hash = Hash::of(b"data");
    let files = SentFiles::from([("in.txt".to_owned(), (hash, 4))]);
    let workflow = packed(text, &files);
    let (status, problem) = coordinator.submit(&workflow, &[]);
    assert_eq!(status, 409, "{problem}");
    assert!(
        problem["error"].as_str().unwrap().contains("in.txt"),
        "{problem}"
    );
    assert_eq!(
        coordinator
            .send("PUT", &format!("/files/{hash}"), &[], b"data")
            .0,
        201
    );
    assert_eq!(coordinator.submit(&workflow, &[]).0, 201);
}

#[test]
fn a_watch_tells_of_changes_until_the_coordinator_stops() {
    use std::io::BufRead;
    let coordinator = Coordinator::start();
    let (_, run) = coordinator.submit(&packed(TWO, &SentFiles::new()), &[]);
    let id = run["id"].as_str().unwrap().to_owned();
    let answer = ureq::get(coordinator.url(&format!("/watch?run={id}")))
        .call()
        .unwrap();
    let mut lines = std::io::BufReader::new(answer.into_body().into_reader()).lines();
    let first: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["run"]["id"], run["id"]);
    coordinator.post(&format!("/runs/{id}/cancel"), "");
    let cancelled = lines.by_ref().map(|line| line.unwrap()).any(|line| {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        value["run"]["state"] == "cancelled"
    });
    assert!(cancelled);
    let stopped = std::thread::spawn(move || coordinator.stop());
    let ended = lines.all(|line| line.is_ok() || line.is_err());
    assert!(ended, "the watch ends with the coordinator");
    stopped.join().unwrap().unwrap();
}

/// A stop, like a store that failed and is opened again, waits for nobody who takes a backup
/// slowly.
#[test]
fn a_backup_that_is_taken_slowly_keeps_nobody_waiting() {
    use std::io::Read;
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(&dir.path().join("data"));
    options.file_budget = 256 << 20;
    let coordinator = Coordinator::start_with(options);
    // what no compression makes small
    let mut state = 1_u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_le_bytes()
    })
    .take(8 << 20)
    .flatten()
    .collect();
    let path = format!("/files/{}", Hash::of(&content));
    assert_eq!(coordinator.send("PUT", &path, &[], &content).0, 201);
    let answer = ureq::get(coordinator.url("/backup")).call().unwrap();
    let mut reader = answer.into_body().into_reader();
    let mut begun = vec![0; 1 << 20];
    reader.read_exact(&mut begun).unwrap();
    let start = std::time::Instant::now();
    coordinator.stop().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_restore_without_a_node_that_is_not_in_the_backup_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, path) = (dir.path().join("data"), dir.path().join("one.backup"));
    Coordinator::start_with(options(&data)).stop().unwrap();
    let made = cloud::backup::of_stopped(&data, &path, &mut |_| ()).unwrap();
    assert_eq!(made.nodes, Vec::<String>::new());
    let new = dir.path().join("new");
    let refused = cloud::backup::restore(&path, &new, &["gw-9".to_owned()]).unwrap_err();
    assert!(refused.to_string().contains("no node gw-9"), "{refused}");
    assert!(!new.exists());
    cloud::backup::restore(&path, &new, &[]).unwrap();
}
