//! Texts and files that people and machines write: specifications, configuration, certificates,
//! tokens, JSON.

use super::variant;
use crate::samples;
use crate::target::{Bound, Form, Target, Verdict, class};
use certs::{AccessToken, Authority, Issued, NodeKey, Presented, Subject, Token};
use shared::config::{FILE_BYTES, Reader};
use shared::spec;
use shared::time::Unix;
use std::collections::BTreeMap;
use std::fs;

/// Words of specifications.
const SPEC_WORDS: &[&str] = &[
    "name: ",
    "tasks:\n",
    "params:",
    "defaults:",
    "schedule:",
    "command: ",
    "shell: ",
    "inputs: ",
    "outputs: ",
    "needs: ",
    "retry: ",
    "when: ",
    "timeout: ",
    "deadline: ",
    "resources: ",
    "env: ",
    "matrix: {a: [1, 2]}",
    "max_parallel: ",
    "approval: ",
    "placement: ",
    "labels: ",
    "cron: ",
    "every: ",
    "timezone: ",
    "${params.x}",
    "${matrix.a}",
    "params.x == 1",
    "!params.x",
    "file:/x",
    "memory: ",
    "cpu: ",
    "gpu: ",
    "[a, b]",
    "{a: b}",
    "type: integer",
    "default: ",
    "batch: ",
    "trigger_rule: all_done",
    "path: ",
    "source: ",
    "\n  ",
    "\n    ",
    "x: &x ",
    "*x",
    "<<: *x",
    "include: ",
    "exclude: ",
    "max_fails: ",
    "tolerations: ",
    "jitter: ",
    "catchup: all",
];

/// Words of configuration files.
const CONFIG_WORDS: &[&str] = &[
    "[capacity]\n",
    "[tasks]\n",
    "[link]\n",
    "[telemetry]\n",
    "[log]\n",
    "name = ",
    "data = ",
    "labels = ",
    "cpus = ",
    "memory = ",
    "= \"",
    "= '",
    "= [",
    "= {",
    "\"\"\"\n",
    "'''\n",
    "1_000",
    "0x1f",
    "1979-05-27T07:32:00Z",
    "inf",
    "[[a]]\n",
    "a.b.c = ",
    "# ",
    "true",
    "\\u0000",
    "\\U0010FFFF",
    "keep_runs = ",
    "coordinator = ",
    "custom = ",
];

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "spec",
        fed_by: "people: specifications, at the client and at a gateway",
        form: Form::Text,
        bound: Bound::new(4096, 64 << 10).within(5),
        cost: 10,
        words: SPEC_WORDS,
        seeds: specs,
        check: check_spec,
    },
    Target {
        name: "config",
        fed_by: "the machine's owner: agent.toml, coordinator.toml, environment",
        form: Form::Text,
        bound: Bound::new(1024, 16 << 10).within(5),
        cost: 4,
        words: CONFIG_WORDS,
        seeds: configs,
        check: check_config,
    },
    Target {
        name: "certificate",
        fed_by: "any peer: the handshake; the disk",
        form: Form::Bytes,
        bound: Bound::new(64, 1024),
        cost: 1,
        words: &[],
        seeds: || vec![part("certificate"), part("authority"), part("request")],
        check: check_certificate,
    },
    Target {
        name: "request",
        fed_by: "anybody with a token: signing requests",
        form: Form::Bytes,
        bound: Bound::new(64, 1024),
        cost: 1,
        words: &[],
        seeds: || vec![part("request"), part("certificate")],
        check: |input| Ok(judged(input)),
    },
    Target {
        name: "pki-files",
        fed_by: "the disk: pki/ of an agent",
        form: Form::Text,
        bound: Bound::new(64, 1024),
        cost: 50,
        words: &[
            "-----BEGIN CERTIFICATE-----\n",
            "-----END CERTIFICATE-----\n",
            "-----BEGIN PRIVATE KEY-----\n",
            "-----END PRIVATE KEY-----\n",
            "=",
            "MII",
        ],
        seeds: pems,
        check: check_pems,
    },
    Target {
        name: "token",
        fed_by: "people and clients: enrolment tokens, access tokens, ids, units, taints",
        form: Form::Text,
        bound: Bound::new(64, 1024),
        cost: 1,
        words: &[
            "dft1",
            "dfa1",
            "-",
            "NoSchedule",
            "=",
            ":",
            "1h30m",
            "512MiB",
            "0.5",
        ],
        seeds: tokens,
        check: check_token,
    },
];

/// A part of the corpus of certificates: made once, since keys are drawn.
fn part(name: &str) -> Vec<u8> {
    let lines = include_str!("../../corpus/pki.txt").lines();
    let found = lines
        .filter_map(|line| line.split_once(' '))
        .find(|(n, _)| *n == name);
    let hex = found.map_or("", |(_, hex)| hex).as_bytes();
    let digit = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
    hex.chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

/// A signing request.
pub(super) fn request() -> Vec<u8> {
    part("request")
}

/// A certificate with its authority.
pub(super) fn issued() -> Issued {
    Issued {
        certificate: part("certificate"),
        authority: part("authority"),
    }
}

/// The text of a token, and what is shown of it.
pub(super) fn token() -> (String, Presented) {
    let text = String::from_utf8_lossy(&part("token")).into_owned();
    let shown = Token::parse(&text).map(|token| token.presented);
    let none = || Presented {
        id: certs::TokenId([1; 8]),
        secret: [2; 16],
    };
    (text, shown.unwrap_or_else(|_| none()))
}

/// What the authority makes of a signing request.
pub(super) fn judged(request: &[u8]) -> String {
    match Authority::request_key(request) {
        Ok(_) => "ok".to_owned(),
        Err(error) => class(&error),
    }
}

fn check_certificate(input: &[u8]) -> Verdict {
    let der = input.to_vec().into();
    let by = certs::is_issued_by(&der, &part("authority").into());
    let of = certs::is_issued_by(&part("certificate").into(), &der);
    match Subject::read(input) {
        Ok(subject) => {
            let _ = subject.renew_at(Unix(i64::MIN));
            let _ = subject.renew_at(Unix(i64::MAX));
            Ok(format!("ok {by} {of} {}", variant(&subject.role)))
        }
        Err(error) => Ok(format!("{by} {of} {}", class(&error))),
    }
}

fn specs() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = samples::specs()
        .into_iter()
        .map(String::into_bytes)
        .collect();
    for text in [
        "name: f\ntasks: {t: {command: [p]}}\n",
        "name: f\nparams: {x: {type: integer, default: 7}}\ntasks:\n  t: {shell: 'a ${params.x}', when: params.x == 7}\n",
        "name: f\ntasks:\n  t: &t {command: &c [p, q]}\n  u: {command: *c, needs: [t]}\n",
        "{\"name\": \"f\", \"tasks\": {\"t\": {\"command\": [\"p\"]}}}",
        "? name\n: f\n? tasks\n: t: {shell: |\n    a\n    b\n  }\n",
    ] {
        all.push(text.as_bytes().to_vec());
    }
    all
}

fn check_spec(input: &[u8]) -> Verdict {
    let read = match spec::read_bytes("f", input) {
        Ok(read) => read,
        Err(mistakes) => {
            let first = mistakes.mistakes.first();
            return Ok(first.map(|first| class(&first.what)).unwrap_or_default());
        }
    };
    let text = String::from_utf8_lossy(input);
    let (none, files) = (BTreeMap::new(), BTreeMap::new());
    let compile = |text: &str| spec::submission("f", text, &none, &files, Unix(0));
    let workflow = match compile(&text) {
        Ok(workflow) => workflow,
        Err(mistakes) => {
            let first = mistakes.mistakes.first();
            return Ok(first.map(|first| class(&first.what)).unwrap_or_default());
        }
    };
    let said = super::workflow::used(&workflow)?;
    if let Err(why) = cloud_core::audit::workflow(&workflow) {
        return Err(format!("compiled, and cannot be worked on: {why}"));
    }
    if input.len() < 4096 {
        let again = compile(&read.expanded());
        if again.map(|again| again == workflow.decided()) != Ok(true) {
            return Err("its expanded form is another workflow".to_owned());
        }
    }
    Ok(format!("ok {said}"))
}

fn configs() -> Vec<Vec<u8>> {
    let agent = include_str!("../../../../deploy/agent.toml");
    let coordinator = include_str!("../../../../deploy/coordinator.toml");
    // as it is, and with every key set
    let set = |text: &str| {
        let lines = text.lines().map(|line| {
            let key = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
            key.unwrap_or(line).to_owned() + "\n"
        });
        lines.collect::<String>()
    };
    [agent.to_owned(), set(agent), set(coordinator)]
        .into_iter()
        .map(String::into_bytes)
        .collect()
}

fn check_config(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok("no text".to_owned());
    };
    let mut reader = Reader::new(edge_agent::config::KEYS);
    if text.len() > FILE_BYTES {
        return Ok("too large".to_owned());
    }
    reader.file("agent.toml", text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let variables = lines.filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| {
        let name = name.trim().replace('.', "_").to_uppercase();
        (format!("X_{name}"), value.trim().to_owned())
    });
    reader.environment("X_", &[], variables.take(20));
    match reader.settle() {
        Ok(settings) => Ok(format!("ok {}", settings.all().count())),
        Err(mistakes) => {
            let first = mistakes.mistakes.first();
            let shown = mistakes.to_string().len().min(1);
            Ok(format!(
                "{} {shown}",
                first.map(|first| class(&first.what)).unwrap_or_default()
            ))
        }
    }
}

/// A key, a certificate and authorities, as PEM, one behind the other.
fn pems() -> Vec<Vec<u8>> {
    let pem = |name: &str| certs::pem(&[&part(name)]);
    let both = [pem("certificate"), pem("authority")].concat();
    vec![both.into_bytes()]
}

fn check_pems(input: &[u8]) -> Verdict {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let write = |name: &str| fs::write(dir.path().join(name), input);
    for name in ["node.crt", "authority.crt", "times"] {
        write(name).map_err(|error| error.to_string())?;
    }
    let kept = certs::kept_certificate(dir.path());
    let times = certs::Times::read(dir.path());
    let key = NodeKey::ephemeral().map_err(|error| error.to_string())?;
    let enrolled = match key.enrolled(dir.path()) {
        Ok(_) => "enrolled".to_owned(),
        Err(error) => class(&error),
    };
    write("node.key").map_err(|error| error.to_string())?;
    let own = match NodeKey::open_or_create(dir.path()) {
        Ok(_) => "key".to_owned(),
        Err(error) => class(&error).replace(&class(&dir.path().display()), ""),
    };
    let (kept, times) = (kept.is_some(), times.issued.is_some());
    let good = if kept { "ok " } else { "" };
    let enrolled = enrolled.replace(&class(&dir.path().display()), "");
    Ok(format!("{good}{times} {enrolled} {own}"))
}

fn tokens() -> Vec<Vec<u8>> {
    let access = format!("dfa1-{}-{}", "1f".repeat(8), "2e".repeat(32));
    let all = [
        &token().0,
        &access,
        "0101010101010101010101010101010101010101010101010101010101010101",
        "01010101010101010101010101010101",
        "key=value:NoSchedule",
        "1h30m",
        "1.5GiB",
        "2026-03-29T02:30:00Z",
    ];
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn check_token(input: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(input) else {
        return Ok("no text".to_owned());
    };
    let token = match Token::parse(text) {
        Ok(token) if Token::parse(&token.text()).as_ref() != Ok(&token) => {
            return Err("another token when it was written and read".to_owned());
        }
        Ok(_) => "ok ".to_owned(),
        Err(error) => class(&error),
    };
    let access = AccessToken::parse(text).is_some();
    let id = text.parse::<shared::ids::RunId>().is_ok();
    let hash = text.parse::<shared::ids::Hash>().is_ok();
    let fingerprint = text.parse::<certs::Fingerprint>().is_ok();
    let taint = text.parse::<shared::taint::Taint>();
    if let Ok(taint) = &taint
        && taint.to_string().parse().as_ref() != Ok(taint)
    {
        return Err("another taint when it was written and read".to_owned());
    }
    let span = spec::duration(text).is_ok();
    let size = spec::size(text).is_ok();
    let instant = shared::schedule::instant(text);
    if let Ok(at) = &instant
        && shared::schedule::instant(&shared::schedule::utc(*at)).as_ref() != Ok(at)
    {
        return Err("another instant when it was written and read".to_owned());
    }
    let name = certs::check_name(text).is_ok();
    let rest = [
        access,
        id,
        hash,
        fingerprint,
        taint.is_ok(),
        span,
        size,
        instant.is_ok(),
        name,
    ];
    let good = if rest.contains(&true) { "ok " } else { "" };
    Ok(format!("{good}{token} {rest:?}"))
}
