//! The API behind TLS and access tokens, with the real programs: three roles by command, the audit
//! record, the stream of events over positions that are known and forgotten, and clients that send
//! nonsense, too much, or nothing.

use e2e::agent::{stderr, stdout};
use e2e::fleet::{Fleet, output, program};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::Duration;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

const PATIENCE: Duration = Duration::from_secs(60);
const ONE: &str = "name: one\ntasks:\n  a: {command: [echo, hello]}\n";

/// A coordinator that asks for tokens, and one of each role.
struct Guarded {
    fleet: Fleet,
    tokens: [(&'static str, String); 3],
}

impl Guarded {
    fn start(further: &[&str], nodes: &[&[&str]]) -> Self {
        let args: Vec<&str> = ["--api-tls"].iter().chain(further).copied().collect();
        let fleet = Fleet::serving(&args, nodes);
        let tokens = ["viewer", "operator", "admin"].map(|role| {
            let made = fleet.json(&["access", "create", "--role", role, "--name", role]);
            (role, made[0]["token"].as_str().expect("a token").to_owned())
        });
        Self { fleet, tokens }
    }

    fn token(&self, role: &str) -> &str {
        let mut all = self.tokens.iter();
        &all.find(|(name, _)| *name == role).expect("one of three").1
    }

    fn ca(&self) -> PathBuf {
        self.fleet.data().join("authority/authority.crt")
    }

    /// The command as somebody elsewhere runs it: with address, authority and token.
    fn command(&self, token: &str, args: &[&str]) -> Command {
        let mut command = program("driftless");
        let api = format!("https://{}", self.fleet.api());
        command.args(args).args(["--json", "--api", &api]);
        command
            .env("DRIFTLESS_TOKEN", token)
            .env("DRIFTLESS_CA", self.ca());
        command
    }

    fn as_role(&self, role: &str, args: &[&str]) -> Output {
        output(&mut self.command(self.token(role), args))
    }

    /// Status and body of a request that no command of ours would send.
    fn raw(&self, role: &str, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let pem = std::fs::read(self.ca()).expect("the authority is there");
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
        let uri = format!("https://{}/v1{path}", self.fleet.api());
        let request = ureq::http::Request::builder().method(method).uri(uri);
        let request = request.header("authorization", format!("Bearer {}", self.token(role)));
        let request = request.body(body).expect("a request");
        let mut answer = ureq::Agent::from(config).run(request).expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (answer.status().as_u16(), value)
    }
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", stderr(output));
    let text = stdout(output);
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON lines")
}

/// What is done, and who may do it.
const RIGHTS: &[(&[&str], &[&str])] = &[
    (&["run", "list"], &["viewer", "operator", "admin"]),
    (&["node", "list"], &["viewer", "operator", "admin"]),
    (&["events"], &["viewer", "operator", "admin"]),
    (&["submit", "@spec"], &["operator", "admin"]),
    (&["schedule", "delete", "none"], &["operator", "admin"]),
    (&["access", "list"], &["admin"]),
    (&["audit", "list"], &["admin"]),
    (&["authority", "show"], &["viewer", "operator", "admin"]),
    (&["authority", "rotate", "begin"], &["admin"]),
    (&["token", "create"], &["admin"]),
    (&["config", "set", "max_retries", "4"], &["admin"]),
];

#[test]
fn each_role_may_do_its_part_and_the_audit_record_has_what_was_done() {
    let guarded = Guarded::start(&[], &[]);
    let spec = guarded.fleet.spec(ONE).display().to_string();
    for (args, may) in RIGHTS {
        let args: Vec<&str> = args
            .iter()
            .map(|arg| if *arg == "@spec" { spec.as_str() } else { arg })
            .collect();
        for (role, _) in &guarded.tokens {
            let done = guarded.as_role(role, &args);
            let said = stderr(&done);
            let refused = done.status.code() == Some(5) && said.contains("has the role");
            assert_eq!(refused, !may.contains(role), "{role} {args:?}: {said}");
            if refused {
                assert!(
                    said.contains(&format!("the access token {role} ")),
                    "{said}"
                );
            }
        }
    }
    let again = ["access", "create", "--role", "admin", "--name", "viewer"];
    assert_eq!(guarded.as_role("admin", &again).status.code(), Some(5));
    let entries = lines(&guarded.as_role("admin", &["audit", "list"]));
    let by = |who: &str, what: &str| {
        entries
            .iter()
            .filter(|entry| entry["who"] == who && entry["what"] == what && entry["token"] == true)
            .count()
    };
    assert_eq!(
        (by("operator", "submit"), by("admin", "submit")),
        (1, 1),
        "{entries:?}"
    );
    assert_eq!(
        (by("admin", "token create"), by("admin", "config set")),
        (1, 1)
    );
    assert_eq!(by("viewer", "submit"), 0, "what never began is no action");
    let refused = entries.iter().find(|entry| entry["result"] == "refused");
    let refused = refused.expect("a name is given once");
    assert_eq!(refused["what"], "access create", "{entries:?}");
    assert!(refused["reason"].is_string(), "{refused}");
    let after = entries[2]["number"].to_string();
    let rest = lines(&guarded.as_role(
        "admin",
        &["audit", "list", "--after", &after, "--limit", "2"],
    ));
    assert_eq!(rest, entries[3..5]);
}

#[test]
fn strangers_are_told_what_they_lack() {
    let guarded = Guarded::start(&[], &[]);
    let mut other = guarded.token("viewer").to_owned();
    let last = other.pop().unwrap();
    other.push(if last == '0' { '1' } else { '0' });
    for (token, said) in [
        ("", "wants an access token"),
        ("garbage", "no access token"),
        (&other, "not known"),
    ] {
        let refused = output(&mut guarded.command(token, &["run", "list"]));
        assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
        assert!(
            stderr(&refused).contains("driftless access create"),
            "{}",
            stderr(&refused)
        );
    }
    let mut trusting = guarded.command(guarded.token("viewer"), &["run", "list"]);
    trusting.env_remove("DRIFTLESS_CA");
    let untrusted = output(&mut trusting);
    assert_eq!(untrusted.status.code(), Some(4), "{}", stderr(&untrusted));
    assert!(
        stderr(&untrusted).contains("--ca"),
        "{}",
        stderr(&untrusted)
    );
    let revoked = guarded.as_role("admin", &["access", "revoke", "viewer"]);
    assert!(revoked.status.success(), "{}", stderr(&revoked));
    let gone = guarded.as_role("viewer", &["run", "list"]);
    assert_eq!(gone.status.code(), Some(5), "{}", stderr(&gone));
}

/// `events --follow` that is ended when it is dropped.
struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn numbers(events: &[Value]) -> Vec<u64> {
    let numbers = events.iter().map(|event| event["number"].as_u64());
    numbers.flatten().collect()
}

#[test]
fn the_stream_of_events_goes_on_behind_a_number_and_says_when_that_is_forgotten() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("coordinator.toml");
    std::fs::write(&config, "[events]\nbudget = '64KiB'\n").unwrap();
    let config = config.display().to_string();
    let mut guarded = Guarded::start(&["--config", &config], &[]);
    let spec = guarded.fleet.spec(ONE).display().to_string();
    let seen = lines(&guarded.as_role("viewer", &["events"]));
    let last = *numbers(&seen).last().unwrap();
    assert_eq!(numbers(&seen), (1..=last).collect::<Vec<_>>());

    // a follower misses nothing and sees nothing twice, also over a restart of the coordinator
    let after = last.to_string();
    let args = ["events", "--follow", "--after", &after, "--limit", "8"];
    let mut following = Following(
        guarded
            .command(guarded.token("viewer"), &args)
            .spawn()
            .unwrap(),
    );
    assert!(
        guarded
            .as_role("operator", &["submit", &spec])
            .status
            .success()
    );
    guarded.fleet.stop_coordinator();
    guarded.fleet.start_coordinator();
    // each under a key of its own: what is sent again is no event
    let mut number = 0;
    let mut submitted = |guarded: &Guarded| {
        number += 1;
        let key = format!("{number:0>1000}");
        guarded.as_role("operator", &["submit", &spec, "--idempotency-key", &key])
    };
    for _ in 0..8 {
        let sent = submitted(&guarded);
        assert!(sent.status.success(), "{}", stderr(&sent));
    }
    let mut text = String::new();
    following
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let followed: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        numbers(&followed),
        (last + 1..=last + 8).collect::<Vec<_>>(),
        "{text}"
    );

    // enough of them, and the first are forgotten
    guarded.fleet.wait("a forgotten event", || {
        assert!(submitted(&guarded).status.success());
        let refused = guarded.as_role("viewer", &["events", "--after", "1"]);
        (!refused.status.success()).then_some(())
    });
    let refused = guarded.as_role("viewer", &["events", "--after", "1"]);
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("event 1 is not known"),
        "{}",
        stderr(&refused)
    );
    let (status, problem) = guarded.raw("viewer", "GET", "/events?after=1", b"");
    assert_eq!(status, 410, "{problem}");
    let kept = lines(&guarded.as_role("viewer", &["events"]));
    assert!(numbers(&kept)[0] > 2 && kept.len() > 10);
}

#[test]
fn nonsense_and_too_much_are_answered_and_change_nothing() {
    let guarded = Guarded::start(&[], &[]);
    let before = lines(&guarded.as_role("admin", &["audit", "list"]));
    let large = vec![b' '; 1 << 20];
    for (role, method, path, body, status) in [
        ("admin", "POST", "/access", &b"{"[..], 400),
        (
            "admin",
            "POST",
            "/access",
            b"{\"name\":1,\"role\":\"viewer\"}",
            400,
        ),
        (
            "admin",
            "POST",
            "/access",
            b"{\"name\":\"a\",\"role\":\"king\"}",
            400,
        ),
        ("admin", "POST", "/access", &large, 413),
        ("operator", "POST", "/runs", b"no workflow", 400),
        ("viewer", "GET", "/events?after=soon", b"", 400),
        ("viewer", "GET", "/runs?colour=blue", b"", 400),
        ("viewer", "GET", "/nothing", b"", 404),
        ("viewer", "POST", "/nodes", b"", 405),
        ("viewer", "POST", "/runs", &large, 403),
    ] {
        let (answered, problem) = guarded.raw(role, method, path, body);
        assert_eq!(answered, status, "{method} {path}: {problem}");
        assert!(problem["error"].is_string(), "{method} {path}: {problem}");
    }
    assert_eq!(lines(&guarded.as_role("admin", &["audit", "list"])), before);
    assert_eq!(
        lines(&guarded.as_role("viewer", &["run", "list"])),
        [] as [Value; 0]
    );
}

#[test]
fn slow_and_stuck_clients_hold_up_nobody() {
    let guarded = Guarded::start(&[], &[]);
    let connect = || TcpStream::connect(guarded.fleet.api()).unwrap();
    // nothing at all, half of a handshake, and readers that never read
    let mut silent: Vec<TcpStream> = (0..100).map(|_| connect()).collect();
    for stream in &mut silent[..50] {
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    }
    let args = ["events", "--follow"];
    let stuck: Vec<Following> = (0..4)
        .map(|_| {
            Following(
                guarded
                    .command(guarded.token("viewer"), &args)
                    .spawn()
                    .unwrap(),
            )
        })
        .collect();
    let spec = guarded.fleet.spec(ONE).display().to_string();
    let run = lines(&guarded.as_role("operator", &["submit", &spec]));
    let id = run[0]["id"].as_str().unwrap();
    let got = lines(&guarded.as_role("viewer", &["run", "get", id]));
    assert_eq!(got[0]["id"], run[0]["id"]);
    drop(stuck);
}

#[test]
fn an_api_that_speaks_tls_is_called_by_its_scheme() {
    let guarded = Guarded::start(&[], &[]);
    let at = guarded.fleet.api();
    let log = guarded.fleet.log_text("coordinator");
    assert!(log.contains(&format!("API at https://{at}")), "{log}");
    let mut command = program("driftless");
    let ended = output(command.args(["node", "list", "--api", &at.to_string()]));
    assert_eq!(ended.status.code(), Some(4));
    let said = stderr(&ended);
    assert!(said.contains("write https://HOST:PORT"), "{said}");
}
