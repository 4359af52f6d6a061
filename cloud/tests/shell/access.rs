//! The API behind TLS and tokens: who is let in, who is not, and what slow clients may hold.

use crate::common::{Coordinator, PATIENCE, TWO, options, packed};
use cloud::api::routes;
use cloud_core::access::Role;
use serde_json::Value;
use shared::spec::SentFiles;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// A client that trusts the fleet's authority.
struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    fn new(coordinator: &Coordinator, data: &Path) -> Self {
        let pem = std::fs::read(data.join("authority/authority.crt")).unwrap();
        let roots: Vec<_> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(certs::provider())
            .root_certs(RootCerts::new_with_certs(&roots))
            .build();
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let config = config
            .timeout_global(Some(PATIENCE))
            .tls_config(tls)
            .build();
        Self {
            agent: config.into(),
            base: format!("https://{}/v1", coordinator.ready.api),
        }
    }

    fn send(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
        let uri = format!("{}{path}", self.base);
        let mut request = ureq::http::Request::builder().method(method).uri(uri);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = self
            .agent
            .run(request.body(body.to_owned()).unwrap())
            .unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (answer.status().as_u16(), value)
    }

    fn token(&self, admin: &str, role: Role, expires: Option<u64>) -> String {
        let name = format!("{}-{}", role.text(), expires.unwrap_or(0));
        let expires = expires.map_or(Value::Null, Value::from);
        let wanted = serde_json::json!({
            "name": name, "role": role.text(), "expires_in_ms": expires, "by": "nobody",
        });
        let (status, made) = self.send("POST", "/access", Some(admin), &wanted.to_string());
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    }
}

/// A coordinator on loopback that asks for tokens, a client, and the token of this start.
fn guarded(home: &Path) -> (Coordinator, Client, String) {
    let data = home.join("data");
    let mut options = options(&data);
    options.access.tls = true;
    let coordinator = Coordinator::start_with(options);
    assert!(coordinator.ready.guarded);
    let client = Client::new(&coordinator, &data);
    let admin = std::fs::read_to_string(data.join("api.token")).unwrap();
    (coordinator, client, admin.trim().to_owned())
}

#[test]
fn nobody_is_let_in_without_a_good_token() {
    let home = tempfile::tempdir().unwrap();
    let (coordinator, client, admin) = guarded(home.path());
    assert_eq!(
        client.send("GET", "/healthz", None, "").0,
        200,
        "life is no secret"
    );
    let (status, problem) = client.send("GET", "/runs", None, "");
    assert_eq!(status, 401);
    assert!(
        problem["hint"].as_str().unwrap().contains("access create"),
        "{problem}"
    );
    let brief = client.token(&admin, Role::Viewer, Some(1));
    let viewer = client.token(&admin, Role::Viewer, None);
    let mut other = admin.clone();
    other.pop();
    other.push(if admin.ends_with('0') { '1' } else { '0' });
    let bad = [
        ("garbage", "no access token"),
        (&other, "not known"),
        (&brief, "expired"),
    ];
    for (token, said) in bad {
        let (status, problem) = client.send("GET", "/runs", Some(token), "");
        assert_eq!(status, 401, "{problem}");
        assert!(
            problem["error"].as_str().unwrap().contains(said),
            "{problem}"
        );
    }
    assert_eq!(client.send("GET", "/runs", Some(&viewer), "").0, 200);
    let revoke = "/access/viewer-0/revoke";
    assert_eq!(client.send("POST", revoke, Some(&admin), "").0, 200);
    assert_eq!(
        client.send("GET", "/runs", Some(&viewer), "").0,
        401,
        "at once"
    );
    assert_eq!(client.send("POST", revoke, Some(&admin), "").0, 404);
    drop(coordinator);
    assert!(!home.path().join("data/api.token").exists());
}

#[test]
fn too_many_bad_tokens_are_not_listened_to() {
    let home = tempfile::tempdir().unwrap();
    let (_coordinator, client, admin) = guarded(home.path());
    let tries = |token: &str| client.send("GET", "/runs", Some(token), "").0;
    let refused = (0..50)
        .map(|_| tries("dfa1-0-0"))
        .find(|status| *status == 429);
    assert_eq!(refused, Some(429));
    assert_eq!(tries(&admin), 429, "even a good one waits");
    assert_eq!(
        client.send("GET", "/runs", None, "").0,
        401,
        "none at all is no try"
    );
}

#[test]
fn each_route_needs_its_role_and_less_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (_coordinator, client, admin) = guarded(home.path());
    let tokens: Vec<(Role, String)> = Role::ALL
        .iter()
        .map(|role| (*role, client.token(&admin, *role, None)))
        .collect();
    for route in routes() {
        let path = route.path.replace('{', "x").replace('}', "");
        for (role, token) in &tokens {
            let request = ureq::http::Request::builder().method(route.method);
            let request = request.uri(format!("{}{path}", client.base.trim_end_matches("/v1")));
            let request = request.header("authorization", format!("Bearer {token}"));
            let enough = route.least.is_none_or(|least| *role >= least);
            // a stream that was let in may break off (a backup that is not read to its end)
            let Ok(mut answer) = client.agent.run(request.body(()).unwrap()) else {
                assert!(enough, "{role:?} {route:?}");
                continue;
            };
            let status = answer.status().as_u16();
            assert_eq!(status != 403, enough, "{role:?} {route:?}");
            if !enough {
                let text = answer.body_mut().read_to_string().unwrap();
                let problem: Value = serde_json::from_str(&text).unwrap();
                let error = problem["error"].as_str().unwrap();
                let needs = route.least.unwrap().text();
                assert!(
                    error.contains(role.text()) && error.contains(needs),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn actions_bear_the_name_of_the_token_and_are_on_record() {
    let home = tempfile::tempdir().unwrap();
    let (coordinator, client, admin) = guarded(home.path());
    let operator = client.token(&admin, Role::Operator, None);
    let (status, problem) = client.send("POST", "/nodes/gw-1/forget", Some(&operator), "");
    assert_eq!(status, 403, "{problem}");
    let (status, _) = client.send("POST", "/tokens", Some(&admin), "{\"name\":\"gw-1\"}");
    assert_eq!(status, 201);
    let uri = format!("{}/runs?by=somebody-else", client.base);
    let request = client.agent.post(uri);
    let request = request.header("authorization", format!("Bearer {operator}"));
    let mut answer = request.send(&packed(TWO, &SentFiles::new())).unwrap();
    let run: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(
        run["by"], "operator-0",
        "the name that is proven counts: {run}"
    );
    let (_, text) = client.send("GET", "/audit?limit=10", Some(&admin), "");
    let text = text.as_str().unwrap();
    let entries: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let what: Vec<&str> = entries.iter().filter_map(|e| e["what"].as_str()).collect();
    assert_eq!(what, ["access create", "token create", "submit"]);
    let submit = &entries[2];
    assert_eq!(
        (&submit["who"], &submit["token"]),
        (&"operator-0".into(), &true.into())
    );
    assert_eq!(
        (&submit["about"], &submit["result"]),
        (&run["id"], &"done".into())
    );
    assert!(
        submit["from"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{submit}"
    );
    drop(coordinator);
}

#[test]
fn a_client_that_sends_no_head_and_one_with_an_endless_head_lose_their_connection() {
    let coordinator = Coordinator::start();
    let connect = || {
        let stream = TcpStream::connect(coordinator.ready.api).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut idle = connect();
    idle.write_all(b"GET /v1/runs HT").unwrap();
    let mut endless = connect();
    let head = format!(
        "GET /v1/runs HTTP/1.1\r\nhost: localhost\r\nx: {}",
        "a".repeat(100_000)
    );
    let _ = endless.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = endless.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest);
    assert_eq!(coordinator.get("/runs").0, 200, "others are served");
}

#[test]
fn plain_requests_to_a_port_with_tls_get_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (coordinator, _client, _) = guarded(home.path());
    let mut stream = TcpStream::connect(coordinator.ready.api).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /v1/runs HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[test]
fn events_go_on_over_a_restart_and_a_forgotten_position_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let first = Coordinator::start_with(options(&data));
    let (_, run) = first.submit(&packed(TWO, &SentFiles::new()), &[]);
    let seen = first.lines("/events");
    let last = seen.last().unwrap()["number"].as_u64().unwrap();
    assert!(
        seen.iter().any(|event| event["run"] == run["id"]),
        "{seen:?}"
    );
    first.stop().unwrap();
    let second = Coordinator::start_with(options(&data));
    let more = second.lines(&format!("/events?after={last}"));
    assert_eq!(more[0]["number"].as_u64(), Some(last + 1));
    let (status, problem) = second.json("/events?after=1000000");
    assert_eq!(status, 410, "{problem}");
    assert!(
        problem["error"].as_str().unwrap().contains("are 1 to"),
        "{problem}"
    );
    assert_eq!(second.lines("/events?limit=1").len(), 1);
}

/// One answer, as long as its `content-length` says.
fn answer(stream: &mut TcpStream) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[test]
fn a_refusal_takes_the_body_that_comes_after_it_and_the_connection_goes_on() {
    let coordinator = Coordinator::start();
    let mut stream = TcpStream::connect(coordinator.ready.api).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let refused = [
        ("POST /v1/nothing", "404", 300_000),
        ("POST /v1/healthz", "405", 5),
        ("POST /v1/access", "413", 10_000_000),
    ];
    for (line, status, bytes) in refused {
        let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {bytes}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let early = answer(&mut stream);
        assert!(early.starts_with(&format!("HTTP/1.1 {status}")), "{early}");
        stream.write_all(&vec![b'x'; bytes]).unwrap();
    }
    stream
        .write_all(b"GET /v1/healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    let after = answer(&mut stream);
    assert!(after.starts_with("HTTP/1.1 200"), "{after}");
}

#[test]
fn a_token_that_is_revoked_reads_no_more_events() {
    use std::io::{BufRead, BufReader};
    let home = tempfile::tempdir().unwrap();
    let (_coordinator, client, admin) = guarded(home.path());
    let viewer = client.token(&admin, Role::Viewer, None);
    let request = client
        .agent
        .get(format!("{}/events?follow=true", client.base));
    let request = request.header("authorization", format!("Bearer {viewer}"));
    let answer = request.call().unwrap();
    let mut lines = BufReader::new(answer.into_body().into_reader()).lines();
    assert!(lines.next().unwrap().unwrap().contains("began"));
    let (ended, is_ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(lines.map_while(Result::ok).last()));
    let revoke = "/access/viewer-0/revoke";
    assert_eq!(client.send("POST", revoke, Some(&admin), "").0, 200);
    let last = is_ended.recv_timeout(std::time::Duration::from_secs(5));
    let last = last.expect("the stream ends with the token");
    assert!(!last.unwrap_or_default().contains("access revoke"));
}

#[test]
fn whoever_takes_a_backup_is_on_record() {
    let home = tempfile::tempdir().unwrap();
    let (_coordinator, client, admin) = guarded(home.path());
    let mallory = client.token(&admin, Role::Admin, None);
    let request = client.agent.get(format!("{}/backup", client.base));
    let request = request.header("authorization", format!("Bearer {mallory}"));
    assert_eq!(request.call().unwrap().status().as_u16(), 200);
    let (_, text) = client.send("GET", "/audit", Some(&admin), "");
    let last = text.as_str().unwrap().lines().last().unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(
        (&last["what"], &last["who"]),
        (&"backup read".into(), &"admin-0".into())
    );
}
