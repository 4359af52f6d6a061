//! `driftless config`: the coordinator's configuration.

use crate::args::{Config, Global, Of, Serve};
use crate::client::{Client, escape};
use crate::config;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use cloud::api::types::{NewSetting, ScopeQuery};
use cloud_core::view::{Setting, Settings};
use serde::Serialize;
use shared::config::scheduler::{Scheduler, key_named};

pub(super) fn run(command: &Config, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    match command {
        Config::Check => check(global, out),
        Config::Get { of, key } => {
            let key = key.as_deref().map(known).transpose()?;
            let settings = Client::new(global)?.get(&format!("/settings{}", query(of)))?;
            show(&settings, key, of, out)
        }
        Config::Set { of, key, value } => change(of, key, Some(value.as_str()), global, out),
        Config::Unset { of, key } => change(of, key, None, global, out),
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
        of: ScopeQuery {
            node: of.node.clone(),
            label: of.label.clone(),
        },
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
