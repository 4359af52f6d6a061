//! The local commands: ask the running agent, show the answer to a person or as JSON lines.

use crate::cli::{Common, Given, TelemetryArgs};
use crate::clock;
use crate::config::Settings;
use crate::control::{Answer, AskError, Client, Request};
use crate::telemetry::Question;
use serde_json::Value;
use shared::ids::Hash;
use shared::limits::SPEC_BYTES;
use shared::spec::{Mistake, Mistakes};
use shared::telemetry::query::{self, Query};
use shared::time::Unix;
use shared::workflow::Workflow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// Exit codes, as documented in `docs/cli.md`.
pub(crate) const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
pub(crate) const NOT_FOUND: u8 = 3;
const UNREACHABLE: u8 = 4;
pub(crate) const REFUSED: u8 = 5;
const MISTAKES: u8 = 6;

/// Why a command came to nothing: its exit code and what to tell.
pub(crate) struct Failure(pub(crate) u8, pub(crate) String);

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self(UNREACHABLE, error.to_string())
    }
}
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(FAILED, format!("cannot write the answer: {error}"))
    }
}

pub(crate) fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(code, text)) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "error: {text}");
            ExitCode::from(code)
        }
    }
}

pub(crate) fn unexpected(answer: &Answer) -> Failure {
    match answer {
        Answer::Refused { why } if why.starts_with("no ") => Failure(NOT_FOUND, why.clone()),
        Answer::Refused { why } => Failure(REFUSED, why.clone()),
        other => Failure(
            FAILED,
            format!("the agent gave an answer that does not fit: {other:?}"),
        ),
    }
}

pub(crate) fn one_value(common: &Common, request: &Request) -> Result<Value, Failure> {
    match Client::connect(&common.data)?.ask(request, &[])? {
        Answer::Value { value } => Ok(value),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn order(common: &Common, request: &Request, done: &str) -> ExitCode {
    finish(
        (|| match Client::connect(&common.data)?.ask(request, &[])? {
            Answer::Done if common.json => Ok(writeln!(io::stdout(), "{{\"done\":true}}")?),
            Answer::Done => Ok(writeln!(io::stdout(), "{done}")?),
            other => Err(unexpected(&other)),
        })(),
    )
}

pub(crate) fn items(common: &Common, request: &Request) -> Result<Vec<Value>, Failure> {
    let mut client = Client::connect(&common.data)?;
    client.send(request, &[])?;
    let mut list = Vec::new();
    loop {
        match client.next_answer()? {
            Answer::Item { value } => list.push(value),
            Answer::Done => return Ok(list),
            other => return Err(unexpected(&other)),
        }
    }
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows as columns that are as wide as their widest cell.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([head[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut out = line(head.to_vec());
    for row in rows {
        out.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    out
}

/// `good for 58 d, until …`.
fn certificate_text(known: &Value) -> String {
    let days = known["days_left"].as_i64().unwrap_or(0);
    let until = Unix(known["until"].as_i64().unwrap_or(0));
    match days < 0 {
        true => format!("EXPIRED at {until}; it is renewed when the coordinator is reached"),
        false => format!("good for {days} d, until {until}"),
    }
}

/// A field of the status as it is read aloud: `0 of 2` slots, `3 succeeded, 1 failed`.
fn for_people(name: &str, value: &Value) -> String {
    match value {
        Value::Array(pair) if name == "slots" => {
            let parts: Vec<String> = pair.iter().map(text).collect();
            parts.join(" of ")
        }
        Value::Object(settings) if name == "scheduler" => {
            let parts: Vec<String> = settings
                .iter()
                .map(|(what, value)| format!("{what} {}", text(value)))
                .collect();
            parts.join(", ")
        }
        Value::Object(_) if name == "certificate" => certificate_text(value),
        Value::Object(counts) if counts.is_empty() => "-".to_owned(),
        Value::Object(counts) => {
            let parts: Vec<String> = counts
                .iter()
                .map(|(what, count)| format!("{count} {what}"))
                .collect();
            parts.join(", ")
        }
        other => text(other),
    }
}

/// Tells all mistakes of the configuration. Its exit code is that of a wrong command line if only
/// flags are wrong.
pub(crate) fn mistakes(mistakes: &Mistakes, json: bool) -> ExitCode {
    for mistake in &mistakes.mistakes {
        let line = match (json, serde_json::to_string(mistake)) {
            (true, Ok(line)) => line,
            _ => mistake.to_string(),
        };
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(io::stderr(), "{line}");
    }
    let count = mistakes.mistakes.len() + mistakes.more;
    let text = match count {
        1 => "error: one mistake in the configuration; nothing was changed".to_owned(),
        _ => format!("error: {count} mistakes in the configuration; nothing was changed"),
    };
    let _ = writeln!(io::stderr(), "{text}");
    let flag = |mistake: &Mistake| mistake.file.starts_with("--");
    ExitCode::from(match mistakes.mistakes.iter().all(flag) {
        true => WRONG_USAGE,
        false => MISTAKES,
    })
}

/// `config check`.
pub(crate) fn check_config(given: &Given) -> ExitCode {
    let settings = match Settings::read(given.config.as_deref(), given.flags()) {
        Ok((_, settings)) => settings,
        Err(found) => return mistakes(&found, given.json),
    };
    finish((|| {
        let mut out = io::stdout();
        if given.json {
            for (key, value, from) in settings.all() {
                let from = from.to_string();
                let line = serde_json::json!({"key": key, "value": value, "from": from});
                writeln!(out, "{line}")?;
            }
            return Ok(());
        }
        let shown = settings.all().map(|(key, value, from)| {
            let value = value.map_or_else(|| "-".to_owned(), ToString::to_string);
            vec![key.to_owned(), value, from.to_string()]
        });
        let rows: Vec<Vec<String>> = shown.collect();
        Ok(write!(out, "{}", table(&["KEY", "VALUE", "FROM"], &rows))?)
    })())
}

/// `status`.
pub(crate) fn status(common: &Common) -> ExitCode {
    finish((|| {
        let mut value = one_value(common, &Request::Status)?;
        if let (Some(known), Some(fields)) = (
            crate::check::certificate_view(&common.data),
            value.as_object_mut(),
        ) {
            fields.insert("certificate".to_owned(), known);
        }
        if common.json {
            return Ok(writeln!(io::stdout(), "{value}")?);
        }
        let fields = value.as_object().cloned().unwrap_or_default();
        let width = fields.keys().map(String::len).max().unwrap_or(0);
        for (name, value) in &fields {
            writeln!(
                io::stdout(),
                "{:<width$}  {}",
                name.replace('_', " "),
                for_people(name, value)
            )?;
        }
        Ok(())
    })())
}

/// `ps`.
pub(crate) fn ps(common: &Common, all: bool) -> ExitCode {
    finish((|| {
        let list = items(common, &Request::Ps { all })?;
        let mut out = io::stdout().lock();
        if common.json {
            return Ok(list.iter().try_for_each(|task| writeln!(out, "{task}"))?);
        }
        if list.is_empty() {
            let what = if all {
                "no tasks"
            } else {
                "no tasks that have not ended; --all shows those"
            };
            return Ok(writeln!(out, "{what}")?);
        }
        let rows: Vec<Vec<String>> = list
            .iter()
            .map(|task| {
                let run = text(&task["run"]);
                vec![
                    run.chars().take(8).collect(),
                    text(&task["task"]),
                    text(&task["state"]),
                    text(&task["attempts"]),
                    text(&task["reason"]),
                ]
            })
            .collect();
        Ok(write!(
            out,
            "{}",
            table(&["RUN", "TASK", "STATE", "ATTEMPTS", "WHY"], &rows)
        )?)
    })())
}

/// `explain`.
pub(crate) fn explain(common: &Common, run: String, task: String) -> ExitCode {
    finish((|| {
        let value = one_value(common, &Request::Explain { run, task })?;
        let mut out = io::stdout().lock();
        if common.json {
            return Ok(writeln!(out, "{value}")?);
        }
        writeln!(out, "{}", text(&value["summary"]))?;
        for decision in value["decisions"].as_array().into_iter().flatten() {
            let evidence: Vec<String> = decision["evidence"]
                .as_array()
                .into_iter()
                .flatten()
                .map(text)
                .collect();
            let times = decision["repeats"].as_u64().unwrap_or(0);
            let again = if times > 0 {
                format!(" ({times} times more)")
            } else {
                String::new()
            };
            writeln!(
                out,
                "  {}  {}: {}{again}  {}",
                text(&decision["decision_id"]),
                text(&decision["action"]),
                text(&decision["reason"]),
                evidence.join(" ")
            )?;
        }
        Ok(())
    })())
}

/// `logs`.
pub(crate) fn logs(
    common: &Common,
    run: String,
    task: String,
    attempt: Option<String>,
) -> ExitCode {
    finish((|| {
        let mut client = Client::connect(&common.data)?;
        client.send(&Request::Logs { run, task, attempt }, &[])?;
        let mut out = io::stdout().lock();
        loop {
            match client.next_answer()? {
                Answer::Item { value } if common.json => writeln!(out, "{value}")?,
                Answer::Item { value } => {
                    let line = text(&value["line"]);
                    if value["stream"] == "err" {
                        writeln!(io::stderr(), "{line}")?;
                    } else {
                        writeln!(out, "{line}")?;
                    }
                }
                Answer::Done => return Ok(()),
                other => return Err(unexpected(&other)),
            }
        }
    })())
}

/// Stands for standard input where a specification is named.
const STDIN: &str = "-";

/// The file's bytes, if they are not too many.
fn read_spec(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = SPEC_BYTES as u64 + 1;
    match file == Path::new(STDIN) {
        true => io::stdin().lock().take(limit).read_to_end(&mut bytes)?,
        false => File::open(file)?.take(limit).read_to_end(&mut bytes)?,
    };
    if bytes.len() > SPEC_BYTES {
        let text = format!("it has more than {} MiB", SPEC_BYTES >> 20);
        return Err(io::Error::other(text));
    }
    Ok(bytes)
}

/// A file that a command names cannot be read.
fn unreadable(name: &str, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => FAILED,
    };
    Failure(code, format!("{name}: {error}"))
}

/// Brings a file into the agent's file store; it never lies in memory as a whole.
fn send_file(client: &mut Client, path: &str) -> Result<(Hash, u64), Failure> {
    let open = || {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        match meta.is_file() {
            true => Ok((file, meta.len())),
            false => Err(io::Error::other("it is not a regular file")),
        }
    };
    let (mut file, size) = open().map_err(|error| unreadable(path, &error))?;
    match client.ask_with(&Request::Put { size }, &mut file, size)? {
        Answer::Stored { hash, size } => Ok((hash, size)),
        other => Err(unexpected(&other)),
    }
}

fn pair(item: &str) -> Result<(String, String), Failure> {
    let pair = item.split_once('=');
    let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
    pair.ok_or_else(|| Failure(2, format!("{item}: write NAME=VALUE")))
}

fn pairs(items: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    items.iter().map(|item| pair(item)).collect()
}

/// All mistakes of a specification as a failure; with `json` each one is an object on standard
/// output.
fn told_mistakes(mistakes: &Mistakes, json: bool) -> Failure {
    if !json {
        return Failure(MISTAKES, mistakes.to_string());
    }
    for line in mistakes.mistakes.iter().flat_map(serde_json::to_string) {
        // Nobody is left to tell when standard output is closed.
        let _ = writeln!(io::stdout(), "{line}");
    }
    let count = mistakes.mistakes.len() + mistakes.more;
    Failure(MISTAKES, format!("{count} mistakes in the specification"))
}

/// Reads and compiles a specification, and sends its files along.
pub(crate) fn compile(
    client: &mut Client,
    file: &Path,
    params: &[String],
    files: &[String],
    submitted_at: Unix,
    json: bool,
) -> Result<Workflow, Failure> {
    let params = pairs(params)?;
    let name = match file == Path::new(STDIN) {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    };
    let bytes = read_spec(file).map_err(|error| unreadable(&name, &error))?;
    let wrong = |mistakes: Mistakes| told_mistakes(&mistakes, json);
    let text = shared::spec::utf8(&name, &bytes).map_err(wrong)?;
    let mut sent: BTreeMap<String, (Hash, u64)> = BTreeMap::new();
    for item in files {
        let (name, path) = pair(item)?;
        sent.insert(name, send_file(client, &path)?);
    }
    shared::spec::submission(&name, text, &params, &sent, submitted_at).map_err(wrong)
}

/// `submit`.
pub(crate) fn submit(
    common: &Common,
    file: &Path,
    params: &[String],
    files: &[String],
) -> ExitCode {
    finish((|| {
        let mut client = Client::connect(&common.data)?;
        let now = clock::now().wall;
        let workflow = compile(&mut client, file, params, files, now, common.json)?;
        if workflow.schedule.is_some() {
            let name = file.display();
            let text = format!(
                "{name} has a `schedule`: `driftless-agent schedule create {name}` makes it, \
                 `driftless-agent schedule trigger {}` then runs it at once",
                workflow.name
            );
            return Err(Failure(2, text));
        }
        let (packed, _) = shared::codec::pack(&workflow);
        match client.ask(
            &Request::Submit {
                size: packed.len() as u64,
            },
            &packed,
        )? {
            Answer::Submitted { run } if common.json => {
                let state = serde_json::json!({
                    "id": run.to_string(), "workflow": workflow.name, "state": "running", "waits": [],
                });
                Ok(writeln!(io::stdout(), "{state}")?)
            }
            Answer::Submitted { run } => Ok(writeln!(io::stdout(), "{run}")?),
            other => Err(unexpected(&other)),
        }
    })())
}

/// `cancel`.
pub(crate) fn cancel(common: &Common, run: String, reason: String) -> ExitCode {
    order(
        common,
        &Request::Cancel { run, reason },
        "cancelled here; the coordinator learns of it with the next link",
    )
}

/// `pause` and `resume` of a run.
pub(crate) fn pause(common: &Common, run: String, on: bool) -> ExitCode {
    let done = if on {
        "paused here; what runs goes on"
    } else {
        "goes on here"
    };
    order(common, &Request::Pause { run, on }, done)
}

/// `resume` of a task.
pub(crate) fn resume(common: &Common, run: String, task: String) -> ExitCode {
    order(common, &Request::Resume { run, task }, "runs again")
}

/// `answer`.
pub(crate) fn answer(
    common: &Common,
    run: String,
    task: String,
    yes: bool,
    input: &[String],
) -> ExitCode {
    let input = match pairs(input) {
        Ok(input) => input,
        Err(failure) => return finish(Err(failure)),
    };
    let done = if yes { "approved" } else { "rejected" };
    let request = Request::Answer {
        run,
        task,
        yes,
        input,
    };
    order(common, &request, done)
}

/// How long ago, in the largest unit that fits.
pub(crate) fn age(since: Option<i64>) -> String {
    let Some(since) = since else {
        return "-".to_owned();
    };
    let seconds = clock::now().wall.0.saturating_sub(since).max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `waits`.
pub(crate) fn waits(common: &Common) -> ExitCode {
    finish((|| {
        let list = items(common, &Request::Waits)?;
        let mut out = io::stdout().lock();
        if common.json {
            return Ok(list.iter().try_for_each(|wait| writeln!(out, "{wait}"))?);
        }
        if list.is_empty() {
            return Ok(writeln!(out, "nothing waits for a person here")?);
        }
        let row = |wait: &Value| {
            let run: String = text(&wait["run"]).chars().take(8).collect();
            vec![
                age(wait["since"].as_i64()),
                run,
                text(&wait["task"]),
                text(&wait["what"]),
                text(&wait["command"]),
            ]
        };
        let rows: Vec<Vec<String>> = list.iter().map(row).collect();
        let head = ["AGE", "RUN", "TASK", "WAITS FOR", "ENDS WITH"];
        Ok(write!(out, "{}", table(&head, &rows))?)
    })())
}

/// Shows what was measured.
pub(crate) fn telemetry(common: &Common, args: &TelemetryArgs) -> ExitCode {
    finish(measured(common, args))
}

fn measured(common: &Common, args: &TelemetryArgs) -> Result<(), Failure> {
    let question = match args.since {
        _ if args.gaps => Question::Gaps,
        None => Question::Newest,
        Some(since) => {
            let until = clock::now().wall;
            let since = i64::try_from(since.0).unwrap_or(i64::MAX);
            Question::Values(Query {
                metrics: args.metrics.clone(),
                since: Unix(until.0.saturating_sub(since)),
                until,
                step: args.step.unwrap_or_default(),
            })
        }
    };
    let value = one_value(common, &Request::Telemetry { question })?;
    let mut out = io::stdout().lock();
    if common.json {
        writeln!(out, "{value}")?;
    } else if args.gaps {
        for gap in value["gaps"].as_array().into_iter().flatten() {
            let text = |name: &str| gap[name].as_str().unwrap_or("-").to_owned();
            writeln!(out, "{}  {}  {}", text("from"), text("to"), text("reason"))?;
        }
    } else if args.since.is_some() {
        let answer = serde_json::from_value::<query::Answer>(value)
            .map_err(|error| Failure(FAILED, format!("not understood: {error}")))?;
        for series in answer.series {
            if let Some(whole) = series.whole() {
                let (least, most) = (whole.min, whole.max);
                let trend = query::sparkline(&query::fewer(&series.values, 40));
                let name = &series.name;
                writeln!(
                    out,
                    "{name:<44} {:>12} {least:>12} {most:>12}  {trend}",
                    whole.mean
                )?;
            }
        }
    } else {
        show_newest(&mut out, &value, &args.metrics)?;
    }
    Ok(())
}

fn show_newest(out: &mut impl Write, value: &Value, metrics: &[String]) -> io::Result<()> {
    let ring = &value["ring"];
    let newest = &value["newest"];
    match newest["at"].as_i64() {
        Some(at) => writeln!(out, "as of {}", Unix(at))?,
        None => writeln!(out, "nothing was measured since the agent started")?,
    }
    for (name, value) in newest["values"].as_object().into_iter().flatten() {
        if metrics.is_empty()
            || metrics
                .iter()
                .any(|metric| name.starts_with(metric.as_str()))
        {
            writeln!(out, "{name:<44} {value:>12}")?;
        }
    }
    let number = |name: &str| ring[name].as_u64().unwrap_or(0);
    let (bytes, quota) = (number("bytes") >> 10, number("quota") >> 10);
    let unsent = number("unsent_blocks");
    writeln!(
        out,
        "ring: {bytes} of {quota} KiB, {unsent} blocks not acknowledged"
    )
}
