//! `driftless config`: the coordinator's configuration.

use super::serve::Serve;
use crate::args::Global;
use crate::client::{Client, escape};
use crate::config;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use clap::{Args, Subcommand};
use cloud::api::types::NewSetting;
use cloud_core::view::{Setting, Settings};
use serde::Serialize;
use shared::config::scheduler::{Scheduler, key_named};

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Find all mistakes of the configuration, or show what holds and where each value comes from.
    #[command(after_help = "\
Examples:
  driftless config check
  driftless config check --config new.toml && sudo cp new.toml /etc/driftless/coordinator.toml

Exit codes: 0 no mistake, 6 mistakes (each with file, line, what is wrong, and the mend)")]
    Check,
    /// Show the settings of the fleet, of a label or of one node, and where each comes from.
    #[command(after_help = SETTINGS)]
    Get {
        #[command(flatten)]
        of: Of,
        /// Only this one
        #[arg(value_name = "KEY")]
        key: Option<String>,
    },
    /// Change a setting; running nodes follow at once, others when they return.
    #[command(after_help = SETTINGS)]
    Set {
        #[command(flatten)]
        of: Of,
        /// Which, as max_retries
        #[arg(value_name = "KEY")]
        key: String,
        /// In the grammar of the configuration, as 5 or 90s
        #[arg(value_name = "VALUE", allow_hyphen_values = true)]
        value: String,
    },
    /// Leave a setting to the next wider one: node, label, fleet, configuration, default.
    #[command(after_help = SETTINGS)]
    Unset {
        #[command(flatten)]
        of: Of,
        /// Which, as max_retries
        #[arg(value_name = "KEY")]
        key: String,
    },
}

const SETTINGS: &str = "\
Examples:
  driftless config get
  driftless config set max_retries 5
  driftless config set backoff_duration 2m --label site=plant-3
  driftless config unset backoff_duration --label site=plant-3
  driftless config get --node gw-7                 what holds there, and whether gw-7 has confirmed it

Keys: resource_monitor_interval (default 3s), backoff_duration (30s: retry.initial_interval of tasks that
do not say it), max_retries (3: retry.max_attempts of tasks that do not say it, less the first attempt).
A node's setting wins over those of its labels, these over the fleet's, that over the configuration.";

/// For whom a setting holds; the fleet if neither is given.
#[derive(Args, Debug, Default)]
pub(crate) struct Of {
    /// One node, by name or id
    #[arg(long, value_name = "NODE", conflicts_with = "label")]
    pub(crate) node: Option<String>,
    /// The nodes with this label
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Option<String>,
}

pub(super) fn run(command: &Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    match command {
        Command::Check => check(global, out),
        Command::Get { of, key } => {
            let key = key.as_deref().map(known).transpose()?;
            let settings = Client::new(global)?.get(&format!("/settings{}", query(of)))?;
            show(&settings, key, of, out)
        }
        Command::Set { of, key, value } => change(of, key, Some(value.as_str()), global, out),
        Command::Unset { of, key } => change(of, key, None, global, out),
    }
}

/// The key's short name.
fn known(key: &str) -> Result<&str, Failure> {
    let wrong = |(what, mend)| Failure::new(Code::Usage, what).hint(mend);
    let found = key_named(key).map_err(wrong)?;
    Ok(found.name.strip_prefix("scheduler.").unwrap_or(found.name))
}

fn query(of: &Of) -> String {
    match (&of.node, &of.label) {
        (Some(node), _) => format!("?node={}", escape(node)),
        (None, Some(label)) => format!("?label={}", escape(label)),
        (None, None) => String::new(),
    }
}

fn change(
    of: &Of,
    key: &str,
    value: Option<&str>,
    global: &Global,
    out: &mut Output,
) -> Result<Code, Failure> {
    let key = known(key)?;
    Scheduler::default()
        .change(key, value)
        .map_err(|(what, mend)| Failure::new(Code::Usage, what).hint(mend))?;
    let asked = NewSetting {
        node: of.node.clone(),
        label: of.label.clone(),
        key: key.to_owned(),
        value: value.map(str::to_owned),
        by: super::who(),
    };
    let settings = Client::new(global)?.post("/settings", &asked)?;
    show(&settings, Some(key), of, out)
}

fn show(
    settings: &Settings,
    key: Option<&str>,
    of: &Of,
    out: &mut Output,
) -> Result<Code, Failure> {
    let mut table = Table::new(["KEY", "VALUE", "FROM"], out.colour);
    let wanted = |setting: &&Setting| key.is_none_or(|key| setting.key == key);
    for setting in settings.settings.iter().filter(wanted) {
        if out.json {
            out.object(setting)?;
            continue;
        }
        let row: [Cell; 3] = [
            (&setting.key).into(),
            (&setting.value).into(),
            (&setting.from).into(),
        ];
        out.row(&mut table, row)?;
    }
    if !out.json {
        out.finish(table)?;
    }
    if let (Some(node), Some(false)) = (&of.node, settings.confirmed) {
        out.say(&format!(
            "{node} has not confirmed them yet; until then its former ones hold there"
        ));
    }
    Ok(Code::Done)
}

#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    value: Option<&'a shared::config::Value>,
    from: String,
}

fn check(global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let read = config::read(global, &Serve::default());
    let (_, settings) = read.map_err(|mistakes| config::failure(&mistakes, out))?;
    let mut table = Table::new(["KEY", "VALUE", "FROM"], out.colour);
    for (key, value, from) in settings.all() {
        let from = from.to_string();
        if out.json {
            out.object(&Shown { key, value, from })?;
            continue;
        }
        let value = value.map_or_else(|| "-".to_owned(), ToString::to_string);
        let row: [Cell; 3] = [key.into(), value.into(), from.into()];
        out.row(&mut table, row)?;
    }
    if !out.json {
        out.finish(table)?;
    }
    Ok(Code::Done)
}
