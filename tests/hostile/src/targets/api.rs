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
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};
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
        bound: Bound::new(256, 400 << 10).within(OWED),
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

/// A request as it goes over the wire.
struct Wire {
    bytes: Vec<u8>,
    /// Whether head and body are all there, by the length that it tells: it must be answered.
    is_whole: bool,
    /// Whether its answer may go on for ever.
    follows: bool,
}

fn follows(bytes: &[u8]) -> bool {
    let mut words = bytes.windows(7).take(9000);
    words.any(|word| word == b"follow=" || word == b"v1/watc")
}

/// Raw behind a `!`, else made of a line with method and path, lines of headers, an empty one, and
/// the body.
fn wire(input: &[u8]) -> Wire {
    if let Some(raw) = input.strip_prefix(b"!") {
        return Wire {
            bytes: raw.to_vec(),
            is_whole: false,
            follows: follows(raw),
        };
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
        let line: Vec<u8> = line
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_control())
            .collect();
        let lower = line.trim_ascii_start().to_ascii_lowercase();
        if lower.starts_with(b"content-length") || lower.starts_with(b"transfer-encoding") {
            length = None;
        }
        out.extend(line);
        out.extend(b"\r\n");
    }
    if let Some(length) = length {
        out.extend(format!("Content-Length: {length}\r\n").bytes());
    }
    out.extend(b"\r\n");
    out.extend_from_slice(body);
    let follows = follows(&out);
    Wire {
        bytes: out,
        is_whole: length.is_some() && !follows,
        follows,
    }
}

/// Seconds within which a whole request is answered.
const OWED: u64 = 20;
/// Bytes of an answer that are read; the rest is left.
const ANSWER: usize = 64 << 10;
/// Bytes that are read of an answer that may go on for ever.
const FIRST_OF: usize = 64;
/// Time for an answer, or for more of it, that nobody owes.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Inputs from one question whether the API still answers to the next.
const PROBED: u64 = 16;

/// What came back, and how it ended.
struct Answer {
    bytes: Vec<u8>,
    how: &'static str,
}

impl Answer {
    fn status(&self) -> Option<&[u8]> {
        let line = self.bytes.strip_prefix(b"HTTP/1.")?;
        line.get(2..5)
    }
}

/// Sends a request, and reads its answer.
fn exchange(wire: &Wire) -> Result<Answer, String> {
    let text = |error: std::io::Error| error.to_string();
    let address = coordinator()?.ready.api;
    let mut stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    // It may be answered, and hung up on, before all of it is there.
    let sent = stream.write_all(&wire.bytes);
    if !wire.is_whole {
        // Nothing more will come; whoever hangs up before it is answered gets no answer.
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let end = Instant::now() + Duration::from_secs(OWED);
    let most = if wire.follows { FIRST_OF } else { ANSWER };
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    let how = loop {
        let waits = match wire.is_whole && answer.len() < 12 {
            true => end.saturating_duration_since(Instant::now()),
            false => PATIENCE,
        };
        let waits = waits.max(Duration::from_millis(1));
        stream.set_read_timeout(Some(waits)).map_err(text)?;
        match stream.read(&mut piece) {
            Ok(0) => break "closed",
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break "open";
            }
            Err(_) => break "reset",
        }
        if answer.len() >= most {
            break "long";
        }
    };
    let how = if sent.is_err() { "reset" } else { how };
    Ok(Answer { bytes: answer, how })
}

/// Whether the coordinator still answers others, behind some of the inputs; behind the first one,
/// too, so that an input that is given alone shows it.
fn probe() -> Result<(), String> {
    static INPUTS: AtomicU64 = AtomicU64::new(0);
    if !INPUTS.fetch_add(1, Relaxed).is_multiple_of(PROBED) {
        return Ok(());
    }
    let answer = exchange(&wire(b"GET /healthz"))?;
    match answer.status() {
        Some(b"200") => Ok(()),
        _ => Err("no answer to a plain question behind it".to_owned()),
    }
}

fn check_api(input: &[u8]) -> Verdict {
    let wire = wire(input);
    let answer = exchange(&wire)?;
    let status = answer.status().map(String::from_utf8_lossy);
    if wire.is_whole && status.is_none() && answer.how != "reset" {
        return Err(format!("no answer; {}", answer.how));
    }
    probe()?;
    let body = answer.bytes.windows(4).position(|w| w == b"\r\n\r\n");
    let body = body.map(|at| String::from_utf8_lossy(&answer.bytes[at + 4..]));
    let told: String = body.unwrap_or_default().chars().take(60).collect();
    match status.as_deref() {
        Some(status @ ("200" | "201")) => Ok(format!("ok {status}")),
        Some("500") => Err(format!("it answers 500: {told}")),
        status => {
            let status = status.unwrap_or_default();
            Ok(format!("{status} {} {}", answer.how, class(&told)))
        }
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
