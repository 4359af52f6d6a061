//! `driftless token`.

use super::who;
use crate::args::{Global, Token as Command};
use crate::client::{Client, escape};
use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Cell, Table};
use crate::text::{ago, now};
use cloud::api::types::{Ask, NewToken, Token};
use cloud_core::view;

pub(super) fn run(command: Command, global: &Global, out: &mut Output) -> Result<Code, Failure> {
    let client = Client::new(global)?;
    match command {
        Command::Create {
            name,
            expires,
            replace,
        } => {
            let wanted = NewToken {
                expires_in_ms: Some(expires.0),
                replace: replace.is_some(),
                name: replace.or(name),
            };
            create(&client, &wanted, out)?;
        }
        Command::List => list(&client, out)?,
        Command::Revoke { id } => revoke(&client, &id, out)?,
    }
    Ok(Code::Done)
}

fn create(client: &Client, wanted: &NewToken, out: &mut Output) -> Result<(), Failure> {
    let token: Token = client.post("/tokens", wanted)?;
    if out.json {
        return out.object(&token);
    }
    out.line(&token.token)?;
    let port = token.listen.rsplit(':').next().unwrap_or("4433");
    let name = token.name.as_deref().unwrap_or("NAME");
    out.say(&format!(
        "good once, until {} ({}). On the gateway:\n  driftless-agent run --coordinator HOST:{port} \
         --token {} --name {name}",
        token.expires,
        ago(token.expires, now()),
        if out.colour { "TOKEN" } else { "…" },
    ));
    Ok(())
}

fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let header = ["ID", "STATE", "FOR", "EXPIRES", "NOTE"];
    let mut table = Table::new(header, out.colour);
    let mut empty = true;
    client.list("/tokens", |token: view::Token| {
        empty = false;
        if out.json {
            out.object(&token)?;
        } else {
            out.row(&mut table, row(&token))?;
        }
        Ok(true)
    })?;
    match (out.json, empty) {
        (true, _) => Ok(()),
        (false, false) => out.finish(table),
        (false, true) => {
            out.say("no tokens: make one with `driftless token create`");
            Ok(())
        }
    }
}

fn row(token: &view::Token) -> [Cell; 5] {
    let whom = match (&token.name, token.replace) {
        (Some(name), true) => format!("in place of {name}"),
        (Some(name), false) => name.clone(),
        (None, _) => "any name".to_owned(),
    };
    let used = token.used_by.as_ref().map(|by| match token.used_at {
        Some(at) => format!("by {by}, {}", ago(at, now())),
        None => format!("by {by}"),
    });
    [
        (&token.id).into(),
        (&token.state).into(),
        whom.into(),
        ago(token.expires, now()).into(),
        used.or_else(|| token.why.clone())
            .unwrap_or_default()
            .into(),
    ]
}

fn revoke(client: &Client, id: &str, out: &mut Output) -> Result<(), Failure> {
    let ask = Ask {
        by: who(),
        why: String::new(),
    };
    let token: view::Token = client.post(&format!("/tokens/{}/revoke", escape(id)), &ask)?;
    if out.json {
        return out.object(&token);
    }
    out.say(&format!("the token {} lets nobody in any more", token.id));
    Ok(())
}
