//! `driftless telemetry`, and the newest sample for `driftless node get`.

use super::list::List;
use crate::args::Global;
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use crate::text::{ago, now, parse_span};
use clap::{Args, Subcommand};
use cloud::api::telemetry::Newest;
use cloud_core::telemetry::Missing;
use shared::telemetry::query::{Answer, Series, sparkline};
use shared::time::{Span, Unix};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show values over a time: one line a series, or one a step.
    Query(TelemetryQuery),
    /// Show where values are missing, and why.
    Gaps {
        /// Name or id of the node
        node: String,
    },
}

/// Which values.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  driftless telemetry query gw-7                                  the last hour, a line a series
  driftless telemetry query gw-7 --metric cpu,memory --since 7d
  driftless telemetry query gw-7 --metric 'disk_busy_permille{sda}' --step 10m
  driftless telemetry query gw-7 --since 10m --json               every value as it was received

Old values of a node that was offline for long are means, minima and maxima of a minute, a quarter of an
hour or an hour. docs/telemetry.md lists the metrics.")]
pub(crate) struct TelemetryQuery {
    /// Name or id of the node
    pub(crate) node: String,
    /// A series, or the beginning of a metric's name; all if absent
    #[arg(long = "metric", value_name = "NAME", value_delimiter = ',')]
    pub(crate) metrics: Vec<String>,
    /// How long ago the time begins
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_span)]
    pub(crate) since: Span,
    /// How long ago it ends [default: now]
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub(crate) until: Option<Span>,
    /// Show each step of so long a time
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub(crate) step: Option<Span>,
}

/// Values of one sparkline.
const TREND: u64 = 40;

pub(super) fn run(command: &Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    match command {
        Command::Query(args) => query(&client, args, out)?,
        Command::Gaps { node } => gaps(&client, node, out)?,
    }
    Ok(Code::Done)
}

fn query(client: &Client, args: &TelemetryQuery, out: &mut Output) -> Result<(), Failure> {
    let before = |span: Span| {
        now()
            .0
            .saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX))
    };
    let until = before(args.until.unwrap_or_default());
    let since = before(args.since);
    let trend = Span(
        until
            .saturating_sub(since)
            .unsigned_abs()
            .div_ceil(TREND)
            .max(1),
    );
    let step = match args.step {
        Some(step) => step,
        None if out.json => Span::default(),
        None => trend,
    };
    let metrics = escape(&args.metrics.join(","));
    let node = escape(&args.node);
    let answer: Answer = client.get(&format!(
        "/nodes/{node}/telemetry?metric={metrics}&since={since}&until={until}&step={}",
        step.0
    ))?;
    if answer.truncated {
        out.say("there is more: ask for a shorter time, a longer --step or fewer metrics");
    }
    if out.json {
        return answer
            .series
            .iter()
            .try_for_each(|series| out.object(series));
    }
    if answer.series.is_empty() {
        out.say("nothing was measured in that time, or it has not been received yet");
        return Ok(());
    }
    match args.step {
        Some(_) => rows(&answer.series, out),
        None => summary(&answer.series, out),
    }
}

fn summary(series: &[Series], out: &mut Output) -> Result<(), Failure> {
    let header = ["SERIES", "LAST", "MEAN", "MIN", "MAX", "SAMPLES", "TREND"];
    let mut table = Table::new(header, out.colour);
    for series in series {
        let Some(whole) = series.whole() else {
            continue;
        };
        let last = series.values.last().map_or(whole.mean, |value| value.mean);
        let row = [
            (&series.name).into(),
            Cell::number(last),
            Cell::number(whole.mean),
            Cell::number(whole.min),
            Cell::number(whole.max),
            Cell::number(whole.samples),
            sparkline(&series.values).into(),
        ];
        out.row(&mut table, row)?;
    }
    out.finish(table)
}

fn rows(series: &[Series], out: &mut Output) -> Result<(), Failure> {
    let header = ["FROM", "SERIES", "MEAN", "MIN", "MAX", "SAMPLES"];
    let mut table = Table::new(header, out.colour);
    for series in series {
        for value in &series.values {
            let row = [
                value.at.to_string().into(),
                (&series.name).into(),
                Cell::number(value.mean),
                Cell::number(value.min),
                Cell::number(value.max),
                Cell::number(value.samples),
            ];
            out.row(&mut table, row)?;
        }
    }
    out.finish(table)
}

fn gaps(client: &Client, node: &str, out: &mut Output) -> Result<(), Failure> {
    let header = ["BEHIND", "UP TO", "WHY", "INCARNATION"];
    let none = "no gaps: everything up to the newest sample is here";
    let path = &format!("/nodes/{}/telemetry/gaps", escape(node));
    let list = List { path, header, none };
    let row = |gap: &Missing| {
        [
            gap.range.after.to_string().into(),
            gap.range.upto.to_string().into(),
            (&gap.reason).into(),
            crate::output::short(&gap.incarnation).into(),
        ]
    };
    list.print(client, out, row).map(drop)
}

/// What `node get` says of the newest sample.
pub(super) fn newest(client: &Client, node: &str) -> Result<Option<Newest>, Failure> {
    client.get(&format!("/nodes/{}/telemetry/newest", escape(node)))
}

/// The sample with its age, and some of its values.
pub(super) fn lines(newest: &Newest) -> Vec<(&'static str, Cell)> {
    let value = |name: &str| newest.values.get(name).copied();
    let percent = |n: i64| format!("{}.{} %", n / 10, n % 10);
    let mut parts = Vec::new();
    parts.extend(value("cpu_busy_permille").map(|n| format!("CPU {}", percent(n))));
    let memory = value("memory_available_kib").zip(value("memory_total_kib"));
    parts.extend(memory.map(|(free, all)| {
        let mib = |kib: i64| kib / 1024;
        format!("memory {} of {} MiB free", mib(free), mib(all))
    }));
    parts.extend(value("disk_free_mib").map(|n| format!("disk {n} MiB free")));
    let hottest = newest
        .values
        .iter()
        .filter(|(name, _)| name.starts_with("temperature"));
    let hottest = hottest.map(|(_, value)| *value).max();
    parts.extend(hottest.map(|n| format!("{} °C", n / 1000)));
    let age = |at: Unix| ago(at, now());
    vec![
        ("measured", parts.join(", ").into()),
        (
            "measured at",
            format!(
                "{} at the node, arrived {}",
                newest.at,
                age(newest.received)
            )
            .into(),
        ),
    ]
}
