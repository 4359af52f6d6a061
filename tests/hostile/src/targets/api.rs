//! Requests: of programs to the coordinator's API, over loopback, and of local commands to an
//! agent.
//!
//! The coordinator runs in this process, so its panics are found and its memory is counted.

use crate::samples;
use crate::target::{Bound, Form, Target, Verdict, class};
use cloud::{Guarded, Options, Ready};
use edge_agent::control::Request;
use shared::codec;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{OnceLock, mpsc};
use std::time::Duration;
use tempfile::TempDir;

/// Words of requests.
const WORDS: &[&str] = &[
    "GET /v1/runs",
    "POST /v1/runs",
    "GET /v1/nodes/",
    "POST /v1/tokens",
    "PUT /v1/files/",
    "POST /v1/settings",
    "POST /v1/access",
    "GET /v1/events?after=",
    "GET /v1/audit",
    "limit=",
    "state=running",
    "after=18446744073709551616",
    "?by=",
    "&node=",
    "&replace=true",
    "count=1000",
    "from=",
    "stream=stdout",
    "attempt=1",
    "epoch=",
    "metric=cpu",
    "since=-1",
    "step=0",
    "{}",
    "{\"by\": \"ana\"}",
    "\"why\": ",
    "\"yes\": true",
    "\"input\": {}",
    "\"set\": {\"a\": null}",
    "\"add\": [\"a=b:NoSchedule\"]",
    "\"key\": \"max_retries\", \"value\": \"3\"",
    "\"name\": \"x\", \"role\": \"viewer\"",
    "\"expires_in_ms\": 1",
    "\"from\": 1, \"to\": 2",
    "Idempotency-Key: a\n",
    "Content-Length: 5\n",
    "Transfer-Encoding: chunked\n",
    "Host: localhost\n",
    "Origin: http://x\n",
    "Authorization: Bearer dfa1-\n",
    "Expect: 100-continue\n",
    "%00",
    "%ff",
    "%2F",
    "..;",
    "\u{1f4a9}",
];

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "api",
        fed_by: "programs that reach the API: methods, paths, queries, headers, bodies",
        form: Form::Text,
        bound: Bound::new(256, 400 << 10).within(20),
        cost: 100,
        words: WORDS,
        seeds: requests,
        check: check_api,
    },
    Target {
        name: "local-request",
        fed_by: "local commands: lines on agent.sock",
        form: Form::Text,
        bound: Bound::new(256, 4096),
        cost: 1,
        words: &[
            "{\"command\":",
            "\"status\"",
            "\"ps\"",
            "\"all\":true",
            "\"run\":",
            "null",
        ],
        seeds: lines,
        check: check_line,
    },
];

/// A coordinator that runs until the process ends.
struct Coordinator {
    ready: Ready,
    _dir: TempDir,
}

fn options(data: &Path) -> Result<Options, String> {
    let free = || "127.0.0.1:0".parse().map_err(|_| "no address".to_owned());
    Ok(Options {
        data: data.to_path_buf(),
        listen: free()?,
        api: free()?,
        file_budget: 1 << 20,
        access: Guarded::default(),
        record: cloud_core::record::Limits::default(),
        retention: cloud_core::event::RETENTION,
        certificate_life: cloud::CERTIFICATE_LIFE,
        renewal_grace: cloud::RENEWAL_GRACE,
        backup: None,
        scheduler: shared::config::scheduler::Scheduler::default(),
        hellos_at_once: cloud::HELLOS_AT_ONCE,
    })
}

fn start() -> Result<Coordinator, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let options = options(&dir.path().join("data"))?;
    let (ready, is_ready) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let told = |is: &Ready| drop(ready.send(is.clone()));
        let served = runtime.map(|runtime| {
            runtime.block_on(cloud::serve(options, std::future::pending::<()>(), told))
        });
        panic!("the coordinator ended: {served:?}");
    });
    let ready = is_ready.recv_timeout(Duration::from_secs(60));
    let ready = ready.map_err(|_| "the coordinator does not start".to_owned())?;
    Ok(Coordinator { ready, _dir: dir })
}

fn coordinator() -> Result<&'static Coordinator, String> {
    static RUNNING: OnceLock<Result<Coordinator, String>> = OnceLock::new();
    RUNNING.get_or_init(start).as_ref().map_err(Clone::clone)
}

/// Method and path with a body behind each route of the API; packed workflows; raw requests.
fn requests() -> Vec<Vec<u8>> {
    // before the first input, whose memory is counted
    let _ = coordinator();
    let bodies = [
        "{\"by\": \"ana\", \"why\": \"late\"}",
        "{\"by\": \"ana\", \"yes\": true, \"input\": {\"why\": \"x\"}}",
        "{\"by\": \"ana\", \"set\": {\"site\": \"plant-3\", \"gone\": null}}",
        "{\"name\": \"x\", \"role\": \"viewer\", \"expires_in_ms\": 60000}",
        "{\"key\": \"max_retries\", \"value\": \"3\", \"node\": null}",
    ];
    let names = [
        ("{run}", "03030303030303030303030303030303"),
        ("{task}", "t"),
        ("{node}", "gw-7"),
        ("{name}", "later"),
        ("{token}", "0101"),
        (
            "{hash}",
            "0707070707070707070707070707070707070707070707070707070707070707",
        ),
        ("{id}", "1"),
    ];
    let mut all = Vec::new();
    for (n, route) in cloud::api::routes().into_iter().enumerate() {
        let path = names
            .iter()
            .fold(route.path, |path, (name, value)| path.replace(name, value));
        let body = match route.method {
            "GET" => "",
            _ => bodies[n % bodies.len()],
        };
        all.push(format!("{} {path}?limit=3\n\n{body}", route.method).into_bytes());
        all.push(format!("{} {path}\n\n{body}", route.method).into_bytes());
    }
    for workflow in samples::workflows() {
        let packed = codec::pack(&workflow).0;
        for path in [
            "/v1/runs?by=ana",
            "/v1/plan",
            "/v1/schedules?by=ana&replace=true",
        ] {
            let head = format!("POST {path}\nIdempotency-Key: k\n\n");
            all.push([head.as_bytes(), &packed].concat());
        }
    }
    all.push(b"!GET /v1/runs HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec());
    all.push(
        b"!POST /v1/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
    );
    all.push(
        b"!POST /v1/tokens HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
            .to_vec(),
    );
    all
}

/// The request as it goes over the wire: raw behind a `!`, else made of a line with method and
/// path, lines of headers, an empty one, and the body.
fn wire(input: &[u8]) -> Vec<u8> {
    if let Some(raw) = input.strip_prefix(b"!") {
        return raw.to_vec();
    }
    let (head, body) = match input.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let (method, path) = match first.iter().position(|byte| *byte == b' ') {
        Some(at) => (&first[..at], &first[at + 1..]),
        None => (&b"GET"[..], first),
    };
    let mut out = Vec::new();
    out.extend(method.iter().filter(|byte| byte.is_ascii_alphabetic()));
    out.push(b' ');
    for byte in path {
        match byte {
            b'!'..=b'~' => out.push(*byte),
            other => out.extend(format!("%{other:02X}").bytes()),
        }
    }
    out.extend(b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    let mut length = Some(body.len());
    for line in lines.filter(|line| line.contains(&b':')) {
        let lower = line.to_ascii_lowercase();
        if lower.starts_with(b"content-length") || lower.starts_with(b"transfer-encoding") {
            length = None;
        }
        out.extend(line.iter().filter(|byte| !byte.is_ascii_control()));
        out.extend(b"\r\n");
    }
    if let Some(length) = length {
        out.extend(format!("Content-Length: {length}\r\n").bytes());
    }
    out.extend(b"\r\n");
    out.extend_from_slice(body);
    out
}

/// Bytes of an answer that are read; the rest is left.
const ANSWER: u64 = 64 << 10;

fn check_api(input: &[u8]) -> Verdict {
    let coordinator = coordinator()?;
    let mut stream =
        TcpStream::connect(coordinator.ready.api).map_err(|error| format!("connect: {error}"))?;
    let patience = Some(Duration::from_millis(1500));
    stream
        .set_read_timeout(patience)
        .map_err(|error| error.to_string())?;
    let bytes = wire(input);
    // It may be answered, and hung up on, before all of it is there.
    let sent = stream.write_all(&bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let follows = bytes
        .windows(7)
        .take(9000)
        .any(|w| w == b"follow=" || w == b"v1/watc");
    let most = if follows { 64 } else { ANSWER };
    let mut answer = Vec::new();
    let ended = (&mut stream).take(most).read_to_end(&mut answer);
    let how = match (&ended, &sent) {
        (Err(error), _) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            "open"
        }
        (Err(_), _) | (_, Err(_)) => "reset",
        (Ok(_), Ok(())) => "closed",
    };
    let head = answer
        .get(9..12)
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let body = body.map(|at| String::from_utf8_lossy(&answer[at + 4..]).into_owned());
    let body = body.unwrap_or_default();
    let told: String = body.chars().take(60).collect();
    match head.as_ref() {
        "200" | "201" => Ok(format!("ok {head}")),
        "500" => Err(format!("it answers 500: {told}")),
        _ => Ok(format!("{head} {how} {}", class(&told))),
    }
}

fn lines() -> Vec<Vec<u8>> {
    let run = "03030303030303030303030303030303";
    [
        "{\"command\":\"status\"}".to_owned(),
        "{\"command\":\"ps\",\"all\":true}".to_owned(),
        format!("{{\"command\":\"explain\",\"run\":\"{run}\",\"task\":\"t\"}}"),
        format!("{{\"command\":\"logs\",\"run\":\"{run}\",\"task\":\"t\",\"attempt\":\"1.2\"}}"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn check_line(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok("no text".to_owned());
    };
    let request = match serde_json::from_str::<Request>(text) {
        Ok(request) => request,
        Err(error) => return Ok(class(&error)),
    };
    let again = serde_json::to_string(&request).map_err(|error| error.to_string())?;
    match serde_json::from_str::<Request>(&again) {
        Ok(again) if again == request => Ok(format!("ok {}", super::variant(&request))),
        _ => Err("another request when it was written and read".to_owned()),
    }
}
