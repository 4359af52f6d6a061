//! The API against its description: every route is in `docs/openapi.json` and the other way round,
//! and what a running coordinator answers fits the schemas.

use crate::common::{Coordinator, TWO, packed};
use cloud::api::routes;
use serde_json::{Map, Value};
use shared::ids::Hash;
use shared::spec::SentFiles;
use std::collections::BTreeSet;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap()
}

fn object(value: &Value) -> &Map<String, Value> {
    value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"))
}

/// All operations as (method, path, least role).
fn described(document: &Value) -> BTreeSet<(String, String, Option<String>)> {
    let mut all = BTreeSet::new();
    for (path, item) in object(&document["paths"]) {
        for (method, operation) in object(item)
            .iter()
            .filter(|(name, _)| *name != "parameters")
        {
            let least = operation["x-least-role"].as_str().map(str::to_owned);
            all.insert((method.to_uppercase(), path.clone(), least));
        }
    }
    all
}

#[test]
fn the_description_has_every_route_with_its_role_and_no_other() {
    let least = |role: cloud_core::access::Role| role.text().to_owned();
    let real: BTreeSet<_> = routes()
        .into_iter()
        .map(|route| (route.method.to_owned(), route.path, route.least.map(least)))
        .collect();
    let described = described(&document());
    let missing: Vec<_> = real.difference(&described).collect();
    let extra: Vec<_> = described.difference(&real).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "not described: {missing:?}\ngone: {extra:?}"
    );
}

/// What is wrong with `value` by `schema`: the part of JSON Schema that the description uses.
fn judge(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let found = document.pointer(name.trim_start_matches('#'));
        let found = found.ok_or_else(|| format!("{name} is not there"))?;
        return judge(document, found, value, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let fits = any
            .iter()
            .any(|one| judge(document, one, value, at).is_ok());
        return fits
            .then_some(())
            .ok_or_else(|| format!("{at}: {value} fits nothing"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !(types.contains(&found) || found == "integer" && types.contains(&"number")) {
        return Err(format!("{at}: {value} is {found}, not {types:?}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Err(format!("{at}: {value} is none of {words:?}"));
    }
    if let (Some(list), items @ Value::Object(_)) = (value.as_array(), &schema["items"]) {
        for item in list {
            judge(document, items, item, &format!("{at}[]"))?;
        }
    }
    let Some(fields) = value.as_object() else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    for (name, field) in fields {
        let further = &schema["additionalProperties"];
        let known = schema["properties"].get(name);
        match (known, further) {
            (Some(known), _) => judge(document, known, field, &format!("{at}.{name}"))?,
            (None, Value::Bool(false)) => return Err(format!("{at}: {name} is not described")),
            (None, schema @ Value::Object(_)) => {
                judge(document, schema, field, &format!("{at}.{name}"))?;
            }
            (None, _) => {}
        }
    }
    Ok(())
}

/// Calls an operation and holds its answer against the description.
fn call(coordinator: &Coordinator, document: &Value, one: &Call<'_>) -> (u16, Value) {
    let (status, lines) = judged(coordinator, document, one);
    (status, lines.into_iter().next().unwrap_or_default())
}

/// The same with all objects of the answer.
fn judged(coordinator: &Coordinator, document: &Value, one: &Call<'_>) -> (u16, Vec<Value>) {
    let (method, template, path, body) = one;
    let operation = &document["paths"][*template][method.to_lowercase()];
    let base = coordinator.url("");
    let uri = format!("{}{path}", base.trim_end_matches("/v1"));
    let (status, kind, text) = coordinator.raw(method, &uri, body);
    let found = operation["responses"].get(status.to_string());
    let found = found.unwrap_or_else(|| &operation["responses"]["default"]);
    let found = match found["$ref"].as_str() {
        Some(name) => document.pointer(name.trim_start_matches('#')).unwrap(),
        None => found,
    };
    let Some(content) = found["content"].as_object() else {
        assert!(
            found.is_object(),
            "{method} {template}: {status} is not described"
        );
        return (status, Vec::new());
    };
    let (wanted, schema) = content.iter().next().unwrap();
    assert!(
        kind.starts_with(wanted.as_str()),
        "{method} {path}: {kind}, not {wanted}"
    );
    if !wanted.ends_with("json") {
        return (status, vec![Value::String(text)]);
    }
    let lines: Vec<Value> = match wanted.as_str() {
        "application/json" => vec![serde_json::from_str(&text).unwrap()],
        _ => text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    };
    for line in &lines {
        if let Err(why) = judge(document, &schema["schema"], line, template) {
            panic!("{method} {path} ({status}): {why}");
        }
    }
    (status, lines)
}

/// Method, path as it is described, path, body.
type Call<'a> = (&'a str, &'a str, String, Vec<u8>);

/// Every operation: method, path as it is described, what fills its names or follows it, the body,
/// and whether it is honoured here. `@run`, `@token` and `@file` stand for what was made; the node
/// gw-1 has joined, and the schedule `nightly` is there.
const CALLS: &[(&str, &str, &str, &str, bool)] = &[
    ("GET", "/v1/runs", "", "", true),
    ("GET", "/v1/runs/{run}", "@run", "", true),
    ("POST", "/v1/runs/{run}/pause", "@run", BY, true),
    ("POST", "/v1/runs/{run}/resume", "@run", BY, true),
    ("POST", "/v1/runs/{run}/cancel", "@run", BY, true),
    ("POST", "/v1/runs/{run}/retry", "@run", BY, true),
    ("POST", "/v1/runs/{run}/forget", "@run", BY, false),
    ("GET", "/v1/runs/{run}/workflow", "@run", "", true),
    ("GET", "/v1/runs/{run}/tasks", "@run", "", true),
    ("GET", "/v1/runs/{run}/tasks/{task}", "@run first", "", true),
    (
        "GET",
        "/v1/runs/{run}/tasks/{task}/explain",
        "@run first",
        "",
        true,
    ),
    (
        "POST",
        "/v1/runs/{run}/tasks/{task}/answer",
        "@run first",
        "{\"yes\":true}",
        false,
    ),
    (
        "GET",
        "/v1/runs/{run}/tasks/{task}/logs",
        "@run first",
        "",
        false,
    ),
    ("GET", "/v1/nodes", "", "", true),
    ("GET", "/v1/nodes/{node}", "gw-1", "", true),
    ("POST", "/v1/nodes/{node}/cordon", "gw-1", BY, true),
    ("POST", "/v1/nodes/{node}/uncordon", "gw-1", BY, true),
    ("POST", "/v1/nodes/{node}/drain", "gw-1", BY, true),
    (
        "POST",
        "/v1/nodes/{node}/labels",
        "gw-1",
        "{\"set\":{\"site\":\"b\"}}",
        true,
    ),
    (
        "POST",
        "/v1/nodes/{node}/taints",
        "gw-1",
        "{\"add\":[\"gpu=yes:refuse\"]}",
        true,
    ),
    ("GET", "/v1/nodes/{node}/work", "gw-1", "", true),
    ("GET", "/v1/nodes/{node}/sync", "gw-1", "", true),
    ("GET", "/v1/nodes/{node}/telemetry", "gw-1", "", true),
    ("GET", "/v1/nodes/{node}/telemetry/gaps", "gw-1", "", true),
    ("GET", "/v1/nodes/{node}/telemetry/newest", "gw-1", "", true),
    (
        "POST",
        "/v1/settings",
        "",
        "{\"node\":\"gw-1\",\"key\":\"max_retries\",\"value\":\"2\"}",
        true,
    ),
    ("GET", "/v1/settings", "?node=gw-1", "", true),
    ("POST", "/v1/nodes/{node}/release", "gw-1", BY, false),
    ("POST", "/v1/nodes/{node}/gone", "gw-1", BY, false),
    ("POST", "/v1/nodes/{node}/forget", "gw-1", BY, true),
    ("GET", "/v1/schedules", "", "", true),
    ("GET", "/v1/schedules/{name}", "nightly", "", true),
    ("GET", "/v1/schedules/{name}/next", "nightly", "", true),
    ("POST", "/v1/schedules/{name}/pause", "nightly", BY, true),
    ("POST", "/v1/schedules/{name}/resume", "nightly", BY, true),
    ("POST", "/v1/schedules/{name}/trigger", "nightly", BY, true),
    (
        "POST",
        "/v1/schedules/{name}/backfill",
        "nightly",
        "{\"from\":1700000000000,\"to\":1700100000000}",
        true,
    ),
    ("POST", "/v1/schedules/{name}/delete", "nightly", BY, true),
    ("GET", "/v1/tokens", "", "", true),
    ("POST", "/v1/tokens/{token}/revoke", "@token", "", true),
    ("GET", "/v1/authority", "", "", true),
    ("POST", "/v1/authority/finish", "", BY, false),
    ("POST", "/v1/authority/begin", "", BY, true),
    ("GET", "/v1/waits", "", "", true),
    ("GET", "/v1/conflicts", "", "", true),
    ("PUT", "/v1/files/{hash}", "@file", "stations", true),
    ("GET", "/v1/files/{hash}", "@file", "", true),
    ("GET", "/v1/watch", "?run=ffff", "", false),
    ("GET", "/v1/events", "", "", true),
    (
        "POST",
        "/v1/access",
        "",
        "{\"name\":\"ci\",\"role\":\"viewer\"}",
        true,
    ),
    ("GET", "/v1/access", "", "", true),
    ("POST", "/v1/access/{name}/revoke", "ci", "", true),
    ("GET", "/v1/audit", "", "", true),
    ("GET", "/v1/backup", "", "", true),
    ("GET", "/v1/backup/newest", "", "", true),
    (
        "POST",
        "/v1/backup/{id}",
        "999999",
        "{\"place\":\"here\"}",
        false,
    ),
    ("GET", "/v1/healthz", "", "", true),
    ("GET", "/healthz", "", "", true),
    ("GET", "/readyz", "", "", true),
    ("GET", "/metrics", "", "", true),
    ("GET", "/v1/openapi.json", "", "", true),
    (
        "POST",
        "/v1/authority/finish",
        "",
        "{\"by\":\"tester\",\"force\":true}",
        true,
    ),
];
const BY: &str = "{\"by\":\"tester\"}";
/// Operations of which no object is seen here: they need a task that asks or writes, a node in
/// quarantine, a restore, telemetry, a conflict, a backup that was taken; or they answer nothing.
const UNJUDGED: &[(&str, &str)] = &[
    ("POST", "/v1/runs/{run}/forget"),
    ("POST", "/v1/runs/{run}/tasks/{task}/answer"),
    ("GET", "/v1/runs/{run}/tasks/{task}/logs"),
    ("POST", "/v1/nodes/{node}/release"),
    ("POST", "/v1/nodes/{node}/gone"),
    ("GET", "/v1/nodes/{node}/telemetry/gaps"),
    ("GET", "/v1/conflicts"),
    ("GET", "/v1/watch"),
    ("GET", "/v1/waits"),
    ("POST", "/v1/backup/{id}"),
    ("PUT", "/v1/files/{hash}"),
];

/// The template with its names filled in, or with a query behind it.
fn filled(template: &str, with: &str) -> String {
    if with.starts_with('?') {
        return format!("{template}{with}");
    }
    let mut path = template.to_owned();
    for value in with.split_whitespace() {
        let (from, to) = (path.find('{').unwrap(), path.find('}').unwrap());
        path.replace_range(from..=to, value);
    }
    path
}

fn make_schedule(coordinator: &Coordinator, document: &Value) {
    let nightly = format!("schedule: {{every: 1d}}\n{}", TWO.replace("two", "nightly"));
    let schedule = (
        "POST",
        "/v1/schedules",
        "/v1/schedules?by=tester".to_owned(),
        packed(&nightly, &SentFiles::new()),
    );
    let (status, schedule) = call(coordinator, document, &schedule);
    assert_eq!(status, 201, "{schedule}");
}

#[test]
fn every_operation_answers_as_it_is_described() {
    let (coordinator, document) = (Coordinator::start(), document());
    // elsewhere than on the node that joins: an agent in a test does nothing with it
    let elsewhere = TWO.replace("command:", "placement: {node: gw-9}, command:");
    let workflow = packed(&elsewhere, &SentFiles::new());
    let submit = (
        "POST",
        "/v1/runs",
        "/v1/runs?by=tester".to_owned(),
        workflow,
    );
    let (status, run) = call(&coordinator, &document, &submit);
    assert_eq!(status, 201, "{run}");
    let join = (
        "POST",
        "/v1/tokens",
        "/v1/tokens".to_owned(),
        b"{\"name\":\"gw-1\"}".to_vec(),
    );
    let (status, token) = call(&coordinator, &document, &join);
    assert_eq!(status, 201, "{token}");
    let plan = (
        "POST",
        "/v1/plan",
        "/v1/plan".to_owned(),
        packed(TWO, &SentFiles::new()),
    );
    let (status, plan) = call(&coordinator, &document, &plan);
    assert_eq!(status, 200, "{plan}");
    crate::sessions::heard_once(&coordinator, "gw-1");
    make_schedule(&coordinator, &document);
    let mut called = BTreeSet::from([
        ("POST", "/v1/runs"),
        ("POST", "/v1/plan"),
        ("POST", "/v1/tokens"),
        ("POST", "/v1/schedules"),
    ]);
    let mut answered = called.clone();
    for (method, template, with, body, honoured) in CALLS {
        let with = with.replace("@run", run["id"].as_str().unwrap());
        let with = with.replace("@token", token["id"].as_str().unwrap());
        let with = with.replace("@file", &Hash::of(b"stations").to_string());
        let one = (
            *method,
            *template,
            filled(template, &with),
            body.as_bytes().to_vec(),
        );
        let (status, answer) = judged(&coordinator, &document, &one);
        assert_eq!(
            status < 300,
            *honoured,
            "{method} {template}: {status} {answer:?}"
        );
        called.insert((method, template));
        if *honoured && !answer.is_empty() {
            answered.insert((method, template));
        }
    }
    let unjudged: Vec<_> = called
        .difference(&answered)
        .filter(|operation| !UNJUDGED.contains(operation))
        .collect();
    assert!(unjudged.is_empty(), "no object came of: {unjudged:?}");
    let all = described(&document);
    let left: Vec<_> = all
        .iter()
        .filter(|(method, path, _)| !called.contains(&(method.as_str(), path.as_str())))
        .collect();
    assert!(left.is_empty(), "never called: {left:?}");
}

/// The names that an error of the API calls known, if `nonsense` is not one.
fn known(error: &str) -> Option<BTreeSet<String>> {
    let (_, list) = error.split_once("unknown field `nonsense`")?;
    let names = list.split('`').skip(1).step_by(2);
    Some(names.map(str::to_owned).collect())
}

/// What a request with a parameter and a field that nobody knows says of those that are known, and
/// what an empty one says of those that are needed.
#[test]
fn parameters_and_fields_are_those_that_are_described() {
    let (coordinator, document) = (Coordinator::start(), document());
    let base = coordinator.url("").replace("/v1", "");
    let ask = |method: &str, path: &str, body: &str| {
        let (_, _, text) = coordinator.raw(method, &format!("{base}{path}"), body.as_bytes());
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        problem["error"].as_str().unwrap_or_default().to_owned()
    };
    for (method, template, _) in described(&document) {
        let operation = &document["paths"][&template][method.to_lowercase()];
        let path = template.split(['{', '}']).enumerate();
        let path: String = path
            .map(|(n, part)| if n % 2 == 0 { part } else { "1" })
            .collect();
        let told = |kind: &str, names: BTreeSet<String>, found: Option<BTreeSet<String>>| {
            assert_eq!(
                found.unwrap_or_default(),
                names,
                "{kind} of {method} {template}"
            );
        };
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let parameters = parameters.filter(|parameter| parameter["in"] == "query");
        let names = parameters.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
        let nonsense = if method == "POST" {
            "{\"nonsense\":1}"
        } else {
            ""
        };
        let error = ask(&method, &format!("{path}?nonsense=1"), nonsense);
        let of_query = known(&error).filter(|_| error.starts_with("the query"));
        told("the query", names.collect(), of_query);

        let body = &operation["requestBody"];
        let Some(schema) = body["content"]["application/json"]["schema"]["$ref"].as_str() else {
            continue;
        };
        let schema = document.pointer(schema.trim_start_matches('#')).unwrap();
        let fields = object(&schema["properties"]).keys().cloned().collect();
        told("the body", fields, known(&ask(&method, &path, nonsense)));
        let required = schema["required"].as_array().unwrap();
        assert_eq!(
            body["required"],
            !required.is_empty(),
            "{method} {template}"
        );
        if !required.is_empty() {
            let error = ask(&method, &path, "");
            let missing = error.split('`').nth(1).unwrap_or_default();
            assert!(
                error.contains("missing field") && required.contains(&missing.into()),
                "{method} {template}: {error}"
            );
        }
    }
}

#[test]
fn every_metric_is_listed_and_every_listed_one_is_there() {
    let coordinator = Coordinator::start();
    let uri = coordinator.url("").replace("/v1", "/metrics");
    let (status, _, text) = coordinator.raw("GET", &uri, b"");
    assert_eq!(status, 200, "{text}");
    let real: BTreeSet<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let page = include_str!("../../../docs/metrics.md");
    let listed: BTreeSet<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `driftless_").map(|_| line))
        .filter(|line| !line.contains("driftless_agent_"))
        .map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let name = cells.next().unwrap().trim_matches('`');
            (name, cells.next().unwrap())
        })
        .collect();
    assert_eq!(real, listed);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = name.split('{').next().unwrap();
        assert!(real.iter().any(|(known, _)| *known == name), "{line}");
    }
}
