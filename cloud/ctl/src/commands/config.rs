//! `driftless config`: the coordinator's configuration.

use crate::args::{Config, Global, Serve};
use crate::config;
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use serde::Serialize;

pub(super) fn run(command: &Config, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    match command {
        Config::Check => check(global, out),
    }
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
